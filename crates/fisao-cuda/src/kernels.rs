//! The kernels by name, with their grids and shared memory. `kernels/*.cu` says what each computes.
//!
//! Matrices are row-major; `storage` is the element type of activations. Buffers that are said to be f32 are so whatever it is.

use crate::source::compiled_head_size;
use crate::{Argument, Buffer, CudaError, Driver, Launch, Storage};

/// Threads of a block that reduces a row.
const ROW_THREADS: u32 = 256;
/// Threads of a block of elementwise kernels.
const THREADS: u32 = 256;
/// Threads of a block of attention.
const ATTENTION_THREADS: u32 = 128;
/// Queries of a block of attention over whole sequences.
const QUERIES: usize = 64;
/// Keys of a piece in decoding, as in `attention_decode.cu`.
pub const PIECE: usize = 64;
/// Threads that choose a token, as in `sample.cu`.
const SAMPLERS: u32 = 512;
/// Elements of a piece of the sum of squares.
const SQUARES: usize = 4096;

fn blocks(count: usize, each: usize) -> u32 {
    u32::try_from(count.div_ceil(each)).expect("fewer than 2³² blocks")
}

fn run(
    driver: &mut dyn Driver,
    storage: Storage,
    kernel: &str,
    grid: [u32; 3],
    block: u32,
    arguments: &[Argument],
) -> Result<(), CudaError> {
    driver.launch(&Launch { kernel, storage, grid, block, shared_bytes: 0, arguments })
}

/// Kernels with one block for each of `rows` rows.
fn by_row(
    driver: &mut dyn Driver,
    storage: Storage,
    kernel: &str,
    rows: usize,
    arguments: &[Argument],
) -> Result<(), CudaError> {
    run(driver, storage, kernel, [blocks(rows, 1), 1, 1], ROW_THREADS, arguments)
}

/// Kernels with one thread for each of `count` elements.
fn by_element(
    driver: &mut dyn Driver,
    storage: Storage,
    kernel: &str,
    count: usize,
    arguments: &[Argument],
) -> Result<(), CudaError> {
    run(driver, storage, kernel, [blocks(count, THREADS as usize), 1, 1], THREADS, arguments)
}

/// Rows and columns of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Number of rows.
    pub rows: usize,
    /// Elements of each.
    pub width: usize,
}

/// `out = x / √(mean(x²) + ε) · weight`; with `delta`, `x += delta` before. `x` and `weight` are f32.
///
/// # Errors
/// Those of the driver.
pub fn rms_norm(
    driver: &mut dyn Driver,
    storage: Storage,
    [x, delta, weight, out]: [Buffer; 4],
    rows: Rows,
    epsilon: f32,
) -> Result<(), CudaError> {
    let arguments =
        [x.into(), delta.into(), weight.into(), out.into(), rows.width.into(), epsilon.into()];
    by_row(driver, storage, "rms_norm", rows.rows, &arguments)
}

/// Adds to `gradient` the gradient of `x`; `x`, `weight` and `gradient` are f32.
///
/// # Errors
/// Those of the driver.
pub fn rms_norm_backward(
    driver: &mut dyn Driver,
    storage: Storage,
    [x, weight, by_output, gradient]: [Buffer; 4],
    rows: Rows,
    epsilon: f32,
) -> Result<(), CudaError> {
    let arguments = [
        x.into(),
        weight.into(),
        by_output.into(),
        gradient.into(),
        rows.width.into(),
        epsilon.into(),
    ];
    by_row(driver, storage, "rms_norm_backward", rows.rows, &arguments)
}

/// The gradient of the weight, `[width]`; `scales`, `[rows]`, is scratch. All but `by_output` are f32.
///
/// # Errors
/// Those of the driver.
pub fn rms_norm_weight_backward(
    driver: &mut dyn Driver,
    storage: Storage,
    [x, by_output, scales, gradient]: [Buffer; 4],
    rows: Rows,
    epsilon: f32,
) -> Result<(), CudaError> {
    let Rows { rows, width } = rows;
    let arguments = [x.into(), scales.into(), width.into(), epsilon.into()];
    by_row(driver, storage, "rms_norm_scales", rows, &arguments)?;
    let arguments =
        [x.into(), by_output.into(), scales.into(), gradient.into(), rows.into(), width.into()];
    let grid = [blocks(width, 32), 1, 1];
    run(driver, storage, "rms_norm_weight_backward", grid, 256, &arguments)
}

/// `out = (x − mean)/√(var + ε) · weight + bias`; with `delta`, `x += delta` before. `x`, `weight` and `bias` are f32.
///
/// # Errors
/// Those of the driver.
pub fn layer_norm(
    driver: &mut dyn Driver,
    storage: Storage,
    [x, delta, weight, bias, out]: [Buffer; 5],
    rows: Rows,
    epsilon: f32,
) -> Result<(), CudaError> {
    let arguments = [
        x.into(),
        delta.into(),
        weight.into(),
        bias.into(),
        out.into(),
        rows.width.into(),
        epsilon.into(),
    ];
    by_row(driver, storage, "layer_norm", rows.rows, &arguments)
}

/// `out = silu(gate) · up` of `gate_up`, `[rows, 2 · width]`.
///
/// # Errors
/// Those of the driver.
pub fn swiglu(
    driver: &mut dyn Driver,
    storage: Storage,
    [gate_up, out]: [Buffer; 2],
    rows: Rows,
) -> Result<(), CudaError> {
    let Rows { rows, width } = rows;
    let arguments = [gate_up.into(), out.into(), rows.into(), width.into()];
    by_element(driver, storage, "swiglu", rows * width, &arguments)
}

/// The gradient of `gate_up`, `[rows, 2 · width]`.
///
/// # Errors
/// Those of the driver.
pub fn swiglu_backward(
    driver: &mut dyn Driver,
    storage: Storage,
    [gate_up, by_output, gradient]: [Buffer; 3],
    rows: Rows,
) -> Result<(), CudaError> {
    let Rows { rows, width } = rows;
    let arguments = [gate_up.into(), by_output.into(), gradient.into(), rows.into(), width.into()];
    by_element(driver, storage, "swiglu_backward", rows * width, &arguments)
}

/// A form of the Gaussian error linear unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// By the error function.
    Erf = 0,
    /// By tanh.
    Tanh = 1,
    /// `x σ(1.702 x)`.
    Quick = 2,
}

/// `x = gelu(x + bias)`; `bias` is f32 or null.
///
/// # Errors
/// Those of the driver.
pub fn gelu(
    driver: &mut dyn Driver,
    storage: Storage,
    [x, bias]: [Buffer; 2],
    rows: Rows,
    form: Gelu,
) -> Result<(), CudaError> {
    let Rows { rows, width } = rows;
    let arguments = [x.into(), bias.into(), rows.into(), width.into(), (form as i32).into()];
    by_element(driver, storage, "gelu", rows * width, &arguments)
}

/// Rows of `table` at `ids`, `[rows]` of u32, to `out` in f32.
///
/// # Errors
/// Those of the driver.
pub fn embed(
    driver: &mut dyn Driver,
    storage: Storage,
    [ids, table, out]: [Buffer; 3],
    rows: Rows,
) -> Result<(), CudaError> {
    let arguments = [ids.into(), table.into(), out.into(), rows.width.into()];
    by_row(driver, storage, "embed", rows.rows, &arguments)
}

/// The last row of each of `sequences` sequences of `length` rows, in f32.
///
/// # Errors
/// Those of the driver.
pub fn last_rows(
    driver: &mut dyn Driver,
    [x, out]: [Buffer; 2],
    [sequences, length, width]: [usize; 3],
) -> Result<(), CudaError> {
    let arguments = [x.into(), out.into(), length.into(), width.into()];
    by_row(driver, Storage::F32, "last_rows", sequences, &arguments)
}

/// `out[row] = x[places[row]]`, f32; `places` is `[rows]` i32.
///
/// # Errors
/// Those of the driver.
pub fn gather_rows(
    driver: &mut dyn Driver,
    [x, places, out]: [Buffer; 3],
    rows: Rows,
) -> Result<(), CudaError> {
    let arguments = [x.into(), places.into(), out.into(), rows.width.into()];
    by_row(driver, Storage::F32, "gather_rows", rows.rows, &arguments)
}

/// `out[places[row]] += x[row]`, f32, in the order of the rows; `places` is `[rows]` i32 and may repeat itself.
///
/// # Errors
/// Those of the driver.
pub fn add_rows(
    driver: &mut dyn Driver,
    [x, places, out]: [Buffer; 3],
    rows: Rows,
) -> Result<(), CudaError> {
    let Rows { rows, width } = rows;
    let arguments = [x.into(), places.into(), out.into(), rows.into(), width.into()];
    by_element(driver, Storage::F32, "add_rows", width, &arguments)
}

/// `x[row] += bias`, f32.
///
/// # Errors
/// Those of the driver.
pub fn add_bias(
    driver: &mut dyn Driver,
    [x, bias]: [Buffer; 2],
    rows: Rows,
) -> Result<(), CudaError> {
    let Rows { rows, width } = rows;
    let arguments = [x.into(), bias.into(), rows.into(), width.into()];
    by_element(driver, Storage::F32, "add_bias", rows * width, &arguments)
}

/// f32 to the storage type.
///
/// # Errors
/// Those of the driver.
pub fn narrow(
    driver: &mut dyn Driver,
    storage: Storage,
    [x, out]: [Buffer; 2],
    count: usize,
) -> Result<(), CudaError> {
    let arguments = [x.into(), out.into(), (count as i64).into()];
    by_element(driver, storage, "narrow", count, &arguments)
}

/// Copies row `from` of `[layers, rows, elements]` to row `to`, in every layer.
///
/// # Errors
/// Those of the driver.
pub fn move_row(
    driver: &mut dyn Driver,
    storage: Storage,
    cache: Buffer,
    [layers, rows, elements]: [usize; 3],
    [from, to]: [usize; 2],
) -> Result<(), CudaError> {
    let arguments = [
        cache.into(),
        ((rows * elements) as i64).into(),
        (elements as i64).into(),
        from.into(),
        to.into(),
    ];
    let grid = [blocks(elements, THREADS as usize), blocks(layers, 1), 1];
    run(driver, storage, "move_row", grid, THREADS, &arguments)
}

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
    fn scale(self) -> f32 {
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
    let arguments = [
        qkv.into(),
        transforms.bias.into(),
        transforms.query_norm.into(),
        transforms.key_norm.into(),
        rotary.table.into(),
        rotary.positions.into(),
        rotary.axis.into(),
        q.into(),
        to.keys.into(),
        to.values.into(),
        to.filled.into(),
        to.length.into(),
        to.capacity.into(),
        heads.heads.into(),
        heads.key_heads.into(),
        heads.size.into(),
        rotary.axes.into(),
        transforms.epsilon.into(),
    ];
    run(
        driver,
        storage,
        "rotary_append",
        [blocks(rotary.rows, 1), 1, 1],
        ATTENTION_THREADS,
        &arguments,
    )
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
    let arguments = [
        qkv.into(),
        transforms.bias.into(),
        transforms.query_norm.into(),
        transforms.key_norm.into(),
        rotary.table.into(),
        rotary.positions.into(),
        rotary.axis.into(),
        by_q.into(),
        by_k.into(),
        by_v.into(),
        gradient.into(),
        length.into(),
        heads.heads.into(),
        heads.key_heads.into(),
        heads.size.into(),
        rotary.axes.into(),
        transforms.epsilon.into(),
    ];
    run(
        driver,
        storage,
        "rotary_backward",
        [blocks(rotary.rows, 1), 1, 1],
        ATTENTION_THREADS,
        &arguments,
    )
}

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

/// The widest window: all positions.
const NO_WINDOW: usize = 1 << 30;

fn window(window: Option<usize>) -> usize {
    window.map_or(NO_WINDOW, |window| window.min(NO_WINDOW))
}

/// Elements between rows of a tile in shared memory beyond its width.
fn skew(storage: Storage) -> usize {
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
    [q, k, v, out, log_sums]: [Buffer; 5],
    heads: Heads,
    sequences: &Sequences,
) -> Result<(), CudaError> {
    let compiled = compiled_head_size(heads.size)?;
    let keys = if storage == Storage::F32 { 32 } else { 64 };
    let skew = skew(storage);
    let elements = (QUERIES + 2 * keys) * (compiled + skew) + QUERIES * (keys + skew);
    let [prefix, segment] = segments(sequences.segments);
    let arguments = [
        q.into(),
        k.into(),
        v.into(),
        out.into(),
        log_sums.into(),
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
    ];
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
    let [prefix, segment] = segments(sequences.segments);
    let sizes = [
        sequences.padding.into(),
        length.into(),
        heads.heads.into(),
        heads.key_heads.into(),
        heads.size.into(),
        sequences.capacity.into(),
        window(sequences.window).into(),
        prefix,
        segment,
        i32::from(sequences.causal).into(),
        heads.scale().into(),
    ];
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

/// Keys and values of prompts and of the sequences that continue them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodingCache {
    /// `[prompts, key heads, prompt capacity, size]`.
    pub prompt_keys: Buffer,
    /// As the keys.
    pub prompt_values: Buffer,
    /// `[rows, key heads, capacity, size]`.
    pub own_keys: Buffer,
    /// As the keys.
    pub own_values: Buffer,
    /// Where the sequences of each prompt begin in `members`, `[prompts + 1]` i32.
    pub groups: Buffer,
    /// Sequences by prompt, `[rows]` i32.
    pub members: Buffer,
    /// Own positions before the new one, `[rows]` i32; negative where there is no sequence.
    pub filled: Buffer,
    /// Padding before each sequence's prompt, `[rows]` i32.
    pub padding: Buffer,
    /// Positions of the prompts, `[1]` i32.
    pub prompt_length: Buffer,
    /// Number of prompts.
    pub prompts: usize,
    /// Positions there is room for in a prompt.
    pub prompt_capacity: usize,
    /// Own positions there is room for.
    pub capacity: usize,
    /// Positions that a query sees back to, its own among them.
    pub window: Option<usize>,
}

impl DecodingCache {
    /// Pieces that keys of a prompt, and a sequence's own, are read in.
    fn pieces(&self) -> [usize; 2] {
        [self.prompt_capacity, self.capacity].map(|positions| positions.div_ceil(PIECE))
    }

    /// Bytes of the partial sums of [`decode_attention`].
    pub fn partial_bytes(
        rows: usize,
        heads: Heads,
        [prompt_capacity, capacity]: [usize; 2],
    ) -> usize {
        let pieces = prompt_capacity.div_ceil(PIECE) + capacity.div_ceil(PIECE);
        rows * heads.heads * pieces * (heads.size + 2) * size_of::<f32>()
    }
}

/// Attention of one new position of each of `rows` sequences, whose key and value are in the cache already. `q` and `out` are
/// `[rows, heads · size]`; `partial` is scratch of [`DecodingCache::partial_bytes`].
///
/// # Errors
/// [`CudaError::Unsupported`] for wide heads, and those of the driver.
pub fn decode_attention(
    driver: &mut dyn Driver,
    storage: Storage,
    [q, partial, out]: [Buffer; 3],
    rows: usize,
    heads: Heads,
    cache: &DecodingCache,
) -> Result<(), CudaError> {
    let compiled = compiled_head_size(heads.size)?;
    let [prompt_pieces, own_pieces] = cache.pieces();
    let tiles = 2 * PIECE * (compiled + skew(storage)) * storage.bytes();
    let warps = ATTENTION_THREADS as usize / 32 * (compiled + PIECE) * size_of::<f32>();
    let arguments = [
        q.into(),
        cache.prompt_keys.into(),
        cache.prompt_values.into(),
        cache.own_keys.into(),
        cache.own_values.into(),
        partial.into(),
        cache.groups.into(),
        cache.members.into(),
        cache.filled.into(),
        cache.padding.into(),
        cache.prompt_length.into(),
        cache.prompts.into(),
        cache.prompt_capacity.into(),
        cache.capacity.into(),
        prompt_pieces.into(),
        own_pieces.into(),
        heads.heads.into(),
        heads.key_heads.into(),
        heads.size.into(),
        window(cache.window).into(),
        heads.scale().into(),
    ];
    driver.launch(&Launch {
        kernel: &format!("attention_decode_{compiled}"),
        storage,
        grid: [
            blocks(prompt_pieces.max(own_pieces), 1),
            blocks(heads.key_heads, 1),
            blocks(cache.prompts + rows, 1),
        ],
        block: ATTENTION_THREADS,
        shared_bytes: (tiles + warps) as u32,
        arguments: &arguments,
    })?;
    let arguments = [
        partial.into(),
        out.into(),
        cache.filled.into(),
        cache.prompt_length.into(),
        prompt_pieces.into(),
        own_pieces.into(),
        heads.heads.into(),
        heads.size.into(),
    ];
    let grid = [blocks(heads.heads, 1), blocks(rows, 1), 1];
    run(driver, storage, "attention_combine", grid, 64, &arguments)
}

/// Log-probability of `targets`, `[rows]` of u32, and entropy of each row, to `out`, `[rows, 2]`; `logits` are
/// `[rows, vocabulary]`. All f32; nats.
///
/// # Errors
/// Those of the driver.
pub fn log_probs(
    driver: &mut dyn Driver,
    [logits, targets, out]: [Buffer; 3],
    rows: Rows,
    temperature: f32,
) -> Result<(), CudaError> {
    let arguments =
        [logits.into(), targets.into(), out.into(), rows.width.into(), temperature.recip().into()];
    by_row(driver, Storage::F32, "log_probs", rows.rows, &arguments)
}

/// The gradient of `logits`, in the storage type; `by_output` is `[rows, 2]` f32.
///
/// # Errors
/// Those of the driver.
pub fn log_probs_backward(
    driver: &mut dyn Driver,
    storage: Storage,
    [logits, targets, by_output, gradient]: [Buffer; 4],
    rows: Rows,
    temperature: f32,
) -> Result<(), CudaError> {
    let arguments = [
        logits.into(),
        targets.into(),
        by_output.into(),
        gradient.into(),
        rows.width.into(),
        temperature.recip().into(),
    ];
    by_row(driver, storage, "log_probs_backward", rows.rows, &arguments)
}

/// A token of each row to `tokens`, `[rows]` of u32, and its log-probability to `out`, `[rows]` f32, by `draws`, `[rows, 2]` f64:
/// 1 / temperature, or 0 for the most likely token, and a number from 0 to 1. `logits` are f32.
///
/// # Errors
/// Those of the driver.
pub fn sample(
    driver: &mut dyn Driver,
    [logits, draws, tokens, out]: [Buffer; 4],
    rows: Rows,
) -> Result<(), CudaError> {
    let arguments = [logits.into(), draws.into(), tokens.into(), out.into(), rows.width.into()];
    let grid = [blocks(rows.rows, 1), 1, 1];
    run(driver, Storage::F32, "sample", grid, SAMPLERS, &arguments)
}

/// Bytes of the sums of [`global_norm`].
pub fn norm_scratch_bytes(count: usize) -> usize {
    count.div_ceil(SQUARES) * size_of::<f32>()
}

/// The norm of `count` gradients and the factor that limits it, to `out`, `[2]` f32; `sums` is scratch of [`norm_scratch_bytes`].
///
/// # Errors
/// Those of the driver.
pub fn global_norm(
    driver: &mut dyn Driver,
    [gradients, sums, out]: [Buffer; 3],
    count: usize,
    limit: f32,
) -> Result<(), CudaError> {
    let pieces = count.div_ceil(SQUARES);
    let arguments = [gradients.into(), sums.into(), (count as i64).into()];
    by_row(driver, Storage::F32, "square_sums", pieces, &arguments)?;
    let arguments = [sums.into(), out.into(), pieces.into(), limit.into()];
    by_row(driver, Storage::F32, "global_norm", 1, &arguments)
}

/// Settings of one step of `AdamW`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub rate: f32,
    /// β₁ and β₂.
    pub betas: [f32; 2],
    /// ε.
    pub epsilon: f32,
    /// Weight decay.
    pub decay: f32,
    /// Steps, this one among them.
    pub step: i32,
}

/// One step of `count` weights: `w`, their gradients `g`, and the moments `m` and `v`, all f32. `copy` gets the weights in the storage
/// type, `factor`, `[1]` f32, is what gradients are multiplied by; both may be null.
///
/// # Errors
/// Those of the driver.
pub fn adamw(
    driver: &mut dyn Driver,
    storage: Storage,
    [w, g, m, v, copy, factor]: [Buffer; 6],
    count: usize,
    settings: &AdamW,
) -> Result<(), CudaError> {
    let AdamW { rate, betas, epsilon, decay, step } = *settings;
    let corrections = betas.map(|beta| (1.0 - f64::from(beta).powi(step)) as f32);
    let arguments = [
        w.into(),
        g.into(),
        m.into(),
        v.into(),
        copy.into(),
        factor.into(),
        (count as i64).into(),
        rate.into(),
        betas[0].into(),
        betas[1].into(),
        epsilon.into(),
        decay.into(),
        corrections[0].into(),
        corrections[1].into(),
    ];
    by_element(driver, storage, "adamw", count, &arguments)
}
