//! Activations of feed-forward parts.

use super::{Rows, by_element};
use crate::{Buffer, CudaError, Driver, Storage};

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
