//! Norms over rows of the residual stream.

use super::{Rows, blocks, by_row, run};
use crate::{Buffer, CudaError, Driver, Storage};

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
