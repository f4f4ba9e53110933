//! Scores of mentions against their own and other images, and the centres of names that these give.

use std::collections::BTreeSet;

use fisao_models::parallel::{cores, parallel_chunks};
use fisao_verifier::calibration::{Centres, centres};
use fisao_verifier::mentions::{ObjectVocabulary, TokenMention};
use fisao_verifier::regions::{ImageEmbedding, Wording};
use fisao_verifier::scorer::{Verifier, VerifierError};

use crate::error::AlignError;
use crate::mentions::ScoredResponse;

/// How far images are shifted against captions to make mismatched pairs.
const MISMATCH: usize = 7;

/// Images without a name that its centre is taken from, at least; fewer say little, and often hold what their captions
/// missed.
const LEAST_MISMATCHED: usize = 10;

/// Of every mention of some captions whether its image holds the category; `truth[task]` are the categories of each image.
pub fn correct_mentions(
    captions: &[ScoredResponse],
    vocabulary: &ObjectVocabulary,
    truth: &[BTreeSet<String>],
) -> Vec<bool> {
    let of_caption = |caption: &ScoredResponse| {
        let truth = &truth[caption.task];
        let present =
            |mention: &TokenMention| truth.contains(vocabulary.category(mention.category));
        caption.mentions.iter().map(present).collect::<Vec<_>>()
    };
    captions.iter().flat_map(of_caption).collect()
}

/// Of every mention the number of the caption that it stands in.
pub(crate) fn caption_numbers(captions: &[ScoredResponse]) -> Vec<usize> {
    let numbered = captions.iter().enumerate();
    numbered.flat_map(|(number, caption)| vec![number; caption.mentions.len()]).collect()
}

/// Scores of all mentions by the verifier as it is now.
///
/// # Errors
/// [`VerifierError::Card`] when the card fails.
pub(crate) fn scores_of(
    captions: &[ScoredResponse],
    images: &[ImageEmbedding],
    verifier: &Verifier,
) -> Result<Vec<f64>, VerifierError> {
    let mentions = captions.iter().flat_map(|caption| {
        caption.mentions.iter().map(|mention| (&images[caption.task], mention))
    });
    mentions.map(|(image, mention)| verifier.score_mention(image, mention)).collect()
}

/// What is taken from scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreCentres {
    /// From those of names, where scores are [centred](fisao_verifier::regions::ScoreConfig::centred).
    pub names: Option<Centres>,
    /// From those of phrases besides, where [phrases](Wording::Phrase) are scored, and some say how what they name is.
    pub described: Option<f64>,
}

/// Finds the centres of scores; the verifier takes them, or none, from then on.
///
/// # Errors
/// See [`mismatched_centres`].
pub fn centre(
    captions: &[ScoredResponse],
    images: &[ImageEmbedding],
    verifier: &mut Verifier,
    vocabulary: &ObjectVocabulary,
) -> Result<ScoreCentres, AlignError> {
    verifier.set_centres(None);
    verifier.learn(vocabulary)?;
    for mention in captions.iter().flat_map(|caption| &caption.mentions) {
        verifier.embed_mention(mention)?;
    }
    if !verifier.score_config().centred {
        return Ok(ScoreCentres::default());
    }
    let names = Some(mismatched_centres(captions, images, verifier, vocabulary)?);
    verifier.set_centres(names.clone());
    let described = if verifier.score_config().wording == Wording::Phrase {
        described_centre(captions, images, verifier)?
    } else {
        None
    };
    verifier.set_described(described.unwrap_or_default());
    Ok(ScoreCentres { names, described })
}

/// What is left, on average, of the centred scores of phrases that describe what they name, over images that do not show it: what
/// the describing adds by itself. `None` where nothing is described.
fn described_centre(
    captions: &[ScoredResponse],
    images: &[ImageEmbedding],
    verifier: &Verifier,
) -> Result<Option<f64>, VerifierError> {
    let scores = mismatched(captions, images, |image, mention| {
        let described = mention.description.is_some();
        described.then(|| verifier.score_mention(image, mention)).transpose()
    })?;
    let count = scores.len() as f64;
    Ok((!scores.is_empty()).then(|| scores.iter().sum::<f64>() / count))
}

/// Mean score of every name of the vocabulary over the images whose own captions do not name its category. A name that
/// nearly every caption holds gets the mean centre of the others: what it scores on images that show it is no centre.
/// `images[task]` is what the verifier made of each task's image. The verifier takes no centres afterwards.
///
/// # Errors
/// [`AlignError::Verifier`] when a name cannot be scored.
pub fn mismatched_centres(
    captions: &[ScoredResponse],
    images: &[ImageEmbedding],
    verifier: &mut Verifier,
    vocabulary: &ObjectVocabulary,
) -> Result<Centres, AlignError> {
    verifier.set_centres(None);
    let forms: Vec<(&str, usize)> = vocabulary.forms().collect();
    verifier.learn(vocabulary)?;
    let mut named = vec![BTreeSet::new(); images.len()];
    for caption in captions {
        named[caption.task].extend(caption.mentions.iter().map(|mention| mention.category));
    }
    let verifier = &*verifier;
    let found = parallel_chunks(&forms, cores(), |chunk| {
        let of_form = |&(form, category): &(&str, usize)| {
            let others = images.iter().zip(&named).filter(|(_, named)| !named.contains(&category));
            let scores = others.map(|(image, _)| verifier.score(image, form));
            let scores = scores.collect::<Result<Vec<f64>, _>>()?;
            let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
            let enough = scores.len() >= LEAST_MISMATCHED.min(images.len());
            Ok((form.to_owned(), enough.then_some(mean)))
        };
        chunk.iter().map(of_form).collect::<Result<Vec<_>, VerifierError>>()
    });
    let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(centres(found.into_iter().flatten()))
}

/// Scores of mentions against other images, whose own captions do not name the object: the lower anchor of
/// calibration without labels.
///
/// # Errors
/// [`VerifierError::Card`] when the card fails.
pub fn mismatched_scores(
    captions: &[ScoredResponse],
    images: &[ImageEmbedding],
    verifier: &Verifier,
) -> Result<Vec<f64>, VerifierError> {
    mismatched(captions, images, |image, mention| verifier.score_mention(image, mention).map(Some))
}

/// What is made of mentions and other images, whose own captions do not name the object.
fn mismatched(
    captions: &[ScoredResponse],
    images: &[ImageEmbedding],
    score: impl Fn(&ImageEmbedding, &TokenMention) -> Result<Option<f64>, VerifierError>,
) -> Result<Vec<f64>, VerifierError> {
    let count = captions.len();
    let mut scores = Vec::new();
    for (index, caption) in captions.iter().enumerate() {
        let other = &captions[(index + MISMATCH) % count];
        let named: BTreeSet<usize> =
            other.mentions.iter().map(|mention| mention.category).collect();
        for mention in &caption.mentions {
            if other.task != caption.task && !named.contains(&mention.category) {
                scores.extend(score(&images[other.task], mention)?);
            }
        }
    }
    Ok(scores)
}
