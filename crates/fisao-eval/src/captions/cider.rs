//! CIDEr-D, which pycocoevalcap 1.2 calls CIDEr.
//!
//! Vedantam, Zitnick & Parikh, *CIDEr: Consensus-based Image Description Evaluation*, CVPR 2015, as `cider_scorer.py`
//! computes it:
//!
//! ```text
//! g(w)     = count of w · (ln N − ln max(1, images with w in a reference))
//! s_n(c,r) = Σ_w min(g_c(w), g_r(w)) g_r(w) / (‖g_c‖ ‖g_r‖) · exp(−(l_c − l_r)² / (2 · 6²))
//! CIDEr    = 10 · mean over n ≤ 4 and references of s_n
//! ```
//!
//! N is the number of images; the sum goes over runs of n words; a length l counts the runs of two words. Where a
//! norm is 0 the sum is not divided. So a value depends on the set that the image is scored in.

use std::collections::HashMap;

use super::ngrams::{Gram, LONGEST, Sentence, order};

/// Standard deviation of the length penalty, in words.
const SIGMA: f64 = 6.0;

/// How many images have a run of words in a reference.
pub(super) struct DocumentFrequencies {
    frequencies: HashMap<Gram, u32>,
    /// ln of the number of images.
    images: f64,
}

/// Weighted counts of one sentence.
struct Weights {
    /// As [`Sentence::grams`], each with its weight.
    of_grams: Vec<f64>,
    norms: [f64; LONGEST],
    length: f64,
}

impl DocumentFrequencies {
    /// Of the references of every image.
    pub(super) fn of<'a>(images: impl ExactSizeIterator<Item = &'a [Sentence]>) -> Self {
        let count = images.len() as f64;
        let mut frequencies = HashMap::new();
        for references in images {
            let mut grams: Vec<Gram> = references
                .iter()
                .flat_map(|reference| reference.grams.iter().map(|&(gram, _)| gram))
                .collect();
            grams.sort_unstable();
            grams.dedup();
            for gram in grams {
                *frequencies.entry(gram).or_insert(0) += 1;
            }
        }
        Self { frequencies, images: count.ln() }
    }

    fn weights(&self, sentence: &Sentence) -> Weights {
        let mut squares = [0.0; LONGEST];
        let mut length = 0.0;
        let mut weights = Vec::with_capacity(sentence.grams.len());
        for (gram, count) in &sentence.grams {
            let images = self.frequencies.get(gram).copied().unwrap_or(0).max(1);
            let weight = f64::from(*count) * (self.images - f64::from(images).ln());
            let order = order(gram);
            squares[order - 1] += weight * weight;
            length += if order == 2 { f64::from(*count) } else { 0.0 };
            weights.push(weight);
        }
        Weights { of_grams: weights, norms: squares.map(f64::sqrt), length }
    }

    /// Of one caption.
    pub(super) fn cider(&self, caption: &Sentence, references: &[Sentence]) -> f64 {
        let of_caption = self.weights(caption);
        let mut sums = [0.0; LONGEST];
        for reference in references {
            let of_reference = self.weights(reference);
            let products = products(caption, &of_caption, reference, &of_reference);
            let difference = of_caption.length - of_reference.length;
            let penalty = (-(difference * difference) / (2.0 * SIGMA * SIGMA)).exp();
            for (at, sum) in sums.iter_mut().enumerate() {
                let norm = of_caption.norms[at] * of_reference.norms[at];
                let cosine = if norm == 0.0 { products[at] } else { products[at] / norm };
                *sum += cosine * penalty;
            }
        }
        sums.iter().sum::<f64>() / LONGEST as f64 / references.len() as f64 * 10.0
    }
}

/// Σ `min(g_c, g_r) g_r` for runs of each length.
fn products(
    caption: &Sentence,
    of_caption: &Weights,
    reference: &Sentence,
    of_reference: &Weights,
) -> [f64; LONGEST] {
    let mut products = [0.0; LONGEST];
    for ((gram, _), weight) in caption.grams.iter().zip(&of_caption.of_grams) {
        let found = reference.grams.binary_search_by_key(gram, |&(gram, _)| gram);
        if let Ok(at) = found {
            let other = of_reference.of_grams[at];
            products[order(gram) - 1] += weight.min(other) * other;
        }
    }
    products
}
