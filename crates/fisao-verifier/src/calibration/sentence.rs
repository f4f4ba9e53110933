//! Scale of whole-response scores, for the sentence-level baseline.

use serde::{Deserialize, Serialize};

use super::annotated::{MINIMUM_PER_CLASS, spread};
use super::error::{CalibrationError, check_finite};

/// Mean and spread of whole-response scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SentenceCalibration {
    /// Mean score of a response; cosine.
    pub mean: f64,
    /// Standard deviation (n − 1); cosine.
    pub deviation: f64,
    /// Responses scored.
    pub responses: usize,
}

/// Calibrates on the scores of whole responses. No labels are involved.
///
/// # Errors
/// Fewer than [`MINIMUM_PER_CLASS`] scores, one that is not finite, or no spread.
pub fn fit_sentences(scores: &[f64]) -> Result<SentenceCalibration, CalibrationError> {
    check_finite("score", scores)?;
    let (what, found) = ("responses", scores.len());
    if found < MINIMUM_PER_CLASS {
        return Err(CalibrationError::TooFew { what, found, needed: MINIMUM_PER_CLASS });
    }
    let (mean, deviation) = spread(what, scores)?;
    Ok(SentenceCalibration { mean, deviation, responses: found })
}
