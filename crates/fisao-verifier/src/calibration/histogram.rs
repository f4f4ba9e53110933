//! Histograms of scores.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Bins of the histograms kept in a calibration.
const BINS: usize = 40;

/// Counts of scores in bins of equal width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Left edge of the first bin.
    pub low: f64,
    /// Right edge of the last bin.
    pub high: f64,
    /// Scores per bin.
    pub counts: Vec<usize>,
}

/// Histograms of both classes over the same bins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histograms {
    /// Scores of correct mentions.
    pub correct: Histogram,
    /// Scores of hallucinated mentions.
    pub hallucinated: Histogram,
}

/// Counts finite `scores` in `bins` bins of equal width over `range`. A bin holds its left edge;
/// scores beyond the range count in the outermost bins, so that the counts add up to the scores.
///
/// # Panics
/// If there are no bins or the range is empty.
pub fn histogram(scores: &[f64], bins: usize, range: Range<f64>) -> Histogram {
    let width = range.end - range.start;
    assert!(
        bins > 0 && width > 0.0,
        "a histogram needs bins and a range, got {bins} over {range:?}"
    );
    let mut counts = vec![0; bins];
    for score in scores {
        let bin = ((score - range.start) / width * bins as f64).floor();
        counts[bin.clamp(0.0, (bins - 1) as f64) as usize] += 1;
    }
    Histogram { low: range.start, high: range.end, counts }
}

impl Histograms {
    /// Both classes over the range of all their scores.
    pub(super) fn new(correct: &[f64], hallucinated: &[f64]) -> Self {
        let all = || correct.iter().chain(hallucinated).copied();
        let low = all().fold(f64::INFINITY, f64::min);
        let high = all().fold(f64::NEG_INFINITY, f64::max);
        let range = if low < high { low..high } else { low - 0.5..low + 0.5 };
        Self {
            correct: histogram(correct, BINS, range.clone()),
            hallucinated: histogram(hallucinated, BINS, range),
        }
    }
}
