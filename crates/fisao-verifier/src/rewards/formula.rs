//! The formula of a mention's reward, with its constants worked out.

use super::{PenaltyWeight, RewardConfig, RewardError, RewardForm};
use crate::calibration::{Calibration, Correctness, ProbabilityModel, SentenceCalibration};

#[derive(Clone, Debug)]
pub(super) enum Formula {
    Threshold { tau_plus: f64, tau_minus: f64, max: f64 },
    LogOdds { target_logit: f64, max: f64, probability: ProbabilityModel },
    Corrected { correctness: Box<Correctness>, break_even: f64, scale: f64 },
    Sentence { scale: SentenceCalibration, max: f64 },
}

/// (τ₊, τ₋) = (μ₊ − λ, μ₋ + λ), for a margin λ ≥ 0 in the unit of the scores.
///
/// # Errors
/// A negative margin, or one so large that τ₋ > τ₊; the error names the largest that works.
pub fn thresholds(calibration: &Calibration, margin: f64) -> Result<(f64, f64), RewardError> {
    check_margin(margin)?;
    let (mu_plus, mu_minus) = (calibration.mu_correct, calibration.mu_hallucinated);
    let largest = (mu_plus - mu_minus) / 2.0;
    let (tau_plus, tau_minus) = (mu_plus - margin, mu_minus + margin);
    // Compared by margin, so that the margin named by the error is itself accepted.
    if margin > largest {
        return Err(RewardError::Crossed { margin, tau_plus, tau_minus, largest });
    }
    Ok((tau_plus, tau_minus))
}

impl Formula {
    pub(super) fn new(form: &RewardForm, calibration: &Calibration) -> Result<Self, RewardError> {
        match *form {
            RewardForm::Threshold { margin, max } => {
                let (tau_plus, tau_minus) = thresholds(calibration, margin)?;
                Ok(Self::Threshold { tau_plus, tau_minus, max })
            }
            RewardForm::LogOdds { target_precision: target, probability, max } => {
                let target_logit = (target / (1.0 - target)).ln();
                Ok(Self::LogOdds { target_logit, max, probability })
            }
            RewardForm::Corrected { break_even, scale, statistic } => {
                let correctness = Box::new(Correctness::new(calibration, statistic)?);
                Ok(Self::Corrected { correctness, break_even, scale })
            }
            RewardForm::Sentence { max } => {
                let scale = calibration.sentence.ok_or(RewardError::SentenceUncalibrated)?;
                Ok(Self::Sentence { scale, max })
            }
        }
    }

    /// r(s) before κ₋.
    pub(super) fn reward(&self, score: f64, calibration: &Calibration) -> f64 {
        match *self {
            Self::Corrected { ref correctness, break_even, scale } => {
                scale * (correctness.estimate(score) - break_even)
            }
            Self::Threshold { tau_plus, max, .. } if score >= tau_plus => {
                ((score - tau_plus) / calibration.sigma).min(max)
            }
            Self::Threshold { tau_minus, max, .. } if score <= tau_minus => {
                ((score - tau_minus) / calibration.sigma).max(-max)
            }
            Self::LogOdds { target_logit, max, probability } => {
                (calibration.logit(score, probability) - target_logit).clamp(-max, max)
            }
            Self::Threshold { .. } | Self::Sentence { .. } => 0.0,
        }
    }
}

/// Largest number of a setting without a range of its own.
const LARGEST: f64 = 1e9;
const ABOVE_ZERO: &str = "above 0, at most 1e9";
const ZERO_OR_MORE: &str = "from 0 to 1e9";

impl RewardConfig {
    /// Checks every value against its range; whether they fit a calibration is for [`RewardRule`](super::RewardRule) to say.
    ///
    /// # Errors
    /// [`RewardError::OutOfRange`] naming the first that lies outside.
    pub fn validate(&self) -> Result<(), RewardError> {
        let RewardConfig { form, penalty_weight, repetition_penalty, truncated_penalty, .. } =
            *self;
        not_negative("truncated-penalty", truncated_penalty)?;
        not_negative("repetition-penalty", repetition_penalty)?;
        match form {
            RewardForm::Threshold { margin, max } => {
                check_margin(margin)?;
                positive("form.max", max)?;
            }
            RewardForm::LogOdds { target_precision: target, max, .. } => {
                let good = (0.5..1.0).contains(&target);
                in_range("form.target-precision", target, good, "at least 0.5 and below 1")?;
                positive("form.max", max)?;
            }
            RewardForm::Corrected { break_even, scale, .. } => {
                check_break_even(break_even)?;
                positive("form.scale", scale)?;
            }
            RewardForm::Sentence { max } => positive("form.max", max)?,
        }
        let PenaltyWeight::Fixed(weight) = penalty_weight else { return Ok(()) };
        if matches!(form, RewardForm::Corrected { .. }) {
            let range = "1 or \"balanced\" with the corrected form, where form.break-even says what an error costs";
            return in_range("penalty-weight", weight, (weight - 1.0).abs() < f64::EPSILON, range);
        }
        not_negative("penalty-weight", weight)
    }
}

fn positive(setting: &'static str, value: f64) -> Result<(), RewardError> {
    in_range(setting, value, value > 0.0 && value <= LARGEST, ABOVE_ZERO)
}

fn not_negative(setting: &'static str, value: f64) -> Result<(), RewardError> {
    in_range(setting, value, (0.0..=LARGEST).contains(&value), ZERO_OR_MORE)
}

fn check_margin(margin: f64) -> Result<(), RewardError> {
    not_negative("form.margin", margin)
}

/// Checks a break-even precision.
pub(super) fn check_break_even(value: f64) -> Result<(), RewardError> {
    in_range("form.break-even", value, value > 0.0 && value < 1.0, "above 0 and below 1")
}

pub(super) fn in_range(
    setting: &'static str,
    value: f64,
    good: bool,
    range: &'static str,
) -> Result<(), RewardError> {
    if good && value.is_finite() {
        Ok(())
    } else {
        Err(RewardError::OutOfRange { setting, value, range })
    }
}
