//! Calibration from annotated mentions.

use super::error::check_finite;
use super::{
    CALIBRATION_VERSION, Calibration, CalibrationError, Histograms, Labels, Logistic,
    MentionScores, auc,
};

/// Mentions of each class it takes to calibrate: below this the standard error of a mean exceeds a
/// third of the spread.
pub const MINIMUM_PER_CLASS: usize = 10;

/// Calibrates on mentions that annotations have split: `scores[i]` is the score of a mention,
/// `correct[i]` whether the image holds its object.
///
/// # Errors
/// Slices of different length, a score that is not finite, not one mention of a class, fewer than [`MINIMUM_PER_CLASS`]
/// mentions of a class, a class without spread, or a verifier that scores hallucinations higher.
pub fn fit_annotated(scores: &[f64], correct: &[bool]) -> Result<Calibration, CalibrationError> {
    if scores.len() != correct.len() {
        let (scores, found) = (scores.len(), correct.len());
        return Err(CalibrationError::Length { scores, what: "labels", found });
    }
    check_finite("score", scores)?;
    let (right, wrong) = split(scores, correct);
    match (right.len(), wrong.len()) {
        (mentions @ 1.., 0) => return Err(CalibrationError::AllCorrect { mentions }),
        (0, mentions @ 1..) => return Err(CalibrationError::AllHallucinated { mentions }),
        _ => {}
    }
    let (mu_correct, sigma_correct) = mean_and_deviation("correct mentions", &right)?;
    let (mu_hallucinated, sigma_hallucinated) =
        mean_and_deviation("hallucinated mentions", &wrong)?;
    let (n, m) = (right.len() as f64, wrong.len() as f64);
    let targets: Vec<f64> = correct.iter().map(|&is| f64::from(u8::from(is))).collect();
    let calibration = Calibration {
        version: CALIBRATION_VERSION,
        mode: Labels::Annotations,
        unlabelled: None,
        mu_correct,
        sigma_correct,
        mu_hallucinated,
        sigma_hallucinated,
        sigma: (((n - 1.0) * sigma_correct.powi(2) + (m - 1.0) * sigma_hallucinated.powi(2))
            / (n + m - 2.0))
            .sqrt(),
        auc: auc(&right, &wrong),
        correct: right.len(),
        hallucinated: wrong.len(),
        prior_correct: n / (n + m),
        logistic: Logistic::fit(scores, &targets),
        centres: None,
        described: None,
        weights: None,
        sentence: None,
        histograms: Histograms::new(&right, &wrong),
        mentions: MentionScores { scores: scores.to_vec(), correct: targets },
        intervals: None,
        made_with: None,
    };
    calibration.check_direction()?;
    Ok(calibration)
}

/// Scores of correct and of hallucinated mentions.
pub(super) fn split(scores: &[f64], correct: &[bool]) -> (Vec<f64>, Vec<f64>) {
    let of = |class: bool| {
        scores.iter().zip(correct).filter(|(_, is)| **is == class).map(|(s, _)| *s).collect()
    };
    (of(true), of(false))
}

fn mean_and_deviation(what: &'static str, scores: &[f64]) -> Result<(f64, f64), CalibrationError> {
    let found = scores.len();
    if found < MINIMUM_PER_CLASS {
        return Err(CalibrationError::TooFew { what, found, needed: MINIMUM_PER_CLASS });
    }
    spread(what, scores)
}

/// Mean and standard deviation (n − 1) of scores that are not all the same.
pub(super) fn spread(what: &'static str, scores: &[f64]) -> Result<(f64, f64), CalibrationError> {
    let (mean, deviation) = moments(scores);
    // n equal numbers may differ from their own mean, whose sum has been rounded n times.
    if deviation <= f64::EPSILON * scores.len() as f64 * mean.abs() {
        return Err(CalibrationError::NoSpread { what });
    }
    Ok((mean, deviation))
}

/// Mean and standard deviation (n − 1) of two numbers or more.
pub(super) fn moments(scores: &[f64]) -> (f64, f64) {
    let count = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / count;
    let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}
