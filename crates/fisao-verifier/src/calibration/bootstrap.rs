//! Percentile bootstrap of a calibration.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::annotated::{moments, split};
use super::{CalibrationError, auc, fit_annotated};

/// How to draw bootstrap intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Bootstrap {
    /// Resamples drawn with replacement. Default: 200.
    pub samples: usize,
    /// Seed of the draws. Default: 0.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { samples: 200, seed: 0 }
    }
}

/// Central 95 % of the bootstrap distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// 95 % intervals of a calibration's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Of μ₊.
    pub mu_correct: Interval,
    /// Of σ₊.
    pub sigma_correct: Interval,
    /// Of μ₋.
    pub mu_hallucinated: Interval,
    /// Of σ₋.
    pub sigma_hallucinated: Interval,
    /// Of the AUC.
    pub auc: Interval,
}

/// μ₊, σ₊, μ₋, σ₋, AUC of one resample.
pub(super) type Estimate = [f64; 5];

/// Intervals of an annotated calibration. Captions are resampled, not mentions: `captions[i]` is the number of the caption
/// that mention `i` stands in, and mentions of one caption are right or wrong together more often than others, so that
/// resampling them one by one would make intervals too narrow. Centres that were taken from the scores stay as they are.
///
/// # Errors
/// Whatever [`fit_annotated`] refuses, and captions that are not as many as the scores.
pub fn bootstrap_annotated(
    scores: &[f64],
    correct: &[bool],
    captions: &[usize],
    bootstrap: &Bootstrap,
) -> Result<Intervals, CalibrationError> {
    fit_annotated(scores, correct)?;
    if captions.len() != scores.len() {
        let (scores, found) = (scores.len(), captions.len());
        return Err(CalibrationError::Length { scores, what: "captions", found });
    }
    let mut mentions: BTreeMap<usize, Vec<(f64, bool)>> = BTreeMap::new();
    for ((score, correct), caption) in scores.iter().zip(correct).zip(captions) {
        mentions.entry(*caption).or_default().push((*score, *correct));
    }
    let mentions: Vec<Vec<(f64, bool)>> = mentions.into_values().collect();
    Ok(intervals(bootstrap, |rng| {
        let (right, wrong) = both_classes(&mentions, rng);
        let ((mu_plus, sigma_plus), (mu_minus, sigma_minus)) = (moments(&right), moments(&wrong));
        [mu_plus, sigma_plus, mu_minus, sigma_minus, auc(&right, &wrong)]
    }))
}

/// Scores of correct and of hallucinated mentions of as many captions as there are, drawn with replacement; drawn again
/// where too few of a class came up to have a spread.
fn both_classes(captions: &[Vec<(f64, bool)>], rng: &mut ChaCha8Rng) -> (Vec<f64>, Vec<f64>) {
    loop {
        let (mut scores, mut correct) = (Vec::new(), Vec::new());
        for _ in 0..captions.len() {
            for &(score, is) in &captions[rng.random_range(0..captions.len())] {
                scores.push(score);
                correct.push(is);
            }
        }
        let (right, wrong) = split(&scores, &correct);
        if right.len() > 1 && wrong.len() > 1 {
            return (right, wrong);
        }
    }
}

/// As many of `scores` as there are, drawn with replacement.
pub(super) fn resample(scores: &[f64], rng: &mut ChaCha8Rng) -> Vec<f64> {
    (0..scores.len()).map(|_| scores[rng.random_range(0..scores.len())]).collect()
}

/// Intervals over what `estimate` makes of each resample it draws.
pub(super) fn intervals(
    bootstrap: &Bootstrap,
    mut estimate: impl FnMut(&mut ChaCha8Rng) -> Estimate,
) -> Intervals {
    let mut rng = ChaCha8Rng::seed_from_u64(bootstrap.seed);
    let estimates: Vec<Estimate> =
        (0..bootstrap.samples.max(1)).map(|_| estimate(&mut rng)).collect();
    let interval = |number: usize| {
        let mut values: Vec<f64> = estimates.iter().map(|estimate| estimate[number]).collect();
        values.sort_by(f64::total_cmp);
        let at = |fraction: f64| values[(fraction * (values.len() - 1) as f64).round() as usize];
        Interval { low: at(0.025), high: at(0.975) }
    };
    Intervals {
        mu_correct: interval(0),
        sigma_correct: interval(1),
        mu_hallucinated: interval(2),
        sigma_hallucinated: interval(3),
        auc: interval(4),
    }
}
