//! Products with a matrix that lies by rows and is small, or meets few rows: `scale · a b`.
//!
//! Each number of `a` is multiplied with a piece of a row of `b`, and the sums are columns of the result side by side,
//! so nothing has to be added up across a register at the end and nothing is packed. It is what a small model's linear layers
//! are, their matrices lying by columns, and an adapter's gradients, and attention.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::matrix::Matrix;
use crate::matrix::SKINNY_ROWS;
use crate::scratch::Scratch;
use crate::simd::{arch, prefetch};

/// Numbers of `b` that stay in a core's first cache: with no more of them this is quicker than a general product for any number
/// of rows, ...
const NEAR: usize = 1 << 14;
/// ... in its second cache: for up to [`CACHED_ROWS`], and anywhere: for [`SKINNY_ROWS`].
const CACHED: usize = 1 << 17;
const CACHED_ROWS: usize = 128;
/// Rows of `b` that are met by all of `a` before the next: a piece of them stays in a core's first cache.
const DEPTH: usize = 256;
/// Rows of `b` by which it is asked for ahead.
const AHEAD: usize = 16;
/// Rows that make a piece of work, where there are many.
const ROWS: usize = 64;
/// Columns that do, where there are few.
const COLUMNS: usize = 192;
/// Multiply-adds from which a product is worth sharing among threads.
const SHARED: usize = 1 << 21;

/// Whether `a b` is quicker here than by a general product.
pub(crate) fn suit(a: Matrix<'_>, b: Matrix<'_>) -> bool {
    let numbers = b.rows * b.columns;
    let fits =
        a.rows <= SKINNY_ROWS || numbers <= NEAR || (numbers <= CACHED && a.rows <= CACHED_ROWS);
    fits && b.column_stride == 1 && (a.column_stride == 1 || a.row_stride == 1)
}

/// `out = scale · a b`, or `out + scale · a b` with `add`; rows of `out` lie `stride` apart. In what pieces it is computed changes
/// no sum.
pub(crate) fn multiply(
    out: &mut [f32],
    stride: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    add: bool,
) {
    assert_eq!(a.columns, b.rows, "inner sizes of a product");
    let (rows, width) = (a.rows, b.columns);
    let work = |out: &mut [f32], stride: usize, a: Matrix<'_>, columns: Range<usize>, add: bool| {
        if a.column_stride == 1 {
            arch().dispatch(Product::<true> { out, stride, a, b, columns, scale, add });
        } else {
            arch().dispatch(Product::<false> { out, stride, a, b, columns, scale, add });
        }
    };
    let shared = rows * a.columns * width >= SHARED && rayon::current_num_threads() > 1;
    if shared && rows >= 2 * ROWS {
        out.par_chunks_mut(ROWS * stride).enumerate().take(rows.div_ceil(ROWS)).for_each(
            |(index, out)| {
                let first = index * ROWS;
                work(out, stride, a.some_rows(first..(first + ROWS).min(rows)), 0..width, add);
            },
        );
        return;
    }
    if !shared || width <= COLUMNS {
        work(out, stride, a, 0..width, add);
        return;
    }
    // A thread's columns lie in pieces in the result, so it gets a place of its own for them.
    let mut pieces = Scratch::new(rows * width);
    let before: &[f32] = out;
    pieces.par_chunks_mut(rows * COLUMNS).enumerate().for_each(|(index, piece)| {
        let first = index * COLUMNS;
        let columns = first..first + piece.len() / rows;
        if add {
            for (row, piece) in piece.chunks_exact_mut(columns.len()).enumerate() {
                piece.copy_from_slice(&before[row * stride..][columns.clone()]);
            }
        }
        work(piece, columns.len(), a, columns, add);
    });
    for (index, piece) in pieces.chunks(rows * COLUMNS).enumerate() {
        let columns = piece.len() / rows;
        for (row, found) in piece.chunks_exact(columns).enumerate() {
            out[row * stride + index * COLUMNS..][..columns].copy_from_slice(found);
        }
    }
}

/// Some columns of a product, at the beginning of rows of `out`; `a` lies `BY_ROWS` or by columns.
struct Product<'a, const BY_ROWS: bool> {
    out: &'a mut [f32],
    stride: usize,
    a: Matrix<'a>,
    b: Matrix<'a>,
    columns: Range<usize>,
    scale: f32,
    add: bool,
}

impl<const BY_ROWS: bool> WithSimd for Product<'_, BY_ROWS> {
    type Output = ();

    /// Tiles as large as the registers hold: 32 of them with AVX-512, else 16. What has fewer rows gets more columns.
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let inner = self.a.columns;
        if inner == 0 && !self.add {
            let width = self.columns.len();
            self.out
                .chunks_mut(self.stride)
                .take(self.a.rows)
                .for_each(|row| row[..width].fill(0.0));
        }
        for first in (0..inner).step_by(DEPTH) {
            let depth = first..(first + DEPTH).min(inner);
            let mut row = 0;
            if S::F32_LANES >= 16 {
                row = self.rows::<S, 8, 3>(simd, row, &depth);
                row = self.rows::<S, 4, 6>(simd, row, &depth);
            } else {
                row = self.rows::<S, 4, 3>(simd, row, &depth);
            }
            self.rows::<S, 1, 8>(simd, row, &depth);
            self.add = true;
        }
    }
}

impl<const BY_ROWS: bool> Product<'_, BY_ROWS> {
    /// All whole groups of `R` rows from `first` on, some `V` vectors of columns at a time; gives back the first row that is
    /// in none.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        first: usize,
        depth: &Range<usize>,
    ) -> usize {
        let end = first + (self.a.rows - first) / R * R;
        if first == end {
            return end;
        }
        let mut column = self.columns.start;
        loop {
            let vectors = (self.columns.end - column) / S::F32_LANES;
            // Four are two and two rather than three and one.
            let taken = match vectors {
                vectors if vectors >= V && !(V == 3 && vectors == 4) => V,
                2.. => 2,
                one_or_none => one_or_none,
            };
            if taken == 0 {
                break;
            }
            for row in (first..end).step_by(R) {
                match (taken, row == first) {
                    (1, _) => self.tile::<S, R, 1, true, false>(simd, row, column, depth),
                    (2, _) => self.tile::<S, R, 2, true, false>(simd, row, column, depth),
                    (_, true) => {
                        self.tile::<S, R, V, true, true>(simd, row, column, depth);
                    }
                    _ => self.tile::<S, R, V, true, false>(simd, row, column, depth),
                }
            }
            column += taken * S::F32_LANES;
        }
        if column < self.columns.end {
            for row in (first..end).step_by(R) {
                self.tile::<S, R, 1, false, false>(simd, row, column, depth);
            }
        }
        end
    }

    /// `R` rows by `V` vectors of columns, which are `WHOLE` or fewer columns than they hold; with `ASK`, what `b` has below is
    /// asked for.
    #[inline(always)]
    #[expect(
        clippy::needless_range_loop,
        reason = "through iterators the sums go by way of memory"
    )]
    fn tile<S: Simd, const R: usize, const V: usize, const WHOLE: bool, const ASK: bool>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
        depth: &Range<usize>,
    ) {
        let lanes = S::F32_LANES;
        let width = if WHOLE { V * lanes } else { self.columns.end - column };
        let (a, b) = (self.a, self.b);
        let rows: [&[f32]; R] = if BY_ROWS {
            std::array::from_fn(|r| &a.row(row + r)[depth.clone()])
        } else {
            [&[]; R]
        };
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for at in 0..depth.len() {
            let line = &b.row(depth.start + at)[column..][..width];
            if ASK {
                for v in 0..V {
                    prefetch(line.as_ptr().wrapping_add(AHEAD * b.row_stride + v * lanes));
                }
            }
            let mut vectors = [simd.splat_f32s(0.0); V];
            for v in 0..V {
                vectors[v] =
                    if WHOLE { S::as_simd_f32s(line).0[v] } else { simd.partial_load_f32s(line) };
            }
            let column_of_a = if BY_ROWS {
                &[][..]
            } else {
                &a.data[(depth.start + at) * a.column_stride + row..][..R]
            };
            for r in 0..R {
                let a = simd.splat_f32s(if BY_ROWS { rows[r][at] } else { column_of_a[r] });
                for v in 0..V {
                    sums[r][v] = simd.mul_add_e_f32s(a, vectors[v], sums[r][v]);
                }
            }
        }
        let (scale, add) = (simd.splat_f32s(self.scale), self.add);
        let nothing = simd.splat_f32s(0.0);
        for r in 0..R {
            let place = (row + r) * self.stride + column - self.columns.start;
            let out = &mut self.out[place..][..width];
            if WHOLE {
                let out = S::as_mut_simd_f32s(out).0;
                for v in 0..V {
                    let before = if add { out[v] } else { nothing };
                    out[v] = simd.mul_add_e_f32s(scale, sums[r][v], before);
                }
            } else {
                let before = if add { simd.partial_load_f32s(out) } else { nothing };
                let sum = simd.mul_add_e_f32s(scale, sums[r][0], before);
                simd.partial_store_f32s(out, sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    /// The same matrix, lying by columns.
    fn transposed(data: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        (0..data.len()).map(|at| data[at % rows * columns + at / rows]).collect()
    }

    #[test]
    fn rank_k_update_is_correct_at_every_tile_edge() {
        for rows in [1, 3, 4, 8, 13, 20] {
            for inner in [0, 1, 7, 256, 300] {
                for width in [1, 15, 16, 33, 48, 64, 100, 131] {
                    check(rows, inner, width);
                }
            }
        }
    }

    fn check(rows: usize, inner: usize, width: usize) {
        let (a, b) = (values(rows * inner, 1), values(inner * width, 2));
        let by_columns = transposed(&a, rows, inner);
        let right = Matrix::dense(&b, inner, width);
        let left =
            [Matrix::dense(&a, rows, inner), Matrix::dense(&by_columns, inner, rows).transposed()];
        // Wider than the product, which leaves alone what lies between its rows.
        let stride = width + 2;
        let before = values(rows * stride, 3);
        for (left, add) in [(left[0], false), (left[0], true), (left[1], false), (left[1], true)] {
            let mut out = before.clone();
            multiply(&mut out, stride, left, right, 0.5, add);
            for (at, (&found, &before)) in out.iter().zip(&before).enumerate() {
                let (row, column) = (at / stride, at % stride);
                let terms = (0..inner).map(|i| {
                    f64::from(a[row * inner + i]) * f64::from(b[i * width + column % width])
                });
                let sum = if column < width { 0.5 * terms.sum::<f64>() } else { 0.0 };
                let kept = if add || column >= width { f64::from(before) } else { 0.0 };
                let expected = sum + kept;
                let close = (f64::from(found) - expected).abs() < 1e-5 + 1e-7 * inner as f64;
                assert!(close, "{found} for {expected} at {at} of {rows} × {inner} × {width}");
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        let several = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
        // Shared by rows, and by columns.
        for (rows, inner, width) in [(300, 90, 100), (16, 300, 700)] {
            assert!(rows * inner * width >= SHARED, "too little to be shared");
            let (a, b) = (values(rows * inner, 1), values(inner * width, 2));
            let (a, b) = (Matrix::dense(&a, rows, inner), Matrix::dense(&b, inner, width));
            let work = || {
                let mut out = values(rows * width, 3);
                multiply(&mut out, width, a, b, 0.5, true);
                out
            };
            let same = alone.install(work) == several.install(work);
            assert!(same, "{rows} × {inner} × {width}");
        }
    }
}
