//! GQA: questions about scenes, answered in a word.
//!
//! Hudson & Manning, *GQA: A New Dataset for Real-World Visual Reasoning and Compositional Question Answering*,
//! CVPR 2019, [arXiv 1902.09506](https://arxiv.org/abs/1902.09506). An answer is right if it equals the expected one
//! after the normalisation that LLaVA or lmms-eval applies. The official numbers that need scene graphs (validity,
//! plausibility, grounding, consistency) are not computed.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::answers::{Answer, PairedBy, PairingError, QuestionId, pair};
use crate::keyed::read_keyed;
use crate::rates::Accuracy;

/// What LLaVA's evaluation writes behind a question.
pub const PROMPT_SUFFIX: &str = "\nAnswer the question using a single word or phrase.";

/// The question as LLaVA's evaluation puts it.
pub fn prompt(question: &str) -> String {
    format!("{question}{PROMPT_SUFFIX}")
}

/// A question. Its further fields are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Its id, the key of the file.
    #[serde(skip, default = "unnamed")]
    pub id: QuestionId,
    /// The question.
    pub question: String,
    /// The expected answer.
    pub answer: String,
    /// The image.
    #[serde(rename = "imageId")]
    pub image_id: String,
    /// Kinds of question, such as "structural" → "verify".
    #[serde(default, deserialize_with = "kinds")]
    pub types: BTreeMap<String, String>,
}

fn unnamed() -> QuestionId {
    QuestionId(String::new())
}

/// Some of the kinds are null.
fn kinds<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let kinds = BTreeMap::<String, Option<String>>::deserialize(deserializer)?;
    Ok(kinds.into_iter().filter_map(|(kind, name)| Some((kind, name?))).collect())
}

/// Text that is not GQA's file of questions.
#[derive(Debug, thiserror::Error)]
#[error(
    "not GQA's file of questions: {source}; expected {{\"ID\": {{\"question\": \"…\", \"answer\": \"…\", \
     \"imageId\": \"…\", \"types\": {{…}}}}, …}}"
)]
pub struct GqaError {
    /// What the parser met.
    source: serde_json::Error,
}

/// Reads such a file as `testdev_balanced_questions.json`, in the order of the file.
///
/// # Errors
/// Text of another shape.
pub fn read_questions(reader: impl Read) -> Result<Vec<Question>, GqaError> {
    let questions: Vec<(String, Question)> =
        read_keyed(reader).map_err(|source| GqaError { source })?;
    let named = |(id, question)| Question { id: QuestionId(id), ..question };
    Ok(questions.into_iter().map(named).collect())
}

/// What is done to an answer before it is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// Full stops at the end go, and the case of the answer (LLaVA's `convert_gqa_for_eval.py`). The expected answer
    /// stays as it is.
    #[default]
    Llava,
    /// Case and all ASCII punctuation go, from the expected answer too (lmms-eval).
    LmmsEval,
}

impl Normalisation {
    /// Whether an answer is the expected one.
    pub fn equal(self, answer: &str, expected: &str) -> bool {
        let bare =
            |text: &str| text.to_lowercase().replace(|mark: char| mark.is_ascii_punctuation(), "");
        match self {
            Self::Llava => answer.trim_end_matches('.').to_lowercase() == expected,
            Self::LmmsEval => bare(answer) == bare(expected),
        }
    }
}

/// What the answers scored. A question without an answer is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GqaReport {
    /// All questions.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Questions whose structure is "query".
    pub open: Accuracy,
    /// Questions of any other structure; most are answered by yes or no.
    pub binary: Accuracy,
    /// Kind → name → accuracy, for the kinds "structural" and "semantic".
    pub types: BTreeMap<String, BTreeMap<String, Accuracy>>,
    /// How answers found their questions.
    pub paired_by: PairedBy,
    /// Questions without an answer.
    pub unanswered: usize,
    /// Answers to questions that were not asked.
    pub unknown_answers: usize,
    /// Every question, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_question: Vec<Judged>,
}

/// One question and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The question.
    pub question_id: QuestionId,
    /// The image it is about.
    pub image_id: String,
    /// Whether it is answered by more than one of two words; `None` where the file does not say.
    pub open: Option<bool>,
    /// What the model wrote.
    pub text: Option<String>,
    /// What was expected.
    pub answer: String,
    /// Whether they are equal.
    pub correct: bool,
}

/// Scores answers.
///
/// # Errors
/// Answers that cannot be brought together with the questions.
pub fn evaluate(
    questions: &[Question],
    answers: &[Answer],
    normalisation: Normalisation,
) -> Result<GqaReport, PairingError> {
    let ids: Vec<&QuestionId> = questions.iter().map(|question| &question.id).collect();
    let paired = pair(&ids, answers)?;
    let mut report = GqaReport {
        accuracy: Accuracy::default(),
        open: Accuracy::default(),
        binary: Accuracy::default(),
        types: BTreeMap::new(),
        paired_by: paired.by,
        unanswered: paired.texts.iter().filter(|text| text.is_none()).count(),
        unknown_answers: paired.unknown,
        per_question: Vec::with_capacity(questions.len()),
    };
    for (question, text) in questions.iter().zip(paired.texts) {
        let correct = text.is_some_and(|text| normalisation.equal(text, &question.answer));
        report.accuracy.count(correct);
        let open = question.types.get("structural").map(|kind| kind == "query");
        match open {
            Some(true) => report.open.count(correct),
            Some(false) => report.binary.count(correct),
            None => {}
        }
        for (kind, name) in &question.types {
            if matches!(kind.as_str(), "structural" | "semantic") {
                let names = report.types.entry(kind.clone()).or_default();
                names.entry(name.clone()).or_default().count(correct);
            }
        }
        report.per_question.push(Judged {
            question_id: question.id.clone(),
            image_id: question.image_id.clone(),
            open,
            text: text.map(str::to_owned),
            answer: question.answer.clone(),
            correct,
        });
    }
    Ok(report)
}
