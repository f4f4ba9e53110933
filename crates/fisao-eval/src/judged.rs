//! Benchmarks that a judge scores: MM-Vet and MMHal-Bench.
//!
//! Both ask GPT-4. Nothing here calls anyone: requests are written as rows of id and prompt, and rows of id and
//! verdict are read back. The prompts here are this project's own wording. Whoever wants numbers to be compared
//! with published ones gives the official prompt as a [`Template`] and asks the official judge.

pub mod mm_hal;
pub mod mm_vet;
mod template;
mod verdicts;

pub use template::{Template, TemplateError};
pub use verdicts::{Verdict, read_verdicts};

use serde::{Deserialize, Serialize};

use crate::answers::QuestionId;

/// One row to be put to the judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeRequest {
    /// The question; the verdict has to repeat it.
    pub question_id: QuestionId,
    /// What to ask the judge.
    pub prompt: String,
}
