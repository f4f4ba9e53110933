//! What a set of captions scored, with the verdict on every mention.

use serde::{Deserialize, Serialize};

use super::{ChairCounts, Rules};

/// What a set of captions scored. A rate over nothing is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChairReport {
    /// How mentions were found.
    pub rules: Rules,
    /// [`super::ObjectVocabulary::sha256`] of the words that were looked for.
    pub vocabulary_sha256: String,
    /// Images judged.
    pub images: usize,
    /// SHA-256 of the ids of the images judged, sorted as text, each once and followed by a line feed; in hexadecimal.
    /// An image of COCO is called by its number, any other as the ground truth calls it. Equal for two reports when
    /// they judged the same images.
    pub image_ids_sha256: String,
    /// SHA-256 of what is in the images judged: a line for each image, in the order of the ids, of its id and its
    /// categories, sorted, with tabs between. Equal for two reports when they judged the same images by the same truth.
    pub ground_truth_sha256: String,
    /// Hallucinated mentions / mentions, by occurrence.
    pub chair_i: Option<f64>,
    /// Captions with at least one hallucinated mention / captions.
    pub chair_s: Option<f64>,
    /// Ground-truth categories mentioned / ground-truth categories, summed over captions.
    pub recall: Option<f64>,
    /// Harmonic mean of 1 − `CHAIR_I` and recall.
    pub f1: Option<f64>,
    /// Mean number of whitespace-separated words in a caption.
    pub mean_length_words: Option<f64>,
    /// Words of the longest caption.
    pub max_length_words: usize,
    /// Mentions of any category.
    pub mentions: usize,
    /// Mentions of a category the image does not hold.
    pub hallucinated: usize,
    /// Captions judged.
    pub captions: usize,
    /// Captions with at least one hallucinated mention.
    pub captions_with_hallucination: usize,
    /// Captions judged that name no object.
    pub captions_without_object: usize,
    /// Captions judged that hold no word.
    pub empty_captions: usize,
    /// Captions judged of an image that an earlier one describes too. They count like any other.
    pub repeated_captions: usize,
    /// Captions left out because their image has no ground truth.
    pub captions_without_ground_truth: usize,
    /// How the images of the captions judged were found in the ground truth.
    pub matched: MatchedIds,
    /// Ground-truth categories that their caption mentions, summed over captions.
    pub recalled: usize,
    /// Ground-truth categories, summed over captions.
    pub ground_truth: usize,
    /// What the numbers are sums of: image, by the ground truth's name, and counts of each caption judged, in the order
    /// given. Not written down.
    #[serde(skip)]
    pub counts: Vec<(String, ChairCounts)>,
    /// One verdict per caption judged, in the order given; empty unless they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_image: Vec<ImageVerdict>,
}

/// How many captions' images were found in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchedIds {
    /// Under the very same name.
    pub exactly: usize,
    /// By the same number.
    pub by_number: usize,
    /// By the same name without folder and file ending.
    pub by_file_name: usize,
}

/// What one caption said and missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVerdict {
    /// Image the caption describes, as the caption's row names it.
    pub image_id: String,
    /// The caption that was judged.
    pub caption: String,
    /// Its words, as white space parts them.
    pub words: usize,
    /// Objects it names, in order.
    pub mentions: Vec<MentionVerdict>,
    /// Categories in the image that it does not name, sorted.
    pub missed: Vec<String>,
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
    /// First character of the words in the caption, in Unicode scalar values, as Python counts.
    pub char_start: usize,
    /// Character after the last.
    pub char_end: usize,
    /// Whether the image does not hold the category.
    pub hallucinated: bool,
}
