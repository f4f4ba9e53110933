//! Detectors of hallucinations against labels of tokens and spans, such as those of `HalLoc`.
//!
//! [`read_labels`] reads which parts of texts are hallucinated, [`read_predictions`] what a detector
//! says of the same texts, [`evaluate`] compares them: by token and by span, in total and for each type
//! of hallucination. The measures of scores are those of [`detection`](crate::detection). Positive
//! is hallucinated everywhere, and a higher score means more likely hallucinated.
//!
//! A detector need not have an opinion on every word: one that knows objects says nothing of a colour. Such
//! words are counted, rank below all others, and where they are hallucinated they are missed.

mod counts;
mod labels;
mod offsets;
mod pairing;
mod predictions;
mod problems;
mod report;
mod rows;
mod score;
mod spans;
mod tokens;

pub use labels::{LabelOptions, LabelSpan, LabelledText, Labels, UNTYPED, read_labels};
pub use offsets::Offsets;
pub use pairing::{PairedTextsBy, PairingFault, Unmatched};
pub use predictions::{Orientation, PredictedSpan, PredictedText, Predictions, read_predictions};
pub use problems::{Broken, Problem, Skipped};
pub use report::{LocalizationReport, Measured, Measures, TextRow, TypeMeasures};
pub use score::{LocalizationError, LocalizationOptions, Tokenization, evaluate};
pub use spans::SpanMatches;
pub use tokens::words;
