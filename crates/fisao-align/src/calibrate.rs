//! Calibration on the policy's own mentions, with or without annotations.

use std::collections::BTreeSet;

use fisao_verifier::calibration::{
    Anchors, Calibration, CalibrationError, Labels, UnlabelledConfig, fit_annotated, fit_sentences,
    fit_unlabelled,
};

use crate::captions::{Captioned, Encoded, Judge};
use crate::error::AlignError;

/// How far images are shifted against captions to make mismatched pairs.
const MISMATCH: usize = 7;

/// Scores of the policy's own mentions, with the truth about them where it is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnMentions {
    /// One per mention.
    pub scores: Vec<f64>,
    /// Whether the image holds the object; empty without annotations.
    pub correct: Vec<bool>,
}

/// Collects the mentions of `captions`; `truth[task]` are the categories of each image.
pub fn own_mentions(
    captions: &[Captioned],
    judge: &Judge,
    truth: Option<&[BTreeSet<String>]>,
) -> OwnMentions {
    let mut mentions = OwnMentions::default();
    for caption in captions {
        for (unit, &score) in caption.units.iter().zip(&caption.scores) {
            mentions.scores.push(score);
            if let Some(truth) = truth {
                let name = judge.vocabulary.category(unit.category);
                mentions.correct.push(truth[caption.task].contains(name));
            }
        }
    }
    mentions
}

/// Estimates what scores of correct and hallucinated mentions look like.
///
/// With [`Labels::Annotations`] `truth[task]` holds the categories of each image; with
/// [`Labels::None`] it is not looked at.
///
/// # Errors
/// [`CalibrationError`] when the mentions do not allow an estimate, as text in
/// [`AlignError::Setting`].
pub fn calibrate(
    captions: &[Captioned],
    encoded: &Encoded,
    judge: &Judge,
    labels: Labels,
    truth: Option<&[BTreeSet<String>]>,
) -> Result<Calibration, AlignError> {
    let refused = |error: CalibrationError| AlignError::Setting(error.to_string());
    let mentions = own_mentions(captions, judge, truth);
    let mut calibration = match labels {
        Labels::Annotations => {
            fit_annotated(&mentions.scores, &mentions.correct).map_err(refused)?
        }
        Labels::None => {
            let mismatched = mismatched_scores(captions, encoded, judge);
            let anchors = Anchors { mismatched: &mismatched, log_prob_drops: None };
            fit_unlabelled(&mentions.scores, &anchors, &UnlabelledConfig::default())
                .map_err(refused)?
        }
    };
    let sentences = captions
        .iter()
        .map(|caption| sentence_score(caption, encoded, judge))
        .collect::<Result<Vec<_>, _>>()?;
    calibration.sentence = fit_sentences(&sentences).ok();
    Ok(calibration)
}

/// Score of a whole response against its image.
///
/// # Errors
/// [`AlignError::Verifier`] when the text cannot be encoded.
pub fn sentence_score(
    caption: &Captioned,
    encoded: &Encoded,
    judge: &Judge,
) -> Result<f64, AlignError> {
    let text = judge.verifier.embed_text(std::slice::from_ref(&caption.text))?;
    Ok(fisao_verifier::scorer::cosine(&encoded.embeddings[caption.task], &text))
}

/// Scores of mentions against other images, whose own captions do not name the object.
fn mismatched_scores(captions: &[Captioned], encoded: &Encoded, judge: &Judge) -> Vec<f64> {
    let count = captions.len();
    let mut scores = Vec::new();
    for (index, caption) in captions.iter().enumerate() {
        let other = &captions[(index + MISMATCH) % count];
        let named: BTreeSet<usize> = other.units.iter().map(|unit| unit.category).collect();
        scores.extend(
            caption
                .units
                .iter()
                .filter(|unit| other.task != caption.task && !named.contains(&unit.category))
                .map(|unit| judge.verifier.score(&encoded.embeddings[other.task], &unit.form)),
        );
    }
    scores
}
