//! What calibration needs: labels or none, how many images, how long a list of objects.

use fisao_align::centring::centre;
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
use super::seed::{Scored, StudyRunner};

/// Numbers of images that calibration is tried on.
const CALIBRATION_IMAGES: [usize; 6] = [16, 32, 64, 128, 256, 512];
/// Draws of each number.
const DRAWS: usize = 20;
/// Fractions of the vocabulary that are tried.
const VOCABULARY_FRACTIONS: [f64; 4] = [0.1, 0.25, 0.5, 1.0];

/// Thresholds with annotations and without, of the scores as they are given. What cannot be fitted is told and stops nothing: a verifier that fails is
/// what a study is for.
pub(super) fn thresholds(scored: &Scored) -> CalibrationResult {
    let (mentions, mismatched) = (&scored.calibration, &scored.mismatched);
    let scores: Vec<f64> = mentions.iter().map(|mention| mention.score).collect();
    let correct: Vec<bool> = mentions.iter().map(|mention| mention.correct).collect();
    let captions: Vec<usize> = mentions.iter().map(|mention| mention.caption).collect();
    let bootstrap = Bootstrap::default();
    let annotated = fit_annotated(&scores, &correct).and_then(|found| {
        Ok((found, bootstrap_annotated(&scores, &correct, &captions, &bootstrap)?))
    });
    let anchors = Anchors { mismatched, log_prob_drops: None, views: None };
    let label_free = fit_unlabelled(&scores, &anchors, &UnlabelledConfig::default());
    let mu_mismatched = mismatched.iter().sum::<f64>() / mismatched.len().max(1) as f64;
    let off = |found: f64, pick: fn(&Calibration) -> f64| {
        let (annotated, _) = annotated.as_ref().ok()?;
        Some((found - pick(annotated)).abs() / annotated.sigma)
    };
    let free = label_free.as_ref().ok();
    CalibrationResult {
        mu_mismatched,
        mu_correct_error: free.and_then(|found| off(found.mu_correct, |truth| truth.mu_correct)),
        mu_hallucinated_error: free
            .and_then(|found| off(found.mu_hallucinated, |truth| truth.mu_hallucinated)),
        mismatched_error: off(mu_mismatched, |truth| truth.mu_hallucinated),
        label_free: free.map(|found| moments(found, found.intervals)),
        label_free_problem: label_free.as_ref().err().map(ToString::to_string),
        annotated_problem: annotated.as_ref().err().map(ToString::to_string),
        annotated: annotated.ok().map(|(found, intervals)| moments(&found, Some(intervals))),
    }
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

/// How well fewer calibration images do: thresholds and centres come from them alone, as commands take them.
pub(super) fn sizes(
    runner: &StudyRunner<'_>,
    calibration: &Sample,
    test: &Sample,
    seed: u64,
) -> anyhow::Result<Vec<CalibrationSize>> {
    let count = calibration.captions.len();
    let Some((all, mentions)) = with_images(runner, calibration, test)? else {
        return Ok(Vec::new());
    };
    let truth: Vec<bool> = mentions.iter().map(|mention| mention.correct).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut found = Vec::new();
    for images in CALIBRATION_IMAGES.into_iter().filter(|&images| images <= count) {
        let mut rows: Vec<[f64; 4]> = Vec::new();
        for _ in 0..if images == count { 1 } else { DRAWS } {
            let mut order: Vec<usize> = (0..count).collect();
            order.shuffle(&mut rng);
            let drawn = calibration.part(&order[..images]);
            let Some((part, mentions)) = with_images(runner, &drawn, test)? else { continue };
            rows.push([
                (part.mu_correct - all.mu_correct).abs() / all.sigma,
                (part.mu_hallucinated - all.mu_hallucinated).abs() / all.sigma,
                brier(&probabilities(&part, &mentions), &truth).unwrap_or(f64::NAN),
                auc(&mentions).unwrap_or(f64::NAN),
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
            auc: mean(3),
        });
    }
    Ok(found)
}

/// Thresholds from calibration images, and the test mentions on their scale; by the pooled image alone.
fn with_images(
    runner: &StudyRunner<'_>,
    calibration: &Sample,
    test: &Sample,
) -> anyhow::Result<Option<(Calibration, Vec<Mention>)>> {
    let (mut verifier, vocabulary) = (runner.verifier.clone(), runner.vocabulary);
    let Sample { captions, images, .. } = calibration;
    centre(captions, images, &mut verifier, vocabulary)?;
    let mentions = |sample: &Sample| sample.mentions(&verifier, &sample.images, vocabulary);
    let test = mentions(test)?;
    Ok(calibrated(&mentions(calibration)?).map(|found| (found, test)))
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
    VOCABULARY_FRACTIONS
        .into_iter()
        .map(|fraction| {
            let categories = ((fraction * count as f64).round() as usize).clamp(1, count);
            let kept = &order[..categories];
            let mentions: Vec<Mention> =
                mentions.iter().filter(|m| kept.contains(&m.category)).copied().collect();
            VocabularySize {
                categories,
                fraction,
                auc: auc(&mentions),
                hallucinations_covered: hallucinated(&mentions) as f64 / all,
            }
        })
        .collect()
}
