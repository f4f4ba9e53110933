//! Percentile bootstrap of a calibration.

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

/// Intervals of an annotated calibration: each class is resampled by itself, at its own size.
///
/// # Errors
/// Whatever [`fit_annotated`] refuses.
pub fn bootstrap_annotated(
    scores: &[f64],
    correct: &[bool],
    bootstrap: &Bootstrap,
) -> Result<Intervals, CalibrationError> {
    fit_annotated(scores, correct)?;
    let (right, wrong) = split(scores, correct);
    Ok(intervals(bootstrap, |rng| {
        let (right, wrong) = (resample(&right, rng), resample(&wrong, rng));
        let ((mu_plus, sigma_plus), (mu_minus, sigma_minus)) = (moments(&right), moments(&wrong));
        [mu_plus, sigma_plus, mu_minus, sigma_minus, auc(&right, &wrong)]
    }))
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
        let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
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
