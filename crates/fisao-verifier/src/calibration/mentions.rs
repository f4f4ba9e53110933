//! The scores a calibration was made from.

use serde::{Deserialize, Serialize};

use super::CalibrationError;
use super::error::check_finite;

/// Scores of mentions with what is known about each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MentionScores {
    /// One per mention, on the calibration's scale; cosine.
    pub scores: Vec<f64>,
    /// For each of them the probability that it is correct, `[0, 1]`: 0 or 1 with annotations.
    pub correct: Vec<f64>,
}

impl MentionScores {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// Mean of `f` over correct and over hallucinated mentions, each mention counted for either class by its
    /// probability. `None` when a class is empty.
    ///
    /// ```text
    /// f̄₊ = Σ q_i f(s_i) / Σ q_i        f̄₋ = Σ (1 − q_i) f(s_i) / Σ (1 − q_i)
    /// ```
    pub fn class_means(&self, f: impl Fn(f64) -> f64) -> Option<(f64, f64)> {
        let (mut right, mut wrong) = (0.0, 0.0);
        let (mut right_sum, mut wrong_sum) = (0.0, 0.0);
        for (&score, &correct) in self.scores.iter().zip(&self.correct) {
            let value = f(score);
            right += correct;
            wrong += 1.0 - correct;
            right_sum += correct * value;
            wrong_sum += (1.0 - correct) * value;
        }
        (right > 0.0 && wrong > 0.0).then(|| (right_sum / right, wrong_sum / wrong))
    }

    /// Checks mentions that came from a file.
    pub(super) fn validate(&self) -> Result<(), CalibrationError> {
        let (scores, found) = (self.scores.len(), self.correct.len());
        if scores != found {
            return Err(CalibrationError::Length { scores, what: "probabilities", found });
        }
        check_finite("score", &self.scores)?;
        match self.correct.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            Some(&value) => Err(CalibrationError::OutOfRange { field: "mentions.correct", value }),
            None => Ok(()),
        }
    }
}
