//! What a set of captions scored, and with which options.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bleu::BleuCounts;
use super::meteor::{MeteorCounts, MeteorStage};
use crate::image_id::Matched;

/// What to do and to report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptionOptions {
    /// Leave captions of images without references out, and count them, instead of refusing them.
    pub skip_images_without_references: bool,
    /// Report the tokens of captions and references.
    pub tokens: bool,
}

/// The metrics of an image or of a set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaptionScores {
    /// Single words.
    pub bleu_1: f64,
    /// Up to two words.
    pub bleu_2: f64,
    /// Up to three words.
    pub bleu_3: f64,
    /// Up to four words.
    pub bleu_4: f64,
    /// Longest common subsequence.
    pub rouge_l: f64,
    /// CIDEr-D, from 0 to 10.
    pub cider: f64,
    /// METEOR with the stages that [`CaptionReport::meteor_stages`] lists: **not** comparable with published METEOR
    /// unless these are all four.
    pub meteor: f64,
}

impl CaptionScores {
    /// The metrics as JSON names them.
    pub const NAMES: [&'static str; 7] =
        ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "meteor"];

    /// Their values, in the order of [`Self::NAMES`].
    pub fn values(&self) -> [f64; 7] {
        let Self { bleu_1, bleu_2, bleu_3, bleu_4, rouge_l, cider, meteor } = *self;
        [bleu_1, bleu_2, bleu_3, bleu_4, rouge_l, cider, meteor]
    }
}

/// What a set of captions scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaptionReport {
    /// Over the set: BLEU and METEOR of summed counts, means of the others.
    #[serde(flatten)]
    pub scores: CaptionScores,
    /// Stages of METEOR that the values have.
    pub meteor_stages: Vec<MeteorStage>,
    /// Whether METEOR's list of function words was given.
    pub meteor_function_words: bool,
    /// Images judged.
    pub images: usize,
    /// SHA-256 of the names of the images among the references, sorted as text, each with a line feed behind it.
    pub image_ids_sha256: String,
    /// References of the images judged.
    pub references: usize,
    /// Captions without a word, which are judged all the same.
    pub empty_captions: usize,
    /// Captions left out since their images have no references.
    pub captions_without_references: usize,
    /// Images with references but without a caption.
    pub references_without_caption: usize,
    /// How captions found their references.
    pub matched: BTreeMap<Matched, usize>,
    /// One entry for each caption judged, in the order given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_image: Vec<ImageScores>,
}

/// What one caption scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageScores {
    /// Image, as the caption names it.
    pub image_id: String,
    /// Image, as the references name it.
    pub reference_id: String,
    /// Number of references.
    pub references: usize,
    /// As pycocoevalcap gives them for one image.
    #[serde(flatten)]
    pub scores: CaptionScores,
    /// What BLEU is computed of.
    pub bleu_counts: BleuCounts,
    /// What METEOR is computed of.
    pub meteor_counts: MeteorCounts,
    /// Tokens of the caption, and of each reference, where asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens: Option<CaptionTokens>,
}

/// Tokens with spaces between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptionTokens {
    /// Of the caption.
    pub caption: String,
    /// Of each reference.
    pub references: Vec<String>,
}

/// Input that cannot be scored honestly.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaptionError {
    /// Nothing to score.
    #[error("there are no captions to evaluate")]
    NoCaptions,
    /// Leaving captions out would change every number.
    #[error(
        "{count} captions have no references, the first is that of image '{image_id}'; add references or choose to \
         skip such captions"
    )]
    MissingReferences {
        /// The first such image.
        image_id: String,
        /// How many.
        count: usize,
    },
    /// Two captions of one image under different names.
    #[error("'{first}' and '{second}' are the same image; give one caption for each image")]
    SameImage {
        /// Name with the first caption.
        first: String,
        /// Name with the second.
        second: String,
    },
}
