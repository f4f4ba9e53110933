//! The norm of gradients, and `AdamW`.

use super::{by_element, by_row};
use crate::{Buffer, CudaError, Driver, Storage};

/// Elements of a piece of the sum of squares.
const SQUARES: usize = 4096;

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
