//! Products of many rows in bf16 with sums in f32, by the processor's own [tiles] (Intel AMX) or dot products of pairs
//! (AVX512-BF16). The latter are twice the multiply-adds of an f32 product in the same time on AMD's processors, and no
//! more than those on Intel's, where tiles are some five times as many.
//!
//! The right side is packed into panels of 32 columns, each pair of neighbours along the inner dimension one word of 32
//! bits; the left side is rounded into the same words. Blocks of 32 × 32 sums stay in tiles, or of 12 × 32 in vector
//! registers: twelve rows fit the first cache, and a panel is read from the second once for all of them. Rows whose sums
//! stay together lie together, sixteen words of each in turn: what is multiplied is read from one place on, whole lines
//! of the cache after each other.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__m512bh, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_setzero_ps};
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
use crate::simd::prefetch;
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
/// Rows from the one that is packed to the one that is asked for, where two make neighbours.
const AHEAD: usize = 2 * LANES;
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
    let group = if instructions.has_tiles() { tiles::BLOCK } else { ROWS };
    let rows = (ROUNDED / (group * inner.div_ceil(2))).max(1) * group;
    for (index, out) in out.chunks_mut(rows * columns).enumerate() {
        let rows = index * rows..index * rows + out.len() / columns;
        let left = Left::rounded(instructions, a, rows, group);
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

/// Rows of the left side as words of two neighbours each: groups of rows, in each group the first sixteen words of every
/// row, then the next sixteen. Zeros fill the last words and the last group.
struct Left {
    words: Words,
    rows: usize,
    /// Rows of a group.
    group: usize,
    /// Times sixteen words of a row.
    chunks: usize,
}

impl Left {
    #[expect(unsafe_code, reason = "instructions that the processor has")]
    fn rounded(_: DotProducts, a: Matrix<'_>, rows: Range<usize>, group: usize) -> Self {
        let chunks = a.columns.div_ceil(2 * LANES);
        let width = chunks * group * LANES;
        let mut words = Words::new(rows.len().div_ceil(group) * width);
        fill_rows(words.all_mut(), width, |first, words| {
            for (at, words) in words.chunks_exact_mut(width).enumerate() {
                let start = rows.start + (first + at) * group;
                let rows = start..(start + group).min(rows.end);
                // SAFETY: the processor has the instructions.
                unsafe { round_group(a, rows, words.as_chunks_mut().0, group) };
            }
        });
        Self { words, rows: rows.len(), group, chunks }
    }

    /// Some of the words, from pair `first` on, of the group of `G` rows that begins with `row`.
    #[inline(always)]
    fn group<const G: usize>(&self, row: usize, first: usize) -> &[[Vector; G]] {
        assert!(G == self.group && row.is_multiple_of(G), "rows of a group");
        let rows = self.words.all().as_chunks().0.as_chunks().0;
        &rows[row / G * self.chunks..][..self.chunks][first / LANES..]
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

/// Some rows of a matrix, rounded to the words of a group.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn round_group(a: Matrix<'_>, rows: Range<usize>, words: &mut [Vector], group: usize) {
    for at in 0..group {
        let places = words.iter_mut().skip(at).step_by(group);
        let row = rows.start + at;
        if row >= rows.end {
            places.for_each(|place| place.fill(0));
        } else if a.column_stride == 1 {
            for (place, values) in places.zip(a.row(row).chunks(2 * LANES)) {
                *place = round_chunk(values);
            }
        } else {
            let start = &a.data[row * a.row_stride..];
            let mut values = (0..a.columns).map(|column| start[column * a.column_stride]);
            for place in places {
                *place = from_fn(|_| {
                    let mut next = || values.next().map_or(0, rounded_bits);
                    next() | next() << 16
                });
            }
        }
    }
}

/// Up to 32 numbers and zeros behind them. The processor's own rounding makes zeros of subnormal numbers, as which its
/// products read them.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
#[expect(unsafe_code, reason = "pulp casts no register of bf16")]
fn round_chunk(values: &[f32]) -> Vector {
    let mut whole = [0.0; 2 * LANES];
    let values = values.first_chunk().unwrap_or_else(|| {
        whole[..values.len()].copy_from_slice(values);
        &whole
    });
    let [low, high]: [[f32; LANES]; 2] = cast(*values);
    let rounded = _mm512_cvtne2ps_pbh(cast(high), cast(low));
    // SAFETY: both are 512 bits, of which every pattern is valid.
    unsafe { std::mem::transmute::<__m512bh, Vector>(rounded) }
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
    let rows_at_once = if layout.is_some() { tiles::BLOCK } else { BLOCK };
    // As many lines as the left side has words: zeros are behind the last pair.
    let lines_of = |length: usize| length.next_multiple_of(LANES);
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
    let words = &left.group(rows.start, first)[..lines.len() / LANES];
    let right = lines.as_flattened().as_flattened();
    let mut sums = [[0.0; tiles::BLOCK]; tiles::BLOCK];
    for column in (0..place.width).step_by(tiles::BLOCK) {
        layout.block(&mut sums, words, (&right[column..], COLUMNS));
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
    let lines = lines.as_chunks().0;
    for row in rows.clone().step_by(ROWS) {
        let words = left.group(row, first);
        let put = |at: usize, sums: &[f32; COLUMNS]| place.put(row + at, 0, sums);
        match ROWS.min(rows.end - row) {
            12 => tile::<12>(words, lines, put),
            11 => tile::<11>(words, lines, put),
            10 => tile::<10>(words, lines, put),
            9 => tile::<9>(words, lines, put),
            8 => tile::<8>(words, lines, put),
            7 => tile::<7>(words, lines, put),
            6 => tile::<6>(words, lines, put),
            5 => tile::<5>(words, lines, put),
            4 => tile::<4>(words, lines, put),
            3 => tile::<3>(words, lines, put),
            2 => tile::<2>(words, lines, put),
            _ => tile::<1>(words, lines, put),
        }
    }
}

/// Products of the first `R` rows of a group with a panel, row by row.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
fn tile<const R: usize>(
    words: &[[Vector; ROWS]],
    lines: &[[Line; LANES]],
    put: impl Fn(usize, &[f32; COLUMNS]),
) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for (words, lines) in words.iter().zip(lines) {
        for at in 0..LANES {
            let line = lines[at].map(pairs);
            for r in 0..R {
                let x = pairs([words[r][at]; LANES]);
                for v in 0..VECTORS {
                    sums[r][v] = _mm512_dpbf16_ps(sums[r][v], x, line[v]);
                }
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
            self.prefetch(even + AHEAD, column);
            self.prefetch(even + AHEAD + 1, column);
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
                for lane in 0..LANES {
                    self.prefetch(start + LANES + lane, from);
                }
                let mut block: [Vector; LANES] = from_fn(|lane| self.words(start + lane, from));
                interleave(simd, &mut block);
                for (line, transposed) in lines.iter_mut().zip(block) {
                    line[vector] = transposed;
                }
            }
        }
    }

    /// Asks for a line of the matrix, which may lie behind the last. Weights come from memory in short rows, each of a page
    /// of its own, which the processor does not foresee.
    #[inline(always)]
    fn prefetch(self, row: usize, column: usize) {
        let StoredMatrix { data, columns, .. } = self.matrix;
        prefetch(data.as_ptr().wrapping_add(row * columns + column));
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
