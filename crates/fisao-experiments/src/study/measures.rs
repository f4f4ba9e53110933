//! How well scores detect, and how they go with the quality of captions.

use fisao_eval::detection::{
    Groups, RiskCoverage, average_precision, brier, expected_calibration_error, roc_auc, spearman,
};
use fisao_eval::statistics::Bootstrap;
use fisao_verifier::calibration::{Calibration, ProbabilityModel, fit_annotated};

use super::document::{Correlation, Detection};
use super::sample::{Mention, split};

/// Points of a curve that is drawn.
const CURVE: usize = 100;

/// Resamples of the intervals.
const BOOTSTRAP: Bootstrap = Bootstrap { resamples: 500, seed: 0 };

/// Thresholds and probabilities from mentions with their truth; `None` where they do not allow any.
pub(super) fn calibrated(mentions: &[Mention]) -> Option<Calibration> {
    let scores: Vec<f64> = mentions.iter().map(|mention| mention.score).collect();
    let correct: Vec<bool> = mentions.iter().map(|mention| mention.correct).collect();
    fit_annotated(&scores, &correct).ok()
}

/// Probability of being correct of every mention.
pub(super) fn probabilities(calibration: &Calibration, mentions: &[Mention]) -> Vec<f64> {
    let probability =
        |mention: &Mention| calibration.probability(mention.score, ProbabilityModel::default());
    mentions.iter().map(probability).collect()
}

/// Area under the curve; `None` where a class is missing.
pub(super) fn auc(mentions: &[Mention]) -> Option<f64> {
    let (correct, hallucinated) = split(mentions);
    roc_auc(&correct, &hallucinated)
}

/// Everything about a detector; `None` where a class is missing.
pub(super) fn detection(
    mentions: &[Mention],
    calibration: Option<&Calibration>,
) -> Option<Detection> {
    let (correct, hallucinated) = split(mentions);
    let auc_found = roc_auc(&correct, &hallucinated)?;
    let groups = Groups::of(mentions.iter().map(|mention| mention.caption));
    let [auc_interval] = groups.intervals(BOOTSTRAP, |rows| {
        [auc(&rows.iter().map(|&row| mentions[row]).collect::<Vec<_>>())]
    });
    // Hallucinations are what is to be found, so the lowest scores come first.
    let negative = |scores: &[f64]| scores.iter().map(|score| -score).collect::<Vec<_>>();
    let answers: Vec<(f64, bool)> =
        mentions.iter().map(|mention| (mention.score, mention.correct)).collect();
    let curve = RiskCoverage::of(&answers)?;
    let truth: Vec<bool> = mentions.iter().map(|mention| mention.correct).collect();
    let probabilities = calibration.map(|calibration| probabilities(calibration, mentions));
    Some(Detection {
        auc: auc_found,
        auc_interval,
        average_precision: average_precision(&negative(&hallucinated), &negative(&correct))?,
        aurc: curve.aurc(),
        risk_at_80: curve.risk_at(0.8),
        risk_coverage: curve
            .points(CURVE)
            .iter()
            .map(|point| (point.coverage, point.risk))
            .collect(),
        brier: probabilities.as_ref().and_then(|p| brier(p, &truth)),
        calibration_error: probabilities
            .as_ref()
            .and_then(|p| expected_calibration_error(p, &truth, 10)),
    })
}

/// How two kinds of score go with a quality of captions; all three hold one number for each caption.
pub(super) fn correlation(
    target: &str,
    quality: &[f64],
    token: &[f64],
    sentence: &[f64],
) -> Correlation {
    let both = |rows: &[usize]| {
        let of = |values: &[f64]| rows.iter().map(|&row| values[row]).collect::<Vec<_>>();
        let quality = of(quality);
        [spearman(&of(token), &quality), spearman(&of(sentence), &quality)]
    };
    let all: Vec<usize> = (0..quality.len()).collect();
    let [token_found, sentence_found] = both(&all);
    let intervals = Groups::of(0..quality.len()).intervals(BOOTSTRAP, |rows| {
        let [token, sentence] = both(rows);
        [token, sentence, token.zip(sentence).map(|(token, sentence)| token - sentence)]
    });
    let [token_interval, sentence_interval, difference_interval] = intervals;
    Correlation {
        target: target.to_owned(),
        token: token_found,
        token_interval,
        sentence: sentence_found,
        sentence_interval,
        difference_interval,
        captions: quality.len(),
    }
}
