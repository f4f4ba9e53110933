//! Products of many rows in bf16 with sums in f32, by the processor's own [tiles] (Intel AMX) or dot products of pairs
//! (AVX512-BF16). The latter are twice the multiply-adds of an f32 product in the same time on AMD's processors, and no
//! more than those on Intel's, where tiles are some five times as many.
//!
//! The right side is packed into panels of 32 columns, each pair of neighbours along the inner dimension one word of 32
//! bits; the left side is rounded into the same words, row by row. Blocks of 32 × 32 sums stay in tiles, or of 12 × 32 in
//! vector registers: twelve rows fit the first cache, and a panel is read from the second once for all of them.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__m512bh, _mm512_dpbf16_ps, _mm512_setzero_ps};
use std::array::from_fn;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;
use pulp::cast;
use pulp::x86::V4;

use crate::disjoint_slices::DisjointSlices;
use crate::matrix::Matrix;
use crate::matrix::StoredMatrix;
use crate::rounding::rounded_bits;
use crate::rows::{each_index, fill_rows};
use crate::scratch::Scratch;
use crate::simd::vectorised;
use crate::tiles::{self, Layout, Tiles};
use crate::transpose::interleave;

/// Words of a register.
const LANES: usize = 16;
/// Registers in a row of a tile: with [`ROWS`] of them 24 sums, which leaves 8 registers for what is multiplied. Fewer rows of more
/// registers would read as much from the first cache and twice as much from the second.
const VECTORS: usize = 2;
/// Columns of a panel.
const COLUMNS: usize = VECTORS * LANES;
/// Rows whose sums stay in vector registers.
const ROWS: usize = 12;
/// Pairs along the inner dimension that are packed at once.
const PAIRS: usize = 1024;
/// Panels packed at once: with [`PAIRS`], 1 MiB at most, a core's second cache.
const PANELS: usize = 8;
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
pub(crate) struct DotProducts {
    simd: V4,
    tiles: Option<Tiles>,
}

impl DotProducts {
    /// `None` on a processor without them.
    pub(crate) fn find() -> Option<Self> {
        let simd = V4::try_new().filter(|_| is_x86_feature_detected!("avx512bf16"))?;
        Some(Self { simd, tiles: Tiles::find() })
    }

    /// Whether sums stay in tiles.
    pub(crate) fn has_tiles(self) -> bool {
        self.tiles.is_some()
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
fn write(instructions: DotProducts, out: &mut [MaybeUninit<f32>], a: Matrix<'_>, right: Right<'_>) {
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
        let out = DisjointSlices::new(out.as_mut_ptr(), out.len());
        each_index(0..tasks, |task| {
            let range = task * panels / tasks..(task + 1) * panels / tasks;
            // SAFETY: the processor has the instructions, and no two tasks have a panel in common.
            unsafe { multiply_panels(instructions, &left, right, range, out) };
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

/// Rows of the left side as words of two neighbours each, zeros behind the last row and the last word up to whole tiles.
struct Left {
    words: Words,
    rows: usize,
    stride: usize,
}

impl Left {
    /// Words from one row to the next: whole tiles and one more, lest rows of a power of two share their places in a cache.
    fn stride(inner: usize) -> usize {
        inner.div_ceil(2).next_multiple_of(LANES) + LANES
    }

    fn rounded(a: Matrix<'_>, rows: Range<usize>) -> Self {
        let stride = Self::stride(a.columns);
        let mut words = Words::new(rows.len().next_multiple_of(tiles::BLOCK) * stride);
        fill_rows(words.all_mut(), stride, |first, words| {
            for (at, words) in words.chunks_exact_mut(stride).enumerate() {
                if first + at < rows.len() {
                    round_row(a, rows.start + first + at, words);
                } else {
                    words.fill(0);
                }
            }
        });
        Self { words, rows: rows.len(), stride }
    }
}

/// Words that begin where a line of the cache does.
struct Words {
    /// Bits of it are words.
    numbers: Scratch,
    place: Range<usize>,
}

impl Words {
    /// Words of no particular value.
    fn new(length: usize) -> Self {
        let numbers = Scratch::new(length + LANES - 1);
        let first = numbers.as_ptr().align_offset(LANES * size_of::<u32>());
        // An offset that is not known is any.
        let first = first.min(LANES - 1);
        Self { numbers, place: first..first + length }
    }

    fn all(&self) -> &[u32] {
        bytemuck::cast_slice(&self.numbers[self.place.clone()])
    }

    fn all_mut(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(&mut self.numbers[self.place.clone()])
    }
}

/// A row of a matrix, rounded to words.
fn round_row(a: Matrix<'_>, row: usize, words: &mut [u32]) {
    if a.column_stride == 1 {
        vectorised(
            #[inline(always)]
            || {
                let (pairs, last) = a.row(row).as_chunks::<2>();
                let (whole, rest) = words.split_at_mut(pairs.len());
                for (word, pair) in whole.iter_mut().zip(pairs) {
                    *word = rounded_bits(pair[0]) | rounded_bits(pair[1]) << 16;
                }
                rest.fill(0);
                if let [last] = last {
                    rest[0] = rounded_bits(*last);
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

/// Products with some panels of the right side.
///
/// # Safety
/// Nothing else uses the columns of these panels.
#[expect(unsafe_code, reason = "threads write columns of the same rows")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn multiply_panels(
    DotProducts { simd, tiles }: DotProducts,
    left: &Left,
    right: Right<'_>,
    panels: Range<usize>,
    out: DisjointSlices,
) {
    let layout = tiles.map(Tiles::laid_out);
    let pairs = right.inner.div_ceil(2);
    // Lines of zeros fill the last tile.
    let (rows_at_once, lines_at_once) =
        if layout.is_some() { (tiles::BLOCK, tiles::SIDE) } else { (BLOCK, 1) };
    let lines_of = |length: usize| length.next_multiple_of(lines_at_once);
    let mut packed = Words::new(lines_of(PAIRS.min(pairs)) * panels.len() * COLUMNS);
    let packed: &mut [Line] = bytemuck::cast_slice_mut(packed.all_mut());
    for first in (0..pairs).step_by(PAIRS) {
        let length = lines_of(PAIRS.min(pairs - first));
        for (panel, lines) in panels.clone().zip(packed.chunks_exact_mut(length)) {
            right.pack(simd, lines, panel * COLUMNS, first);
        }
        for block in (0..left.rows).step_by(rows_at_once) {
            let end = (block + rows_at_once).min(left.rows);
            for (panel, lines) in panels.clone().zip(packed.chunks_exact(length)) {
                // SAFETY: nothing else uses the columns of this panel.
                let place = unsafe { Place::new(out, right, panel, first == 0) };
                if let Some(layout) = &layout {
                    multiply_tiles(layout, left, block..end, first, lines, place);
                } else {
                    multiply_vectors(left, block..end, first, lines, place);
                }
            }
        }
    }
}
/// Where sums of a panel go.
#[derive(Clone, Copy)]
struct Place<'a> {
    out: DisjointSlices,
    right: Right<'a>,
    column: usize,
    width: usize,
    /// Nothing is there yet.
    empty: bool,
}

impl<'a> Place<'a> {
    /// # Safety
    /// Nothing else uses the columns of this panel, and where they are not empty they have been written.
    #[expect(unsafe_code, reason = "threads write columns of the same rows")]
    unsafe fn new(out: DisjointSlices, right: Right<'a>, panel: usize, empty: bool) -> Self {
        let column = panel * COLUMNS;
        Self { out, right, column, width: COLUMNS.min(right.columns - column), empty }
    }

    /// Writes sums of a row, from a column of the panel on, or adds them to those that are there; sums behind the last
    /// column are left out.
    #[expect(unsafe_code, reason = "threads write columns of the same rows")]
    #[inline(always)]
    fn put(&self, row: usize, column: usize, sums: &[f32]) {
        let width = sums.len().min(self.width - column);
        let column = self.column + column;
        let start = row * self.right.columns + column;
        // SAFETY: columns of this panel.
        let place = unsafe { self.out.range(start..start + width) };
        if !self.empty {
            for (out, sum) in place.iter_mut().zip(sums) {
                // SAFETY: written with the first pairs.
                *unsafe { out.assume_init_mut() } += sum;
            }
        } else if let Some(bias) = self.right.bias {
            for ((out, sum), bias) in place.iter_mut().zip(sums).zip(&bias[column..]) {
                out.write(sum + bias);
            }
        } else {
            for (out, sum) in place.iter_mut().zip(sums) {
                out.write(*sum);
            }
        }
    }
}

/// Products of a block of rows with a panel from pair `first` on, in tiles.
#[target_feature(enable = "avx512f,avx512bw")]
fn multiply_tiles(
    layout: &Layout,
    left: &Left,
    rows: Range<usize>,
    first: usize,
    lines: &[Line],
    place: Place<'_>,
) {
    let words = &left.words.all()[rows.start * left.stride + first..];
    let right = lines.as_flattened().as_flattened();
    let mut sums = [[0.0; tiles::BLOCK]; tiles::BLOCK];
    for column in (0..place.width).step_by(tiles::BLOCK) {
        layout.block(&mut sums, (words, left.stride), (&right[column..], COLUMNS), lines.len());
        for (row, sums) in rows.clone().zip(&sums) {
            place.put(row, column, sums);
        }
    }
}

/// The same in vector registers.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn multiply_vectors(
    left: &Left,
    rows: Range<usize>,
    first: usize,
    lines: &[Line],
    place: Place<'_>,
) {
    for row in rows.clone().step_by(ROWS) {
        let words = &left.words.all()[row * left.stride + first..];
        let put = |at: usize, sums: &[f32; COLUMNS]| place.put(row + at, 0, sums);
        match ROWS.min(rows.end - row) {
            12 => tile::<12>(words, left.stride, lines, put),
            11 => tile::<11>(words, left.stride, lines, put),
            10 => tile::<10>(words, left.stride, lines, put),
            9 => tile::<9>(words, left.stride, lines, put),
            8 => tile::<8>(words, left.stride, lines, put),
            7 => tile::<7>(words, left.stride, lines, put),
            6 => tile::<6>(words, left.stride, lines, put),
            5 => tile::<5>(words, left.stride, lines, put),
            4 => tile::<4>(words, left.stride, lines, put),
            3 => tile::<3>(words, left.stride, lines, put),
            2 => tile::<2>(words, left.stride, lines, put),
            _ => tile::<1>(words, left.stride, lines, put),
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
            if even >= self.inner {
                continue;
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16_linear::tests::value;

    /// Sums in tiles and in vector registers differ by rounding alone, at the edges of blocks as well.
    #[test]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn tiles_and_vectors_agree() {
        let Some(DotProducts { simd, tiles: Some(tiles) }) = DotProducts::find() else {
            eprintln!("skipped: this processor has no AMX");
            return;
        };
        for [rows, inner, columns] in
            [[1, 1, 1], [31, 33, 65], [32, 32, 32], [70, 2049, 31], [33, 4100, 96], [97, 64, 130]]
        {
            let a: Vec<f32> = (0..rows * inner).map(value).collect();
            let b: Vec<bf16> =
                (0..inner * columns).map(|at| bf16::from_f32(value(at + 5))).collect();
            let bias: Vec<f32> = (0..columns).map(value).collect();
            for side in [Side::AsIs, Side::Transposed] {
                let stored = match side {
                    Side::AsIs => StoredMatrix { data: &b, rows: inner, columns },
                    Side::Transposed => StoredMatrix { data: &b, rows: columns, columns: inner },
                };
                let [found, expected] = [Some(tiles), None].map(|tiles| {
                    // What the words' memory held before must not be multiplied, not even by zero.
                    Scratch::new(1 << 19).fill(f32::NAN);
                    let a = Matrix::dense(&a, rows, inner);
                    product(DotProducts { simd, tiles }, a, stored, side, Some(&bias))
                });
                for (found, expected) in found.iter().zip(&expected) {
                    let close = (found - expected).abs() < 1e-6 * inner as f32 + 1e-6;
                    assert!(
                        close,
                        "{found} for {expected}: {rows} × {inner} × {columns}, {side:?}"
                    );
                }
            }
        }
    }
}
