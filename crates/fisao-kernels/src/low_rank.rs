//! The low-rank path of a linear layer, `s (x Aᵀ) Bᵀ`, added to what the linear layer itself computes.
//!
//! Backwards, with `h = x Aᵀ`: `∂h = s ∂y B`, `∂x += ∂h A`, `∂A = ∂hᵀ x`, `∂B = s ∂yᵀ h`. `h` is computed
//! again rather than kept: it costs as little as the path does.

use crate::linear::{self, multiply, product};
use crate::matrix::Matrix;
use crate::scratch::Scratch;

/// The path of one linear layer.
pub(crate) struct Path<'a> {
    /// `[rows, in]`.
    pub(crate) x: Matrix<'a>,
    /// `[rank, in]`.
    pub(crate) a: Matrix<'a>,
    /// `[out, rank]`.
    pub(crate) b: Matrix<'a>,
    pub(crate) scale: f32,
}

impl Path<'_> {
    /// `h`: `[rows, rank]`.
    fn inner(&self) -> Scratch {
        let mut out = Scratch::new(self.x.rows * self.a.rows);
        linear::fill(&mut out, self.x, self.a, None);
        out
    }

    /// `h` or its gradient as a matrix.
    fn of_rank<'h>(&self, values: &'h [f32]) -> Matrix<'h> {
        Matrix::dense(values, self.x.rows, self.a.rows)
    }

    /// Adds the path to `out`, `[rows, out]`.
    pub(crate) fn add_to(&self, out: &mut [f32]) {
        let inner = self.inner();
        multiply(out, self.b.rows, self.of_rank(&inner), self.b.transposed(), self.scale, true);
    }

    /// `∂h` of the gradient of the result.
    pub(crate) fn inner_gradient(&self, gradient: Matrix<'_>) -> Vec<f32> {
        product(gradient, self.b, self.scale)
    }

    /// Adds the path's part of `∂x`.
    pub(crate) fn add_input_gradient(&self, out: &mut [f32], by_inner: &[f32]) {
        multiply(out, self.a.columns, self.of_rank(by_inner), self.a, 1.0, true);
    }

    /// `∂A`.
    pub(crate) fn by_a(&self, by_inner: &[f32]) -> Vec<f32> {
        linear::backward_weight(self.of_rank(by_inner), self.x)
    }

    /// `∂B`.
    pub(crate) fn by_b(&self, gradient: Matrix<'_>) -> Vec<f32> {
        product(gradient.transposed(), self.of_rank(&self.inner()), self.scale)
    }
}
