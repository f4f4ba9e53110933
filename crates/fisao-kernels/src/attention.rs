//! Scaled dot-product attention `softmax(q kᵀ / √d) v` that holds the scores of some queries of one head of one sequence at a
//! time.
//!
//! Backwards the weights `P` are computed again: `∂v = Pᵀ ∂o`, `∂P = ∂o vᵀ`,
//! `∂S = P (∂P − Σ_keys P ∂P)`, `∂q = ∂S k / √d`, `∂k = ∂Sᵀ q / √d`. Several query heads may share one
//! key and value head (grouped queries); their gradients add up.

mod block;
mod mask;

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::linear::{fill_by_rows, multiply};
use crate::matrix::Matrix;
use crate::scratch::Scratch;
use crate::simd::{arch, exp, largest, prefetch, sum, sum_pairs, vectorised};
use crate::skinny_gemm::{NEAR, tile};
use crate::view::View;
use block::Block;
pub use mask::{Mask, SharedPrefix};

/// Elements of the keys of one sequence from which a step of decoding is worth sharing among threads.
const SHARED_STEP: usize = 1 << 16;

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

/// Keys and values of prompts, `[prompts, key heads, positions, d]`, which sequences continues.
#[derive(Clone, Copy)]
pub struct Prompts<'a> {
    /// Keys, `[prompts, heads, positions, width]`.
    pub k: View<'a, 4>,
    /// Values, likewise.
    pub v: View<'a, 4>,
    /// The prompt of each sequence.
    pub of: &'a [usize],
}

/// `q`: `[batch, heads, queries, d]`; `k`, `v`: `[batch, key heads, keys, d]` →
/// `[batch, heads, queries, d]`, in memory `[batch, queries, heads, d]`. What the sequences go on from stands before their own keys,
/// and gives what a copy of it in that place would give, to the bit.
pub(crate) fn forward(
    q: View<'_, 4>,
    before: Option<Prompts<'_>>,
    own: [View<'_, 4>; 2],
    mask: &Mask,
) -> Vec<f32> {
    let mut out = vec![0.0; q.shape.iter().product()];
    fill(&mut out, q, before, own, mask);
    out
}

/// The same, into `out`.
pub fn fill(
    out: &mut [f32],
    q: View<'_, 4>,
    before: Option<Prompts<'_>>,
    [k, v]: [View<'_, 4>; 2],
    mask: &Mask,
) {
    let mut sizes = Sizes::of(&q, &k, &v);
    if let Some(Prompts { k: prompts, v: values, of }) = &before {
        let [_, heads, positions, width] = prompts.shape;
        assert_eq!(prompts.shape, values.shape, "keys and values have one shape");
        assert_eq!([heads, width], [k.shape[1], k.shape[3]], "keys of prompts are as the others");
        assert_eq!(of.len(), sizes.batch, "every sequence continues a prompt");
        sizes.keys += positions;
    }
    let Sizes { batch, heads, queries, keys, width, .. } = sizes;
    let stride = heads * width;
    assert!(out.len() == batch * queries * stride, "attention does not fit its place");
    let one_head = |row: usize, index: usize, scores: &mut [f32], out: &mut [f32]| {
        let shared = sizes.key_head(index);
        let q = head(&q, row, index);
        let (own_k, own_v) = (head(&k, row, shared), head(&v, row, shared));
        let prompt = before
            .map(|Prompts { k, v, of }| (head(&k, of[row], shared), head(&v, of[row], shared)));
        let scale = sizes.scale();
        // Without a prompt, none of its keys.
        let nothing = || (own_k.some_rows(0..0), own_v.some_rows(0..0));
        let (prompt_k, prompt_v) = prompt.unwrap_or_else(nothing);
        let all = [q, own_k, own_v, prompt_k, prompt_v];
        if queries == 1 && all.iter().all(|x| x.column_stride == 1) {
            let [Range { start, end }, _] = mask.visible(row, 0, [queries, keys]);
            let first = prompt_k.rows;
            let strides =
                before.map_or([0; 2], |prompts| [prompts.k.strides[1], prompts.v.strides[1]]);
            let of_prompt = Part {
                k: prompt_k,
                v: prompt_v,
                next: strides,
                keys: start.min(first)..end.min(first),
            };
            let own = Part {
                k: own_k,
                v: own_v,
                next: [k.strides[1], v.strides[1]],
                keys: start.max(first) - first..end.max(first) - first,
            };
            let out = &mut out[..width];
            arch().dispatch(Step { q: q.row(0), parts: [of_prompt, own], scale, scores, out });
            return;
        }
        let joined = prompt.map(|(prompt_k, prompt_v)| {
            [(prompt_k, own_k), (prompt_v, own_v)].map(|(of_prompt, own)| {
                let mut all = Scratch::new(keys * width);
                let (first, rest) = all.split_at_mut(of_prompt.rows * width);
                fill_by_rows(first, of_prompt);
                fill_by_rows(rest, own);
                all
            })
        });
        let [k, v] = joined.as_ref().map_or([own_k, own_v], |joined| {
            joined.each_ref().map(|x| Matrix::dense(x, keys, width))
        });
        let mut transposed = Scratch::new(width * keys);
        fill_by_rows(&mut transposed, k.transposed());
        let k = Matrix::dense(&transposed, width, keys);
        for block in Block::all(mask, row, [queries, keys]) {
            let scores = &mut scores[..block.scores()];
            block.weights(scores, q, k, scale);
            let p = Matrix::dense(scores, block.queries.len(), block.keys());
            let out = &mut out[block.queries.start * stride..];
            for (columns, keys) in block.spans() {
                let more = columns.start > 0;
                multiply(out, stride, p.some_columns(columns), v.some_rows(keys), 1.0, more);
            }
        }
    };
    let many = rayon::current_num_threads() > 1;
    // A step of decoding has one query, whose heads lie one after the other.
    if many && queries == 1 && heads * keys * width >= SHARED_STEP {
        out.par_chunks_mut(width).enumerate().for_each(|(at, out)| {
            one_head(at / heads, at % heads, &mut Scratch::new(keys), out);
        });
        return;
    }
    let work = |(row, out): (usize, &mut [f32])| {
        let mut scores = Scratch::new(Block::room([queries, keys]));
        for index in 0..heads {
            one_head(row, index, &mut scores, &mut out[index * width..]);
        }
    };
    if many && batch > 1 {
        out.par_chunks_mut((queries * stride).max(1)).enumerate().for_each(work);
    } else {
        out.chunks_mut((queries * stride).max(1)).enumerate().for_each(work);
    }
}

/// Keys that lie one after the other, and their values; rows in one piece each.
struct Part<'a> {
    k: Matrix<'a>,
    v: Matrix<'a>,
    /// From a key and a value to those of the next head.
    next: [usize; 2],
    /// Those that are seen.
    keys: Range<usize>,
}

/// One query and the keys that it sees: a step of decoding.
struct Step<'a> {
    q: &'a [f32],
    parts: [Part<'a>; 2],
    scale: f32,
    /// Room for a number per key.
    scores: &'a mut [f32],
    out: &'a mut [f32],
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        /// Keys of all of which the next head's are asked for, when one head's keys and values fit into a core's first cache.
        const NEAR_FLOATS: usize = 1 << 12;
        let Self { q, parts, scale, scores, out } = self;
        let width = q.len();
        let seen = parts[0].keys.len() + parts[1].keys.len();
        let scores = &mut scores[..seen];
        let short = seen * width <= NEAR_FLOATS;
        let (of_prompt, own) = scores.split_at_mut(parts[0].keys.len());
        parts[0].scores(simd, q, short, of_prompt);
        parts[1].scores(simd, q, short, own);
        let highest = largest(scores);
        for score in scores.iter_mut() {
            *score = exp((*score - highest) * scale);
        }
        let share = 1.0 / sum(scores, |weight| weight);
        let vectors = width / S::F32_LANES;
        let mut at = 0;
        while at < vectors {
            at += match vectors - at {
                1 => weighted::<S, 1>(simd, scores, &parts, at, share, out),
                2 | 3 => weighted::<S, 2>(simd, scores, &parts, at, share, out),
                _ => weighted::<S, 4>(simd, scores, &parts, at, share, out),
            };
        }
        let done = vectors * S::F32_LANES;
        for (column, out) in out[done..width].iter_mut().enumerate() {
            let rows = parts.iter().flat_map(|part| part.keys.clone().map(|key| part.v.row(key)));
            let terms = scores.iter().zip(rows).map(|(weight, row)| weight * row[done + column]);
            *out = share * terms.sum::<f32>();
        }
    }
}

impl Part<'_> {
    /// `q k`. Caches of many sequences do not stay near: the next head's keys and values are asked for where one head has few,
    /// else keys a few places ahead and the values that come next.
    #[inline(always)]
    fn scores<S: Simd>(&self, simd: S, q: &[f32], short: bool, scores: &mut [f32]) {
        const TOGETHER: usize = 16;
        /// Keys.
        const AHEAD: usize = 16;
        /// Floats of a cache line.
        const LINE: usize = 16;
        let Self { k, v, next, keys } = self;
        let first = keys.start;
        let whole = scores.len() / TOGETHER * TOGETHER;
        for (group, scores) in scores[..whole].chunks_exact_mut(TOGETHER).enumerate() {
            let at = first + group * TOGETHER;
            let (k_ahead, v_ahead) = if short {
                (k.at(at).wrapping_add(next[0]), v.at(at).wrapping_add(next[1]))
            } else {
                (k.at(at + AHEAD), v.at(at))
            };
            for line in (0..TOGETHER * q.len()).step_by(LINE) {
                prefetch(k_ahead.wrapping_add(line));
                prefetch(v_ahead.wrapping_add(line));
            }
            let keys: [&[f32]; TOGETHER] = std::array::from_fn(|key| k.row(at + key));
            let [found] = tile::<S, TOGETHER, 1, NEAR>(simd, keys, [q]);
            scores.copy_from_slice(&found);
        }
        for (at, score) in scores.iter_mut().enumerate().skip(whole) {
            if short {
                for line in (0..q.len()).step_by(LINE) {
                    prefetch(k.at(first + at).wrapping_add(next[0] + line));
                    prefetch(v.at(first + at).wrapping_add(next[1] + line));
                }
            }
            let [[found]] = tile::<S, 1, 1, NEAR>(simd, [k.row(first + at)], [q]);
            *score = found;
        }
    }
}

/// `share · Σ weights v` of `N` vectors of columns from vector `at` on; returns `N`. Keys are added up in the same order wherever one
/// part ends and the other begins.
#[inline(always)]
fn weighted<S: Simd, const N: usize>(
    simd: S,
    weights: &[f32],
    parts: &[Part<'_>; 2],
    at: usize,
    share: f32,
    out: &mut [f32],
) -> usize {
    let columns = at * S::F32_LANES..(at + N) * S::F32_LANES;
    // Two sums for each vector, of even and odd keys: one alone would wait for itself.
    let (mut even, mut odd) = ([simd.splat_f32s(0.0); N], [simd.splat_f32s(0.0); N]);
    let (of_prompt, own) = weights.split_at(parts[0].keys.len());
    let mut after_an_even_one = false;
    for (part, mut weights) in parts.iter().zip([of_prompt, own]) {
        let mut key = part.keys.start;
        if after_an_even_one && let [weight, rest @ ..] = weights {
            add_value::<S, N>(simd, &mut odd, &part.v.row(key)[columns.clone()], *weight);
            (key, weights, after_an_even_one) = (key + 1, rest, false);
        }
        let (pairs, last) = weights.as_chunks::<2>();
        for pair in pairs {
            add_value::<S, N>(simd, &mut even, &part.v.row(key)[columns.clone()], pair[0]);
            add_value::<S, N>(simd, &mut odd, &part.v.row(key + 1)[columns.clone()], pair[1]);
            key += 2;
        }
        if let [last] = *last {
            add_value::<S, N>(simd, &mut even, &part.v.row(key)[columns.clone()], last);
            after_an_even_one = true;
        }
    }
    let share = simd.splat_f32s(share);
    let out = S::as_mut_simd_f32s(&mut out[columns.clone()]).0;
    for n in 0..N {
        out[n] = simd.mul_f32s(share, simd.add_f32s(even[n], odd[n]));
    }
    N
}

/// `sums + weight · values`.
#[inline(always)]
fn add_value<S: Simd, const N: usize>(
    simd: S,
    sums: &mut [S::f32s; N],
    values: &[f32],
    weight: f32,
) {
    let (weight, values) = (simd.splat_f32s(weight), &S::as_simd_f32s(values).0[..N]);
    for n in 0..N {
        sums[n] = simd.mul_add_e_f32s(weight, values[n], sums[n]);
    }
}

/// Places for the gradients of q, k and v of one sequence.
type Parts<'a> = ((&'a mut [f32], &'a mut [f32]), &'a mut [f32]);

/// Gradients of q, k and v, each in memory as `[batch, length, heads, d]`.
pub(crate) fn backward(
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
        let mut scores = Scratch::new(Block::room([queries, keys]));
        let mut by_scores = Scratch::new(scores.len());
        let (mut transposed_k, mut transposed_v) =
            (Scratch::new(width * keys), Scratch::new(width * keys));
        let (stride, key_stride) = (heads * width, key_heads * width);
        for index in 0..heads {
            let shared = sizes.key_head(index);
            let (q, k, v) = (head(&q, row, index), head(&k, row, shared), head(&v, row, shared));
            let g = head(&gradient, row, index);
            fill_by_rows(&mut transposed_k, k.transposed());
            fill_by_rows(&mut transposed_v, v.transposed());
            let [transposed_k, transposed_v] =
                [&transposed_k, &transposed_v].map(|x| Matrix::dense(x, width, keys));
            let by_k = &mut by_k[shared * width..];
            let by_v = &mut by_v[shared * width..];
            for block in Block::all(mask, row, [queries, keys]) {
                let (rows, columns) = (block.queries.len(), block.keys());
                let scores = &mut scores[..block.scores()];
                let by_scores = &mut by_scores[..block.scores()];
                let by_q = &mut by_q[block.queries.start * stride + index * width..];
                let g = g.some_rows(block.queries.clone());
                block.weights(scores, q, transposed_k, sizes.scale());
                let p = Matrix::dense(scores, rows, columns);
                for (of_block, keys) in block.spans() {
                    let by_v = &mut by_v[keys.start * key_stride..];
                    let p = p.some_columns(of_block.clone());
                    multiply(by_v, key_stride, p.transposed(), g, 1.0, true);
                    let by_scores = &mut by_scores[of_block.start..];
                    multiply(by_scores, columns, g, transposed_v.some_columns(keys), 1.0, false);
                }
                through_softmax(scores, by_scores, columns);
                let s = Matrix::dense(by_scores, rows, columns);
                let q = q.some_rows(block.queries.clone());
                for (of_block, keys) in block.spans() {
                    let (more, s) = (of_block.start > 0, s.some_columns(of_block));
                    let by_k = &mut by_k[keys.start * key_stride..];
                    multiply(by_q, stride, s, k.some_rows(keys), sizes.scale(), more);
                    multiply(by_k, key_stride, s.transposed(), q, sizes.scale(), true);
                }
            }
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
