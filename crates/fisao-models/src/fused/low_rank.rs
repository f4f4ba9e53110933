//! The low-rank path of an affine map, `s (x Aᵀ) Bᵀ`, added to what the map itself computes.
//!
//! Backwards, with `h = x Aᵀ`: `∂h = s ∂y B`, `∂x += ∂h A`, `∂A = ∂hᵀ x`, `∂B = s ∂yᵀ h`. `h` is computed
//! again rather than kept: it costs as little as the path does.

use super::linear::{self, Matrix, multiply};

/// Adds the path to `out`, `[rows, outputs]`.
pub(super) fn add_path(out: &mut [f32], x: Matrix<'_>, a: Matrix<'_>, b: Matrix<'_>, scale: f32) {
    let inner = linear::forward(x, a, None);
    let inner = Matrix::dense(&inner, x.rows, a.rows);
    multiply(out, b.rows, inner, b.transposed(), scale, true);
}

/// The path, for its gradients.
pub(super) struct Path<'a> {
    /// `[rows, in]`.
    pub(super) x: Matrix<'a>,
    /// `[rank, in]`.
    pub(super) a: Matrix<'a>,
    /// `[out, rank]`.
    pub(super) b: Matrix<'a>,
    pub(super) scale: f32,
}

impl Path<'_> {
    /// `∂h`: `[rows, rank]`, of the gradient of the result.
    pub(super) fn inner_gradient(&self, gradient: Matrix<'_>) -> Vec<f32> {
        let rank = self.b.columns;
        let mut out = vec![0.0; gradient.rows * rank];
        multiply(&mut out, rank, gradient, self.b, self.scale, false);
        out
    }

    /// Adds the path's part of `∂x`.
    pub(super) fn add_input_gradient(&self, out: &mut [f32], inner: Matrix<'_>) {
        multiply(out, self.a.columns, inner, self.a, 1.0, true);
    }

    /// `∂A`.
    pub(super) fn by_a(&self, inner: Matrix<'_>) -> Vec<f32> {
        linear::backward_weight(inner, self.x)
    }

    /// `∂B`.
    pub(super) fn by_b(&self, gradient: Matrix<'_>) -> Vec<f32> {
        let inner = linear::forward(self.x, self.a, None);
        let rank = self.a.rows;
        let inner = Matrix::dense(&inner, self.x.rows, rank);
        let mut out = vec![0.0; gradient.columns * rank];
        multiply(&mut out, rank, gradient.transposed(), inner, self.scale, false);
        out
    }
}
