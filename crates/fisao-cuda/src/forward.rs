//! The layers of a decoder.

use crate::decoder::Decoder;
use crate::kernels::{
    Appended, DecodingCache, HeadTransforms, Rotary, Rows, Sequences, attention, decode_attention,
    rms_norm, rotary_append, swiglu,
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
    /// From the first layer's first sequence that is meant.
    pub(crate) whole: Buffer,
    /// Bytes of a layer.
    pub(crate) layer: usize,
}

impl LayerCaches {
    /// `caches` of so many layers, from a byte of each layer on.
    pub(crate) fn new(caches: Buffer, layers: usize, from: usize) -> Self {
        Self { whole: caches.slice(from, caches.bytes() - from), layer: caches.bytes() / layers }
    }

    fn of(self, layer: usize) -> Buffer {
        let bytes = self.layer.min(self.whole.bytes() - layer * self.layer);
        self.whole.slice(layer * self.layer, bytes)
    }
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
    pub(crate) fn run(&self, driver: &mut dyn Driver) -> Result<(), CudaError> {
        (0..self.decoder.config().layers).try_for_each(|layer| self.layer(driver, layer))
    }

    fn layer(&self, driver: &mut dyn Driver, index: usize) -> Result<(), CudaError> {
        let config = self.decoder.config();
        let weights = &self.decoder.weights.layers[index];
        let adapter = self.decoder.adapter().map(|adapter| &adapter.layers[index]);
        let Activations { x, normed, query_key_value, mixed, gate_up, inner, low, .. } =
            *self.activations;
        let (storage, rows) = (config.storage, self.rows);
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let matrix = |buffer: Buffer, width: usize| Matrix::new(buffer, storage, [rows, width]);
        let residual = Matrix::new(x, Storage::F32, [rows, hidden]);
        let width = Rows { rows, width: hidden };
        let linear = |driver: &mut dyn Driver, a: Matrix, weight: Buffer, out: Matrix| {
            let b = Matrix::new(weight, storage, [out.columns, a.columns]).transposed();
            // What is added to the residual stream is not rounded before.
            let accumulate = out.buffer == x;
            driver.product(&Product { a, b, out, scale: 1.0, accumulate })
        };

        let norm = [x, Buffer::NULL, weights.input_norm, normed];
        rms_norm(driver, storage, norm, width, config.epsilon)?;
        let (input, output) =
            (matrix(normed, hidden), matrix(query_key_value, config.heads.fused()));
        linear(driver, input, weights.query_key_value, output)?;
        if let Some(adapter) = adapter {
            adapter.query_key_value.add(driver, storage, input, low, output)?;
        }
        self.attend(driver, index)?;
        let input = matrix(mixed, config.heads.queries());
        linear(driver, input, weights.output, residual)?;
        if let Some(adapter) = adapter {
            adapter.output.add(driver, storage, input, low, residual)?;
        }
        let norm = [x, Buffer::NULL, weights.post_attention_norm, normed];
        rms_norm(driver, storage, norm, width, config.epsilon)?;
        let (input, output) = (matrix(normed, hidden), matrix(gate_up, 2 * intermediate));
        linear(driver, input, weights.gate_up, output)?;
        if let Some(adapter) = adapter {
            adapter.gate_up.add(driver, storage, input, low, output)?;
        }
        swiglu(driver, storage, [gate_up, inner], Rows { rows, width: intermediate })?;
        let input = matrix(inner, intermediate);
        linear(driver, input, weights.down, residual)?;
        if let Some(adapter) = adapter {
            adapter.down.add(driver, storage, input, low, residual)?;
        }
        Ok(())
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
            Attention::Sequences { sequences, caches } => {
                let [keys, values] = caches.map(|caches| caches.of(index));
                let Sequences { length, capacity, .. } = sequences;
                let to = Appended { keys, values, filled: Buffer::NULL, capacity, length };
                rotary_append(driver, storage, split, heads, &transforms, &self.rotary, &to)?;
                let buffers = [queries, keys, values, mixed, Buffer::NULL];
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
