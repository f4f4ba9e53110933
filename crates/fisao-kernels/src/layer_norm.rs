//! Layer normalisation over rows (Ba et al. 2016): `y = (x − mean) · ρ · γ + β` with `ρ = 1/√(var + ε)`,
//! biased variance.
//!
//! Backwards, with `x̂ = (x − mean) ρ` and `g = ∂y · γ`:
//! `∂x = ρ (g − mean g − x̂ · mean(g x̂))`, `∂γ = Σ ∂y x̂`, `∂β = Σ ∂y`.

use crate::rows::{accumulate, fill_rows};
use crate::simd::{sum, sum_pairs, vectorised};

/// Mean and ρ of one row.
#[inline(always)]
fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let count = x.len() as f32;
    let mean = sum(x, |x| x) / count;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// `x`: `[rows, width]`; `weight`, `bias`: `[width]` → `[rows, width]`.
pub(crate) fn forward(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) -> Vec<f32> {
    let width = weight.len();
    let mut out = vec![0.0; x.len()];
    fill_rows(&mut out, width, |first, part| {
        let x = &x[first * width..];
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in part.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let (mean, scale) = moments(x, epsilon);
                    for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                        *y = (x - mean) * scale * w + b;
                    }
                }
            },
        );
    });
    out
}

/// Gradients of `x`, weight and bias.
pub(crate) fn backward(
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let width = weight.len();
    let count = width as f32;
    let mut out = vec![0.0; x.len()];
    let parts = fill_rows(&mut out, width, |first, part| {
        let (x, gradient) = (&x[first * width..], &gradient[first * width..]);
        let (mut by_weight, mut by_bias) = (vec![0.0; width], vec![0.0; width]);
        // x̂ and g of the row at hand.
        let (mut normed, mut scaled) = (vec![0.0; width], vec![0.0; width]);
        vectorised(
            #[inline(always)]
            || {
                let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width));
                for (out, (x, gradient)) in part.chunks_exact_mut(width).zip(rows) {
                    let (mean, scale) = moments(x, epsilon);
                    for (n, &x) in normed.iter_mut().zip(x) {
                        *n = (x - mean) * scale;
                    }
                    for ((s, &g), &w) in scaled.iter_mut().zip(gradient).zip(weight) {
                        *s = g * w;
                    }
                    for ((sum, &g), &n) in by_weight.iter_mut().zip(gradient).zip(&normed) {
                        *sum += g * n;
                    }
                    for (sum, &g) in by_bias.iter_mut().zip(gradient) {
                        *sum += g;
                    }
                    let mean_g = sum(&scaled, |g| g) / count;
                    let mean_gn = sum_pairs(&scaled, &normed, |g, n| g * n) / count;
                    for ((out, &g), &n) in out.iter_mut().zip(&scaled).zip(&normed) {
                        *out = scale * (g - mean_g - n * mean_gn);
                    }
                }
            },
        );
        (by_weight, by_bias)
    });
    let (mut by_weight, mut by_bias) = (vec![0.0; width], vec![0.0; width]);
    for (weight, bias) in parts {
        accumulate(&mut by_weight, &weight);
        accumulate(&mut by_bias, &bias);
    }
    (out, by_weight, by_bias)
}
