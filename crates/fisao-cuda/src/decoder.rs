//! A Llama-type decoder on a card: its sizes and its weights.

use crate::adapter::{Adapter, AdapterWeights};
use crate::kernels::Heads;
use crate::source::compiled_head_size;
use crate::weights::{WeightSource, Weights};
use crate::{Arena, Buffer, CudaError, Driver, Storage};

/// Sizes of a decoder: Llama, Mistral, Qwen2 or Qwen3.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Element type of matrices, activations and the KV cache. The residual stream is f32.
    pub storage: Storage,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Model width.
    pub hidden: usize,
    /// Width inside the feed-forward part.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// How queries, keys and values lie.
    pub heads: Heads,
    /// ε of the norms.
    pub epsilon: f32,
    /// Rotary frequencies, radians a position, `[head size / 2]`.
    pub frequencies: Vec<f64>,
    /// Which of three positions each pair of dimensions reads, `[head size / 2]`; empty where tokens have one.
    pub position_axes: Vec<usize>,
    /// Positions that attention reaches back to, its own among them, where they are limited.
    pub sliding_window: Option<usize>,
    /// Whether queries, keys and values have biases (Qwen2).
    pub query_key_value_bias: bool,
    /// Whether every head's queries and keys have an RMS norm (Qwen3).
    pub head_norms: bool,
    /// Whether the output matrix is the embedding table.
    pub tied: bool,
}

impl DecoderConfig {
    /// Positions that a token has: 1 or 3.
    pub fn axes(&self) -> usize {
        if self.position_axes.is_empty() { 1 } else { 3 }
    }

    /// Bytes of the weights on a card.
    pub fn weight_bytes(&self) -> usize {
        let mut arena = Arena::counting();
        Weights::take(&mut arena, self);
        arena.used()
    }

    fn check(&self) -> Result<(), CudaError> {
        compiled_head_size(self.heads.size)?;
        let half = self.heads.size / 2;
        assert_eq!(self.frequencies.len(), half, "a frequency for each pair of dimensions");
        let axes = self.position_axes.len();
        assert!(axes == 0 || axes == half, "an axis for each pair of dimensions");
        let (heads, key_heads) = (self.heads.heads, self.heads.key_heads);
        assert!(heads.is_multiple_of(key_heads), "{key_heads} key heads divide {heads} heads");
        Ok(())
    }
}

/// A decoder whose weights are on a card.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    memory: Buffer,
    pub(crate) weights: Weights,
    adapter: Option<Adapter>,
    adapter_enabled: bool,
}

impl Decoder {
    /// Uploads `{prefix}.model.*` and `{prefix}.lm_head.weight`, each tensor once, as it is stored; one of another type than the
    /// configuration's is converted.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where the weights do not fit, [`CudaError::Weight`] from the source, and those of the driver.
    pub fn load(
        driver: &mut dyn Driver,
        config: DecoderConfig,
        source: &mut dyn WeightSource,
        prefix: &str,
    ) -> Result<Self, CudaError> {
        config.check()?;
        let (needed, free) = (config.weight_bytes(), driver.memory()?.free);
        if needed > free {
            let hint = "load the weights in bf16, or choose a smaller model or a larger card";
            return Err(CudaError::Memory { what: "the decoder's weights", needed, free, hint });
        }
        let memory = driver.reserve(needed)?;
        let weights = Weights::take(&mut Arena::within(memory), &config);
        if let Err(error) = weights.upload(driver, &config, source, prefix) {
            driver.release(memory)?;
            return Err(error);
        }
        Ok(Self { config, memory, weights, adapter: None, adapter_enabled: true })
    }

    /// Sizes.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Puts another adapter in the place of the one there is; an empty list removes it. Sessions that are open go on with one of the
    /// same shapes and scales; for any other they are opened again.
    ///
    /// # Errors
    /// [`CudaError::Weight`] for a path of the wrong shape, and those of the driver.
    pub fn set_adapter(
        &mut self,
        driver: &mut dyn Driver,
        weights: &[AdapterWeights<'_>],
    ) -> Result<(), CudaError> {
        let before = self.adapter.take();
        if !weights.is_empty() {
            self.adapter = Some(Adapter::upload(driver, &self.config, weights, before)?);
        } else if let Some(before) = before {
            driver.release(before.memory)?;
        }
        Ok(())
    }

    /// Whether what is computed goes through the adapter, if there is one. It does at first.
    pub fn set_adapter_enabled(&mut self, enabled: bool) {
        self.adapter_enabled = enabled;
    }

    /// The adapter that is used.
    pub(crate) fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref().filter(|_| self.adapter_enabled)
    }

    /// Most ranks beside one matrix, whether they are used or not.
    pub(crate) fn ranks(&self) -> usize {
        self.adapter.as_ref().map_or(0, Adapter::ranks)
    }

    /// Gives the memory back.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn unload(self, driver: &mut dyn Driver) -> Result<(), CudaError> {
        if let Some(adapter) = self.adapter {
            driver.release(adapter.memory)?;
        }
        driver.release(self.memory)
    }
}
