//! Keys and values of positions the decoder has already seen.

use burn::tensor::{Device, Int, Tensor};

use super::LlamaConfig;

/// Keys and values of the positions seen so far, one pair per layer.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    filled: usize,
}

impl KvCache {
    /// Room for `capacity` positions of `batch` sequences.
    pub fn new(config: &LlamaConfig, batch: usize, capacity: usize, device: &Device) -> Self {
        let shape = [batch, config.num_key_value_heads, capacity, config.head_dim];
        let layers = (0..config.num_hidden_layers)
            .map(|_| (Tensor::zeros(shape, device), Tensor::zeros(shape, device)))
            .collect();
        Self { layers, filled: 0 }
    }

    /// Memory that one sequence of this many positions takes, bytes.
    pub fn bytes(config: &LlamaConfig, positions: usize) -> usize {
        let width = config.num_key_value_heads * config.head_dim;
        2 * config.num_hidden_layers * width * positions * size_of::<f32>()
    }

    /// How many positions are filled.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Counts `new` positions that every layer has appended.
    pub(super) fn advance(&mut self, new: usize) {
        self.filled += new;
    }

    /// Keeps the sequences at `rows`, in that order.
    #[must_use]
    pub fn select(self, rows: &Tensor<1, Int>) -> Self {
        let layers = self
            .layers
            .into_iter()
            .map(|(k, v)| (k.select(0, rows.clone()), v.select(0, rows.clone())))
            .collect();
        Self { layers, filled: self.filled }
    }

    /// Appends to one layer and returns everything it holds.
    pub(super) fn extend(
        &mut self,
        layer: usize,
        k: Tensor<4>,
        v: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, new, width] = k.dims();
        let end = self.filled + new;
        let slot = [0..batch, 0..heads, self.filled..end, 0..width];
        let store = |old: &mut Tensor<4>, fresh: Tensor<4>| {
            old.inplace(|tensor| tensor.slice_assign(slot.clone(), fresh));
            old.clone().slice([0..batch, 0..heads, 0..end])
        };
        let (keys, values) = &mut self.layers[layer];
        (store(keys, k), store(values, v))
    }
}
