//! The kernels by name, with their grids and shared memory. `kernels/*.cu` says what each computes.
//!
//! Matrices are row-major; `storage` is the element type of activations. Buffers that are said to be f32 are so whatever it is.

mod activation;
mod attention;
mod decoding;
mod norm;
mod rotary;
mod rows;
mod sampling;

use crate::{Argument, CudaError, Driver, Launch, Storage};

pub use activation::{Gelu, gelu, swiglu, swiglu_backward};
pub use attention::{
    AttentionGradients, Segments, Sequences, attention, attention_backward, cross_attention,
};
pub use decoding::{DecodingCache, PIECE, decode_attention};
pub use norm::{layer_norm, rms_norm, rms_norm_backward, rms_norm_weight_backward};
pub use rotary::{Appended, HeadTransforms, Heads, Rotary, rotary_append, rotary_backward};
pub use rows::{add_bias, add_rows, embed, gather_rows, last_rows, move_row, narrow};
pub use sampling::{log_probs, log_probs_backward, sample};

/// Threads of a block that reduces a row.
const ROW_THREADS: u32 = 256;
/// Threads of a block of elementwise kernels.
const THREADS: u32 = 256;
/// Threads of a block of attention.
const ATTENTION_THREADS: u32 = 128;

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
