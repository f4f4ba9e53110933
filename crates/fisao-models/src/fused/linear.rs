//! Affine maps `y = x Wᵀ + b` with the weight laid out as in checkpoints, `[out, in]`.
//!
//! Backwards: `∂x = ∂y W`, `∂W = ∂yᵀ x`, `∂b = Σ ∂y`.

use std::ops::Range;

use super::few_rows::{self, FEW_ROWS, StoredMatrix};
use super::outer_products;
use super::rows::{accumulate, each_index};
use super::simd::{add_scaled, vectorised};
use super::transpose::transposed;

/// Multiply-adds from which a product is worth sharing among threads.
const SHARED_PRODUCT: usize = 1 << 22;

/// Numbers of a right side that lies by columns from which turning it over pays.
const TURNED_SIZE: usize = 1 << 19;

/// Rows up to which it does: the product's own copying weighs less, the more there are.
const TURNED_ROWS: usize = 1024;

/// Rows summed by one piece of work for `∂b`.
const BIAS_ROWS: usize = 256;

/// A matrix read through strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// Starts at the first element.
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major without gaps.
    pub(crate) fn dense(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// A row that lies in one piece.
    #[inline(always)]
    pub(super) fn row(&self, at: usize) -> &'a [f32] {
        debug_assert!(self.column_stride == 1, "a row in pieces");
        &self.data[at * self.row_stride..][..self.columns]
    }

    /// Some of its rows.
    #[inline(always)]
    pub(super) fn some_rows(&self, rows: Range<usize>) -> Self {
        let data = &self.data[(rows.start * self.row_stride).min(self.data.len())..];
        Self { data, rows: rows.len(), ..*self }
    }

    /// Its first columns.
    #[inline(always)]
    pub(super) fn first_columns(&self, columns: usize) -> Self {
        debug_assert!(columns <= self.columns, "more columns than there are");
        Self { columns, ..*self }
    }

    /// Where a row begins, which may be behind the last.
    #[inline(always)]
    pub(super) fn at(&self, row: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add(row * self.row_stride)
    }

    /// Its rows, where they are few and each lies in one piece.
    pub(super) fn few_rows(&self) -> Option<Vec<&'a [f32]>> {
        let few = self.rows <= FEW_ROWS && self.column_stride == 1;
        few.then(|| (0..self.rows).map(|row| self.row(row)).collect())
    }

    /// Itself as a matrix without gaps, where it is one.
    fn stored(&self) -> Option<StoredMatrix<'a, f32>> {
        let dense = self.column_stride == 1 && self.row_stride == self.columns;
        dense.then(|| StoredMatrix {
            data: &self.data[..self.rows * self.columns],
            rows: self.rows,
            columns: self.columns,
        })
    }

    /// Elements that reading it touches.
    fn extent(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// `out = scale · a b`, or `out + scale · a b` with `add`; rows of `out` lie `stride` apart.
#[expect(unsafe_code, reason = "a place for every number is checked for right before")]
pub(crate) fn multiply(
    out: &mut [f32],
    stride: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    add: bool,
) {
    assert_eq!(a.columns, b.rows, "inner sizes of a product");
    if a.rows == 0 || b.columns == 0 {
        return;
    }
    assert!(stride >= b.columns, "rows of a product overlap");
    assert!(out.len() >= (a.rows - 1) * stride + b.columns, "a product does not fit its place");
    let space;
    // A few rows by a thin matrix, as an adapter's second one: turning it over is less work than copying it into panels.
    let b = if b.row_stride == 1 && b.rows <= FEW_ROWS && a.rows <= FEW_ROWS {
        space = transposed(b.transposed());
        Matrix::dense(&space, b.rows, b.columns)
    } else {
        b
    };
    if outer_products::suit(a, b) {
        outer_products::multiply(out, stride, a, b, scale, add);
        return;
    }
    // SAFETY: by the assertions every number's place lies inside of `out`, which holds numbers and is borrowed mutably.
    unsafe { multiply_into(out.as_mut_ptr(), stride, a, b, scale, add) };
}

/// `scale · a b`, row by row.
pub(super) fn product(a: Matrix<'_>, b: Matrix<'_>, scale: f32) -> Vec<f32> {
    assert_eq!(a.columns, b.rows, "inner sizes of a product");
    if a.rows == 0 || b.columns == 0 || a.columns == 0 {
        return vec![0.0; a.rows * b.columns];
    }
    if outer_products::suit(a, b) {
        return outer_products::product(a, b, scale);
    }
    thin_product(a, b, scale).unwrap_or_else(|| general_product(a, b, scale))
}

/// A product with few columns, as those of an adapter have, by way of its transpose, which has few rows.
fn thin_product(a: Matrix<'_>, b: Matrix<'_>, scale: f32) -> Option<Vec<f32>> {
    if a.rows <= FEW_ROWS || b.columns > FEW_ROWS {
        return None;
    }
    // The transpose is `bᵀ aᵀ`.
    let mut few = by_rows(b.transposed());
    for value in &mut few {
        *value *= scale;
    }
    let few = Matrix::dense(&few, b.columns, b.rows);
    let found = if let (Some(rows), Some(stored)) = (few.few_rows(), a.stored()) {
        few_rows::multiply(&rows, stored, None)
    } else if outer_products::suit(few, a.transposed()) {
        outer_products::product(few, a.transposed(), 1.0)
    } else {
        return None;
    };
    Some(transposed(Matrix::dense(&found, b.columns, a.rows)))
}

/// The same matrix row by row, where it may lie by columns.
pub(super) fn by_rows(matrix: Matrix<'_>) -> Vec<f32> {
    if matrix.column_stride == 1 {
        let mut out = Vec::with_capacity(matrix.rows * matrix.columns);
        (0..matrix.rows).for_each(|row| out.extend_from_slice(matrix.row(row)));
        return out;
    }
    transposed(matrix.transposed())
}

/// The product by gemm.
#[expect(unsafe_code, reason = "zeros that are written over at once would cost a pass over memory")]
fn general_product(a: Matrix<'_>, b: Matrix<'_>, scale: f32) -> Vec<f32> {
    let length = a.rows * b.columns;
    let mut out = Vec::with_capacity(length);
    // SAFETY: there is room for every number; without `add` none is read, and all are written.
    unsafe {
        multiply_into(out.as_mut_ptr(), b.columns, a, b, scale, false);
        out.set_len(length);
    }
    out
}

/// # Safety
/// `a.columns` are `b.rows`; `out` has room for `a.rows` rows of `b.columns` numbers, `stride` apart, that nothing else has access to; with `add`
/// there are numbers in it.
#[expect(unsafe_code, reason = "gemm takes pointers; the extents are checked right before")]
unsafe fn multiply_into(
    out: *mut f32,
    stride: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    add: bool,
) {
    let (rows, columns, inner) = (a.rows, b.columns, a.columns);
    assert!(a.data.len() >= a.extent() && b.data.len() >= b.extent(), "a matrix ends early");
    // By columns, a large right side is better turned over first.
    let by_columns = b.row_stride == 1 && b.column_stride > 1;
    let turn = by_columns && rows < TURNED_ROWS && inner * columns >= TURNED_SIZE;
    let turned = if turn { transposed(b.transposed()) } else { Vec::new() };
    let b = if turn { Matrix::dense(&turned, inner, columns) } else { b };
    let shared = rows * columns * inner >= SHARED_PRODUCT && rayon::current_num_threads() > 1;
    let parallelism = if shared { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: by the assertions every element that gemm reads of `a` and `b` lies inside its slice; what it reads and
    // writes of `out` the caller vouches for.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out,
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `x`: `[rows, in]`, `weight`: `[out, in]`, `bias`: `[out]` → `[rows, out]`.
pub(super) fn forward(x: Matrix<'_>, weight: Matrix<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    assert_eq!(x.columns, weight.columns, "inner sizes of a product");
    if let (Some(rows), Some(stored)) = (x.few_rows(), weight.stored()) {
        return few_rows::multiply(&rows, stored, bias);
    }
    let Some(bias) = bias else { return product(x, weight.transposed(), 1.0) };
    let mut out = bias.repeat(x.rows);
    multiply(&mut out, weight.rows, x, weight.transposed(), 1.0, true);
    out
}

/// Gradient of `x`: `[rows, out]` → `[rows, in]`.
pub(super) fn backward_input(gradient: Matrix<'_>, weight: Matrix<'_>) -> Vec<f32> {
    product(gradient, weight, 1.0)
}

/// Gradient of the weight: `[out, in]`.
pub(super) fn backward_weight(gradient: Matrix<'_>, x: Matrix<'_>) -> Vec<f32> {
    product(gradient.transposed(), x, 1.0)
}

/// Gradient of the bias: row-major `[rows, out]` → `[out]`.
pub(super) fn backward_bias(gradient: &[f32], width: usize) -> Vec<f32> {
    let rows = gradient.len() / width;
    let parts = each_index(0..rows.div_ceil(BIAS_ROWS), |piece| {
        let end = ((piece + 1) * BIAS_ROWS).min(rows);
        let mut sum = vec![0.0; width];
        vectorised(
            #[inline(always)]
            || {
                let rows = gradient[piece * BIAS_ROWS * width..end * width].chunks_exact(width);
                for row in rows {
                    add_scaled(&mut sum, 1.0, row);
                }
            },
        );
        sum
    });
    let mut total = vec![0.0; width];
    for part in parts {
        accumulate(&mut total, &part);
    }
    total
}
