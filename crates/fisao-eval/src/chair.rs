//! CHAIR (Caption Hallucination Assessment with Image Relevance): which objects a caption names,
//! and which of them are not in the image.
//!
//! Rohrbach et al., *Object Hallucination in Image Captioning*, EMNLP 2018.
//!
//! ```text
//! CHAIR_I = hallucinated mentions / all mentions                    (by occurrence)
//! CHAIR_S = captions with ≥ 1 hallucinated mention / captions
//! Recall  = Σ |ground-truth categories mentioned| / Σ |ground-truth categories|
//! F1      = 2 · (1 − CHAIR_I) · Recall / (1 − CHAIR_I + Recall)
//! ```
//!
//! Mentions are found by one of two sets of [`Rules`]. *Strict* rules read whole lower-cased words, the longest
//! surface form first, the plural of every form included. *Reference* rules are those of the published scorers,
//! which tokenise and singularise differently ("bus" never hits there, for one), kept bug-for-bug compatible, so that a
//! number can be put beside a paper's. [`reference`](mod@reference) holds their parts.

mod coco;
mod counts;
mod ground_truth;
mod image_list;
mod input;
pub mod length;
mod mentions;
mod other_report;
mod protocol;
pub mod reference;
mod report;
mod rules;
mod score;
mod synonyms;
mod vocabulary;

pub use counts::{ChairChanges, ChairCounts, changes, intervals};
pub use ground_truth::{
    GroundTruth, GroundTruthReader, GroundTruthSummary, InputError, read_ground_truth,
};
pub use image_list::{ImageList, ImageListError, Lack};
pub use input::{ChairInput, MadeCaptions, read_captions, read_made_captions};
pub use mentions::Mention;
pub use other_report::{NoReport, OtherReport, read_other_report};
pub use protocol::{Agreement, Bearing, FieldCheck, Lengths, Protocol, compare_protocols};
pub use report::{ChairReport, ImageVerdict, MatchedIds, MentionVerdict};
pub use rules::{MentionFinder, Rules};
pub use score::{ChairError, ChairOptions, MissingGroundTruth, evaluate};
pub use synonyms::{SynonymError, read_synonyms};
pub use vocabulary::{ObjectVocabulary, VocabularyError};
