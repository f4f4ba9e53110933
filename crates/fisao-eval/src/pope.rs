//! POPE (Polling-based Object Probing Evaluation): "Is there a … in the image?", half of the time of something
//! that is not there.
//!
//! Li et al., *Evaluating Object Hallucination in Large Vision-Language Models*, EMNLP 2023,
//! [arXiv 2305.10355](https://arxiv.org/abs/2305.10355); reference implementation `AoiDragon/POPE`, of which
//! LLaVA's `eval_pope.py` is a copy.
//!
//! ```text
//! positive = "yes"
//! accuracy = (TP + TN) / questions      precision = TP / (TP + FP)      recall = TP / (TP + FN)
//! F1       = 2 · TP / (2 · TP + FP + FN)                  yes ratio = answers "yes" / questions
//! ```
//!
//! [`build`] makes questions of the same kind from the ground truth of any images.

mod build;
mod questions;
mod score;

pub use build::{BuildError, BuildOptions, ImageObjects, Negatives, build};
pub use questions::{Label, Question, read_questions};
pub use score::{
    Judged, PopeReport, Scores, SplitReport, evaluate, intervals, parse_answer, score_split,
};

/// What LLaVA's evaluation writes behind a question.
pub const PROMPT_SUFFIX: &str = "\nAnswer the question using a single word or phrase.";

/// The question as LLaVA's evaluation puts it.
pub fn prompt(question: &str) -> String {
    format!("{question}{PROMPT_SUFFIX}")
}
