//! Linear layers `y = x Wᵀ + b` with the weight laid out as in checkpoints, `[out, in]`.
//!
//! Backwards: `∂x = ∂y W`, `∂W = ∂yᵀ x`, `∂b = Σ ∂y`.

use crate::disjoint_slices::DisjointSlices;
use crate::matrix::{Matrix, SKINNY_ROWS, StoredMatrix};
use crate::rank_k_update;
use crate::rows::{accumulate, each_index};
use crate::scratch::Scratch;
use crate::simd::{add_scaled, vectorised};
use crate::skinny_gemm;
use crate::transpose::transpose_into;

/// Multiply-adds from which a product is worth sharing among threads.
const SHARED_PRODUCT: usize = 1 << 22;

/// Numbers of a right side that lies by columns from which turning it over pays.
const TRANSPOSED_SIZE: usize = 1 << 19;

/// Columns of it that are transposed at a time, in a core's cache, and multiplied by one thread.
const PANEL: usize = 128;

/// Rows up to which it does: the product's own copying weighs less, the more there are.
const TRANSPOSED_ROWS: usize = 1024;

/// Rows summed by one piece of work for `∂b`.
const BIAS_ROWS: usize = 256;

/// `out = scale · a b`, or `out + scale · a b` with `add`; rows of `out` lie `stride` apart.
#[expect(unsafe_code, reason = "a place for every number is checked for right before")]
pub fn multiply(
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
    // A few rows by a thin matrix, as an adapter's second one: turning it over is less work than copying it into panels.
    let thin = b.row_stride == 1 && b.rows <= SKINNY_ROWS && a.rows <= SKINNY_ROWS;
    let transposed = thin.then(|| {
        let mut transposed = Scratch::new(b.rows * b.columns);
        transpose_into(b.transposed(), &mut transposed);
        transposed
    });
    let b =
        transposed.as_ref().map_or(b, |transposed| Matrix::dense(transposed, b.rows, b.columns));
    if rank_k_update::suit(a, b) {
        rank_k_update::multiply(out, stride, a, b, scale, add);
        return;
    }
    // SAFETY: by the assertions every number's place lies inside of `out`, which holds numbers and is borrowed mutably.
    unsafe { multiply_into(out.as_mut_ptr(), stride, a, b, scale, add) };
}

/// How a product is made.
enum Kernel {
    /// By [`rank_k_update`].
    Outer,
    /// One with few columns, as those of an adapter have, by way of its transpose, which has few rows.
    Thin,
    /// By gemm.
    General,
}

impl Kernel {
    fn of(a: Matrix<'_>, b: Matrix<'_>) -> Self {
        if rank_k_update::suit(a, b) {
            return Self::Outer;
        }
        let thin = a.rows > SKINNY_ROWS && b.columns <= SKINNY_ROWS;
        let lies_well = a.stored().is_some() || a.row_stride == 1;
        if thin && lies_well { Self::Thin } else { Self::General }
    }
}

/// `scale · a b`, row by row.
pub fn product(a: Matrix<'_>, b: Matrix<'_>, scale: f32) -> Vec<f32> {
    let length = a.rows * b.columns;
    if length > 0 && a.columns > 0 && matches!(Kernel::of(a, b), Kernel::General) {
        return general_product(a, b, scale);
    }
    let mut out = vec![0.0; length];
    fill_product(&mut out, a, b, scale);
    out
}

/// The same, into `out`.
#[expect(unsafe_code, reason = "the place is checked for right before")]
fn fill_product(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, scale: f32) {
    assert_eq!(a.columns, b.rows, "inner sizes of a product");
    assert!(out.len() == a.rows * b.columns, "a product does not fit its place");
    if out.is_empty() || a.columns == 0 {
        out.fill(0.0);
        return;
    }
    match Kernel::of(a, b) {
        Kernel::Outer => rank_k_update::multiply(out, b.columns, a, b, scale, false),
        Kernel::Thin => fill_thin_product(out, a, b, scale),
        // SAFETY: by the assertions there is a place for every number, which is borrowed mutably.
        Kernel::General => unsafe {
            multiply_into(out.as_mut_ptr(), b.columns, a, b, scale, false);
        },
    }
}

/// A product by way of its transpose, `bᵀ aᵀ`.
fn fill_thin_product(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, scale: f32) {
    let mut few = Scratch::new(b.rows * b.columns);
    fill_by_rows(&mut few, b.transposed());
    for value in few.iter_mut() {
        *value *= scale;
    }
    let few = Matrix::dense(&few, b.columns, b.rows);
    let mut found = Scratch::new(out.len());
    if let Some(stored) = a.stored() {
        skinny_gemm::multiply(&mut found, few, stored, None);
    } else {
        rank_k_update::multiply(&mut found, a.rows, few, a.transposed(), 1.0, false);
    }
    transpose_into(Matrix::dense(&found, b.columns, a.rows), out);
}

/// The same matrix row by row, where it may lie by columns, into `out`.
pub(crate) fn fill_by_rows(out: &mut [f32], matrix: Matrix<'_>) {
    if matrix.column_stride == 1 {
        let rows = out.chunks_exact_mut(matrix.columns.max(1)).enumerate();
        rows.for_each(|(at, row)| row.copy_from_slice(matrix.row(at)));
    } else {
        transpose_into(matrix.transposed(), out);
    }
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
    let shared = rows * columns * inner >= SHARED_PRODUCT && rayon::current_num_threads() > 1;
    // The place is `out` or some columns of it, `b` the right side's same columns.
    let gemm = |place: *mut f32, b: Matrix<'_>, parallelism| {
        assert!(a.data.len() >= a.extent() && b.data.len() >= b.extent(), "a matrix ends early");
        // SAFETY: by the assertion every element that gemm reads of `a` and `b` lies inside its slice; what it reads and
        // writes of `out` the caller vouches for.
        unsafe {
            gemm::gemm(
                rows,
                b.columns,
                inner,
                place,
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
    };
    // By columns, a large right side is better transposed first.
    let by_columns = b.row_stride == 1 && b.column_stride > 1;
    if by_columns && rows < TRANSPOSED_ROWS && inner * columns >= TRANSPOSED_SIZE {
        let out = DisjointSlices::new(out.cast(), (rows - 1) * stride + columns);
        let panel = |at: usize| {
            let of_panel = at * PANEL..columns.min((at + 1) * PANEL);
            let (place, width) = (out.at(of_panel.start), of_panel.len());
            let mut transposed = Scratch::new(inner * width);
            transpose_into(b.transposed().some_rows(of_panel), &mut transposed);
            gemm(place.cast(), Matrix::dense(&transposed, inner, width), gemm::Parallelism::None);
        };
        let panels = 0..columns.div_ceil(PANEL);
        if shared {
            each_index(panels, panel);
        } else {
            panels.for_each(panel);
        }
        return;
    }
    gemm(out, b, if shared { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None });
}

/// `x`: `[rows, in]`, `weight`: `[out, in]`, `bias`: `[out]` → `[rows, out]`.
pub(crate) fn forward(x: Matrix<'_>, weight: Matrix<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    if bias.is_none() && few_by_stored(x, weight).is_none() {
        return product(x, weight.transposed(), 1.0);
    }
    let mut out = vec![0.0; x.rows * weight.rows];
    fill(&mut out, x, weight, bias);
    out
}

/// The same, into `out`.
pub(crate) fn fill(out: &mut [f32], x: Matrix<'_>, weight: Matrix<'_>, bias: Option<&[f32]>) {
    assert_eq!(x.columns, weight.columns, "inner sizes of a product");
    if let Some(stored) = few_by_stored(x, weight) {
        skinny_gemm::multiply(out, x, stored, bias);
    } else if let Some(bias) = bias {
        fill_with_bias(out, bias);
        multiply(out, weight.rows, x, weight.transposed(), 1.0, true);
    } else {
        fill_product(out, x, weight.transposed(), 1.0);
    }
}

/// The weight without gaps, where it is met by a few rows.
fn few_by_stored<'a>(x: Matrix<'_>, weight: Matrix<'a>) -> Option<StoredMatrix<'a, f32>> {
    weight.stored().filter(|_| x.is_skinny())
}

/// A bias in every row, to which a product is added.
pub(crate) fn fill_with_bias(out: &mut [f32], bias: &[f32]) {
    out.chunks_exact_mut(bias.len().max(1)).for_each(|row| row.copy_from_slice(bias));
}

/// Gradient of `x`: `[rows, out]` → `[rows, in]`.
pub(crate) fn backward_input(gradient: Matrix<'_>, weight: Matrix<'_>) -> Vec<f32> {
    product(gradient, weight, 1.0)
}

/// Gradient of the weight: `[out, in]`.
pub(crate) fn backward_weight(gradient: Matrix<'_>, x: Matrix<'_>) -> Vec<f32> {
    product(gradient.transposed(), x, 1.0)
}

/// Gradient of the bias: row-major `[rows, out]` → `[out]`.
pub(crate) fn backward_bias(gradient: &[f32], width: usize) -> Vec<f32> {
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
