//! Products of a few rows with a large matrix, as decoding makes them: `y = x Wᵀ + b`.
//!
//! A general product first copies the matrix into panels, which costs as much as using it once. Here
//! each row of the matrix is read where it lies, once for all rows of `x`: several rows of both are
//! held in registers, so that a value read serves several multiply-adds, and memory is the limit.

use std::ops::Range;

use half::{bf16, f16};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::matrix::{Matrix, SKINNY_ROWS, StoredMatrix};
use crate::scratch::Scratch;
use crate::simd::{arch, prefetch, prefetch_to_second, totals};
use crate::transpose::transpose_into;

/// Bytes of the matrix that make a piece of work.
const PIECE: usize = 1 << 18;

/// Bytes of a matrix from which it will hardly be found in a core's own cache.
const CACHED: usize = 1 << 16;
/// Bytes by which a stream is asked for ahead.
const AHEAD: usize = 1 << 13;
/// The same for int8, and into the second cache twice [`AHEAD`] before: there is less to do with each line than with one of larger
/// numbers, and the first cache can wait for too few lines at a time.
const NEXT: usize = 1 << 10;
/// Up to so many rows of `x` the limit is memory, which gives most to one stream at a time; beyond, it is arithmetic,
/// which several rows of the matrix at once serve better.
const STREAMED_ROWS: usize = 4;
/// Bytes of several rows of `x` that stay near while they meet row after row of the matrix.
const NEAR_BYTES: usize = 1 << 15;

/// Rows of a tile are read side by side.
pub(crate) const NEAR: u8 = 0;
/// Likewise, and those of the next tile are asked for.
const FAR: u8 = 1;
/// What follows is asked for at a fixed distance, for tiles of one row.
const STREAMED: u8 = 2;

/// Columns that are widened at once where that takes a detour through memory: few enough for a cache.
const WIDENED: usize = 1024;

/// An element of a matrix, widened to f32 on its way through the registers.
pub(crate) trait Stored: Copy + Send + Sync {
    /// Values of one element. The last ones of a row may be padding, which meets zeros.
    const VALUES: usize = 1;
    /// Registers of a sum.
    const SUMS: usize = 1;
    /// Whether [`tile`](Self::tile) reads a row of `x` in an order or a form of its own, ...
    const ORDERED: bool = false;

    /// ... and `x` in that one, in as much memory as the row takes in f32.
    fn order(_x: &[f32], _ordered: &mut [f32]) {}

    /// Inner products of `R` rows of the matrix with `N` ordered rows of `x`.
    fn tile<S: Simd, const R: usize, const N: usize, const READ: u8>(
        simd: S,
        matrix: [&[Self]; R],
        x: [&[f32]; N],
    ) -> [[f32; R]; N];
}

impl Stored for f32 {
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const N: usize, const READ: u8>(
        simd: S,
        matrix: [&[Self]; R],
        x: [&[f32]; N],
    ) -> [[f32; R]; N] {
        tile::<S, R, N, READ>(simd, matrix, x)
    }
}

impl Stored for bf16 {
    const ORDERED: bool = true;

    /// Values at even places before those at odd ones: two neighbours of the matrix make a word, whose halves are
    /// widened by a shift and by a mask.
    fn order(x: &[f32], ordered: &mut [f32]) {
        let (pairs, last) = x.as_chunks::<2>();
        let (even, rest) = ordered.split_at_mut(pairs.len());
        let (odd, end) = rest.split_at_mut(pairs.len());
        for (pair, (even, odd)) in pairs.iter().zip(even.iter_mut().zip(odd)) {
            (*even, *odd) = (pair[0], pair[1]);
        }
        end.copy_from_slice(last);
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const N: usize, const READ: u8>(
        simd: S,
        matrix: [&[Self]; R],
        x: [&[f32]; N],
    ) -> [[f32; R]; N] {
        let columns = matrix[0].len();
        let pairs = columns / 2;
        let words: [&[u32]; R] =
            matrix.map(|row| bytemuck::try_cast_slice(&row[..2 * pairs]).unwrap_or_default());
        if words.iter().any(|row| row.len() != pairs) {
            // The matrix begins between two words, or its rows do.
            let mut scratch = Scratch::new(R * columns);
            for (out, row) in scratch.chunks_exact_mut(columns).zip(matrix) {
                let wide = row.iter().map(|half| half.widen());
                let even = wide.clone().step_by(2).take(pairs);
                let odd = wide.clone().skip(1).step_by(2);
                let values = even.chain(odd).chain(wide.skip(2 * pairs));
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
            }
            let rows: [&[f32]; R] =
                std::array::from_fn(|r| &scratch[r * columns..(r + 1) * columns]);
            return tile::<S, R, N, NEAR>(simd, rows, x);
        }
        let even = x.map(|row| &row[..pairs]);
        let odd = x.map(|row| &row[pairs..2 * pairs]);
        let mut found = tile_of_pairs::<S, R, N, READ>(simd, words, even, odd);
        for at in 2 * pairs..columns {
            for (found, x) in found.iter_mut().zip(x) {
                for (found, matrix) in found.iter_mut().zip(matrix) {
                    *found += matrix[at].widen() * x[at];
                }
            }
        }
        found
    }
}

/// Neighbours of an int8 matrix, each with [`OFFSET`] added: words of 32 bits, the first of them lowest.
pub(crate) type FourBytes = [u8; FOUR];
/// Values of a word.
pub(crate) const FOUR: usize = 4;
/// Words of a line of the cache, of which a row of such a matrix has a whole number.
pub(crate) const LINE: usize = 16;
/// What makes bytes of numbers from −127 to 127.
pub(crate) const OFFSET: i32 = 128;

impl Stored for FourBytes {
    const VALUES: usize = FOUR;
    const SUMS: usize = 2;
    const ORDERED: bool = true;

    /// Of every [`LINE`] words first the values that meet their lowest bytes, then those that meet the next ones.
    fn order(x: &[f32], ordered: &mut [f32]) {
        let lines = ordered.as_chunks_mut::<LINE>().0.as_chunks_mut::<FOUR>().0;
        // A line may meet nothing of the row.
        let rows = x.chunks(FOUR * LINE).chain(std::iter::repeat(&[][..]));
        for (line, x) in lines.iter_mut().zip(rows) {
            let mut values = [[0.0; FOUR]; LINE];
            values.as_flattened_mut()[..x.len()].copy_from_slice(x);
            for (byte, place) in line.iter_mut().enumerate() {
                *place = values.map(|four| four[byte]);
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const N: usize, const READ: u8>(
        simd: S,
        matrix: [&[Self]; R],
        x: [&[f32]; N],
    ) -> [[f32; R]; N] {
        tile_of_bytes::<S, R, N, READ>(simd, matrix.map(bytemuck::cast_slice), x)
    }
}

impl Stored for f16 {
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const N: usize, const READ: u8>(
        simd: S,
        matrix: [&[Self]; R],
        x: [&[f32]; N],
    ) -> [[f32; R]; N] {
        let mut scratch = Scratch::new(R * WIDENED);
        let columns = matrix[0].len();
        let mut sums = [[0.0; R]; N];
        for first in (0..columns).step_by(WIDENED) {
            let last = (first + WIDENED).min(columns);
            let width = last - first;
            for (wide, row) in scratch.chunks_exact_mut(WIDENED).zip(matrix) {
                for (wide, half) in wide.iter_mut().zip(&row[first..last]) {
                    *wide = half.widen();
                }
            }
            let rows: [&[f32]; R] = std::array::from_fn(|r| &scratch[r * WIDENED..][..width]);
            let part = tile::<S, R, N, NEAR>(simd, rows, x.map(|row| &row[first..last]));
            for (sums, part) in sums.iter_mut().zip(part) {
                for (sum, part) in sums.iter_mut().zip(part) {
                    *sum += part;
                }
            }
        }
        sums
    }
}

/// A 16-bit float.
pub(crate) trait Half: Stored {
    /// The same value in f32.
    fn widen(self) -> f32;
}

impl Half for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Half for f16 {
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

/// `x`: up to [`SKINNY_ROWS`] rows of `in` values, each in one piece, `weight`: `[out, in / values of an element]`, `bias`: `[out]` →
/// `out`: `[rows, out]`.
pub(crate) fn multiply<T: Stored>(
    out: &mut [f32],
    x: Matrix<'_>,
    weight: StoredMatrix<'_, T>,
    bias: Option<&[f32]>,
) {
    let (count, width) = (x.rows, weight.rows);
    let inner = weight.columns * T::VALUES;
    assert!(count <= SKINNY_ROWS, "{count} rows are not few");
    assert!(T::VALUES > 1 || x.columns == inner, "inner sizes of a product");
    assert!(x.columns <= inner, "inner sizes of a product");
    assert!(bias.is_none_or(|bias| bias.len() == width), "a bias has one value for each output");
    assert!(weight.data.len() == width * weight.columns, "a matrix without gaps");
    assert!(out.len() == count * width, "a product does not fit its place");
    let ordered = T::ORDERED.then(|| {
        let mut ordered = Scratch::new(count * inner);
        for (row, ordered) in ordered.chunks_exact_mut(inner.max(1)).enumerate() {
            T::order(x.row(row), ordered);
        }
        ordered
    });
    let mut rows: [&[f32]; SKINNY_ROWS] = [&[]; SKINNY_ROWS];
    for (at, row) in rows[..count].iter_mut().enumerate() {
        *row = match &ordered {
            Some(ordered) => &ordered[at * inner..(at + 1) * inner],
            None => x.row(at),
        };
    }
    let x = &rows[..count];
    let bytes = weight.columns.max(1) * size_of::<T>();
    let piece = (PIECE / bytes).max(1);
    if rayon::current_num_threads() == 1 || width <= piece {
        products(x, weight, 0..width, bias, |at, row, values| {
            out[at * width + row..][..values.len()].copy_from_slice(values);
        });
        return;
    }
    // A thread's rows of the matrix make columns of the result, so threads write it transposed.
    let in_pieces = |out: &mut [f32]| {
        out.par_chunks_mut((piece * count).max(1)).enumerate().for_each(|(index, out)| {
            let first = index * piece;
            let last = (first + piece).min(width);
            products(x, weight, first..last, bias, |at, row, values| {
                let places = out[(row - first) * count + at..].iter_mut().step_by(count);
                places.zip(values).for_each(|(place, &value)| *place = value);
            });
        });
    };
    if count == 1 {
        in_pieces(out);
        return;
    }
    let mut transposed = Scratch::new(out.len());
    in_pieces(&mut transposed);
    transpose_into(Matrix::dense(&transposed, width, count), out);
}

/// Calls `put(row of x, row of the matrix, products with it and the following rows)` for some rows of the matrix.
fn products<T: Stored>(
    x: &[&[f32]],
    weight: StoredMatrix<'_, T>,
    rows: Range<usize>,
    bias: Option<&[f32]>,
    put: impl FnMut(usize, usize, &[f32]),
) {
    arch().dispatch(Products { x, weight, rows, bias, put });
}

/// The arguments of [`products`].
struct Products<'a, T, P> {
    x: &'a [&'a [f32]],
    weight: StoredMatrix<'a, T>,
    rows: Range<usize>,
    bias: Option<&'a [f32]>,
    put: P,
}

impl<T: Stored, P: FnMut(usize, usize, &[f32])> WithSimd for Products<'_, T, P> {
    type Output = ();

    /// Tiles as large as the registers hold: 32 of them with AVX-512, else 16.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // A matrix from memory is asked for ahead; one in a cache is only held up by that.
        let far = size_of_val(self.weight.data) > CACHED;
        let near = self.x.iter().map(|row| size_of_val(*row)).sum::<usize>() <= NEAR_BYTES;
        let streamed = self.x.len() == 1 || (self.x.len() <= STREAMED_ROWS && near);
        match (S::F32_LANES >= 16, far) {
            (_, true) if streamed => self.tiles::<S, 1, STREAMED_ROWS, STREAMED>(simd),
            (true, true) if T::SUMS > 1 => self.tiles::<S, 2, 4, FAR>(simd),
            (true, false) if T::SUMS > 1 => self.tiles::<S, 2, 4, NEAR>(simd),
            (false, true) if T::SUMS > 1 => self.tiles::<S, 2, 2, FAR>(simd),
            (false, false) if T::SUMS > 1 => self.tiles::<S, 2, 2, NEAR>(simd),
            (true, true) => self.tiles::<S, 4, 4, FAR>(simd),
            (true, false) => self.tiles::<S, 4, 4, NEAR>(simd),
            (false, true) => self.tiles::<S, 4, 2, FAR>(simd),
            (false, false) => self.tiles::<S, 4, 2, NEAR>(simd),
        }
    }
}

impl<T: Stored, P: FnMut(usize, usize, &[f32])> Products<'_, T, P> {
    /// Tiles of `R` rows of the matrix by `N` rows of `x`, and what is left at the edges.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const N: usize, const READ: u8>(mut self, simd: S) {
        let Range { start, end } = self.rows;
        let whole = start + (end - start) / R * R;
        for row in (start..whole).step_by(R) {
            self.tile_row::<S, R, N, READ>(simd, row);
        }
        for row in whole..end {
            self.tile_row::<S, 1, N, READ>(simd, row);
        }
    }

    /// `R` rows of the matrix, the first of them number `row`, by all of `x`.
    #[inline(always)]
    fn tile_row<S: Simd, const R: usize, const N: usize, const READ: u8>(
        &mut self,
        simd: S,
        row: usize,
    ) {
        let StoredMatrix { data, columns, .. } = self.weight;
        let matrix: [&[T]; R] = std::array::from_fn(|at| &data[(row + at) * columns..][..columns]);
        let (groups, rest) = self.x.as_chunks::<N>();
        for (group, x) in groups.iter().enumerate() {
            // Asked for once.
            let found = if READ != NEAR && group == 0 {
                T::tile::<S, R, N, READ>(simd, matrix, *x)
            } else {
                T::tile::<S, R, N, NEAR>(simd, matrix, *x)
            };
            self.keep(group * N, row, found);
        }
        for (at, x) in rest.iter().enumerate() {
            let at = groups.len() * N + at;
            let found = if READ != NEAR && at == 0 {
                T::tile::<S, R, 1, READ>(simd, matrix, [*x])
            } else {
                T::tile::<S, R, 1, NEAR>(simd, matrix, [*x])
            };
            self.keep(at, row, found);
        }
    }

    /// Gives away the products of rows of `x`, the first of them number `at`, with rows of the matrix.
    #[inline(always)]
    fn keep<const R: usize, const N: usize>(
        &mut self,
        at: usize,
        row: usize,
        found: [[f32; R]; N],
    ) {
        for (n, mut found) in found.into_iter().enumerate() {
            if let Some(bias) = self.bias {
                for (found, bias) in found.iter_mut().zip(&bias[row..row + R]) {
                    *found += bias;
                }
            }
            (self.put)(at + n, row, &found);
        }
    }
}

/// Inner products of `R` rows of the matrix with `N` rows of `x`, in interleaved partial sums. In
/// which order the matrix is read changes no sum.
#[inline(always)]
pub(crate) fn tile<S: Simd, const R: usize, const N: usize, const READ: u8>(
    simd: S,
    matrix: [&[f32]; R],
    x: [&[f32]; N],
) -> [[f32; R]; N] {
    let mut sums = [[simd.splat_f32s(0.0); R]; N];
    let matrix = matrix.map(|row| S::as_simd_f32s(row));
    let x = x.map(|row| S::as_simd_f32s(row));
    let length = matrix[0].0.len();
    // Cut to one length, so that no access has to be checked inside of the loop.
    let vectors = matrix.map(|(row, _)| &row[..length]);
    let x_vectors = x.map(|(row, _)| &row[..length]);
    let ahead = if READ == STREAMED { AHEAD } else { R * length * size_of::<S::f32s>() };
    for at in 0..length {
        if READ != NEAR {
            for row in &vectors {
                prefetch(row.as_ptr().wrapping_add(at).wrapping_byte_add(ahead));
            }
        }
        for n in 0..N {
            let x = x_vectors[n][at];
            for r in 0..R {
                sums[n][r] = simd.mul_add_e_f32s(vectors[r][at], x, sums[n][r]);
            }
        }
    }
    let mut found = totals(simd, sums);
    if !matrix[0].1.is_empty() {
        add_rest(&mut found, |r, n, found| {
            for (w, x) in matrix[r].1.iter().zip(x[n].1) {
                *found += w * x;
            }
        });
    }
    found
}

/// Adds what does not fill a vector, which is seldom more than nothing.
#[cold]
#[inline(never)]
fn add_rest<const R: usize, const N: usize>(
    found: &mut [[f32; R]; N],
    rest: impl Fn(usize, usize, &mut f32),
) {
    for (n, found) in found.iter_mut().enumerate() {
        for (r, found) in found.iter_mut().enumerate() {
            rest(r, n, found);
        }
    }
}

/// Words of two bf16 as the lower and the upper ones in f32.
#[inline(always)]
fn widened_pairs<S: Simd>(simd: S, words: S::u32s) -> (S::f32s, S::f32s) {
    let low = simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(16));
    let high = simd.and_u32s(words, simd.splat_u32s(0xffff_0000));
    (simd.transmute_f32s_u32s(low), simd.transmute_f32s_u32s(high))
}

/// The same of a matrix whose neighbours lie in words of 32 bits, the first of them in the lower half.
#[inline(always)]
fn tile_of_pairs<S: Simd, const R: usize, const N: usize, const READ: u8>(
    simd: S,
    matrix: [&[u32]; R],
    even: [&[f32]; N],
    odd: [&[f32]; N],
) -> [[f32; R]; N] {
    let mut sums = [[simd.splat_f32s(0.0); R]; N];
    let words = matrix.map(|row| S::as_simd_u32s(row));
    let length = words[0].0.len();
    let vectors = words.map(|(row, _)| &row[..length]);
    let even_vectors = even.map(|row| &S::as_simd_f32s(row).0[..length]);
    let odd_vectors = odd.map(|row| &S::as_simd_f32s(row).0[..length]);
    let ahead = if READ == STREAMED { AHEAD } else { R * length * size_of::<S::u32s>() };
    for at in 0..length {
        if READ != NEAR {
            for row in &vectors {
                prefetch(row.as_ptr().wrapping_add(at).wrapping_byte_add(ahead));
            }
        }
        for r in 0..R {
            let (low, high) = widened_pairs(simd, vectors[r][at]);
            for n in 0..N {
                let sum = simd.mul_add_e_f32s(low, even_vectors[n][at], sums[n][r]);
                sums[n][r] = simd.mul_add_e_f32s(high, odd_vectors[n][at], sum);
            }
        }
    }
    let rest = length * S::F32_LANES;
    let mut found = totals(simd, sums);
    if matrix[0].len() > rest {
        add_rest(&mut found, |r, n, found| {
            let x = even[n][rest..].iter().zip(&odd[n][rest..]);
            for (word, (even, odd)) in matrix[r][rest..].iter().zip(x) {
                *found += f32::from_bits(word << 16) * even;
                *found += f32::from_bits(word & 0xffff_0000) * odd;
            }
        });
    }
    found
}

/// One byte of every word as f32, the lowest is the first.
#[inline(always)]
fn widened_byte<S: Simd>(simd: S, words: S::u32s, byte: usize) -> S::f32s {
    /// 2²³ in f32, whose last eight bits a byte takes the place of.
    const BASE: u32 = 0x4b00_0000;
    let shifted = simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(8 * byte as u32));
    let bits = simd.or_u32s(simd.and_u32s(shifted, simd.splat_u32s(0xff)), simd.splat_u32s(BASE));
    let offset = simd.splat_f32s(f32::from_bits(BASE) + OFFSET as f32);
    simd.sub_f32s(simd.transmute_f32s_u32s(bits), offset)
}

/// Asks for what follows a line of an int8 matrix that is read as `READ` says, in tiles of so many bytes.
#[inline(always)]
pub(crate) fn prefetch_bytes<const READ: u8>(line: *const [u32; LINE], tile: usize) {
    match READ {
        NEAR => {}
        STREAMED => {
            prefetch(line.wrapping_byte_add(NEXT));
            prefetch_to_second(line.wrapping_byte_add(2 * AHEAD));
        }
        _ => prefetch(line.wrapping_byte_add(tile)),
    }
}

/// Inner products with an int8 matrix, line by line of the cache.
#[inline(always)]
fn tile_of_bytes<S: Simd, const R: usize, const N: usize, const READ: u8>(
    simd: S,
    matrix: [&[u32]; R],
    x: [&[f32]; N],
) -> [[f32; R]; N] {
    // Bytes at even and at odd places, lest one sum waits for the other.
    let mut sums = [[[simd.splat_f32s(0.0); R]; N]; 2];
    let lines = matrix.map(|row| row.as_chunks::<LINE>().0);
    let length = lines[0].len();
    let lines = lines.map(|row| &row[..length]);
    let values = x.map(|row| &row.as_chunks::<LINE>().0.as_chunks::<FOUR>().0[..length]);
    let tile = R * length * size_of::<[u32; LINE]>();
    for pair in 0..length / 2 {
        for at in [2 * pair, 2 * pair + 1] {
            for line in &lines {
                prefetch_bytes::<READ>(line.as_ptr().wrapping_add(at), tile);
            }
            for part in 0..LINE / S::F32_LANES {
                for byte in 0..FOUR {
                    let weights: [S::f32s; R] = std::array::from_fn(|r| {
                        widened_byte(simd, S::as_simd_u32s(&lines[r][at]).0[part], byte)
                    });
                    let x: [S::f32s; N] =
                        std::array::from_fn(|n| S::as_simd_f32s(&values[n][at][byte]).0[part]);
                    for n in 0..N {
                        for r in 0..R {
                            let sum = &mut sums[byte % 2][n][r];
                            *sum = simd.mul_add_e_f32s(weights[r], x[n], *sum);
                        }
                    }
                }
            }
        }
    }
    let [mut sums, odd] = sums;
    for n in 0..N {
        for r in 0..R {
            sums[n][r] = simd.add_f32s(sums[n][r], odd[n][r]);
        }
    }
    totals(simd, sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_and_bf16_value_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            let same = |wide: f32, value: f32| {
                wide.to_bits() == value.to_bits() || (wide.is_nan() && value.is_nan())
            };
            assert!(same(half.widen(), half.to_f32()), "{bits:#x}");
            assert!(same(brain.widen(), brain.to_f32()), "{bits:#x}");
        }
    }

    #[test]
    fn skinny_gemm_is_correct_at_every_tile_edge() {
        // The large ones are read as from memory.
        let small = [(1, 1, 1), (3, 5, 17), (4, 8, 64), (7, 9, 70), (16, 6, 33)];
        let large = [(1, 71, 1030), (3, 71, 1030), (4, 70, 1031), (6, 71, 1030), (7, 70, 1031)];
        for (count, rows, columns) in small.into_iter().chain(large) {
            let value = |at: usize| ((at * 37 + 11) % 101) as f32 / 50.0 - 1.0;
            let x: Vec<f32> = (0..count * columns).map(value).collect();
            let weight: Vec<f32> = (0..rows * columns).map(|at| value(at + 5)).collect();
            let bias: Vec<f32> = (0..rows).map(|at| value(at + 3)).collect();
            let brain: Vec<bf16> = weight.iter().map(|&w| bf16::from_f32(w)).collect();
            let half: Vec<f16> = weight.iter().map(|&w| f16::from_f32(w)).collect();
            let lines = Matrix::dense(&x, count, columns);
            let size = [count, rows, columns];
            check(lines, &weight, f64::from, &bias, size);
            check(lines, &brain, f64::from, &bias, size);
            check(lines, &half, f64::from, &bias, size);
            // From the second element on: between two words.
            if rows > 1 {
                let size = [count, rows - 1, columns];
                let shifted = &brain[1..][..(rows - 1) * columns];
                check(lines, shifted, f64::from, &bias[1..], size);
            }
        }
    }

    #[test]
    fn joint_sums_of_sixteen_vectors_equal_separate_sums() {
        struct Case;

        impl WithSimd for Case {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                let mut numbers = vec![0.0_f32; 16 * S::F32_LANES];
                for (at, number) in numbers.iter_mut().enumerate() {
                    *number = ((at * 37 + 11) % 101) as f32 / 3.0 - 16.0;
                }
                let vectors = S::as_simd_f32s(&numbers).0;
                let found =
                    totals(simd, [0, 4, 8, 12].map(|at| [0, 1, 2, 3].map(|r| vectors[at + r])));
                for (at, found) in found.as_flattened().iter().enumerate() {
                    let expected = simd.reduce_sum_f32s(vectors[at]);
                    assert_eq!(found.to_bits(), expected.to_bits(), "vector {at}");
                }
            }
        }

        arch().dispatch(Case);
    }

    fn check<T: Stored>(
        x: Matrix<'_>,
        weight: &[T],
        value: impl Fn(T) -> f64,
        bias: &[f32],
        [count, rows, columns]: [usize; 3],
    ) {
        let matrix = StoredMatrix { data: weight, rows, columns };
        let mut found = vec![f32::NAN; count * rows];
        multiply(&mut found, x, matrix, Some(bias));
        for n in 0..count {
            for r in 0..rows {
                let row = &weight[r * columns..(r + 1) * columns];
                let terms = row.iter().zip(x.row(n)).map(|(&w, &x)| value(w) * f64::from(x));
                let expected = f64::from(bias[r]) + terms.sum::<f64>();
                let found = f64::from(found[n * rows + r]);
                let close = 1e-5 + 1e-7 * columns as f64;
                assert!((found - expected).abs() < close, "{found} for {expected} at {n}, {r}");
            }
        }
    }
}
