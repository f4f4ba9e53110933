//! Scaled dot-product attention and its masks.

use burn::tensor::{Device, Tensor, activation};

use crate::parameters::from_floats;

/// What a masked score is set to; low enough that its weight is exactly zero in f32 and bf16.
const MASKED: f32 = -1.0e9;

/// `softmax(q kᵀ / √d + bias) v`.
///
/// # Shapes
/// * `q`: `[batch, heads, queries, d]`, `k`, `v`: `[batch, heads, keys, d]`
/// * `bias`: broadcasts to `[batch, heads, queries, keys]`
/// * result: `[batch, heads, queries, d]`
pub fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<Tensor<4>>) -> Tensor<4> {
    let width = q.dims()[3];
    let scale = 1.0 / (width as f64).sqrt();
    let scores = (q * scale).matmul(k.swap_dims(2, 3));
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    activation::softmax(scores, 3).matmul(v)
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

/// Bias `[batch, 1, queries, keys]` that lets query `i` of a row see key `j` when `visible(row, i, j)`.
pub fn bias_where(
    [batch, queries, keys]: [usize; 3],
    device: &Device,
    visible: impl Fn(usize, usize, usize) -> bool,
) -> Tensor<4> {
    let mut values = Vec::with_capacity(batch * queries * keys);
    for row in 0..batch {
        for query in 0..queries {
            values.extend((0..keys).map(|key| if visible(row, query, key) { 0.0 } else { MASKED }));
        }
    }
    from_floats(values, [batch, 1, queries, keys], device)
}
