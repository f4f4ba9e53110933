//! Log-probability of one token per row and entropy of the row's distribution, without keeping a
//! tensor of the vocabulary's size.
//!
//! With `z = logits / T`, `ℓ = ln Σ eᶻ`, `p = e^{z − ℓ}`: `log p(y) = z_y − ℓ` and `H = ℓ − Σ p z`.
//! Backwards: `∂z = ∂logp · (1_y − p) − ∂H · p (z − ℓ + H)`, `∂logits = ∂z / T`.

use crate::rows::fill_rows;
use crate::simd::{exp, largest, sum, sum_pairs, vectorised};

/// Columns of the result.
pub(crate) const COLUMNS: usize = 2;

/// Largest logit, Σ e^{(logit − largest)/T} and Σ of the same times (logit − largest)/T.
#[inline(always)]
fn sums(logits: &[f32], scale: f32, weights: &mut [f32]) -> (f32, f32, f32) {
    let highest = largest(logits);
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        *weight = exp((logit - highest) * scale);
    }
    let total = sum(weights, |w| w);
    let moment = sum_pairs(weights, logits, |w, logit| w * ((logit - highest) * scale));
    (highest, total, moment)
}

/// `logits`: `[rows, vocabulary]` → `[rows, 2]`: log-probability and entropy, nats.
pub(crate) fn forward(
    logits: &[f32],
    vocabulary: usize,
    targets: &[u32],
    temperature: f32,
) -> Vec<f32> {
    let scale = 1.0 / temperature;
    let mut out = vec![0.0; targets.len() * COLUMNS];
    // Pieces are counted by the work they cause, which is a row of logits.
    let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(COLUMNS).collect();
    let piece = 16;
    let work = |(index, part): (usize, &mut [&mut [f32]])| {
        let mut weights = vec![0.0; vocabulary];
        vectorised(
            #[inline(always)]
            || {
                for (offset, out) in part.iter_mut().enumerate() {
                    let row = index * piece + offset;
                    let logits = &logits[row * vocabulary..(row + 1) * vocabulary];
                    let (highest, total, moment) = sums(logits, scale, &mut weights);
                    let log_total = total.ln();
                    let target = logits[targets[row] as usize];
                    out[0] = (target - highest) * scale - log_total;
                    out[1] = log_total - moment / total;
                }
            },
        );
    };
    if rayon::current_num_threads() > 1 && rows.len() > piece {
        use rayon::prelude::*;
        rows.par_chunks_mut(piece).enumerate().for_each(work);
    } else {
        rows.chunks_mut(piece).enumerate().for_each(work);
    }
    out
}

/// Gradient of the logits from that of the two columns.
pub(crate) fn backward(
    logits: &[f32],
    vocabulary: usize,
    targets: &[u32],
    temperature: f32,
    gradient: &[f32],
) -> Vec<f32> {
    let scale = 1.0 / temperature;
    let mut out = vec![0.0; logits.len()];
    fill_rows(&mut out, vocabulary, |first, part| {
        vectorised(
            #[inline(always)]
            || {
                for (offset, out) in part.chunks_exact_mut(vocabulary).enumerate() {
                    let row = first + offset;
                    let logits = &logits[row * vocabulary..(row + 1) * vocabulary];
                    let (by_logprob, by_entropy) =
                        (gradient[row * COLUMNS], gradient[row * COLUMNS + 1]);
                    let (highest, total, moment) = sums(logits, scale, out);
                    let share = 1.0 / total;
                    let expected = moment * share;
                    for (out, &logit) in out.iter_mut().zip(logits) {
                        // z − ℓ + H = (z − highest) − Σ p (z − highest)
                        let surprise = (logit - highest) * scale - expected;
                        *out *= -share * scale * (by_logprob + by_entropy * surprise);
                    }
                    out[targets[row] as usize] += by_logprob * scale;
                }
            },
        );
    });
    out
}
