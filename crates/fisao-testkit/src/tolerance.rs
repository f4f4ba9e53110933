//! How far apart two numbers may be that ought to be equal.
//!
//! All are relative to `max(1, |expected|)`, see [`assert_close`](crate::compare::assert_close).

/// One forward pass in f32 computed in two ways that round differently (batched or not, cached or
/// not, another implementation).
pub const F32_FORWARD: f32 = 2e-5;

/// A few dozen element-wise f32 operations in another order.
pub const F32_ELEMENTWISE: f32 = 1e-6;

/// A derivative in f32 against finite differences of the f32 function, relative to the derivative's
/// own size: the differences carry the function's rounding divided by the step.
pub const F32_FINITE_DIFFERENCE: f64 = 5e-3;
