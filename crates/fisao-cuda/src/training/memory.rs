//! Where everything of a batch lies.

use super::TrainingPlan;
use crate::adapter::FusedGradients;
use crate::decoder::Decoder;
use crate::plan::{Activations, deep_bytes};
use crate::{Arena, Buffer};

/// What a batch needs.
#[derive(Debug, Clone)]
pub(super) struct TrainingMemory {
    pub(super) angles: Buffer,
    pub(super) axes: Buffer,
    pub(super) tokens: Buffer,
    pub(super) positions: Buffer,
    pub(super) padding: Buffer,
    pub(super) rows: Buffer,
    pub(super) targets: Buffer,
    /// Input of each layer, `[layers, rows, hidden]` f32; without gradients of none.
    pub(super) kept: Buffer,
    /// States that are added behind a layer, `[rows, hidden]` f32.
    pub(super) deep: Buffer,
    pub(super) activations: Activations,
    /// Keys and values of one layer, `[sequences, key heads, length, size]`.
    pub(super) caches: [Buffer; 2],
    /// `[sequences, heads, length]` f32
    pub(super) log_sums: Buffer,
    /// States that are scored, before and behind the norm, `[targets, hidden]` f32.
    pub(super) states: [Buffer; 2],
    /// `[logit rows, hidden]`
    pub(super) head_inputs: Buffer,
    /// `[logit rows, vocabulary]` f32
    pub(super) logits: Buffer,
    /// `[targets, 2]` f32
    pub(super) scores: Buffer,
    pub(super) backward: Option<BackwardMemory>,
}

/// What the backward pass needs besides.
#[derive(Debug, Clone)]
pub(super) struct BackwardMemory {
    /// Gradient of the residual stream, `[rows, hidden]` f32.
    pub(super) by_x: Buffer,
    /// The same in the storage type.
    pub(super) by_x_narrow: Buffer,
    /// `[rows, hidden]`
    pub(super) by_normed: Buffer,
    /// `[rows, intermediate]`
    pub(super) by_inner: Buffer,
    /// `[rows, 2 · intermediate]`
    pub(super) by_gate_up: Buffer,
    /// `[rows, heads · size]`
    pub(super) by_mixed: Buffer,
    /// `[rows, heads · size]`
    pub(super) by_queries: Buffer,
    /// `[sequences, key heads, length, size]`
    pub(super) by_keys: [Buffer; 2],
    /// `[rows, (heads + 2 · key heads) · size]`
    pub(super) by_query_key_value: Buffer,
    /// `[sequences, heads, length]` f32
    pub(super) deltas: Buffer,
    /// `[rows, Σ rank]`
    pub(super) by_low: Buffer,
    /// `[targets, 2]` f32
    pub(super) by_scores: Buffer,
    /// `[targets, hidden]` f32: of states before the norm, and of those behind it.
    pub(super) by_states: [Buffer; 2],
    /// `[logit rows, vocabulary]`
    pub(super) by_logits: Buffer,
    /// `[logit rows, hidden]`
    pub(super) by_head_inputs: Buffer,
    /// Of all paths.
    pub(super) gradients: Buffer,
    pub(super) layers: Vec<[FusedGradients; 4]>,
}

impl TrainingMemory {
    pub(super) fn take(arena: &mut Arena, decoder: &Decoder, plan: &TrainingPlan) -> Self {
        let config = decoder.config();
        let (int, float, element) = (size_of::<i32>(), size_of::<f32>(), config.storage.bytes());
        let TrainingPlan { sequences, length, targets, logit_rows, backward } = *plan;
        let (heads, rows, axes) = (config.heads, sequences * length, config.axes());
        let kept = if backward { config.layers } else { 0 };
        let wide = targets * config.hidden * float;
        Self {
            angles: arena.take(length * heads.size * float),
            axes: if axes == 1 { Buffer::NULL } else { arena.take(heads.size / 2 * int) },
            tokens: arena.take(rows * int),
            positions: arena.take(rows * axes * int),
            padding: arena.take(sequences * int),
            rows: arena.take(targets * int),
            targets: arena.take(targets * int),
            kept: arena.take(kept * rows * config.hidden * float),
            deep: arena.take(deep_bytes(config, rows)),
            activations: Activations::take(arena, config, rows, decoder.ranks()),
            caches: [(); 2].map(|()| arena.take(rows * heads.keys() * element)),
            log_sums: arena.take(rows * heads.heads * float),
            states: [(); 2].map(|()| arena.take(wide)),
            head_inputs: arena.take(logit_rows * config.hidden * element),
            logits: arena.take(logit_rows * config.vocabulary * float),
            scores: arena.take(targets * 2 * float),
            backward: backward.then(|| BackwardMemory::take(arena, decoder, plan)),
        }
    }
}

impl BackwardMemory {
    fn take(arena: &mut Arena, decoder: &Decoder, plan: &TrainingPlan) -> Self {
        let config = decoder.config();
        let (float, element) = (size_of::<f32>(), config.storage.bytes());
        let TrainingPlan { sequences, length, targets, logit_rows, .. } = *plan;
        let (heads, rows) = (config.heads, sequences * length);
        // A separate count first: what is taken for gradients lies in one piece.
        let gradients = |arena: &mut Arena| -> Vec<[FusedGradients; 4]> {
            let layers = decoder.adapter().map_or(&[][..], |adapter| &adapter.layers);
            layers.iter().map(|layer| layer.all().map(|fused| fused.gradients(arena))).collect()
        };
        let mut counting = Arena::counting();
        gradients(&mut counting);
        let wide = targets * config.hidden * float;
        let by_x = arena.take(rows * config.hidden * float);
        let of_gradients = arena.take(counting.used());
        let mut take = |count: usize, width: usize| arena.take(count * width * element);
        Self {
            by_x,
            by_x_narrow: take(rows, config.hidden),
            by_normed: take(rows, config.hidden),
            by_inner: take(rows, config.intermediate),
            by_gate_up: take(rows, 2 * config.intermediate),
            by_mixed: take(rows, heads.queries()),
            by_queries: take(rows, heads.queries()),
            by_keys: [(); 2].map(|()| take(rows, heads.keys())),
            by_query_key_value: take(rows, heads.fused()),
            by_low: take(rows, decoder.ranks()),
            by_logits: take(logit_rows, config.vocabulary),
            by_head_inputs: take(logit_rows, config.hidden),
            deltas: arena.take(rows * heads.heads * float),
            by_scores: arena.take(targets * 2 * float),
            by_states: [(); 2].map(|()| arena.take(wide)),
            gradients: of_gradients,
            layers: gradients(&mut Arena::within(of_gradients)),
        }
    }
}
