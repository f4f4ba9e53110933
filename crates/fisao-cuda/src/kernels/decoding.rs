//! Attention of one new position of each sequence.

use super::attention::{skew, window};
use super::{ATTENTION_THREADS, Heads, blocks, run};
use crate::source::compiled_head_size;
use crate::{Buffer, CudaError, Driver, Launch, Storage};

/// Keys of a piece in decoding, as in `attention_decode.cu`.
pub const PIECE: usize = 64;

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
