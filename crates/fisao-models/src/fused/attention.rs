//! Scaled dot-product attention `softmax(q kᵀ / √d) v` that holds the scores of one head of one
//! sequence at a time.
//!
//! Backwards the weights `P` are computed again: `∂v = Pᵀ ∂o`, `∂P = ∂o vᵀ`,
//! `∂S = P (∂P − Σ_keys P ∂P)`, `∂q = ∂S k / √d`, `∂k = ∂Sᵀ q / √d`. Several query heads may share one
//! key and value head (grouped queries); their gradients add up.

use std::ops::Range;
use std::sync::Arc;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::few_rows::{NEAR, tile};
use super::linear::{Matrix, multiply};
use super::simd::{arch, exp, largest, prefetch, sum, sum_pairs, vectorised};
use super::view::View;

/// Elements of the keys of one sequence from which a step of decoding is worth sharing among threads.
const SHARED_STEP: usize = 1 << 16;

/// Which keys a query sees. Queries stand at the end of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    Full,
    /// Those up to its own position, and of row `r` of the batch none before `first[r]` (0 where
    /// `first` is shorter). A query before `first[r]` is padding and sees what lies before it.
    Causal {
        /// First visible key of each row.
        first: Arc<[usize]>,
    },
}

impl Mask {
    /// Causal without padding.
    pub fn causal() -> Self {
        Self::Causal { first: Arc::new([]) }
    }

    /// Keys that `query` of row `row` sees, out of `keys`, when there are `queries` of them.
    pub(crate) fn visible(
        &self,
        row: usize,
        query: usize,
        [queries, keys]: [usize; 2],
    ) -> Range<usize> {
        match self {
            Self::Full => 0..keys,
            Self::Causal { first } => {
                let end = keys - queries + query + 1;
                let start = first.get(row).copied().unwrap_or(0);
                if start < end { start..end } else { 0..end }
            }
        }
    }
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    key_heads: usize,
    queries: usize,
    keys: usize,
    width: usize,
}

impl Sizes {
    fn of(q: &View<'_, 4>, k: &View<'_, 4>, v: &View<'_, 4>) -> Self {
        let [batch, heads, queries, width] = q.shape;
        let [_, key_heads, keys, _] = k.shape;
        assert_eq!(k.shape, v.shape, "keys and values have one shape");
        assert!(k.shape[0] == batch && k.shape[3] == width, "keys belong to other queries");
        assert!(heads % key_heads == 0, "{heads} heads cannot share {key_heads} key heads");
        assert!(queries <= keys, "{queries} queries stand behind {keys} keys");
        Self { batch, heads, key_heads, queries, keys, width }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn key_head(&self, head: usize) -> usize {
        head / (self.heads / self.key_heads)
    }
}

/// One head of one sequence as a matrix.
fn head<'a>(x: &View<'a, 4>, row: usize, head: usize) -> Matrix<'a> {
    Matrix {
        data: &x.data[row * x.strides[0] + head * x.strides[1]..],
        rows: x.shape[2],
        columns: x.shape[3],
        row_stride: x.strides[2],
        column_stride: x.strides[3],
    }
}

/// Weights of one head: `[queries, keys]`.
fn weights(out: &mut [f32], q: Matrix<'_>, k: Matrix<'_>, scale: f32, mask: &Mask, row: usize) {
    let sizes = [q.rows, k.rows];
    multiply(out, k.rows, q, k.transposed(), scale, false);
    vectorised(
        #[inline(always)]
        || {
            for (query, scores) in out.chunks_exact_mut(sizes[1]).enumerate() {
                let visible = mask.visible(row, query, sizes);
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

/// `q`: `[batch, heads, queries, d]`; `k`, `v`: `[batch, key heads, keys, d]` →
/// `[batch, heads, queries, d]`, in memory `[batch, queries, heads, d]`.
pub(super) fn forward(q: View<'_, 4>, k: View<'_, 4>, v: View<'_, 4>, mask: &Mask) -> Vec<f32> {
    let sizes = Sizes::of(&q, &k, &v);
    let Sizes { batch, heads, queries, keys, width, .. } = sizes;
    let stride = heads * width;
    let mut out = vec![0.0; batch * queries * stride];
    let one_head = |row: usize, index: usize, scores: &mut [f32], out: &mut [f32]| {
        let shared = sizes.key_head(index);
        let (q, k, v) = (head(&q, row, index), head(&k, row, shared), head(&v, row, shared));
        let scale = sizes.scale();
        if queries == 1 && [q, k, v].iter().all(|x| x.column_stride == 1) {
            let visible = mask.visible(row, 0, [queries, keys]);
            let out = &mut out[..width];
            arch().dispatch(Step { q: q.row(0), k, v, visible, scale, scores, out });
            return;
        }
        weights(scores, q, k, scale, mask, row);
        let p = Matrix::dense(scores, queries, keys);
        multiply(out, stride, p, v, 1.0, false);
    };
    let many = rayon::current_num_threads() > 1;
    // A step of decoding has one query, whose heads lie one after the other.
    if many && queries == 1 && heads * keys * width >= SHARED_STEP {
        out.par_chunks_mut(width).enumerate().for_each(|(at, out)| {
            one_head(at / heads, at % heads, &mut vec![0.0; keys], out);
        });
        return out;
    }
    let work = |(row, out): (usize, &mut [f32])| {
        let mut scores = vec![0.0; queries * keys];
        for index in 0..heads {
            one_head(row, index, &mut scores, &mut out[index * width..]);
        }
    };
    if many && batch > 1 {
        out.par_chunks_mut((queries * stride).max(1)).enumerate().for_each(work);
    } else {
        out.chunks_mut((queries * stride).max(1)).enumerate().for_each(work);
    }
    out
}

/// One query and the keys that it sees, rows in one piece each: a step of decoding.
struct Step<'a> {
    q: &'a [f32],
    k: Matrix<'a>,
    v: Matrix<'a>,
    visible: Range<usize>,
    scale: f32,
    /// Room for a number per key.
    scores: &'a mut [f32],
    out: &'a mut [f32],
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        const TOGETHER: usize = 16;
        /// Keys.
        const AHEAD: usize = 16;
        /// Floats of a cache line.
        const LINE: usize = 16;
        let Self { q, k, v, visible, scale, scores, out } = self;
        let width = q.len();
        let scores = &mut scores[visible.clone()];
        let first = visible.start;
        let whole = scores.len() / TOGETHER * TOGETHER;
        for (group, scores) in scores[..whole].chunks_exact_mut(TOGETHER).enumerate() {
            let at = first + group * TOGETHER;
            // Caches of many sequences do not stay near: keys are asked for ahead, and the values that come next.
            let (k_ahead, v_ahead) = (k.at(at + AHEAD), v.at(at));
            for line in (0..TOGETHER * width).step_by(LINE) {
                prefetch(k_ahead.wrapping_add(line));
                prefetch(v_ahead.wrapping_add(line));
            }
            let keys: [&[f32]; TOGETHER] = std::array::from_fn(|key| k.row(at + key));
            let [found] = tile::<S, TOGETHER, 1, NEAR>(simd, keys, [q]);
            scores.copy_from_slice(&found);
        }
        for (at, score) in scores.iter_mut().enumerate().skip(whole) {
            let [[found]] = tile::<S, 1, 1, NEAR>(simd, [k.row(first + at)], [q]);
            *score = found;
        }
        let highest = largest(scores);
        for score in scores.iter_mut() {
            *score = exp((*score - highest) * scale);
        }
        let share = 1.0 / sum(scores, |weight| weight);
        let vectors = width / S::F32_LANES;
        let mut at = 0;
        while at < vectors {
            at += match vectors - at {
                1 => weighted::<S, 1>(simd, scores, &v, [first, at], share, out),
                2 | 3 => weighted::<S, 2>(simd, scores, &v, [first, at], share, out),
                _ => weighted::<S, 4>(simd, scores, &v, [first, at], share, out),
            };
        }
        let done = vectors * S::F32_LANES;
        for (column, out) in out[done..width].iter_mut().enumerate() {
            let terms = scores.iter().enumerate();
            let terms = terms.map(|(at, weight)| weight * v.row(first + at)[done + column]);
            *out = share * terms.sum::<f32>();
        }
    }
}

/// `share · Σ weights v` of `N` vectors of columns from vector `at` on, keys from the first on; returns `N`.
#[inline(always)]
fn weighted<S: Simd, const N: usize>(
    simd: S,
    weights: &[f32],
    v: &Matrix<'_>,
    [first, at]: [usize; 2],
    share: f32,
    out: &mut [f32],
) -> usize {
    let columns = at * S::F32_LANES..(at + N) * S::F32_LANES;
    let values = |key: usize| &S::as_simd_f32s(&v.row(first + key)[columns.clone()]).0[..N];
    // Two sums for each vector: one alone would wait for itself.
    let mut sums = [[simd.splat_f32s(0.0); N]; 2];
    let mut add = |side: usize, key: usize, weight: f32| {
        let (weight, values) = (simd.splat_f32s(weight), values(key));
        for n in 0..N {
            sums[side][n] = simd.mul_add_e_f32s(weight, values[n], sums[side][n]);
        }
    };
    let (pairs, last) = weights.as_chunks::<2>();
    for (pair, &[even, odd]) in pairs.iter().enumerate() {
        add(0, 2 * pair, even);
        add(1, 2 * pair + 1, odd);
    }
    if let [last] = *last {
        add(0, 2 * pairs.len(), last);
    }
    let share = simd.splat_f32s(share);
    let out = S::as_mut_simd_f32s(&mut out[columns.clone()]).0;
    for n in 0..N {
        out[n] = simd.mul_f32s(share, simd.add_f32s(sums[0][n], sums[1][n]));
    }
    N
}

/// Places for the gradients of q, k and v of one sequence.
type Parts<'a> = ((&'a mut [f32], &'a mut [f32]), &'a mut [f32]);

/// Gradients of q, k and v, each in memory as `[batch, length, heads, d]`.
pub(super) fn backward(
    [q, k, v]: [View<'_, 4>; 3],
    gradient: View<'_, 4>,
    mask: &Mask,
) -> [Vec<f32>; 3] {
    let sizes = Sizes::of(&q, &k, &v);
    let Sizes { batch, heads, key_heads, queries, keys, width } = sizes;
    let (query_row, key_row) = (queries * heads * width, keys * key_heads * width);
    let mut by_q = vec![0.0; batch * query_row];
    let mut by_k = vec![0.0; batch * key_row];
    let mut by_v = vec![0.0; batch * key_row];
    let work = |(row, ((by_q, by_k), by_v)): (usize, Parts<'_>)| {
        let mut scores = vec![0.0; queries * keys];
        let mut by_scores = vec![0.0; queries * keys];
        for index in 0..heads {
            let shared = sizes.key_head(index);
            let (q, k, v) = (head(&q, row, index), head(&k, row, shared), head(&v, row, shared));
            let g = head(&gradient, row, index);
            weights(&mut scores, q, k, sizes.scale(), mask, row);
            let p = Matrix::dense(&scores, queries, keys);
            let at_key = shared * width;
            multiply(&mut by_v[at_key..], key_heads * width, p.transposed(), g, 1.0, true);
            multiply(&mut by_scores, keys, g, v.transposed(), 1.0, false);
            through_softmax(&scores, &mut by_scores, keys);
            let s = Matrix::dense(&by_scores, queries, keys);
            multiply(&mut by_q[index * width..], heads * width, s, k, sizes.scale(), false);
            let to_k = &mut by_k[at_key..];
            multiply(to_k, key_heads * width, s.transposed(), q, sizes.scale(), true);
        }
    };
    if rayon::current_num_threads() > 1 && batch > 1 {
        let keys = by_k.par_chunks_mut(key_row).zip(by_v.par_chunks_mut(key_row));
        by_q.par_chunks_mut(query_row)
            .zip(keys)
            .map(|(q, (k, v))| ((q, k), v))
            .enumerate()
            .for_each(work);
    } else {
        by_q.chunks_mut(query_row.max(1))
            .zip(by_k.chunks_mut(key_row.max(1)))
            .zip(by_v.chunks_mut(key_row.max(1)))
            .enumerate()
            .for_each(work);
    }
    [by_q, by_k, by_v]
}

/// `∂S = P (∂P − Σ P ∂P)` row by row, in the place of `∂P`.
fn through_softmax(weights: &[f32], gradient: &mut [f32], keys: usize) {
    vectorised(
        #[inline(always)]
        || {
            for (g, p) in gradient.chunks_exact_mut(keys).zip(weights.chunks_exact(keys)) {
                let mean = sum_pairs(p, g, |p, g| p * g);
                for (g, &p) in g.iter_mut().zip(p) {
                    *g = p * (*g - mean);
                }
            }
        },
    );
}
