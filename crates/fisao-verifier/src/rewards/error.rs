//! Why a reward rule cannot be used.

use crate::calibration::CalibrationError;

/// A reward configuration that does not fit its calibration, or no calibration at all.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum RewardError {
    /// The calibration itself is unusable.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A setting out of its range.
    #[error("reward setting {setting} is {value}; it must be {range}")]
    OutOfRange {
        /// Key in the configuration.
        setting: &'static str,
        /// Value found.
        value: f64,
        /// Values allowed.
        range: &'static str,
    },
    /// τ₋ > τ₊: a score would be rewarded and penalised at once.
    #[error(
        "the reward thresholds cross: with margin {margin} hallucinated mentions end at \
         {tau_minus:.4} and correct ones begin at {tau_plus:.4}; the largest margin that works for \
         this calibration is {largest}"
    )]
    Crossed {
        /// λ as configured.
        margin: f64,
        /// τ₊.
        tau_plus: f64,
        /// τ₋.
        tau_minus: f64,
        /// (μ₊ − μ₋) / 2.
        largest: f64,
    },
    /// A mention as likely wrong as right would be rewarded.
    #[error(
        "scores from {tau_plus:.4} on are rewarded, but mentions are as likely wrong as right up \
         to {boundary:.4}; lower the margin by {excess:.4} or use the log-odds form"
    )]
    BoundaryPays {
        /// τ₊.
        tau_plus: f64,
        /// Score of even odds.
        boundary: f64,
        /// boundary − τ₊.
        excess: f64,
    },
    /// Mentions would be rewarded that are more likely wrong than right, whatever their score.
    #[error(
        "scores from {tau_plus:.4} on are rewarded, but whatever its score a mention is more likely \
         wrong than right; use the log-odds form, or a verifier that tells objects apart"
    )]
    EverythingLeansWrong {
        /// τ₊.
        tau_plus: f64,
    },
    /// No mention would ever be penalised.
    #[error(
        "no mention is ever penalised: the verifier never puts one below the target precision; \
         raise target-precision or use a verifier that tells objects apart"
    )]
    NothingPenalised,
    /// The sentence-level form without the scale it needs.
    #[error("the sentence reward needs the scores of whole responses; calibrate with them")]
    SentenceUncalibrated,
}
