//! Log-probabilities, entropies and sampled tokens.

use super::{Rows, blocks, by_row, run};
use crate::{Buffer, CudaError, Driver, Storage};

/// Threads that choose a token, as in `sample.cu`.
const SAMPLERS: u32 = 512;

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
