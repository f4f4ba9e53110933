//! What every calibration without labels is put together from.

use serde::{Deserialize, Serialize};

use super::bootstrap::Estimate;
use super::{CALIBRATION_VERSION, Calibration, Histograms, Labels, Logistic, MentionScores};

/// What told correct mentions from hallucinated ones where no annotations did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnlabelledFit {
    /// Two Gaussians under the scores.
    TwoGaussians,
    /// Scores and two other signals of every mention.
    ThreeViews,
}

impl UnlabelledFit {
    /// Sums scores up: `right[i]` is the probability that mention `i` is correct, `fraction` that of any mention.
    pub(super) fn calibration(
        self,
        scores: &[f64],
        right: Vec<f64>,
        fraction: f64,
        estimate: Estimate,
    ) -> Calibration {
        let [mu_correct, sigma_correct, mu_hallucinated, sigma_hallucinated, auc] = estimate;
        let count = scores.len();
        let correct = (right.iter().sum::<f64>().round() as usize).min(count);
        let pooled =
            fraction * sigma_correct.powi(2) + (1.0 - fraction) * sigma_hallucinated.powi(2);
        Calibration {
            version: CALIBRATION_VERSION,
            mode: Labels::None,
            unlabelled: Some(self),
            mu_correct,
            sigma_correct,
            mu_hallucinated,
            sigma_hallucinated,
            sigma: pooled.sqrt(),
            auc,
            correct,
            hallucinated: count - correct,
            prior_correct: fraction,
            logistic: Logistic::fit(scores, &right),
            centres: None,
            described: None,
            weights: None,
            sentence: None,
            histograms: split_histograms(scores, &right),
            mentions: MentionScores { scores: scores.to_vec(), correct: right },
            intervals: None,
            made_with: None,
        }
    }
}

/// Scores counted for their more probable class.
fn split_histograms(scores: &[f64], right: &[f64]) -> Histograms {
    let of = |class: bool| -> Vec<f64> {
        scores.iter().zip(right).filter(|(_, p)| (**p >= 0.5) == class).map(|(s, _)| *s).collect()
    };
    Histograms::new(&of(true), &of(false))
}
