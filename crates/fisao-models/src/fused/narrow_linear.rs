//! Affine maps whose frozen weight is stored in 16 bits. Inputs, sums and results are f32; the weight is
//! widened on its way through the registers, never as a whole.
//!
//! A few rows, as in decoding, are inner products with each row of the weight, read once at the speed
//! of memory. Many rows, as in a prompt, are f32 products with panels of the weight that fit a cache.

use half::{bf16, f16};
use rayon::prelude::*;

use super::linear::{Matrix, multiply};
use super::simd::{LANES, vectorised};

/// Up to so many rows, reading the weight costs more than the arithmetic.
const FEW_ROWS: usize = 12;
/// Rows that share one pass over a row of the weight.
const TOGETHER: usize = 4;
/// Bytes of the weight that make a piece of work.
const PIECE: usize = 1 << 18;
/// Elements of a widened panel.
const PANEL: usize = 1 << 22;

/// A 16-bit float.
pub(super) trait Narrow: Copy + Send + Sync {
    /// The same value in f32.
    fn widen(self) -> f32;
}

impl Narrow for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Narrow for f16 {
    /// Without branches, so that loops over it become vector instructions.
    #[inline(always)]
    fn widen(self) -> f32 {
        /// Difference of the exponents' biases, 127 − 15, in place.
        const REBIAS: u32 = 112 << 23;
        /// 2⁻²⁴, the unit of subnormal values.
        const UNIT: f32 = 5.960_464_5e-8;
        let bits = u32::from(self.to_bits());
        let (sign, magnitude) = ((bits & 0x8000) << 16, bits & 0x7fff);
        let normal = (magnitude << 13) + REBIAS;
        let normal = if magnitude >= 0x7c00 { normal + REBIAS } else { normal };
        let subnormal = ((magnitude as i32) as f32 * UNIT).to_bits();
        let wide = if magnitude < 0x400 { subnormal } else { normal };
        f32::from_bits(wide | sign)
    }
}

/// A row-major matrix without gaps.
#[derive(Clone, Copy)]
pub(super) struct NarrowMatrix<'a, T> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// `x`: `[rows, in]`, `weight`: `[out, in]`, `bias`: `[out]` → `[rows, out]`.
pub(super) fn forward<T: Narrow>(
    x: Matrix<'_>,
    weight: NarrowMatrix<'_, T>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    assert_eq!(x.columns, weight.columns, "inner sizes of a product");
    if x.rows <= FEW_ROWS && x.column_stride == 1 {
        let rows = (0..x.rows).map(|row| &x.data[row * x.row_stride..][..x.columns]);
        return few_rows(&rows.collect::<Vec<_>>(), weight, bias);
    }
    let width = weight.rows;
    let mut out = match bias {
        Some(bias) => bias.repeat(x.rows),
        None => vec![0.0; x.rows * width],
    };
    over_panels(weight, |first, panel| {
        multiply(&mut out[first..], width, x, panel.transposed(), 1.0, bias.is_some());
    });
    out
}

/// Gradient of `x`: `[rows, out]` → `[rows, in]`.
pub(super) fn backward_input<T: Narrow>(
    gradient: Matrix<'_>,
    weight: NarrowMatrix<'_, T>,
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
fn over_panels<T: Narrow>(weight: NarrowMatrix<'_, T>, mut work: impl FnMut(usize, Matrix<'_>)) {
    let columns = weight.columns.max(1);
    let rows = (PANEL / columns).clamp(1, weight.rows.max(1));
    let mut wide = vec![0.0; rows * columns];
    for (index, panel) in weight.data.chunks(rows * columns).enumerate() {
        let wide = &mut wide[..panel.len()];
        widen_all(panel, wide);
        work(index * rows, Matrix::dense(wide, panel.len() / columns, columns));
    }
}

/// f32 values of `narrow`.
fn widen_all<T: Narrow>(narrow: &[T], wide: &mut [f32]) {
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

/// All inner products of `x` with the rows of the weight.
fn few_rows<T: Narrow>(
    x: &[&[f32]],
    weight: NarrowMatrix<'_, T>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let (count, columns) = (x.len(), weight.columns);
    if count == 0 {
        return Vec::new();
    }
    // One row of the weight makes one column of the result, so it is written transposed.
    let mut products = vec![0.0; weight.rows * count];
    let rows = (PIECE / (2 * columns.max(1))).max(1);
    let work = |(index, out): (usize, &mut [f32])| {
        let first = index * rows;
        vectorised(
            #[inline(always)]
            || {
                for (offset, out) in out.chunks_exact_mut(count).enumerate() {
                    let row = first + offset;
                    let start = bias.map_or(0.0, |bias| bias[row]);
                    let weight = &weight.data[row * columns..(row + 1) * columns];
                    products_of_row(weight, x, start, out);
                }
            },
        );
    };
    if rayon::current_num_threads() > 1 && weight.rows > rows {
        products.par_chunks_mut(rows * count).enumerate().for_each(work);
    } else {
        products.chunks_mut(rows * count).enumerate().for_each(work);
    }
    if count == 1 { products } else { transposed(&products, weight.rows, count) }
}

/// `out[r] = start + Σ weight · x[r]`.
#[inline(always)]
fn products_of_row<T: Narrow>(weight: &[T], x: &[&[f32]], start: f32, out: &mut [f32]) {
    let (groups, rest) = x.as_chunks::<TOGETHER>();
    let (out_groups, out_rest) = out.as_chunks_mut::<TOGETHER>();
    for (x, out) in groups.iter().zip(out_groups) {
        *out = inner_products(weight, *x).map(|sum| start + sum);
    }
    for (x, out) in rest.iter().zip(out_rest) {
        let [sum] = inner_products(weight, [*x]);
        *out = start + sum;
    }
}

/// Inner products of one row of the weight with `N` rows of inputs, in interleaved partial sums.
#[inline(always)]
fn inner_products<T: Narrow, const N: usize>(weight: &[T], x: [&[f32]; N]) -> [f32; N] {
    let mut sums = [[0.0_f32; LANES]; N];
    let (chunks, rest) = weight.as_chunks::<LANES>();
    let x = x.map(|x| x[..weight.len()].as_chunks::<LANES>());
    for (at, chunk) in chunks.iter().enumerate() {
        let wide = chunk.map(Narrow::widen);
        for (sums, (x, _)) in sums.iter_mut().zip(&x) {
            for lane in 0..LANES {
                sums[lane] += wide[lane] * x[at][lane];
            }
        }
    }
    std::array::from_fn(|row| {
        let tail = rest.iter().zip(x[row].1).map(|(w, x)| w.widen() * x).sum::<f32>();
        sums[row].iter().sum::<f32>() + tail
    })
}

/// `[rows, columns]` → `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (row, values) in values.chunks_exact(columns).enumerate() {
        for (column, &value) in values.iter().enumerate() {
            out[column * rows + row] = value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_to_its_value() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            let same = |wide: f32, value: f32| {
                wide.to_bits() == value.to_bits() || (wide.is_nan() && value.is_nan())
            };
            assert!(same(half.widen(), half.to_f32()), "{bits:#x}");
            assert!(same(brain.widen(), brain.to_f32()), "{bits:#x}");
        }
    }
}
