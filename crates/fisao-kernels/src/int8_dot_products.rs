//! Products with an int8 matrix by the processor's dot products of bytes (AVX512-VNNI): four multiply-adds in each word of a register,
//! without widening a byte.
//!
//! A row of `x` is rounded to 16 bits, one scale for all of it, and each number is split into two signed bytes, `256 high + low`: two dot
//! products with every word of the matrix. These are exact; nothing is rounded but `x`, 256 times finer than the matrix
//! is, and sums of sixteen lanes in f32.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setzero_si512, _mm512_sub_epi32,
};
use std::array::from_fn;

use pulp::{Simd, cast};

use crate::rounding::{Symmetric, WHOLE};
use crate::skinny_gemm::{FOUR, LINE, OFFSET, Stored, prefetch_bytes};

/// The same words as [`crate::skinny_gemm::FourBytes`], multiplied in another way.
pub(crate) type FourBytes = [i8; FOUR];

type Line = [u32; LINE];
type Bytes = [i8; FOUR * LINE];

/// Largest whole number that a row of `x` is rounded to: both of its bytes are from −128 to 127.
const MOST: f32 = 32_639.0;
/// Lines behind the bytes of a row of `x`: where sums of high and of low bytes begin, which takes the matrix' offset away again, and the
/// scale.
const ENDS: usize = 3;
/// Words of a row of the matrix up to which no sum leaves 32 bits.
const LONGEST: usize = 1 << 16;

/// Whether the processor has the instructions, and a row of so many words has a whole number of lines and fits.
pub(crate) fn suit(words: usize) -> bool {
    is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512bw")
        && words.is_multiple_of(2 * LINE)
        && words <= LONGEST
}

impl Stored for FourBytes {
    const VALUES: usize = FOUR;
    const ORDERED: bool = true;
    const SUMS: usize = 2;

    /// A line of high bytes and the one of low bytes in turn, and what is at the [`ENDS`].
    #[expect(unsafe_code, reason = "instructions that the processor has")]
    fn order(x: &[f32], ordered: &mut [f32]) {
        let (bytes, rest) = ordered.split_at_mut(ordered.len() / 2);
        let lines = bytemuck::cast_slice_mut(bytes);
        let (ends, _) = bytemuck::cast_slice_mut(rest).split_first_chunk_mut().expect("more words");
        // SAFETY: matrices are read as such only where the processor has the instructions.
        unsafe { split(x, lines, ends) };
    }

    #[inline(always)]
    #[expect(unsafe_code, reason = "instructions that the processor has")]
    fn tile<S: Simd, const R: usize, const N: usize, const READ: u8>(
        _: S,
        matrix: [&[Self]; R],
        x: [&[f32]; N],
    ) -> [[f32; R]; N] {
        let matrix = matrix.map(bytemuck::cast_slice);
        let x = x.map(bytemuck::cast_slice);
        // SAFETY: matrices are read as such only where the processor has the instructions.
        unsafe { tile::<R, N, READ>(matrix, x) }
    }
}

/// Rounds a row of `x` to both bytes of its numbers, and fills what is behind them.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn split(x: &[f32], lines: &mut [[Bytes; 2]], ends: &mut [[i32; LINE]; ENDS]) {
    let Symmetric { scale, factor } = Symmetric::of(x.iter().copied(), MOST);
    let mut begin = [_mm512_setzero_si512(); 2];
    let offset = cast([OFFSET as u8; FOUR * LINE]);
    let (whole, last) = x.as_chunks::<{ FOUR * LINE }>();
    let mut padded = [0.0; FOUR * LINE];
    padded[..last.len()].copy_from_slice(last);
    let rows = whole.iter().chain((!last.is_empty()).then_some(&padded));
    let mut lines = lines.iter_mut();
    for (values, line) in rows.zip(&mut lines) {
        let [high, low] = line;
        for (value, (high, low)) in values.iter().zip(high.iter_mut().zip(low)) {
            let whole = value.mul_add(factor, WHOLE).to_bits() as i16;
            *high = (whole.wrapping_add(128) >> 8) as i8;
            *low = whole as i8;
        }
        for (begin, bytes) in begin.iter_mut().zip(line) {
            *begin = _mm512_dpbusd_epi32(*begin, offset, cast(*bytes));
        }
    }
    lines.for_each(|line| *line = [[0; FOUR * LINE]; 2]);
    let [high, low] = begin.map(|begin| cast(_mm512_sub_epi32(_mm512_setzero_si512(), begin)));
    *ends = [high, low, [scale.to_bits() as i32; LINE]];
}

/// Inner products of rows of the matrix with rows of `x`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile<const R: usize, const N: usize, const READ: u8>(
    matrix: [&[Line]; R],
    x: [&[[Line; 2]]; N],
) -> [[f32; R]; N] {
    let length = matrix[0].len();
    let matrix = matrix.map(|row| &row[..length]);
    let values = x.map(|row| &row[..length]);
    let ends = x.map(|row| &row[length..].as_flattened()[..ENDS]);
    // Lines that follow each other are summed apart, lest one sum waits for the other.
    let mut sums = [[[[_mm512_setzero_si512(); R]; N]; 2]; 2];
    for n in 0..N {
        sums[0][0][n] = [cast(ends[n][0]); R];
        sums[0][1][n] = [cast(ends[n][1]); R];
    }
    let tile = R * length * size_of::<Line>();
    for pair in 0..length / 2 {
        for half in 0..2 {
            let at = 2 * pair + half;
            for row in &matrix {
                prefetch_bytes::<READ>(row.as_ptr().wrapping_add(at), tile);
            }
            let words: [__m512i; R] = from_fn(|r| cast(matrix[r][at]));
            let apart = if R * N <= FOUR { half } else { 0 };
            for n in 0..N {
                let [high, low]: [__m512i; 2] = values[n][at].map(cast);
                let [of_high, of_low] = &mut sums[apart];
                for r in 0..R {
                    of_high[n][r] = _mm512_dpbusd_epi32(of_high[n][r], words[r], high);
                    of_low[n][r] = _mm512_dpbusd_epi32(of_low[n][r], words[r], low);
                }
            }
        }
    }
    from_fn(|n| {
        let scale = f32::from_bits(ends[n][2][0]);
        from_fn(|r| {
            // As integers, so that it does not matter whether there were two sums or one.
            let lanes = |byte: usize| {
                _mm512_cvtepi32_ps(_mm512_add_epi32(sums[0][byte][n][r], sums[1][byte][n][r]))
            };
            let lanes = _mm512_fmadd_ps(lanes(0), _mm512_set1_ps(256.0), lanes(1));
            scale * _mm512_reduce_add_ps(lanes)
        })
    })
}
