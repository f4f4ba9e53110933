//! Root-mean-square normalisation over rows (Zhang & Sennrich 2019): `y = x ρ γ`, `ρ = 1/√(mean x² + ε)`.
//!
//! Backwards, with `g = ∂y · γ`: `∂x = ρ (g − x ρ² · mean(g x))`, `∂γ = Σ ∂y x ρ`.

use crate::rows::{accumulate, fill_rows};
use crate::simd::{sum, sum_pairs, vectorised};

#[inline(always)]
fn scale(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum(x, |x| x * x) / x.len() as f32 + epsilon).sqrt()
}

/// `x`: `[rows, width]`; `weight`: `[width]` → `[rows, width]`.
pub(crate) fn forward(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    fill(&mut out, x, weight, epsilon);
    out
}

/// The same, into `out`.
pub(crate) fn fill(out: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    assert!(out.len() == x.len(), "as many normalised values as there are");
    fill_rows(out, width, |first, part| {
        let x = &x[first * width..];
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in part.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let scale = scale(x, epsilon);
                    for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
                        *y = x * scale * w;
                    }
                }
            },
        );
    });
}

/// Gradients of `x` and weight.
pub(crate) fn backward(
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len();
    let mut out = vec![0.0; x.len()];
    let parts = fill_rows(&mut out, width, |first, part| {
        let (x, gradient) = (&x[first * width..], &gradient[first * width..]);
        let mut by_weight = vec![0.0; width];
        let mut scaled = vec![0.0; width];
        vectorised(
            #[inline(always)]
            || {
                let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width));
                for (out, (x, gradient)) in part.chunks_exact_mut(width).zip(rows) {
                    let scale = scale(x, epsilon);
                    for ((s, &g), &w) in scaled.iter_mut().zip(gradient).zip(weight) {
                        *s = g * w;
                    }
                    for ((sum, &g), &x) in by_weight.iter_mut().zip(gradient).zip(x) {
                        *sum += g * x * scale;
                    }
                    let mean = sum_pairs(&scaled, x, |g, x| g * x) / width as f32;
                    let pull = scale * scale * mean;
                    for ((out, &g), &x) in out.iter_mut().zip(&scaled).zip(x) {
                        *out = scale * (g - x * pull);
                    }
                }
            },
        );
        by_weight
    });
    let mut by_weight = vec![0.0; width];
    for part in parts {
        accumulate(&mut by_weight, &part);
    }
    (out, by_weight)
}
