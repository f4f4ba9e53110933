//! BLEU-1 to BLEU-4.
//!
//! Papineni et al., *BLEU: a Method for Automatic Evaluation of Machine Translation*, ACL 2002, as
//! pycocoevalcap 1.2 computes it (`bleu_scorer.py`, option `closest`):
//!
//! ```text
//! BLEU-n = (Π_{k ≤ n} (correct_k + 1e-15) / (guessed_k + 1e-9))^{1/n} · exp(1 − 1/r) where r < 1
//! r      = (length + 1e-15) / (reference length + 1e-9)
//! ```
//!
//! `correct_k` counts runs of k words of the caption, each at most as often as in the reference that has it most
//! often. The reference length is that of the reference nearest in length, the shorter of two. Over a set, counts and
//! lengths are summed first.

use std::ops::Add;

use serde::{Deserialize, Serialize};

use super::ngrams::{LONGEST, Sentence, count_of, order};

/// Added to a numerator, so that a product stays above 0.
const TINY: f64 = 1e-15;
/// Added to a denominator, so that nothing is divided by 0.
const SMALL: f64 = 1e-9;

/// All that BLEU knows of a caption or, summed, of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BleuCounts {
    /// Runs of one to four words that a reference has too.
    pub correct: [u64; LONGEST],
    /// Runs of one to four words.
    pub guessed: [u64; LONGEST],
    /// Words of the caption.
    pub length: u64,
    /// Words of the reference nearest in length.
    pub reference_length: u64,
}

impl BleuCounts {
    pub(super) fn of(caption: &Sentence, references: &[Sentence]) -> Self {
        let mut counts = Self { length: caption.words as u64, ..Self::default() };
        for (before, guessed) in counts.guessed.iter_mut().enumerate() {
            *guessed = caption.words.saturating_sub(before) as u64;
        }
        for (gram, count) in &caption.grams {
            let most = references.iter().map(|reference| count_of(&reference.grams, gram)).max();
            counts.correct[order(gram) - 1] += u64::from(most.unwrap_or(0).min(*count));
        }
        let distance = |&words: &usize| (words.abs_diff(caption.words), words);
        let nearest = references.iter().map(|reference| reference.words).min_by_key(distance);
        counts.reference_length = nearest.unwrap_or(0) as u64;
        counts
    }

    /// BLEU-1, -2, -3 and -4.
    pub fn scores(&self) -> [f64; LONGEST] {
        let ratio = (self.length as f64 + TINY) / (self.reference_length as f64 + SMALL);
        let brevity = if ratio < 1.0 { (1.0 - 1.0 / ratio).exp() } else { 1.0 };
        let mut product = 1.0;
        std::array::from_fn(|before| {
            product *= (self.correct[before] as f64 + TINY) / (self.guessed[before] as f64 + SMALL);
            product.powf(1.0 / (before + 1) as f64) * brevity
        })
    }
}

impl Add for BleuCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            correct: std::array::from_fn(|at| self.correct[at] + other.correct[at]),
            guessed: std::array::from_fn(|at| self.guessed[at] + other.guessed[at]),
            length: self.length + other.length,
            reference_length: self.reference_length + other.reference_length,
        }
    }
}
