//! Attention over whole sequences, forward and backward.

use super::{ATTENTION_THREADS, Heads, blocks, run};
use crate::source::compiled_head_size;
use crate::{Argument, Buffer, CudaError, Driver, Launch, Storage};

/// Queries of a block of attention over whole sequences.
const QUERIES: usize = 64;

/// Sequences of attention, and what of them is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sequences {
    /// Number of sequences.
    pub batch: usize,
    /// Positions of each, padding among them.
    pub length: usize,
    /// Positions there is room for in keys and values.
    pub capacity: usize,
    /// Padding before each, `[batch]` i32.
    pub padding: Buffer,
    /// Positions that a query sees back to, its own among them.
    pub window: Option<usize>,
    /// Whether a query sees what stands before it and itself only.
    pub causal: bool,
    /// How the sequences are divided, if they are; only where they are causal.
    pub segments: Option<Segments>,
}

/// Several continuations of one prefix in one sequence: `prefix` positions, then segments of `length` positions each. A position sees
/// the prefix and what stands before it in its own segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// Positions that all segments continue, padding among them.
    pub prefix: usize,
    /// Positions of a segment.
    pub length: usize,
}

/// Prefix and length of segments as kernels take them.
fn segments(segments: Option<Segments>) -> [Argument; 2] {
    let Segments { prefix, length } = segments.unwrap_or(Segments { prefix: NO_WINDOW, length: 1 });
    [prefix.into(), length.max(1).into()]
}

/// What kernels of attention are told behind the buffers of their data.
fn sizes(heads: Heads, sequences: &Sequences) -> [Argument; 11] {
    let [prefix, segment] = segments(sequences.segments);
    [
        sequences.padding.into(),
        sequences.length.into(),
        heads.heads.into(),
        heads.key_heads.into(),
        heads.size.into(),
        sequences.capacity.into(),
        window(sequences.window).into(),
        prefix,
        segment,
        i32::from(sequences.causal).into(),
        heads.scale().into(),
    ]
}

/// The widest window: all positions.
const NO_WINDOW: usize = 1 << 30;

pub(super) fn window(window: Option<usize>) -> usize {
    window.map_or(NO_WINDOW, |window| window.min(NO_WINDOW))
}

/// Elements between rows of a tile in shared memory beyond its width.
pub(super) fn skew(storage: Storage) -> usize {
    16 / storage.bytes()
}

/// Attention over whole sequences. `q` and `out` are `[batch · length, heads · size]`, `k` and `v`
/// `[batch, key heads, capacity, size]`; `log_sums`, `[batch, heads, length]` f32, is what the backward pass needs, or null.
///
/// # Errors
/// [`CudaError::Unsupported`] for wide heads, and those of the driver.
pub fn attention(
    driver: &mut dyn Driver,
    storage: Storage,
    buffers: [Buffer; 5],
    heads: Heads,
    sequences: &Sequences,
) -> Result<(), CudaError> {
    attend(driver, storage, buffers, heads, sequences, sequences.length)
}

/// Attention to other sequences, all of which is seen: `q` and `out` are `[batch · queries, heads · size]`, `k` and `v`
/// `[batch, key heads, keys, size]`; `padding` is `[batch]` i32, of zeros.
///
/// # Errors
/// [`CudaError::Unsupported`] for wide heads, and those of the driver.
pub fn cross_attention(
    driver: &mut dyn Driver,
    storage: Storage,
    [q, k, v, out, padding]: [Buffer; 5],
    heads: Heads,
    [batch, queries, keys]: [usize; 3],
) -> Result<(), CudaError> {
    let sequences = Sequences {
        batch,
        length: queries,
        capacity: keys,
        padding,
        window: None,
        causal: false,
        segments: None,
    };
    attend(driver, storage, [q, k, v, out, Buffer::NULL], heads, &sequences, keys)
}

fn attend(
    driver: &mut dyn Driver,
    storage: Storage,
    buffers: [Buffer; 5],
    heads: Heads,
    sequences: &Sequences,
    key_count: usize,
) -> Result<(), CudaError> {
    let compiled = compiled_head_size(heads.size)?;
    let keys = if storage == Storage::F32 { 32 } else { 64 };
    let skew = skew(storage);
    let elements = (QUERIES + 2 * keys) * (compiled + skew) + QUERIES * (keys + skew);
    let buffers = buffers.map(Argument::Buffer);
    let arguments = [&buffers[..], &[key_count.into()], &sizes(heads, sequences)].concat();
    driver.launch(&Launch {
        kernel: &format!("attention_prefill_{compiled}"),
        storage,
        grid: [
            blocks(sequences.length, QUERIES),
            blocks(heads.heads, 1),
            blocks(sequences.batch, 1),
        ],
        block: ATTENTION_THREADS,
        shared_bytes: (elements * storage.bytes()) as u32,
        arguments: &arguments,
    })
}

/// What the backward pass of attention reads and writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionGradients {
    /// `[batch · length, heads · size]`.
    pub q: Buffer,
    /// `[batch, key heads, capacity, size]`.
    pub k: Buffer,
    /// As `k`.
    pub v: Buffer,
    /// The result, as `q`.
    pub out: Buffer,
    /// What [`attention`] wrote, `[batch, heads, length]` f32.
    pub log_sums: Buffer,
    /// Gradient of the result, as `q`.
    pub by_out: Buffer,
    /// Scratch, `[batch, heads, length]` f32.
    pub deltas: Buffer,
    /// Gradient of `q`.
    pub by_q: Buffer,
    /// Gradient of `k`, `[batch, key heads, length, size]`.
    pub by_k: Buffer,
    /// As `by_k`.
    pub by_v: Buffer,
}

/// Gradients of queries, keys and values.
///
/// # Errors
/// [`CudaError::Unsupported`] for wide heads, and those of the driver.
pub fn attention_backward(
    driver: &mut dyn Driver,
    storage: Storage,
    of: &AttentionGradients,
    heads: Heads,
    sequences: &Sequences,
) -> Result<(), CudaError> {
    let compiled = compiled_head_size(heads.size)?;
    let Sequences { batch, length, .. } = *sequences;
    let deltas = [
        of.out.into(),
        of.by_out.into(),
        of.deltas.into(),
        length.into(),
        heads.heads.into(),
        heads.size.into(),
    ];
    let grid = [blocks(batch * length, 1), 1, 1];
    run(driver, storage, "attention_deltas", grid, ATTENTION_THREADS, &deltas)?;
    let read = [of.q, of.k, of.v, of.by_out, of.log_sums, of.deltas];
    let sizes = sizes(heads, sequences);
    let step = if storage == Storage::F32 { 16 } else { 32 };
    let skew = skew(storage);
    let rows = (2 * QUERIES + 2 * step) * (compiled + skew);
    let parts = QUERIES * (step + skew);
    for (name, written, heads, elements) in [
        ("attention_by_queries", &[of.by_q][..], heads.heads, rows + parts),
        ("attention_by_keys", &[of.by_k, of.by_v], heads.key_heads, rows + 2 * parts),
    ] {
        let buffers = read.iter().chain(written).map(|&buffer| Argument::Buffer(buffer));
        let arguments: Vec<Argument> = buffers.chain(sizes).collect();
        driver.launch(&Launch {
            kernel: &format!("{name}_{compiled}"),
            storage,
            grid: [blocks(length, QUERIES), blocks(heads, 1), blocks(batch, 1)],
            block: ATTENTION_THREADS,
            shared_bytes: (elements * storage.bytes()) as u32,
            arguments: &arguments,
        })?;
    }
    Ok(())
}
