//! A Llama-type decoder on a card: its weights and its adapter.

use crate::adapter::{Adapter, AdapterWeights};
use crate::weights::{WeightSource, Weights, filled};
use crate::{Arena, Buffer, CudaError, DecoderConfig, Driver};

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
    /// Bytes of the weights of a decoder on a card.
    pub fn weight_bytes(config: &DecoderConfig) -> usize {
        let mut arena = Arena::counting();
        Weights::take(&mut arena, config);
        arena.used()
    }

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
        let needed = ("the decoder's weights", Self::weight_bytes(&config));
        let place = |memory| {
            let weights = Weights::take(&mut Arena::within(memory), &config);
            Self { config, memory, weights, adapter: None, adapter_enabled: true }
        };
        filled(driver, needed, place, |decoder, driver| {
            decoder.weights.upload(driver, &decoder.config, source, prefix)
        })
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
