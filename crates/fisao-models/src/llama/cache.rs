//! Keys and values of positions the decoder has already seen.

use burn::tensor::{Device, Int, Tensor};

use super::LlamaConfig;
use crate::parameters::indices;

/// Keys and values of the positions seen so far, one pair per layer.
#[derive(Debug, Clone)]
pub struct KvCache {
    /// `[room for sequences, heads, room for positions, width]`.
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    /// Sequences there are, in the first places.
    sequences: usize,
    filled: usize,
}

impl KvCache {
    /// Room for `capacity` positions of `batch` sequences.
    pub fn new(config: &LlamaConfig, batch: usize, capacity: usize, device: &Device) -> Self {
        let shape = [batch, config.num_key_value_heads, capacity, config.head_dim];
        let layers = (0..config.num_hidden_layers)
            .map(|_| (Tensor::zeros(shape, device), Tensor::zeros(shape, device)))
            .collect();
        Self { layers, sequences: batch, filled: 0 }
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

    /// The sequences at `rows`, in that order, with room for `more` positions.
    #[must_use]
    pub(crate) fn spread(self, rows: &Tensor<1, Int>, more: usize) -> Self {
        let sequences = rows.dims()[0];
        let filled = self.filled;
        let spread = |old: Tensor<4>| {
            let [_, heads, _, width] = old.dims();
            let read = old.narrow(2, 0, filled).select(0, rows.clone());
            let room = Tensor::zeros([sequences, heads, filled + more, width], &read.device());
            room.slice_assign([0..sequences, 0..heads, 0..filled, 0..width], read)
        };
        let layers = self.layers.into_iter().map(|(k, v)| (spread(k), spread(v))).collect();
        Self { layers, sequences, filled }
    }

    /// Drops the sequence at `row`; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, row: usize) {
        self.sequences -= 1;
        let last = self.sequences;
        if row == last {
            return;
        }
        let filled = self.filled;
        for old in self.layers.iter_mut().flat_map(|(k, v)| [k, v]) {
            let [_, heads, _, width] = old.dims();
            let only = indices(vec![0], &old.device());
            // A copy, without which what it lies in could not be written in place.
            let moved = old.clone().narrow(0, last, 1).narrow(2, 0, filled).select(0, only);
            let place = [row..row + 1, 0..heads, 0..filled, 0..width];
            old.inplace(|tensor| tensor.slice_assign(place, moved));
        }
    }

    /// Appends to one layer and returns everything it holds.
    pub(super) fn extend(
        &mut self,
        layer: usize,
        k: Tensor<4>,
        v: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, new, width] = k.dims();
        assert_eq!(batch, self.sequences, "every sequence goes on by as many positions");
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
