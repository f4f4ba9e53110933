//! The transpose of a matrix, made in blocks that fit into registers.
//!
//! A general product that gets its right side by rows copies it into panels number by number, which takes
//! up to a third of its time. Transposed here first, it is copied in whole vectors.

use rayon::prelude::*;

use crate::matrix::Matrix;
use crate::simd::{arch, prefetch};

/// Side of a block.
const SIDE: usize = 16;

/// Rows from the one that is read to the one that is asked for.
const AHEAD: usize = 2 * SIDE;

/// Numbers from which a matrix is worth sharing among threads.
const PARALLEL: usize = 1 << 18;

type Block = [[f32; SIDE]; SIDE];

/// `[rows, columns]` with rows in one piece each → `[columns, rows]`, row-major without gaps, into `out`.
pub(crate) fn transpose_into(matrix: Matrix<'_>, out: &mut [f32]) {
    let Matrix { rows, columns, .. } = matrix;
    assert!(matrix.column_stride == 1, "a matrix whose rows lie in pieces");
    assert!(out.len() == rows * columns, "a transpose does not fit its place");
    if out.is_empty() {
        return;
    }
    let work = |(band, out): (usize, &mut [f32])| transpose_band(matrix, band * SIDE, out);
    if out.len() >= PARALLEL && rayon::current_num_threads() > 1 {
        out.par_chunks_mut(SIDE * rows).enumerate().for_each(work);
    } else {
        out.chunks_mut(SIDE * rows).enumerate().for_each(work);
    }
}

/// Some columns of the matrix, from `first` on, as rows of `out`.
fn transpose_band(matrix: Matrix<'_>, first: usize, out: &mut [f32]) {
    match arch() {
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V4(simd) => simd.vectorize(Band { simd, matrix, first, out }),
        other => other.dispatch(
            #[inline(always)]
            || transpose_blocks(matrix, first, out, exchange),
        ),
    }
}

/// The same, block by block.
#[inline(always)]
fn transpose_blocks(
    matrix: Matrix<'_>,
    first: usize,
    out: &mut [f32],
    transpose_block: impl Fn(&mut Block),
) {
    let Matrix { rows, .. } = matrix;
    let height = out.len() / rows;
    for row in (0..rows).step_by(SIDE) {
        let length = SIDE.min(rows - row);
        // Rows of one head of many lie further apart than the processor looks ahead.
        for at in 0..length {
            prefetch(matrix.at(row + AHEAD + at).wrapping_add(first));
        }
        let whole = [height, length] == [SIDE; 2];
        let mut block = [[0.0; SIDE]; SIDE];
        for (at, line) in block.iter_mut().enumerate().take(length) {
            let row = &matrix.row(row + at)[first..];
            if whole {
                line.copy_from_slice(&row[..SIDE]);
            } else {
                line[..height].copy_from_slice(&row[..height]);
            }
        }
        // In one place, where it is inlined.
        transpose_block(&mut block);
        for (at, line) in block.iter().enumerate().take(height) {
            let out = &mut out[at * rows + row..];
            if whole {
                out[..SIDE].copy_from_slice(line);
            } else {
                out[..length].copy_from_slice(&line[..length]);
            }
        }
    }
}

/// Transposes a block number by number.
#[inline(always)]
fn exchange(block: &mut Block) {
    let kept = *block;
    for (row, line) in block.iter_mut().enumerate() {
        for (value, kept) in line.iter_mut().zip(&kept) {
            *value = kept[row];
        }
    }
}

/// [`transpose_blocks`] with AVX-512.
#[cfg(target_arch = "x86_64")]
struct Band<'a> {
    simd: pulp::x86::V4,
    matrix: Matrix<'a>,
    first: usize,
    out: &'a mut [f32],
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        transpose_blocks(
            self.matrix,
            self.first,
            self.out,
            #[inline(always)]
            |block: &mut Block| interleave(self.simd, block),
        );
    }
}

/// Transposes a block of numbers or words of 32 bits in registers: pairs of rows, then pairs of these, are interleaved, so that each quarter of a
/// register holds four rows of one column; then quarters are exchanged.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn interleave<T: bytemuck::Pod>(simd: pulp::x86::V4, block: &mut [[T; SIDE]; SIDE]) {
    use pulp::cast;
    use std::arch::x86_64::__m512;

    let avx = simd.avx512f;
    let rows: [__m512; SIDE] = block.map(cast);
    let mut pairs = rows;
    for at in (0..SIDE).step_by(2) {
        pairs[at] = avx._mm512_unpacklo_ps(rows[at], rows[at + 1]);
        pairs[at + 1] = avx._mm512_unpackhi_ps(rows[at], rows[at + 1]);
    }
    let mut fours = rows;
    for at in (0..SIDE).step_by(4) {
        for half in 0..2 {
            let a = avx._mm512_castps_pd(pairs[at + half]);
            let b = avx._mm512_castps_pd(pairs[at + half + 2]);
            fours[at + 2 * half] = avx._mm512_castpd_ps(avx._mm512_unpacklo_pd(a, b));
            fours[at + 2 * half + 1] = avx._mm512_castpd_ps(avx._mm512_unpackhi_pd(a, b));
        }
    }
    for column in 0..4 {
        let (a, b) = (fours[column], fours[4 + column]);
        let (c, d) = (fours[8 + column], fours[12 + column]);
        let even = avx._mm512_shuffle_f32x4::<0x88>(a, b);
        let even_below = avx._mm512_shuffle_f32x4::<0x88>(c, d);
        let odd = avx._mm512_shuffle_f32x4::<0xdd>(a, b);
        let odd_below = avx._mm512_shuffle_f32x4::<0xdd>(c, d);
        block[column] = cast(avx._mm512_shuffle_f32x4::<0x88>(even, even_below));
        block[4 + column] = cast(avx._mm512_shuffle_f32x4::<0x88>(odd, odd_below));
        block[8 + column] = cast(avx._mm512_shuffle_f32x4::<0xdd>(even, even_below));
        block[12 + column] = cast(avx._mm512_shuffle_f32x4::<0xdd>(odd, odd_below));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transpose_is_exact_for_all_shapes() {
        for (rows, columns) in [(1, 1), (16, 16), (17, 33), (48, 32), (5, 40), (70, 19), (520, 512)]
        {
            let values: Vec<f32> = (0..rows * columns).map(|at| at as f32).collect();
            let mut transposed = vec![0.0; values.len()];
            transpose_into(Matrix::dense(&values, rows, columns), &mut transposed);
            for row in 0..rows {
                for column in 0..columns {
                    let (found, put) =
                        (transposed[column * rows + row], values[row * columns + column]);
                    assert_eq!(found.to_bits(), put.to_bits(), "{rows} × {columns}");
                }
            }
        }
    }
}
