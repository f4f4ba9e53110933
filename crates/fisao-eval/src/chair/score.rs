//! `CHAIR_I`, `CHAIR_S` and recall, with the verdict on every mention.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{ChairInput, GroundTruth, ObjectVocabulary};

/// What a set of captions scored. A rate whose denominator is zero is 0; the counts beside the
/// rates tell that case from a true zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChairReport {
    /// Hallucinated mentions / mentions, by occurrence; 0 when no caption names an object.
    pub chair_i: f64,
    /// Captions with at least one hallucinated mention / captions.
    pub chair_s: f64,
    /// Ground-truth categories mentioned / ground-truth categories, summed over captions; 0 when
    /// no image holds an object.
    pub recall: f64,
    /// Mean number of whitespace-separated words in a caption.
    pub mean_length_words: f64,
    /// Mentions of any category.
    pub mentions: usize,
    /// Mentions of a category the image does not hold.
    pub hallucinated: usize,
    /// Captions judged.
    pub captions: usize,
    /// Captions with at least one hallucinated mention.
    pub captions_with_hallucination: usize,
    /// Ground-truth categories that their caption mentions, summed over captions.
    pub recalled: usize,
    /// Ground-truth categories, summed over captions.
    pub ground_truth: usize,
    /// One verdict per caption, in the order given.
    pub per_image: Vec<ImageVerdict>,
}

/// What one caption said and missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVerdict {
    /// Image the caption describes.
    pub image_id: String,
    /// The caption that was judged.
    pub caption: String,
    /// Objects it names, in order.
    pub mentions: Vec<MentionVerdict>,
    /// Categories in the image that it does not name.
    pub missed: BTreeSet<String>,
}

/// One named object and whether it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MentionVerdict {
    /// Category named.
    pub category: String,
    /// The words, as written.
    pub text: String,
    /// First byte of the words in the caption.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
    /// Whether the image does not hold the category.
    pub hallucinated: bool,
}

/// Input that cannot be scored honestly.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChairError {
    /// Nothing to judge.
    #[error("there are no captions to evaluate")]
    NoCaptions,
    /// Leaving the caption out would change every rate.
    #[error(
        "image '{image_id}' has a caption but no ground truth; add it to the ground truth, with an \
         empty list of objects if the image holds none"
    )]
    MissingGroundTruth {
        /// The image.
        image_id: String,
    },
    /// A category no caption can ever hit, so recall could never reach 1.
    #[error(
        "the ground truth of image '{image_id}' holds '{category}', which is not a category of the \
         object vocabulary; use the vocabulary's own names"
    )]
    UnknownCategory {
        /// The image.
        image_id: String,
        /// The name that is not in the vocabulary.
        category: String,
    },
}

/// Judges every caption against the objects of its image.
///
/// # Errors
/// No captions, an image without ground truth, or ground truth in other names than the
/// vocabulary's. Ground truth of images without a caption is not looked at.
pub fn evaluate(
    captions: &[ChairInput],
    ground_truth: &GroundTruth,
    vocabulary: &ObjectVocabulary,
) -> Result<ChairReport, ChairError> {
    if captions.is_empty() {
        return Err(ChairError::NoCaptions);
    }
    let known: BTreeSet<&str> = vocabulary.categories().iter().map(String::as_str).collect();
    let mut per_image = Vec::with_capacity(captions.len());
    let mut truths = 0;
    for input in captions {
        let image_id = || input.image_id.clone();
        let Some(truth) = ground_truth.get(&input.image_id) else {
            return Err(ChairError::MissingGroundTruth { image_id: image_id() });
        };
        if let Some(category) = truth.iter().find(|name| !known.contains(name.as_str())) {
            let category = category.clone();
            return Err(ChairError::UnknownCategory { image_id: image_id(), category });
        }
        truths += truth.len();
        per_image.push(judge(input, truth, vocabulary));
    }
    Ok(summarise(per_image, truths))
}

fn judge(
    input: &ChairInput,
    truth: &BTreeSet<String>,
    vocabulary: &ObjectVocabulary,
) -> ImageVerdict {
    let mut missed = truth.clone();
    let mentions = vocabulary
        .mentions(&input.caption)
        .into_iter()
        .map(|mention| {
            missed.remove(&mention.category);
            MentionVerdict {
                hallucinated: !truth.contains(&mention.category),
                category: mention.category,
                text: mention.text,
                start: mention.span.start,
                end: mention.span.end,
            }
        })
        .collect();
    let (image_id, caption) = (input.image_id.clone(), input.caption.clone());
    ImageVerdict { image_id, caption, mentions, missed }
}

fn summarise(per_image: Vec<ImageVerdict>, ground_truth: usize) -> ChairReport {
    let wrong = |verdict: &ImageVerdict| verdict.mentions.iter().filter(|m| m.hallucinated).count();
    let captions = per_image.len();
    let mentions = per_image.iter().map(|verdict| verdict.mentions.len()).sum();
    let hallucinated = per_image.iter().map(wrong).sum();
    let captions_with_hallucination = per_image.iter().filter(|verdict| wrong(verdict) > 0).count();
    let missed: usize = per_image.iter().map(|verdict| verdict.missed.len()).sum();
    let recalled = ground_truth - missed;
    let words: usize =
        per_image.iter().map(|verdict| verdict.caption.split_whitespace().count()).sum();
    ChairReport {
        chair_i: rate(hallucinated, mentions),
        chair_s: rate(captions_with_hallucination, captions),
        recall: rate(recalled, ground_truth),
        mean_length_words: rate(words, captions),
        mentions,
        hallucinated,
        captions,
        captions_with_hallucination,
        recalled,
        ground_truth,
        per_image,
    }
}

fn rate(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
