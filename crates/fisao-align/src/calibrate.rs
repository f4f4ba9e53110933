//! Calibration on the policy's own mentions, with or without annotations.

use std::collections::BTreeSet;

use fisao_verifier::calibration::{
    Anchors, Bootstrap, Calibration, UnlabelledConfig, Views, bootstrap_annotated, fit_annotated,
    fit_sentences, fit_unlabelled,
};
use fisao_verifier::regions::{ImageEmbedding, Regions};

use crate::centring::{caption_numbers, centre, correct_mentions, mismatched_scores, scores_of};
use crate::error::AlignError;
use crate::mention_views::MentionViews;
use crate::mentions::{MentionScorer, ScoredResponse};
use crate::region_weights::{region_weights, unlabelled_region_weights};
use crate::token_rewards::sentence_score;

/// What tells correct mentions from hallucinated ones.
#[derive(Debug, Clone, Copy)]
pub enum Supervision<'a> {
    /// The categories of each task's image.
    Annotations(&'a [BTreeSet<String>]),
    /// No annotation: the scores themselves and, where they show no two humps, what the decoder says of each mention.
    None(&'a MentionViews),
}

/// Estimates what scores of correct and hallucinated mentions look like; `images[task]` is what the verifier made of each
/// image. Weights of [regions](Regions::Auto) come first, where they are to be found, then the centres, where scores are to be
/// [centred](fisao_verifier::regions::ScoreConfig::centred); `scorer` scores by both from then on.
///
/// # Errors
/// [`AlignError::Calibration`] when the mentions do not allow an estimate; [`AlignError::Verifier`] when a name cannot be scored.
pub fn calibrate(
    captions: &[ScoredResponse],
    images: &[ImageEmbedding],
    scorer: &mut MentionScorer,
    supervision: Supervision<'_>,
) -> Result<Calibration, AlignError> {
    let weights = if scorer.verifier.score_config().regions == Regions::Auto {
        let (verifier, vocabulary) = (&scorer.verifier, &scorer.vocabulary);
        Some(match supervision {
            Supervision::Annotations(truth) => {
                region_weights(captions, images, verifier, vocabulary, truth)?
            }
            Supervision::None(_) => {
                unlabelled_region_weights(captions, images, verifier, vocabulary)?
            }
        })
    } else {
        None
    };
    scorer.verifier.set_weights(weights.unwrap_or_default());
    let centres = centre(captions, images, &mut scorer.verifier, &scorer.vocabulary)?;
    let scores = scores_of(captions, images, &scorer.verifier)?;
    let numbers = caption_numbers(captions);
    let mut calibration = match supervision {
        Supervision::Annotations(truth) => {
            let correct = correct_mentions(captions, &scorer.vocabulary, truth);
            let calibration = fit_annotated(&scores, &correct)?;
            let bootstrap = Bootstrap::default();
            let intervals = bootstrap_annotated(&scores, &correct, &numbers, &bootstrap);
            Calibration { intervals: Some(intervals?), ..calibration }
        }
        Supervision::None(MentionViews { image_drops, agreements }) => {
            let views = Views { second: image_drops, third: agreements, captions: Some(&numbers) };
            let anchors = Anchors {
                mismatched: &mismatched_scores(captions, images, &scorer.verifier)?,
                log_prob_drops: None,
                views: Some(views),
            };
            fit_unlabelled(&scores, &anchors, &UnlabelledConfig::default())?
        }
    };
    calibration.centres = centres.names;
    calibration.described = centres.described;
    calibration.weights = weights;
    let sentences = captions
        .iter()
        .map(|caption| sentence_score(caption, &images[caption.task], scorer))
        .collect::<Result<Vec<_>, _>>()?;
    calibration.sentence = fit_sentences(&sentences).ok();
    Ok(calibration)
}
