//! An unbiased estimate of whether a mention is correct, from a score that may be weak evidence.
//!
//! For a statistic f of the score with class means f̄₊ and f̄₋,
//!
//! ```text
//! ẑ(s) = (f(s) − f̄₋) / (f̄₊ − f̄₋)        E[ẑ | correct] = 1,   E[ẑ | hallucinated] = 0
//! ```
//!
//! whatever the AUC: a weak verifier costs variance, not bias. This is the correction of labels by their noise rates of
//! Natarajan et al. (*Learning with Noisy Labels*, NIPS 2013) and, for rewards, of Wang, Liu and Li (arXiv 1810.01032), for
//! a score instead of a binary label.
//!
//! Which f? Over the model's own mentions, a fraction π of which is correct, the variance of ẑ within the classes,
//!
//! ```text
//! [π Var₊ f + (1 − π) Var₋ f] / (f̄₊ − f̄₋)²,
//! ```
//!
//! is smallest for f = (p₊ − p₋)/(π p₊ + (1 − π) p₋) (Cauchy–Schwarz with the densities p± of the classes), which is an
//! affine function of the posterior probability p(s). So [`Statistic::Posterior`] needs no clipping, which would bring
//! bias back: p(s) is bounded by itself.

use serde::{Deserialize, Serialize};

use super::{Calibration, CalibrationError, ProbabilityModel};

/// AUC at and below which no estimate of correctness is made: at 0.55 one mention carries 1/30 of what an annotation does.
pub const LEAST_AUC: f64 = 0.55;

/// Cells of the midpoint rule per Gaussian, and how many standard deviations they cover.
const QUADRATURE_CELLS: usize = 4096;
const QUADRATURE_REACH: f64 = 8.0;

/// What of a score is averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Statistic {
    /// The calibrated probability p(s): least variance.
    #[default]
    Posterior,
    /// The score itself: needs nothing but the two means, and is unbounded.
    Score,
}

/// ẑ(s) of one calibration.
#[derive(Clone, Debug)]
pub struct Correctness {
    calibration: Calibration,
    statistic: Statistic,
    /// f̄₊ and f̄₋.
    means: (f64, f64),
    /// Standard deviation of ẑ among correct and among hallucinated mentions.
    deviations: (f64, f64),
}

impl Correctness {
    /// Works out the class means: over the calibration's own mentions, or over its two Gaussians where it holds none.
    ///
    /// # Errors
    /// [`CalibrationError::Indistinct`] when the AUC is [`LEAST_AUC`] or less, or the statistic does not rise from
    /// hallucinated to correct mentions.
    pub fn new(calibration: &Calibration, statistic: Statistic) -> Result<Self, CalibrationError> {
        let f = |score: f64| value(calibration, statistic, score);
        let (plus, minus) = class_means(calibration, f);
        let gap = plus - minus;
        let (plus_square, minus_square) = class_means(calibration, |score| f(score).powi(2));
        let deviation = |square: f64, mean: f64| (square - mean * mean).max(0.0).sqrt() / gap;
        let deviations = (deviation(plus_square, plus), deviation(minus_square, minus));
        let auc = calibration.auc;
        if auc <= LEAST_AUC || gap <= 0.0 {
            let deviation = deviations.0.hypot(deviations.1).abs();
            return Err(CalibrationError::Indistinct { auc, deviation });
        }
        Ok(Self { calibration: calibration.clone(), statistic, means: (plus, minus), deviations })
    }

    /// ẑ(s): on average 1 over correct mentions and 0 over hallucinated ones; one of them may be far outside.
    pub fn estimate(&self, score: f64) -> f64 {
        let (plus, minus) = self.means;
        (value(&self.calibration, self.statistic, score) - minus) / (plus - minus)
    }

    /// Standard deviation of ẑ among correct and among hallucinated mentions.
    pub fn deviations(&self) -> (f64, f64) {
        self.deviations
    }

    /// Standard deviation of ẑ − z over the model's own mentions: what one score lacks of an annotation. 0 for a perfect
    /// verifier; a reward has to be averaged over about its square times as many mentions as annotations would take.
    pub fn noise(&self) -> f64 {
        let (plus, minus) = self.deviations;
        let fraction = self.calibration.prior_correct;
        (fraction * plus * plus + (1.0 - fraction) * minus * minus).sqrt()
    }
}

fn value(calibration: &Calibration, statistic: Statistic, score: f64) -> f64 {
    match statistic {
        Statistic::Posterior => calibration.probability(score, ProbabilityModel::Gaussians),
        Statistic::Score => score,
    }
}

/// Means of f over correct and over hallucinated mentions.
fn class_means(calibration: &Calibration, f: impl Fn(f64) -> f64) -> (f64, f64) {
    if let Some(means) = calibration.mentions.class_means(&f) {
        return means;
    }
    let c = calibration;
    let mean = |mu: f64, sigma: f64| gaussian_mean(|z| f(mu + z * sigma));
    (mean(c.mu_correct, c.sigma_correct), mean(c.mu_hallucinated, c.sigma_hallucinated))
}

/// E f(z) over the standard normal distribution, by the midpoint rule.
pub(crate) fn gaussian_mean(f: impl Fn(f64) -> f64) -> f64 {
    let width = 2.0 * QUADRATURE_REACH / QUADRATURE_CELLS as f64;
    let (mut sum, mut total) = (0.0, 0.0);
    for cell in 0..QUADRATURE_CELLS {
        let z = (cell as f64 + 0.5) * width - QUADRATURE_REACH;
        let density = (-0.5 * z * z).exp();
        sum += density * f(z);
        total += density;
    }
    sum / total
}
