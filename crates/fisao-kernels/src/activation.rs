//! Non-linearities, element by element; formulas in [`Activation`].

use crate::Activation;
use crate::rows::fill_rows;
use crate::simd::{erf, exp, sigmoid, vectorised};

/// √(2/π) and the cubic's factor of GELU's tanh form.
const TANH_SCALE: f32 = 0.797_884_6;
const TANH_CUBIC: f32 = 0.044_715;
/// 1/√(2π).
const DENSITY: f32 = 0.398_942_3;
/// Slope of the sigmoid in OpenAI's approximation of GELU.
const QUICK: f32 = 1.702;

/// `f(x)`, any shape.
pub(crate) fn forward(x: &[f32], kind: Activation) -> Vec<f32> {
    match kind {
        Activation::QuickGelu => map(x, |x| x * sigmoid(QUICK * x)),
        Activation::Silu => map(x, |x| x * sigmoid(x)),
        Activation::Gelu => map(x, |x| 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))),
        Activation::GeluTanh => map(x, |x| x * tanh_gate(x)),
    }
}

/// `f′(x) · gradient`.
pub(crate) fn backward(x: &[f32], gradient: &[f32], kind: Activation) -> Vec<f32> {
    match kind {
        Activation::QuickGelu => zip(x, gradient, |x| gated_slope(x, QUICK)),
        Activation::Silu => zip(x, gradient, |x| gated_slope(x, 1.0)),
        Activation::Gelu => zip(x, gradient, |x| {
            let share = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
            share + x * DENSITY * exp(-0.5 * x * x)
        }),
        Activation::GeluTanh => zip(x, gradient, |x| {
            let gate = tanh_gate(x);
            let inner = 2.0 * TANH_SCALE * (1.0 + 3.0 * TANH_CUBIC * x * x);
            gate + x * gate * (1.0 - gate) * inner
        }),
    }
}

/// `(1 + tanh u)/2 = σ(2u)` with GELU's u.
#[inline(always)]
fn tanh_gate(x: f32) -> f32 {
    sigmoid(2.0 * TANH_SCALE * (x + TANH_CUBIC * x * x * x))
}

/// Derivative of `x σ(a x)`.
#[inline(always)]
fn gated_slope(x: f32, a: f32) -> f32 {
    let gate = sigmoid(a * x);
    gate + a * x * gate * (1.0 - gate)
}

#[inline(always)]
fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    fill_rows(&mut out, 1, |first, part| {
        let x = &x[first..];
        vectorised(
            #[inline(always)]
            || {
                for (y, &x) in part.iter_mut().zip(x) {
                    *y = f(x);
                }
            },
        );
    });
    out
}

#[inline(always)]
fn zip(x: &[f32], gradient: &[f32], slope: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    fill_rows(&mut out, 1, |first, part| {
        let (x, gradient) = (&x[first..], &gradient[first..]);
        vectorised(
            #[inline(always)]
            || {
                for ((y, &x), &g) in part.iter_mut().zip(x).zip(gradient) {
                    *y = slope(x) * g;
                }
            },
        );
    });
    out
}
