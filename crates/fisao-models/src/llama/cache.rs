//! Keys and values of positions the decoder has already seen.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fisao_kernels::is_cpu;

use super::LlamaConfig;
use crate::attention::{Shown, attend, attend_behind};
use crate::parameters::indices;

/// Keys and values of one layer.
type KeysAndValues = (Tensor<4>, Tensor<4>);

/// Keys and values of the positions seen so far, one pair per layer.
#[derive(Debug, Clone)]
pub struct KvCache {
    /// What stands before everything else.
    shared: Option<Shared>,
    /// `[room for sequences, heads, room for positions, width]`.
    layers: Vec<KeysAndValues>,
    /// Sequences there are, in the first places.
    sequences: usize,
    /// Positions that are filled of those of each sequence's own.
    filled: usize,
}

/// Positions that several sequences have in common.
#[derive(Debug, Clone)]
struct Shared {
    /// `[prompts, heads, positions, width]`.
    layers: Vec<KeysAndValues>,
    positions: usize,
    /// Which prompt each sequence continues.
    of: Arc<Vec<usize>>,
}

impl KvCache {
    /// Room for `capacity` positions of `batch` sequences.
    pub fn new(config: &LlamaConfig, batch: usize, capacity: usize, device: &Device) -> Self {
        let shape = [batch, config.num_key_value_heads, capacity, config.head_dim];
        let layers = (0..config.num_hidden_layers)
            .map(|_| (Tensor::zeros(shape, device), Tensor::zeros(shape, device)))
            .collect();
        Self { shared: None, layers, sequences: batch, filled: 0 }
    }

    /// Memory that one sequence of this many positions takes, bytes.
    pub fn bytes(config: &LlamaConfig, positions: usize) -> usize {
        let width = config.num_key_value_heads * config.head_dim;
        2 * config.num_hidden_layers * width * positions * size_of::<f32>()
    }

    /// How many positions are filled.
    pub fn filled(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| shared.positions) + self.filled
    }

    /// Keys and values of each layer at the positions that are filled.
    pub(super) fn seen(&self) -> impl Iterator<Item = KeysAndValues> {
        assert!(self.shared.is_none(), "sequences that have gone on have their own besides");
        let seen = |x: &Tensor<4>| x.clone().narrow(2, 0, self.filled);
        self.layers.iter().map(move |(k, v)| (seen(k), seen(v)))
    }

    /// Counts `new` positions that every layer has appended.
    pub(super) fn advance(&mut self, new: usize) {
        self.filled += new;
    }

    /// A sequence for each of `rows`, which goes on from the sequence of that number, with room for `more` positions. On the CPU
    /// what they have in common stays where it is, once.
    #[must_use]
    pub(crate) fn spread(self, rows: Vec<usize>, more: usize) -> Self {
        assert!(self.shared.is_none(), "sequences that have gone on do so for themselves");
        let (sequences, filled) = (rows.len(), self.filled);
        let device = self.layers[0].0.device();
        let room = |old: &Tensor<4>, positions: usize| {
            let [_, heads, _, width] = old.dims();
            Tensor::zeros([sequences, heads, positions, width], &device)
        };
        if is_cpu(&device) {
            let layers = self.layers.iter().map(|(k, v)| (room(k, more), room(v, more))).collect();
            let seen = self.seen().collect();
            let shared = Shared { layers: seen, positions: filled, of: Arc::new(rows) };
            return Self { shared: Some(shared), layers, sequences, filled: 0 };
        }
        let rows = indices(rows.into_iter().map(|row| row as i64).collect(), &device);
        let spread = |old: Tensor<4>| {
            let [_, heads, _, width] = old.dims();
            let room = room(&old, filled + more);
            let read = old.narrow(2, 0, filled).select(0, rows.clone());
            room.slice_assign([0..sequences, 0..heads, 0..filled, 0..width], read)
        };
        let layers = self.layers.into_iter().map(|(k, v)| (spread(k), spread(v))).collect();
        Self { shared: None, layers, sequences, filled }
    }

    /// Takes the last positions of its own from the sequence at `row`. What stands before them moves up to the end of the cache,
    /// where all sequences end; so many of its first positions hold nothing of use.
    pub(crate) fn rewind(&mut self, row: usize, positions: usize) {
        self.own_all();
        let (left, filled) = (self.filled - positions, self.filled);
        if positions == 0 {
            return;
        }
        for old in self.layers.iter_mut().flat_map(|(k, v)| [k, v]) {
            let [_, heads, _, width] = old.dims();
            let only = indices(vec![0], &old.device());
            // A copy, without which what it lies in could not be written in place.
            let moved = old.clone().narrow(0, row, 1).narrow(2, 0, left).select(0, only);
            let place = [row..row + 1, 0..heads, positions..filled, 0..width];
            old.inplace(|tensor| tensor.slice_assign(place, moved));
        }
    }

    /// Gives every sequence a copy of what it shares with others.
    fn own_all(&mut self) {
        let Some(Shared { layers, positions, of }) = self.shared.take() else { return };
        for (before, (keys, values)) in layers.into_iter().zip(&mut self.layers) {
            let rows = of.iter().map(|&prompt| prompt as i64).collect();
            let rows = indices(rows, &keys.device());
            let whole = |before: Tensor<4>, own: &Tensor<4>| {
                let own = own.clone().narrow(0, 0, of.len());
                Tensor::cat(vec![before.select(0, rows.clone()), own], 2)
            };
            *keys = whole(before.0, keys);
            *values = whole(before.1, values);
        }
        self.filled += positions;
    }

    /// Drops the sequence at `row`; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, row: usize) {
        self.sequences -= 1;
        let last = self.sequences;
        if let Some(shared) = &mut self.shared {
            Arc::make_mut(&mut shared.of).swap_remove(row);
        }
        if row == last || self.filled == 0 {
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

    /// Appends to one layer; what `q` makes of everything it holds.
    pub(super) fn attend(
        &mut self,
        layer: usize,
        q: Tensor<4>,
        new: KeysAndValues,
        shown: &Shown,
    ) -> Tensor<4> {
        let (k, v) = self.extend(layer, new);
        match &self.shared {
            None => attend(q, k, v, shown),
            Some(Shared { layers, of, .. }) => {
                attend_behind(q, layers[layer].clone(), Arc::clone(of), (k, v), shown)
            }
        }
    }

    /// Appends to one layer and returns everything it holds of the sequences' own.
    fn extend(&mut self, layer: usize, (k, v): KeysAndValues) -> KeysAndValues {
        let [batch, heads, new, width] = k.dims();
        assert_eq!(batch, self.sequences, "every sequence goes on by as many positions");
        let end = self.filled + new;
        let slot = [0..batch, 0..heads, self.filled..end, 0..width];
        let store = |old: &mut Tensor<4>, fresh: Tensor<4>| {
            let [rows, heads, capacity, width] = old.dims();
            if end > capacity {
                // Sequences that are rewound take more steps than they have positions.
                let more = (end - capacity).max(capacity / 4);
                let more = Tensor::zeros([rows, heads, more, width], &old.device());
                old.inplace(|tensor| Tensor::cat(vec![tensor, more], 2));
            }
            old.inplace(|tensor| tensor.slice_assign(slot.clone(), fresh));
            old.clone().slice([0..batch, 0..heads, 0..end])
        };
        let (keys, values) = &mut self.layers[layer];
        (store(keys, k), store(values, v))
    }
}
