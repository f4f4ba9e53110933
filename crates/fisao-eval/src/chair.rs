//! CHAIR (Caption Hallucination Assessment with Image Relevance): which objects a caption names,
//! and which of them are not in the picture.
//!
//! Rohrbach et al., *Object Hallucination in Image Captioning*, EMNLP 2018.
//!
//! ```text
//! CHAIR_I = hallucinated mentions / all mentions                    (by occurrence)
//! CHAIR_S = captions with ≥ 1 hallucinated mention / captions
//! Recall  = Σ |ground-truth categories mentioned| / Σ |ground-truth categories|
//! ```
//!
//! Mentions are found by *strict* rules: whole lower-cased words, longest surface form first, the
//! plural of every form included. The published scorers tokenise and singularise differently
//! ("bus" never hits there, for one), so numbers from strict rules are comparable with each other
//! and not digit for digit with a table made by those scorers.

mod input;
mod mentions;
mod plurals;
mod score;
mod vocabulary;

pub use input::{ChairInput, GroundTruth, InputError, read_captions, read_ground_truth};
pub use mentions::Mention;
pub use score::{ChairError, ChairReport, ImageVerdict, MentionVerdict, evaluate};
pub use vocabulary::{ObjectVocabulary, VocabularyError};
