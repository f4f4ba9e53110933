//! Products of many rows in bf16 with sums in f32, by the processor's own dot products of pairs (AVX512-BF16): twice
//! the multiply-adds of an f32 product in the same time, and half the bytes.
//!
//! The right side is packed into panels of 64 columns, each pair of neighbours along the inner dimension one word of 32
//! bits; the left side is rounded into the same words where it lies. A tile of 6 × 64 sums stays in registers.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__m512bh, _mm512_dpbf16_ps, _mm512_setzero_ps};
use std::array::from_fn;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;
use pulp::cast;
use pulp::x86::V4;

use crate::matrix::Matrix;
use crate::matrix::StoredMatrix;
use crate::rounding::rounded_bits;
use crate::rows::{each_index, fill_rows};
use crate::scratch::Scratch;
use crate::simd::vectorised;
use crate::transpose::interleave;

/// Words of a register.
const LANES: usize = 16;
/// Registers in a row of a tile: with [`ROWS`] of them 24 sums, which leaves 8 registers for what is multiplied.
const VECTORS: usize = 4;
/// Columns of a panel.
const COLUMNS: usize = VECTORS * LANES;
/// Rows of a tile.
const ROWS: usize = 6;
/// Pairs along the inner dimension that are packed at once.
const PAIRS: usize = 1024;
/// Panels packed at once: with [`PAIRS`], 1 MiB at most, a core's second cache.
const PANELS: usize = 4;
/// Rows of the left side that meet all packed panels before the next ones do.
const BLOCK: usize = 48;
/// Words of the left side that exist at a time, 8 MiB.
const ROUNDED: usize = 1 << 21;

/// Sixteen pairs of bf16, the first of each in the lower half.
type Vector = [u32; LANES];
/// One pair of every column of a panel.
type Line = [Vector; VECTORS];

/// How the matrix of the right side is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `a b`.
    AsIs,
    /// `a bᵀ`.
    Transposed,
}

/// Proof that the processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DotProducts(V4);

impl DotProducts {
    /// `None` on a processor without them.
    pub(crate) fn find() -> Option<Self> {
        V4::try_new().filter(|_| is_x86_feature_detected!("avx512bf16")).map(Self)
    }
}

/// `a b` or `a bᵀ` and perhaps a bias for each column, with `a` rounded to bf16. Each sum runs through the inner dimension
/// in the same order, whatever the number of rows or threads.
#[expect(unsafe_code, reason = "memory that nothing is in yet")]
pub(crate) fn product(
    instructions: DotProducts,
    a: Matrix<'_>,
    b: StoredMatrix<'_, bf16>,
    side: Side,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let right = Right::new(b, side, bias);
    let length = a.rows * right.columns;
    let mut out = Vec::with_capacity(length);
    write(instructions, &mut out.spare_capacity_mut()[..length], a, right);
    // SAFETY: all of it was written.
    unsafe { out.set_len(length) };
    out
}

/// The same, into `out`.
#[expect(unsafe_code, reason = "numbers are written over as if there were none")]
pub(crate) fn fill(
    instructions: DotProducts,
    out: &mut [f32],
    a: Matrix<'_>,
    b: StoredMatrix<'_, bf16>,
    side: Side,
    bias: Option<&[f32]>,
) {
    let (start, length) = (out.as_mut_ptr().cast(), out.len());
    // SAFETY: the same memory, into which nothing but numbers is written.
    let out = unsafe { std::slice::from_raw_parts_mut(start, length) };
    write(instructions, out, a, Right::new(b, side, bias));
}

/// Writes every number of a product.
#[expect(unsafe_code, reason = "instructions that the processor has")]
fn write(
    DotProducts(simd): DotProducts,
    out: &mut [MaybeUninit<f32>],
    a: Matrix<'_>,
    right: Right<'_>,
) {
    let Right { inner, columns, bias, .. } = right;
    assert_eq!(a.columns, inner, "inner sizes of a product");
    assert!(out.len() == a.rows * columns, "a product does not fit its place");
    if out.is_empty() {
        return;
    }
    if inner == 0 {
        for row in out.chunks_exact_mut(columns) {
            for (at, out) in row.iter_mut().enumerate() {
                out.write(bias.map_or(0.0, |bias| bias[at]));
            }
        }
        return;
    }
    let panels = columns.div_ceil(COLUMNS);
    let threads = rayon::current_num_threads();
    let tasks = panels.div_ceil(PANELS).next_multiple_of(threads).min(panels);
    let rows = (ROUNDED / Left::stride(inner)).max(1);
    for (index, out) in out.chunks_mut(rows * columns).enumerate() {
        let left = Left::rounded(a, index * rows..index * rows + out.len() / columns);
        let out = DisjointSlices { start: out.as_mut_ptr(), length: out.len() };
        each_index(0..tasks, |task| {
            let range = task * panels / tasks..(task + 1) * panels / tasks;
            // SAFETY: the processor has the instructions, and no two tasks have a panel in common.
            unsafe { multiply_panels(simd, &left, right, range, out) };
        });
    }
}

/// The right side.
#[derive(Clone, Copy)]
struct Right<'a> {
    matrix: StoredMatrix<'a, bf16>,
    side: Side,
    inner: usize,
    columns: usize,
    bias: Option<&'a [f32]>,
}

/// Rows of the left side as words of two neighbours each.
struct Left {
    /// Bits of it are words.
    words: Scratch,
    rows: usize,
    stride: usize,
}

impl Left {
    /// Words from one row to the next: more than there are, lest rows of a power of two share their places in a cache.
    fn stride(inner: usize) -> usize {
        inner.div_ceil(2) + LANES
    }

    fn rounded(a: Matrix<'_>, rows: Range<usize>) -> Self {
        let stride = Self::stride(a.columns);
        let mut scratch = Scratch::new(rows.len() * stride);
        let words: &mut [u32] = bytemuck::cast_slice_mut(&mut scratch);
        fill_rows(words, stride, |first, words| {
            for (at, words) in words.chunks_exact_mut(stride).enumerate() {
                round_row(a, rows.start + first + at, words);
            }
        });
        Self { words: scratch, rows: rows.len(), stride }
    }

    fn words(&self) -> &[u32] {
        bytemuck::cast_slice(&self.words)
    }
}

/// A row of a matrix, rounded to words.
fn round_row(a: Matrix<'_>, row: usize, words: &mut [u32]) {
    if a.column_stride == 1 {
        vectorised(
            #[inline(always)]
            || {
                let (pairs, last) = a.row(row).as_chunks::<2>();
                for (word, pair) in words.iter_mut().zip(pairs) {
                    *word = rounded_bits(pair[0]) | rounded_bits(pair[1]) << 16;
                }
                if let [last] = last {
                    words[pairs.len()] = rounded_bits(*last);
                }
            },
        );
        return;
    }
    words.fill(0);
    let start = &a.data[row * a.row_stride..];
    for column in 0..a.columns {
        words[column / 2] |= rounded_bits(start[column * a.column_stride]) << (16 * (column % 2));
    }
}

/// Where the result goes: panels of it, from several threads.
#[derive(Clone, Copy)]
struct DisjointSlices {
    start: *mut MaybeUninit<f32>,
    length: usize,
}

// SAFETY: it is used for disjoint ranges only.
#[expect(unsafe_code, reason = "threads write columns of the same rows")]
unsafe impl Send for DisjointSlices {}
// SAFETY: the same.
#[expect(unsafe_code, reason = "threads write columns of the same rows")]
unsafe impl Sync for DisjointSlices {}

impl DisjointSlices {
    /// # Safety
    /// Nothing else uses the range meanwhile.
    #[expect(unsafe_code, clippy::mut_from_ref, reason = "threads write columns of the same rows")]
    #[inline(always)]
    unsafe fn range(&self, range: Range<usize>) -> &mut [MaybeUninit<f32>] {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "a tile outside of its product"
        );
        // SAFETY: it lies inside, and nothing else uses it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// Products with some panels of the right side.
///
/// # Safety
/// Nothing else uses the columns of these panels.
#[expect(unsafe_code, reason = "threads write columns of the same rows")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn multiply_panels(
    simd: V4,
    left: &Left,
    right: Right<'_>,
    panels: Range<usize>,
    out: DisjointSlices,
) {
    let pairs = right.inner.div_ceil(2);
    let mut packed = Scratch::new(PAIRS.min(pairs) * panels.len() * COLUMNS);
    let packed: &mut [Line] = bytemuck::cast_slice_mut(&mut packed);
    let left_words = left.words();
    for first in (0..pairs).step_by(PAIRS) {
        let length = PAIRS.min(pairs - first);
        for (panel, lines) in panels.clone().zip(packed.chunks_exact_mut(length)) {
            right.pack(simd, lines, panel * COLUMNS, first);
        }
        for block in (0..left.rows).step_by(BLOCK) {
            let end = (block + BLOCK).min(left.rows);
            for (panel, lines) in panels.clone().zip(packed.chunks_exact(length)) {
                let column = panel * COLUMNS;
                let width = COLUMNS.min(right.columns - column);
                for row in (block..end).step_by(ROWS) {
                    let rows = ROWS.min(end - row);
                    let words = &left_words[row * left.stride + first..];
                    let put = |at: usize, sums: &[f32; COLUMNS]| {
                        let start = (row + at) * right.columns + column;
                        // SAFETY: columns of a panel of this task.
                        let place = unsafe { out.range(start..start + width) };
                        if first > 0 {
                            for (out, sum) in place.iter_mut().zip(sums) {
                                // SAFETY: written with the first pairs.
                                *unsafe { out.assume_init_mut() } += sum;
                            }
                        } else if let Some(bias) = right.bias {
                            let bias = &bias[column..][..width];
                            for ((out, sum), bias) in place.iter_mut().zip(sums).zip(bias) {
                                out.write(sum + bias);
                            }
                        } else {
                            for (out, sum) in place.iter_mut().zip(sums) {
                                out.write(*sum);
                            }
                        }
                    };
                    match rows {
                        6 => tile::<6>(words, left.stride, lines, put),
                        5 => tile::<5>(words, left.stride, lines, put),
                        4 => tile::<4>(words, left.stride, lines, put),
                        3 => tile::<3>(words, left.stride, lines, put),
                        2 => tile::<2>(words, left.stride, lines, put),
                        _ => tile::<1>(words, left.stride, lines, put),
                    }
                }
            }
        }
    }
}

/// Products of `R` rows with a panel, row by row.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
fn tile<const R: usize>(
    words: &[u32],
    stride: usize,
    lines: &[Line],
    put: impl Fn(usize, &[f32; COLUMNS]),
) {
    let rows: [&[u32]; R] = from_fn(|r| &words[r * stride..][..lines.len()]);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for (at, line) in lines.iter().enumerate() {
        let line = line.map(pairs);
        for r in 0..R {
            let x = pairs([rows[r][at]; LANES]);
            for v in 0..VECTORS {
                sums[r][v] = _mm512_dpbf16_ps(sums[r][v], x, line[v]);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let sums: [[f32; LANES]; VECTORS] = sums.map(cast);
        put(r, sums.as_flattened().try_into().expect("as many as a panel has columns"));
    }
}

/// A register of pairs.
#[expect(unsafe_code, reason = "pulp casts no register of bf16")]
#[inline(always)]
fn pairs(vector: Vector) -> __m512bh {
    // SAFETY: both are 512 bits, of which every pattern is valid.
    unsafe { std::mem::transmute::<Vector, __m512bh>(vector) }
}

impl<'a> Right<'a> {
    fn new(matrix: StoredMatrix<'a, bf16>, side: Side, bias: Option<&'a [f32]>) -> Self {
        let (inner, columns) = match side {
            Side::AsIs => (matrix.rows, matrix.columns),
            Side::Transposed => (matrix.columns, matrix.rows),
        };
        assert!(matrix.data.len() == matrix.rows * matrix.columns, "a matrix without gaps");
        assert!(
            bias.is_none_or(|bias| bias.len() == columns),
            "a bias has one value for each column"
        );
        Self { matrix, side, inner, columns, bias }
    }

    /// Lines of the panel that begins with `column`, from pair `first` on; what lies outside of the matrix is zero.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pack(self, simd: V4, lines: &mut [Line], column: usize, first: usize) {
        match self.side {
            Side::AsIs => self.pack_rows(lines, column, first),
            Side::Transposed => self.pack_columns(simd, lines, column, first),
        }
    }

    /// Two neighbours are of two rows of the matrix.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pack_rows(self, lines: &mut [Line], column: usize, first: usize) {
        let width = COLUMNS.min(self.columns - column);
        let row = |row: usize| &self.matrix.data[row * self.columns + column..][..width];
        for (at, line) in lines.iter_mut().enumerate() {
            let line = line.as_flattened_mut();
            let even = 2 * (first + at);
            line.fill(0);
            for (word, low) in line.iter_mut().zip(row(even)) {
                *word = u32::from(low.to_bits());
            }
            if even + 1 < self.inner {
                for (word, high) in line.iter_mut().zip(row(even + 1)) {
                    *word |= u32::from(high.to_bits()) << 16;
                }
            }
        }
    }

    /// Two neighbours are of one row of the matrix: words of sixteen rows are transposed.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pack_columns(self, simd: V4, lines: &mut [Line], column: usize, first: usize) {
        for vector in 0..VECTORS {
            let start = column + vector * LANES;
            for (chunk, lines) in lines.chunks_mut(LANES).enumerate() {
                let from = 2 * (first + chunk * LANES);
                let mut block: [Vector; LANES] = from_fn(|lane| self.words(start + lane, from));
                interleave(simd, &mut block);
                for (line, transposed) in lines.iter_mut().zip(block) {
                    line[vector] = transposed;
                }
            }
        }
    }

    /// Words of a row of the matrix from a place on.
    #[inline(always)]
    fn words(self, row: usize, from: usize) -> Vector {
        if row >= self.columns {
            return [0; LANES];
        }
        let rest = &self.matrix.data[row * self.inner..][..self.inner][from..];
        if let Some(whole) = rest.first_chunk::<{ 2 * LANES }>() {
            return from_fn(|at| word(whole[2 * at], whole[2 * at + 1]));
        }
        let value = |at: usize| rest.get(at).copied().unwrap_or(bf16::ZERO);
        from_fn(|at| word(value(2 * at), value(2 * at + 1)))
    }
}

/// Two neighbours.
#[inline(always)]
fn word(low: bf16, high: bf16) -> u32 {
    u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16
}
