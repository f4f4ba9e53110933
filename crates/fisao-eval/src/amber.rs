//! AMBER: objects that a description names (generative), and questions about objects, attributes and relations
//! (discriminative), without a judge.
//!
//! Wang et al., *AMBER: An LLM-free Multi-dimensional Benchmark for MLLMs Hallucination Evaluation*,
//! [arXiv 2311.07397](https://arxiv.org/abs/2311.07397); rules of the official `inference.py`.
//!
//! ```text
//! CHAIR = nouns of the vocabulary that name nothing there / nouns of the vocabulary
//! Cover = annotated objects that are named / annotated objects
//! Hal   = descriptions with a noun that names nothing there / descriptions
//! Cog   = likely hallucinations (annotated) that are named / likely hallucinations
//! positive = "No";  accuracy = right / questions;  precision, recall and F1 as usual
//! ```
//!
//! Two things of the official script are not here, because they are other people's models. It takes words for
//! nouns that NLTK's tagger calls nouns; here every word of the benchmark's vocabulary counts, but for a few that
//! are mostly something else ("can", "hot"). And it takes a word for an annotated one when their spaCy vectors are
//! closer than 0.8; here only the benchmark's own association lists say so, which can only make CHAIR and Hal
//! higher, and Cover and Cog lower.

mod counts;
mod data;
mod discriminative;
mod generative;
mod nouns;

pub use counts::{NAMES, intervals};
pub use data::{
    AmberData, AmberError, Annotation, Kind, Query, Starts, read_annotations, read_associations,
    read_queries, read_safe_words, read_starts,
};
pub use discriminative::{Answered, Discriminative, OfficialAnswers, YesNo};
pub use generative::{Description, Generative, Named, Noun, OfficialDescriptions};
pub use nouns::{Lemmas, Plurals};

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::answers::{Answer, QuestionId};

/// The query as LLaVA's evaluation would put it: a question to be answered by yes or no asks for a word, a
/// request to describe stands alone. AMBER itself only says that the answer must be "Yes" or "No".
pub fn prompt(query: &str, kind: Kind) -> String {
    match kind {
        Kind::Generative => query.to_owned(),
        _ => format!("{query}\nAnswer the question using a single word or phrase."),
    }
}

/// What the responses scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AmberReport {
    /// Descriptions.
    pub generative: Generative,
    /// Answers by yes or no.
    pub discriminative: Discriminative,
    /// Responses whose id no annotation has.
    pub unknown: Vec<QuestionId>,
    /// Annotations without a response, which no rate counts.
    pub unanswered: usize,
}

/// Scores responses, in any order and of any part of the benchmark.
///
/// # Errors
/// Responses without ids, and annotated objects that have no association list.
pub fn evaluate(
    data: &AmberData,
    responses: &[Answer],
    plurals: Plurals,
) -> Result<AmberReport, AmberError> {
    let lemmas = Lemmas::new(&data.associations, plurals);
    let annotations: HashMap<String, &Annotation> =
        data.annotations.iter().map(|annotation| (annotation.id.to_string(), annotation)).collect();
    let mut unknown = Vec::new();
    let mut descriptions = Vec::new();
    let mut answers = Vec::new();
    for (index, response) in responses.iter().enumerate() {
        let id = response.question_id.as_ref();
        let id = id.ok_or(AmberError::NoId { number: index + 1 })?;
        match annotations.get(&id.0) {
            Some(annotation) if annotation.kind == Kind::Generative => {
                descriptions.push(generative::score_response(
                    data,
                    &lemmas,
                    annotation,
                    &response.text,
                )?);
            }
            Some(&&Annotation { id, kind, yes, .. }) => {
                answers.push(Answered { id, kind, yes, response: response.text.clone() });
            }
            None => unknown.push(id.clone()),
        }
    }
    Ok(AmberReport {
        unanswered: data.annotations.len() - descriptions.len() - answers.len(),
        generative: generative::summarise(descriptions, &data.starts),
        discriminative: discriminative::summarise(answers, &data.starts),
        unknown,
    })
}

impl AmberReport {
    /// The numbers that AMBER is reported by, in the order of [`NAMES`].
    pub fn values(&self) -> [Option<f64>; 8] {
        let Generative { chair, cover, hal, cog, .. } = self.generative;
        let YesNo { accuracy, precision, recall, f1, .. } = self.discriminative.all;
        [chair, cover, hal, cog, accuracy, precision, recall, f1]
    }
}
