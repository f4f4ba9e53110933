//! How much of a score the best patch of an image is to have beside its whole.

use std::collections::BTreeSet;

use fisao_verifier::calibration::{
    Anchors, Bootstrap, CalibrationError, Combination, UnlabelledConfig, auc, fit_unlabelled,
};
use fisao_verifier::mentions::ObjectVocabulary;
use fisao_verifier::regions::{ImageEmbedding, RegionWeights};
use fisao_verifier::scorer::Verifier;

use crate::centring::{caption_numbers, centre, correct_mentions, mismatched_scores, scores_of};
use crate::error::AlignError;
use crate::mentions::ScoredResponse;

/// Penalty of the regression that finds the weights: a standard normal prior on each.
const RIDGE: f64 = 1.0;
/// Gain in AUC from which on patches are worth being embedded.
const LEAST_GAIN: f64 = 0.005;

/// Mentions with what the whole image and its best patch say of them, cosine, centred by name where scores are.
struct Rows {
    values: Vec<Vec<f64>>,
    correct: Vec<bool>,
    /// Number of the caption each stands in.
    captions: Vec<usize>,
}

impl Rows {
    /// The mentions of every other caption.
    fn half(&self, parity: usize) -> Self {
        let own = (0..self.values.len()).filter(|&at| self.captions[at] % 2 == parity);
        let own: Vec<usize> = own.collect();
        Self {
            values: own.iter().map(|&at| self.values[at].clone()).collect(),
            correct: own.iter().map(|&at| self.correct[at]).collect(),
            captions: own.iter().map(|&at| self.captions[at]).collect(),
        }
    }

    /// Fractions of whole and best patch in proportion to their weights in a logistic regression, none below 0.
    fn fit(&self) -> Result<RegionWeights, CalibrationError> {
        let found = Combination::fit(&["whole", "patches"], &self.values, &self.correct, RIDGE)?;
        let per_cosine =
            |at: usize| (found.signals[at].weight / found.signals[at].deviation).max(0.0);
        let (whole, patches) = (per_cosine(0), per_cosine(1));
        let sum = whole + patches;
        Ok(RegionWeights { patches: if sum > 0.0 { patches / sum } else { 0.0 } })
    }

    fn auc(&self, weights: RegionWeights) -> f64 {
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        for (row, &correct) in self.values.iter().zip(&self.correct) {
            let score = (1.0 - weights.patches) * row[0] + weights.patches * row[1];
            if correct { right.push(score) } else { wrong.push(score) }
        }
        auc(&right, &wrong)
    }

    /// What weights fitted to one half of the captions add to the AUC of the other half.
    fn gain(&self, fitted: usize) -> Result<f64, CalibrationError> {
        let (fitted, other) = (self.half(fitted), self.half(1 - fitted));
        Ok(other.auc(fitted.fit()?) - other.auc(RegionWeights::default()))
    }
}

/// Weights of whole image and best patch by a logistic regression on annotated mentions; all for the whole where weights
/// fitted to one half of the captions do not raise the AUC of the other half by 0.005, both ways. Noise that scores may be
/// given plays no part. `images[task]` is what the verifier made of each image, with patches; `truth[task]` the categories
/// that it holds.
///
/// # Errors
/// [`AlignError::Verifier`] when a name cannot be scored. Too few mentions to fit to are no error: the whole counts alone.
pub fn region_weights(
    captions: &[ScoredResponse],
    images: &[ImageEmbedding],
    verifier: &Verifier,
    vocabulary: &ObjectVocabulary,
    truth: &[BTreeSet<String>],
) -> Result<RegionWeights, AlignError> {
    if images.iter().any(|image| image.parts.is_empty()) {
        // Looked at without patches: nothing is to be found.
        return Ok(RegionWeights::default());
    }
    let mut verifier = verifier.without_noise();
    let mut under = |patches| centred_scores(captions, images, &mut verifier, vocabulary, patches);
    let (whole, patches) = (under(0.0)?, under(1.0)?);
    let rows = Rows {
        values: whole.into_iter().zip(patches).map(|(whole, best)| vec![whole, best]).collect(),
        correct: correct_mentions(captions, vocabulary, truth),
        captions: caption_numbers(captions),
    };
    let helps = |fitted| rows.gain(fitted).is_ok_and(|gain| gain >= LEAST_GAIN);
    let weights = if helps(0) && helps(1) {
        rows.fit().unwrap_or_default()
    } else {
        RegionWeights::default()
    };
    Ok(weights)
}

/// Weights without annotations: of the whole alone, the best patch alone and their mean those whose scores two Gaussians tell
/// apart best, by the AUC that the fit implies; the whole alone where no other gains 0.005.
///
/// # Errors
/// [`AlignError::Verifier`] when a name cannot be scored. Scores that two Gaussians do not fit are no error.
pub fn unlabelled_region_weights(
    captions: &[ScoredResponse],
    images: &[ImageEmbedding],
    verifier: &Verifier,
    vocabulary: &ObjectVocabulary,
) -> Result<RegionWeights, AlignError> {
    if images.iter().any(|image| image.parts.is_empty()) {
        return Ok(RegionWeights::default());
    }
    let mut verifier = verifier.without_noise();
    let config = UnlabelledConfig {
        bootstrap: Bootstrap { samples: 1, ..Bootstrap::default() },
        ..UnlabelledConfig::default()
    };
    let mut under = |patches: f64| {
        let scores = centred_scores(captions, images, &mut verifier, vocabulary, patches)?;
        let mismatched = mismatched_scores(captions, images, &verifier)?;
        let anchors = Anchors { mismatched: &mismatched, log_prob_drops: None, views: None };
        let fit = fit_unlabelled(&scores, &anchors, &config);
        Ok::<_, AlignError>(fit.map_or(0.5, |calibration| calibration.auc))
    };
    let mut best = (RegionWeights::default(), under(0.0)? + LEAST_GAIN);
    for patches in [0.5, 1.0] {
        let auc = under(patches)?;
        if auc >= best.1 {
            best = (RegionWeights { patches }, auc);
        }
    }
    Ok(best.0)
}

/// Scores of all mentions with a fraction of the best patch, centred where scores are; the verifier keeps both.
fn centred_scores(
    captions: &[ScoredResponse],
    images: &[ImageEmbedding],
    verifier: &mut Verifier,
    vocabulary: &ObjectVocabulary,
    patches: f64,
) -> Result<Vec<f64>, AlignError> {
    verifier.set_weights(RegionWeights { patches });
    centre(captions, images, verifier, vocabulary)?;
    Ok(scores_of(captions, images, verifier)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mentions, three of four correct, whose whole image and best patch score 1 higher where they are.
    fn rows(whole_noise: f64, patch_noise: f64) -> Rows {
        let wave = |at: usize, rate: f64| (at as f64 * rate).sin() * std::f64::consts::SQRT_2;
        let correct: Vec<bool> = (0..2000).map(|at| at % 4 != 3).collect();
        let row = |(at, &is): (usize, &bool)| {
            let truth = f64::from(u8::from(is));
            vec![truth + whole_noise * wave(at, 1.7), truth + patch_noise * wave(at, 2.3)]
        };
        let values = correct.iter().enumerate().map(row).collect();
        Rows { values, correct, captions: (0..2000).map(|at| at / 4).collect() }
    }

    #[test]
    fn region_weights_minimise_variance() {
        // Independent signals of one difference: weights in proportion to 1 / variance.
        let found = rows(1.0, 0.5).fit().unwrap();
        assert!((found.patches - 0.8).abs() < 0.06, "{found:?}");
        let found = rows(0.5, 1.0).fit().unwrap();
        assert!((found.patches - 0.2).abs() < 0.06, "{found:?}");
    }

    #[test]
    fn uninformative_or_misleading_patches_are_left_out() {
        let mut rows = rows(0.5, 0.5);
        rows.values.iter_mut().enumerate().for_each(|(at, row)| row[1] = (at as f64 * 2.9).sin());
        assert!(rows.gain(0).unwrap().max(rows.gain(1).unwrap()) < LEAST_GAIN);
        rows.values.iter_mut().zip(&rows.correct).for_each(|(row, &is)| {
            row[1] = -f64::from(u8::from(is));
        });
        assert_eq!(
            rows.fit().unwrap(),
            RegionWeights::default(),
            "a signal that points the wrong way"
        );
    }
}
