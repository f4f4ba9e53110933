//! From the fused product to queries and the KV cache.

use super::{ATTENTION_THREADS, blocks, run};
use crate::{Argument, Buffer, CudaError, Driver, Storage};

/// How queries, keys and values of a row lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads.
    pub key_heads: usize,
    /// Elements of a head.
    pub size: usize,
}

impl Heads {
    /// Elements of a row of queries, keys and values together.
    pub fn fused(self) -> usize {
        (self.heads + 2 * self.key_heads) * self.size
    }

    /// Elements of a row of queries.
    pub fn queries(self) -> usize {
        self.heads * self.size
    }

    /// Elements of a row of keys.
    pub fn keys(self) -> usize {
        self.key_heads * self.size
    }

    /// What scores are multiplied by.
    pub(super) fn scale(self) -> f32 {
        (self.size as f64).sqrt().recip() as f32
    }
}

/// What happens to queries and keys between the product and the cache. All f32, and null where there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadTransforms {
    /// `[(heads + 2 · key heads) · size]`.
    pub bias: Buffer,
    /// `[size]`.
    pub query_norm: Buffer,
    /// `[size]`.
    pub key_norm: Buffer,
    /// ε of the norms.
    pub epsilon: f32,
}

/// Rotary angles, and where a row finds its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotary {
    /// Number of rows.
    pub rows: usize,
    /// Cosine and sine, `[positions, size / 2, 2]` f32.
    pub table: Buffer,
    /// `[rows, axes]` i32.
    pub positions: Buffer,
    /// Which of its positions a pair of dimensions reads, `[size / 2]` i32, or null.
    pub axis: Buffer,
    /// Positions that a row has.
    pub axes: usize,
}

/// Where keys and values are appended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Appended {
    /// `[sequences, key heads, capacity, size]`.
    pub keys: Buffer,
    /// As keys.
    pub values: Buffer,
    /// Positions there are before, `[sequences]` i32; null where there are none.
    pub filled: Buffer,
    /// Positions there is room for.
    pub capacity: usize,
    /// Rows of each sequence.
    pub length: usize,
}

/// Splits rows of the fused product, normalises, rotates, writes queries to `q` and appends keys and values.
///
/// # Errors
/// Those of the driver.
pub fn rotary_append(
    driver: &mut dyn Driver,
    storage: Storage,
    [qkv, q]: [Buffer; 2],
    heads: Heads,
    transforms: &HeadTransforms,
    rotary: &Rotary,
    to: &Appended,
) -> Result<(), CudaError> {
    let own = [
        q.into(),
        to.keys.into(),
        to.values.into(),
        to.filled.into(),
        to.length.into(),
        to.capacity.into(),
    ];
    launch(driver, storage, "rotary_append", (qkv, &own), (heads, transforms, rotary))
}

/// The gradient of the fused product from those of queries, `[rows, heads · size]`, and of keys and values,
/// `[sequences, key heads, length, size]`.
///
/// # Errors
/// Those of the driver.
pub fn rotary_backward(
    driver: &mut dyn Driver,
    storage: Storage,
    [qkv, by_q, by_k, by_v, gradient]: [Buffer; 5],
    length: usize,
    heads: Heads,
    transforms: &HeadTransforms,
    rotary: &Rotary,
) -> Result<(), CudaError> {
    let own = [by_q.into(), by_k.into(), by_v.into(), gradient.into(), length.into()];
    launch(driver, storage, "rotary_backward", (qkv, &own), (heads, transforms, rotary))
}

/// Launches a kernel over the rows of the fused product: it is told of the heads and how they are turned, and between them of what is
/// its `own`.
fn launch(
    driver: &mut dyn Driver,
    storage: Storage,
    kernel: &str,
    (qkv, own): (Buffer, &[Argument]),
    (heads, transforms, rotary): (Heads, &HeadTransforms, &Rotary),
) -> Result<(), CudaError> {
    let turning = [
        qkv,
        transforms.bias,
        transforms.query_norm,
        transforms.key_norm,
        rotary.table,
        rotary.positions,
        rotary.axis,
    ];
    let sizes = [
        heads.heads.into(),
        heads.key_heads.into(),
        heads.size.into(),
        rotary.axes.into(),
        transforms.epsilon.into(),
    ];
    let arguments = [&turning.map(Argument::Buffer)[..], own, &sizes].concat();
    run(driver, storage, kernel, [blocks(rotary.rows, 1), 1, 1], ATTENTION_THREADS, &arguments)
}
