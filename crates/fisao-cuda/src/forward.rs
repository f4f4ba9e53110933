//! The layers of a decoder.

use std::ops::Range;

use crate::adapter::{FusedAdapter, LayerAdapter};
use crate::decoder::Decoder;
use crate::kernels::{
    Appended, DecodingCache, HeadTransforms, Rotary, Rows, Sequences, add_bias, attention,
    decode_attention, rms_norm, rotary_append, swiglu,
};
use crate::plan::Activations;
use crate::{Buffer, CudaError, Driver, Matrix, Product, Storage};

/// What attention does, besides queries, keys and values of the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attention {
    /// Whole sequences, whose keys and values are appended to what is empty.
    Sequences {
        /// Which keys are seen.
        sequences: Sequences,
        /// Of all layers.
        caches: [LayerCaches; 2],
        /// What the backward pass needs, or null.
        log_sums: Buffer,
    },
    /// One new position of each row.
    Decoding {
        /// Of the first layer.
        cache: DecodingCache,
        /// Of all layers.
        caches: [LayerCaches; 4],
        /// Scratch.
        partial: Buffer,
    },
}

/// Keys or values of all layers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerCaches {
    first: Buffer,
    whole: Buffer,
    step: usize,
}

impl LayerCaches {
    /// Caches of so many layers, from a byte of each layer on.
    pub(crate) fn new(caches: Buffer, layers: usize, from: usize) -> Self {
        let step = caches.bytes() / layers;
        Self { first: caches.slice(from, step - from), whole: caches, step }
    }

    /// One place for all layers.
    pub(crate) fn reused(cache: Buffer) -> Self {
        Self { first: cache, whole: cache, step: 0 }
    }

    pub(crate) fn of(self, layer: usize) -> Buffer {
        let from = (self.first.address() - self.whole.address()) as usize;
        self.whole.slice(from + layer * self.step, self.first.bytes())
    }
}

/// What is added to the residual stream behind the first layers.
#[derive(Debug, Clone)]
pub(crate) struct Deep<'a> {
    /// Of each layer, `[all rows, hidden]`.
    pub(crate) states: &'a [&'a [f32]],
    /// The rows of the pass.
    pub(crate) rows: Range<usize>,
    /// Room for them.
    pub(crate) memory: Buffer,
}

impl Deep<'_> {
    /// Nothing.
    pub(crate) const NONE: Self = Self { states: &[], rows: 0..0, memory: Buffer::NULL };
}

/// A pass of some rows through the layers.
pub(crate) struct Pass<'a> {
    pub(crate) decoder: &'a Decoder,
    pub(crate) activations: &'a Activations,
    pub(crate) rotary: Rotary,
    pub(crate) rows: usize,
    pub(crate) attention: Attention,
}

impl Pass<'_> {
    /// Takes the residual stream through all layers.
    pub(crate) fn run(&self, driver: &mut dyn Driver, deep: &Deep<'_>) -> Result<(), CudaError> {
        (0..self.decoder.config().layers).try_for_each(|layer| {
            self.layer(driver, layer)?;
            self.add_deep(driver, layer, deep)
        })
    }

    /// Adds to the residual stream what is added behind a layer.
    pub(crate) fn add_deep(
        &self,
        driver: &mut dyn Driver,
        layer: usize,
        deep: &Deep<'_>,
    ) -> Result<(), CudaError> {
        let Some(states) = deep.states.get(layer) else { return Ok(()) };
        let config = self.decoder.config();
        assert!(layer < config.deep_layers, "states behind as many layers as were configured");
        let width = config.hidden;
        let states = &states[deep.rows.start * width..deep.rows.end * width];
        driver.upload(deep.memory, bytemuck::cast_slice(states))?;
        // The states of all rows are one long row.
        let whole = Rows { rows: 1, width: states.len() };
        add_bias(driver, [self.activations.x, deep.memory], whole)
    }

    pub(crate) fn layer(&self, driver: &mut dyn Driver, index: usize) -> Result<(), CudaError> {
        self.attention_input(driver, index)?;
        self.attention_output(driver, index)?;
        self.feed_forward_input(driver, index)?;
        self.feed_forward_output(driver, index)
    }

    /// The norm before attention: from the residual stream to `normed`.
    pub(crate) fn input_norm(
        &self,
        driver: &mut dyn Driver,
        index: usize,
    ) -> Result<(), CudaError> {
        self.norm(driver, self.decoder.weights.layers[index].input_norm)
    }

    /// Up to what attention makes of the rows.
    pub(crate) fn attention_input(
        &self,
        driver: &mut dyn Driver,
        index: usize,
    ) -> Result<(), CudaError> {
        let (config, weights) = (self.decoder.config(), &self.decoder.weights.layers[index]);
        let Activations { normed, query_key_value, .. } = *self.activations;
        self.input_norm(driver, index)?;
        let input = self.matrix(normed, config.hidden);
        let output = self.matrix(query_key_value, config.heads.fused());
        let adapter = self.adapter(index).map(|adapter| &adapter.query_key_value);
        self.linear(driver, input, weights.query_key_value, adapter, output)?;
        self.attend(driver, index)
    }

    /// Adds attention to the residual stream.
    pub(crate) fn attention_output(
        &self,
        driver: &mut dyn Driver,
        index: usize,
    ) -> Result<(), CudaError> {
        let (config, weights) = (self.decoder.config(), &self.decoder.weights.layers[index]);
        let input = self.matrix(self.activations.mixed, config.heads.queries());
        let adapter = self.adapter(index).map(|adapter| &adapter.output);
        self.linear(driver, input, weights.output, adapter, self.residual())
    }

    /// Up to what the last matrix of the feed-forward part reads.
    pub(crate) fn feed_forward_input(
        &self,
        driver: &mut dyn Driver,
        index: usize,
    ) -> Result<(), CudaError> {
        let (config, weights) = (self.decoder.config(), &self.decoder.weights.layers[index]);
        let Activations { normed, gate_up, inner, .. } = *self.activations;
        let width = config.intermediate;
        self.norm(driver, weights.post_attention_norm)?;
        let (input, output) = (self.matrix(normed, config.hidden), self.matrix(gate_up, 2 * width));
        let adapter = self.adapter(index).map(|adapter| &adapter.gate_up);
        self.linear(driver, input, weights.gate_up, adapter, output)?;
        swiglu(driver, config.storage, [gate_up, inner], Rows { rows: self.rows, width })
    }

    /// Adds the feed-forward part to the residual stream.
    fn feed_forward_output(&self, driver: &mut dyn Driver, index: usize) -> Result<(), CudaError> {
        let (config, weights) = (self.decoder.config(), &self.decoder.weights.layers[index]);
        let input = self.matrix(self.activations.inner, config.intermediate);
        let adapter = self.adapter(index).map(|adapter| &adapter.down);
        self.linear(driver, input, weights.down, adapter, self.residual())
    }

    /// Rows of activations.
    pub(crate) fn matrix(&self, buffer: Buffer, width: usize) -> Matrix {
        Matrix::new(buffer, self.decoder.config().storage, [self.rows, width])
    }

    fn residual(&self) -> Matrix {
        let shape = [self.rows, self.decoder.config().hidden];
        Matrix::new(self.activations.x, Storage::F32, shape)
    }

    pub(crate) fn adapter(&self, index: usize) -> Option<&LayerAdapter> {
        self.decoder.adapter().map(|adapter| &adapter.layers[index])
    }

    fn norm(&self, driver: &mut dyn Driver, weight: Buffer) -> Result<(), CudaError> {
        let config = self.decoder.config();
        let Activations { x, normed, .. } = *self.activations;
        let rows = Rows { rows: self.rows, width: config.hidden };
        let buffers = [x, Buffer::NULL, weight, normed];
        rms_norm(driver, config.storage, buffers, rows, config.epsilon)
    }

    /// `out = input · weightᵀ` and the adapter's paths. What is added to the residual stream is not rounded before.
    fn linear(
        &self,
        driver: &mut dyn Driver,
        input: Matrix,
        weight: Buffer,
        adapter: Option<&FusedAdapter>,
        out: Matrix,
    ) -> Result<(), CudaError> {
        let storage = self.decoder.config().storage;
        let b = Matrix::new(weight, storage, [out.columns, input.columns]).transposed();
        let accumulate = out.buffer == self.activations.x;
        driver.product(&Product { a: input, b, out, scale: 1.0, accumulate })?;
        match adapter {
            Some(adapter) => adapter.add(driver, storage, input, self.activations.low, out),
            None => Ok(()),
        }
    }

    fn attend(&self, driver: &mut dyn Driver, index: usize) -> Result<(), CudaError> {
        let config = self.decoder.config();
        let weights = &self.decoder.weights.layers[index];
        let (storage, heads) = (config.storage, config.heads);
        let Activations { query_key_value, queries, mixed, .. } = *self.activations;
        let transforms = HeadTransforms {
            bias: weights.query_key_value_bias,
            query_norm: weights.query_norm,
            key_norm: weights.key_norm,
            epsilon: config.epsilon,
        };
        let split = [query_key_value, queries];
        match self.attention {
            Attention::Sequences { sequences, caches, log_sums } => {
                let [keys, values] = caches.map(|caches| caches.of(index));
                let Sequences { length, capacity, .. } = sequences;
                let to = Appended { keys, values, filled: Buffer::NULL, capacity, length };
                rotary_append(driver, storage, split, heads, &transforms, &self.rotary, &to)?;
                let buffers = [queries, keys, values, mixed, log_sums];
                attention(driver, storage, buffers, heads, &sequences)
            }
            Attention::Decoding { cache, caches, partial } => {
                let [prompt_keys, prompt_values, own_keys, own_values] =
                    caches.map(|caches| caches.of(index));
                let cache =
                    DecodingCache { prompt_keys, prompt_values, own_keys, own_values, ..cache };
                let (filled, capacity) = (cache.filled, cache.capacity);
                let to =
                    Appended { keys: own_keys, values: own_values, filled, capacity, length: 1 };
                rotary_append(driver, storage, split, heads, &transforms, &self.rotary, &to)?;
                let buffers = [queries, partial, mixed];
                decode_attention(driver, storage, buffers, self.rows, heads, &cache)
            }
        }
    }
}
