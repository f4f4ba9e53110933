//! Multiple choice: which option an answer means, and how often it is right. SEED-Bench and MMBench.
//!
//! Li et al., *SEED-Bench: Benchmarking Multimodal LLMs with Generative Comprehension*,
//! [arXiv 2307.16125](https://arxiv.org/abs/2307.16125). Liu et al., *MMBench: Is Your Multi-modal Model an
//! All-around Player?*, [arXiv 2307.06281](https://arxiv.org/abs/2307.06281).
//!
//! An option is found in one of two ways: by its letter in generated text ([`LetterRule`]), or as the one that the
//! model finds most likely ([`most_likely`]), whose log-likelihoods the caller supplies. [`score`] counts
//! each question for itself, [`circular`] counts an MMBench question only if it is answered rightly in
//! every rotation of its options.

mod letters;
mod likelihoods;
mod mmbench;
mod score;
mod seed;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use letters::{LetterRule, Picks, Reading, letter, pick_by_text};
pub use likelihoods::{Likelihoods, most_likely, pick_by_likelihood, read_likelihoods};
pub use mmbench::{MmbenchError, read_mmbench, visit_mmbench};
pub use score::{
    CircularReport, Group, Judged, OptionsError, OptionsReport, ROTATION, circular, score,
};
pub use seed::{SeedError, read_seed};

use crate::answers::QuestionId;

/// What LLaVA's evaluation asks for behind the options.
pub const INSTRUCTION: &str = "Answer with the option's letter from the given choices directly.";

/// A question with options, of which the first is A.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionQuestion {
    /// Its id; in MMBench a number.
    pub id: QuestionId,
    /// Name of its image, where the file names one.
    pub image: Option<String>,
    /// What the question presupposes, put before it.
    pub hint: Option<String>,
    /// The question.
    pub question: String,
    /// The options, in order.
    pub options: Vec<String>,
    /// The right option, counted from 0; unknown in test sets whose answers are kept back.
    pub answer: Option<usize>,
    /// Kinds of categories and the category of each that the question is in, such as
    /// "category" → "attribute recognition".
    pub categories: BTreeMap<String, String>,
}

/// The question as LLaVA's evaluation puts it: hint, question, one option a line, and the instruction.
pub fn prompt(question: &OptionQuestion) -> String {
    let mut lines: Vec<String> = question.hint.iter().cloned().collect();
    lines.push(question.question.clone());
    let lettered = question.options.iter().enumerate();
    lines.extend(lettered.map(|(place, option)| format!("{}. {option}", letter(place))));
    lines.push(INSTRUCTION.to_owned());
    lines.join("\n")
}
