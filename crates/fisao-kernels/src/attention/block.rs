//! Attention's weights, some queries at a time.

use std::ops::Range;

use super::Mask;
use crate::linear::multiply;
use crate::matrix::Matrix;
use crate::simd::{exp, largest, sum, vectorised};

/// Some queries of one sequence and the keys that any of them sees.
pub(super) struct Block<'a> {
    pub(super) queries: Range<usize>,
    /// Keys, as one column of scores each: those of the first range, then those of the second.
    keys: [Range<usize>; 2],
    mask: &'a Mask,
    row: usize,
    /// All of its queries and keys.
    sizes: [usize; 2],
}

impl<'a> Block<'a> {
    /// Queries of a block: what their scores take stays in a cache, and keys that none of them sees are left out.
    const QUERIES: usize = 64;

    /// All blocks of a sequence.
    pub(super) fn all(mask: &'a Mask, row: usize, sizes: [usize; 2]) -> impl Iterator<Item = Self> {
        let mut first = 0;
        std::iter::from_fn(move || {
            if first == sizes[0] {
                return None;
            }
            let (queries, keys) = mask.block(row, first, Self::QUERIES, sizes);
            first = queries.end;
            Some(Self { queries, keys, mask, row, sizes })
        })
    }

    /// Numbers of the scores of the largest block.
    pub(super) fn room([queries, keys]: [usize; 2]) -> usize {
        queries.min(Self::QUERIES) * keys
    }

    /// Keys that any of its queries sees.
    pub(super) fn keys(&self) -> usize {
        self.keys[0].len() + self.keys[1].len()
    }

    /// Numbers of its scores.
    pub(super) fn scores(&self) -> usize {
        self.queries.len() * self.keys()
    }

    /// Keys that lie one after the other, with the columns of its scores that they have.
    pub(super) fn spans(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let first = self.keys[0].len();
        let columns = [0..first, first..self.keys()];
        columns.into_iter().zip(self.keys.clone()).filter(|(columns, _)| !columns.is_empty())
    }

    /// The columns that a query sees.
    fn visible(&self, query: usize) -> Range<usize> {
        let [shared, own] = self.mask.visible(self.row, query, self.sizes);
        if own.is_empty() {
            return shared;
        }
        debug_assert!(shared == self.keys[0] && own.start == self.keys[1].start);
        0..shared.len() + own.len()
    }

    /// Weights: `[queries, keys]` of `q`: `[all queries, d]` and `k`: `[d, all keys]`.
    pub(super) fn weights(&self, out: &mut [f32], q: Matrix<'_>, k: Matrix<'_>, scale: f32) {
        let (q, count) = (q.some_rows(self.queries.clone()), self.keys());
        for (columns, keys) in self.spans() {
            multiply(&mut out[columns.start..], count, q, k.some_columns(keys), scale, false);
        }
        vectorised(
            #[inline(always)]
            || {
                for (query, scores) in self.queries.clone().zip(out.chunks_exact_mut(count)) {
                    let visible = self.visible(query);
                    scores[..visible.start].fill(0.0);
                    scores[visible.end..].fill(0.0);
                    let seen = &mut scores[visible];
                    let highest = largest(seen);
                    for score in seen.iter_mut() {
                        *score = exp(*score - highest);
                    }
                    let share = 1.0 / sum(seen, |w| w);
                    for score in seen {
                        *score *= share;
                    }
                }
            },
        );
    }
}
