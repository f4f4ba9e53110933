//! Linear layers whose frozen weight is stored in 16 bits. Inputs, sums and results are f32; the weight is
//! widened on its way through the registers, never as a whole.
//!
//! A few rows, as in decoding, are [inner products](skinny_gemm) with each row of the weight, read once at
//! the speed of memory. Many rows, as in a prompt, are f32 products with panels of the weight that fit a cache.

use rayon::prelude::*;

use crate::linear::{fill_with_bias, multiply};
use crate::matrix::Matrix;
use crate::matrix::StoredMatrix;
use crate::scratch::Scratch;
use crate::simd::vectorised;
use crate::skinny_gemm::{self, Half};

/// Elements that are widened as one piece of work.
const PIECE: usize = 1 << 18;
/// Elements of a widened panel.
const PANEL: usize = 1 << 22;

/// `x`: `[rows, in]`, `weight`: `[out, in]`, `bias`: `[out]` → `out`: `[rows, out]`.
pub(crate) fn fill<T: Half>(
    out: &mut [f32],
    x: Matrix<'_>,
    weight: StoredMatrix<'_, T>,
    bias: Option<&[f32]>,
) {
    assert_eq!(x.columns, weight.columns, "inner sizes of a product");
    if x.is_skinny() {
        skinny_gemm::multiply(out, x, weight, bias);
        return;
    }
    if let Some(bias) = bias {
        fill_with_bias(out, bias);
    }
    over_panels(weight, |first, panel| {
        multiply(&mut out[first..], weight.rows, x, panel.transposed(), 1.0, bias.is_some());
    });
}

/// Gradient of `x`: `[rows, out]` → `[rows, in]`.
pub(crate) fn backward_input<T: Half>(
    gradient: Matrix<'_>,
    weight: StoredMatrix<'_, T>,
) -> Vec<f32> {
    let width = weight.columns;
    let mut out = vec![0.0; gradient.rows * width];
    over_panels(weight, |first, panel| {
        let part = Matrix {
            data: &gradient.data[(first * gradient.column_stride).min(gradient.data.len())..],
            columns: panel.rows,
            ..gradient
        };
        multiply(&mut out, width, part, panel, 1.0, true);
    });
    out
}

/// Calls `work` with the first row and the f32 values of one panel of rows after the other.
fn over_panels<T: Half>(weight: StoredMatrix<'_, T>, mut work: impl FnMut(usize, Matrix<'_>)) {
    let columns = weight.columns.max(1);
    let rows = (PANEL / columns).clamp(1, weight.rows.max(1));
    let mut wide = Scratch::new(rows * columns);
    for (index, panel) in weight.data.chunks(rows * columns).enumerate() {
        let wide = &mut wide[..panel.len()];
        widen_all(panel, wide);
        work(index * rows, Matrix::dense(wide, panel.len() / columns, columns));
    }
}

/// f32 values of `narrow`.
fn widen_all<T: Half>(narrow: &[T], wide: &mut [f32]) {
    let widen = |(wide, narrow): (&mut [f32], &[T])| {
        vectorised(
            #[inline(always)]
            || wide.iter_mut().zip(narrow).for_each(|(wide, narrow)| *wide = narrow.widen()),
        );
    };
    if rayon::current_num_threads() > 1 {
        wide.par_chunks_mut(PIECE).zip(narrow.par_chunks(PIECE)).for_each(widen);
    } else {
        widen((wide, narrow));
    }
}
