//! From a score to the probability that its mention is correct.

use serde::{Deserialize, Serialize};

use super::Calibration;

/// How scores turn into probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProbabilityModel {
    /// Two Gaussians and the class fraction.
    #[default]
    Gaussians,
    /// Logistic regression on the score.
    Logistic,
}

impl Calibration {
    /// logit P(correct | s), never falling in s. For the two Gaussians
    ///
    /// ```text
    /// ℓ(s) = log π/(1−π) + log N(s; μ₊, σ₊²) − log N(s; μ₋, σ₋²)
    /// ```
    ///
    /// which is a parabola when σ₊ ≠ σ₋ and turns around at
    ///
    /// ```text
    /// s° = (μ₋/σ₋² − μ₊/σ₊²) / (1/σ₋² − 1/σ₊²),
    /// ```
    ///
    /// below μ₋ if σ₊ > σ₋ and above μ₊ if σ₊ < σ₋. Past s° the wider class would win back scores
    /// that only the tails of a fit speak for, so ℓ keeps the value ℓ(s°) there.
    pub fn logit(&self, score: f64, model: ProbabilityModel) -> f64 {
        match model {
            ProbabilityModel::Gaussians => self.gaussian_logit(score),
            ProbabilityModel::Logistic => self.logistic.logit(score),
        }
    }

    /// P(correct | s) ∈ [0, 1], never falling in s.
    pub fn probability(&self, score: f64, model: ProbabilityModel) -> f64 {
        1.0 / (1.0 + (-self.logit(score, model)).exp())
    }

    /// Lowest score, to within rounding, whose mention is correct with this probability. `None`
    /// when no score within ten standard deviations of the means reaches it, or all exceed it.
    pub fn score_at(&self, probability: f64, model: ProbabilityModel) -> Option<f64> {
        let target = (probability / (1.0 - probability)).ln();
        let reach = 10.0 * self.sigma_correct.max(self.sigma_hallucinated);
        let (mut low, mut high) = (self.mu_hallucinated - reach, self.mu_correct + reach);
        if self.logit(low, model) >= target || self.logit(high, model) < target {
            return None;
        }
        // 64 halvings leave nothing of a range of f64 numbers of one magnitude.
        for _ in 0..64 {
            let middle = f64::midpoint(low, high);
            if self.logit(middle, model) < target { low = middle } else { high = middle }
        }
        Some(high)
    }

    fn gaussian_logit(&self, score: f64) -> f64 {
        let (sigma_plus, sigma_minus) = (self.sigma_correct, self.sigma_hallucinated);
        let curvature = sigma_minus.powi(-2) - sigma_plus.powi(-2);
        let turn = (self.mu_hallucinated * sigma_minus.powi(-2)
            - self.mu_correct * sigma_plus.powi(-2))
            / curvature;
        let score = if curvature > 0.0 {
            score.max(turn)
        } else if curvature < 0.0 {
            score.min(turn)
        } else {
            score
        };
        let z = |mean: f64, deviation: f64| (score - mean) / deviation;
        let (right, wrong) = (z(self.mu_correct, sigma_plus), z(self.mu_hallucinated, sigma_minus));
        (self.prior_correct / (1.0 - self.prior_correct)).ln()
            + (sigma_minus / sigma_plus).ln()
            + (wrong * wrong - right * right) / 2.0
    }
}
