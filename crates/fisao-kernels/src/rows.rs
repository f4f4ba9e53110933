//! Cutting work into pieces of rows.

use std::ops::Range;

use rayon::prelude::*;

/// Elements of one piece. Fixed, so that sums over pieces do not depend on the number of threads.
const PIECE: usize = 1 << 14;

/// Rows of `width` elements that make a piece.
fn rows_per_piece(width: usize) -> usize {
    (PIECE / width.max(1)).max(1)
}

/// Whether more than one thread may share the work.
fn threads_help() -> bool {
    rayon::current_num_threads() > 1
}

/// Calls `work(first row, rows of x)` for pieces of `out`, `width` elements to a row; results in order.
pub(crate) fn fill_rows<T: Send, R: Send>(
    out: &mut [T],
    width: usize,
    work: impl Fn(usize, &mut [T]) -> R + Sync,
) -> Vec<R> {
    let rows = rows_per_piece(width);
    let piece = rows * width.max(1);
    if out.len() > piece && threads_help() {
        let pieces = out.par_chunks_mut(piece).enumerate();
        return pieces.map(|(index, part)| work(index * rows, part)).collect();
    }
    out.chunks_mut(piece).enumerate().map(|(index, part)| work(index * rows, part)).collect()
}

/// Calls `work` for every index; results in order.
pub(crate) fn each_index<R: Send>(
    indices: Range<usize>,
    work: impl Fn(usize) -> R + Sync + Send,
) -> Vec<R> {
    if threads_help() {
        indices.into_par_iter().map(work).collect()
    } else {
        indices.map(work).collect()
    }
}

/// `into += other`, element by element.
pub fn accumulate(into: &mut [f32], other: &[f32]) {
    crate::simd::vectorised(
        #[inline(always)]
        || crate::simd::add_scaled(into, 1.0, other),
    );
}
