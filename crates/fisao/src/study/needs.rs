//! What calibration needs: labels or none, how many images, how long a list of objects.

use fisao_eval::detection::brier;
use fisao_verifier::calibration::{
    Anchors, Bootstrap, Calibration, Intervals, UnlabelledConfig, bootstrap_annotated,
    fit_annotated, fit_unlabelled,
};
use fisao_verifier::mentions::ObjectVocabulary;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::document::{CalibrationResult, CalibrationSize, Moments, VocabularySize};
use super::measures::{auc, calibrated, probabilities};
use super::sample::{Mention, Sample};
use super::seed::Scored;

/// Numbers of images that calibration is tried on.
const CALIBRATION_IMAGES: [usize; 6] = [16, 32, 64, 128, 256, 512];
/// Draws of each number.
const DRAWS: usize = 20;
/// Shares of the vocabulary that are tried.
const VOCABULARY_SHARES: [f64; 4] = [0.1, 0.25, 0.5, 1.0];

/// Thresholds with annotations and without.
pub(super) fn thresholds(scored: &Scored) -> anyhow::Result<CalibrationResult> {
    let (mentions, mismatched) = (&scored.calibration, &scored.mismatched);
    let scores: Vec<f64> = mentions.iter().map(|mention| mention.score).collect();
    let correct: Vec<bool> = mentions.iter().map(|mention| mention.correct).collect();
    let annotated = fit_annotated(&scores, &correct)?;
    let intervals = bootstrap_annotated(&scores, &correct, &Bootstrap::default())?;
    let mu_mismatched = mismatched.iter().sum::<f64>() / mismatched.len().max(1) as f64;
    let anchors = Anchors { mismatched, log_prob_drops: None };
    let found = fit_unlabelled(&scores, &anchors, &UnlabelledConfig::default());
    let off = |found: f64, truth: f64| (found - truth).abs() / annotated.sigma;
    let (label_free, label_free_problem) = match found {
        Ok(found) => (Some(found), None),
        Err(problem) => (None, Some(problem.to_string())),
    };
    let (plus, minus) = (annotated.mu_correct, annotated.mu_hallucinated);
    Ok(CalibrationResult {
        mu_mismatched,
        mu_correct_error: label_free.as_ref().map(|found| off(found.mu_correct, plus)),
        mu_hallucinated_error: label_free.as_ref().map(|found| off(found.mu_hallucinated, minus)),
        mismatched_error: off(mu_mismatched, minus),
        annotated: moments(&annotated, Some(intervals)),
        label_free: label_free.map(|found| moments(&found, found.intervals)),
        label_free_problem,
    })
}

fn moments(calibration: &Calibration, intervals: Option<Intervals>) -> Moments {
    Moments {
        mu_correct: calibration.mu_correct,
        sigma_correct: calibration.sigma_correct,
        mu_hallucinated: calibration.mu_hallucinated,
        sigma_hallucinated: calibration.sigma_hallucinated,
        prior_correct: calibration.prior_correct,
        auc: calibration.auc,
        intervals,
    }
}

/// How well fewer calibration images do.
pub(super) fn sizes(sample: &Sample, scored: &Scored, seed: u64) -> Vec<CalibrationSize> {
    let Some(all) = calibrated(&scored.calibration) else { return Vec::new() };
    let count = sample.captions.len();
    let truth: Vec<bool> = scored.test.iter().map(|mention| mention.correct).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut found = Vec::new();
    for images in CALIBRATION_IMAGES.into_iter().filter(|&images| images <= count) {
        let mut rows: Vec<[f64; 3]> = Vec::new();
        let draws = if images == count { 1 } else { DRAWS };
        for _ in 0..draws {
            let mut order: Vec<usize> = (0..count).collect();
            order.shuffle(&mut rng);
            let mut chosen = vec![false; count];
            order[..images].iter().for_each(|&at| chosen[at] = true);
            let mentions = scored.calibration.iter().filter(|mention| chosen[mention.caption]);
            let Some(part) = calibrated(&mentions.copied().collect::<Vec<_>>()) else { continue };
            let p = probabilities(&part, &scored.test);
            rows.push([
                (part.mu_correct - all.mu_correct).abs() / all.sigma,
                (part.mu_hallucinated - all.mu_hallucinated).abs() / all.sigma,
                brier(&p, &truth).unwrap_or(f64::NAN),
            ]);
        }
        let mean = |column: usize| {
            let sum: f64 = rows.iter().map(|row| row[column]).sum();
            (!rows.is_empty()).then(|| sum / rows.len() as f64)
        };
        found.push(CalibrationSize {
            images,
            draws: rows.len(),
            mu_correct_error: mean(0),
            mu_hallucinated_error: mean(1),
            brier: mean(2),
        });
    }
    found
}

/// How much fewer categories find, nested parts of one shuffle.
pub(super) fn vocabulary_sizes(
    vocabulary: &ObjectVocabulary,
    mentions: &[Mention],
    seed: u64,
) -> Vec<VocabularySize> {
    let count = vocabulary.categories().len();
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let hallucinated = |mentions: &[Mention]| mentions.iter().filter(|m| !m.correct).count();
    let all = hallucinated(mentions).max(1) as f64;
    VOCABULARY_SHARES
        .into_iter()
        .map(|share| {
            let categories = ((share * count as f64).round() as usize).clamp(1, count);
            let kept = &order[..categories];
            let mentions: Vec<Mention> =
                mentions.iter().filter(|m| kept.contains(&m.category)).copied().collect();
            VocabularySize {
                categories,
                share,
                auc: auc(&mentions),
                hallucinations_covered: hallucinated(&mentions) as f64 / all,
            }
        })
        .collect()
}
