//! Scaled dot-product attention and its masks.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor, activation};
use fisao_kernels::{Operation, five, is_fused, three};

use crate::parameters::{from_floats, indices};
pub use fisao_kernels::attention::{Mask, SharedPrefix};

/// What a masked score is set to; low enough that its weight is exactly zero in f32 and bf16.
const MASKED: f32 = -1.0e9;

/// A mask with what single operations add to the scores for it, which is made once for all layers of a pass.
#[derive(Debug)]
pub(crate) struct Shown {
    mask: Mask,
    bias: OnceLock<Tensor<4>>,
}

impl Shown {
    pub(crate) fn by(mask: &Mask) -> Self {
        Self { mask: mask.clone(), bias: OnceLock::new() }
    }

    /// What is added to scores `[batch, heads, queries, keys]`; nothing where everything is seen.
    fn bias(&self, [batch, queries, keys]: [usize; 3], device: &Device) -> Option<Tensor<4>> {
        let masked = match &self.mask {
            Mask::Full => return None,
            Mask::Causal { first } | Mask::SlidingWindow { first, .. } => first.len(),
            Mask::PerRow { seen } => seen.len(),
            Mask::SharedPrefix { rows } => rows.len(),
        };
        let rows = if masked == 0 { 1 } else { batch };
        let bias = self.bias.get_or_init(|| bias(&self.mask, [rows, queries, keys], device));
        assert_eq!(bias.dims(), [rows, 1, queries, keys], "layers of a pass see as many keys");
        Some(bias.clone())
    }
}

/// `softmax(q kᵀ / √d) v` over the keys that a mask shows.
///
/// # Shapes
/// * `q`: `[batch, heads, queries, d]`
/// * `k`, `v`: `[batch, key heads, keys, d]`; key heads divide heads, queries stand behind the keys
/// * result: `[batch, heads, queries, d]`
pub(crate) fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, shown: &Shown) -> Tensor<4> {
    if is_fused(&q) {
        return three(q, k, v, Operation::Attention(shown.mask.clone()));
    }
    composed(q, k, v, shown)
}

/// The same where keys and values of the first positions are those of one of several prompts: `before` holds those of all prompts,
/// `[prompts, key heads, positions, d]`, of which sequence `r` continues number `of[r]`. Nothing trains through it.
pub(crate) fn attend_behind(
    q: Tensor<4>,
    before: (Tensor<4>, Tensor<4>),
    of: Arc<Vec<usize>>,
    (k, v): (Tensor<4>, Tensor<4>),
    shown: &Shown,
) -> Tensor<4> {
    if is_fused(&q) {
        let operation = Operation::SharedAttention { mask: shown.mask.clone(), of };
        return five(q, before, (k, v), operation);
    }
    let rows = indices(of.iter().map(|&prompt| prompt as i64).collect(), &q.device());
    let whole = |before: Tensor<4>, own| Tensor::cat(vec![before.select(0, rows.clone()), own], 2);
    composed(q, whole(before.0, k), whole(before.1, v), shown)
}

/// [`attend`] from single operations.
pub(crate) fn composed(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, shown: &Shown) -> Tensor<4> {
    let [batch, heads, queries, width] = q.dims();
    let [_, key_heads, keys, _] = k.dims();
    let group = heads / key_heads;
    let device = q.device().inner();
    let scale = 1.0 / (width as f64).sqrt();
    let scores = (q * scale).matmul(repeat_heads(k, group).swap_dims(2, 3));
    let scores = match shown.bias([batch, queries, keys], &device) {
        Some(bias) => scores + bias,
        None => scores,
    };
    activation::softmax(scores, 3).matmul(repeat_heads(v, group))
}

/// Splits `[batch · length, heads · d]` into `[batch, heads, length, d]`.
pub fn split_heads(x: Tensor<2>, batch: usize, length: usize, heads: usize) -> Tensor<4> {
    let width = x.dims()[1] / heads;
    x.reshape([batch, length, heads, width]).swap_dims(1, 2)
}

/// Joins `[batch, heads, length, d]` into `[batch · length, heads · d]`.
pub fn merge_heads(x: Tensor<4>) -> Tensor<2> {
    let [batch, heads, length, width] = x.dims();
    x.swap_dims(1, 2).reshape([batch * length, heads * width])
}

/// Repeats each key/value head for its group of query heads: `[b, h, t, d]` → `[b, h · group, t, d]`.
fn repeat_heads(x: Tensor<4>, group: usize) -> Tensor<4> {
    if group == 1 {
        return x;
    }
    let [batch, heads, length, width] = x.dims();
    let wide = x.unsqueeze_dim::<5>(2).repeat_dim(2, group);
    wide.reshape([batch, heads * group, length, width])
}

/// What is added to the scores: `[rows, 1, queries, keys]`.
fn bias(mask: &Mask, [rows, queries, keys]: [usize; 3], device: &Device) -> Tensor<4> {
    let mut values = Vec::with_capacity(rows * queries * keys);
    for row in 0..rows {
        for query in 0..queries {
            let visible = mask.visible(row, query, [queries, keys]);
            let is_seen = |key| visible.iter().any(|part| part.contains(&key));
            values.extend((0..keys).map(|key| if is_seen(key) { 0.0 } else { MASKED }));
        }
    }
    from_floats(values, [rows, 1, queries, keys], device)
}
