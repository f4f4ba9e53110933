//! SEED-Bench's file of questions.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use serde::Deserialize;

use super::OptionQuestion;
use crate::answers::QuestionId;
use crate::image_id::ImageId;

/// A file that is not SEED-Bench's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// Not of the shape.
    #[error(
        "not SEED-Bench's file: {source}; expected {{\"questions\": [{{\"question_id\": …, \
         \"question\": …, \"choice_a\": …, …, \"answer\": \"A\"}}], \"question_type\": {{…}}}}"
    )]
    Json {
        /// What the parser met.
        source: serde_json::Error,
    },
    /// An answer that is none of the letters.
    #[error("question {id} has '{answer}' as answer; it must be A, B, C or D")]
    Answer {
        /// The question.
        id: String,
        /// What it has.
        answer: String,
    },
}

#[derive(Deserialize)]
struct File {
    questions: Vec<Row>,
    #[serde(default)]
    question_type: HashMap<String, i64>,
}

#[derive(Deserialize)]
struct Row {
    question_id: QuestionId,
    question: String,
    choice_a: String,
    choice_b: String,
    choice_c: String,
    choice_d: String,
    answer: Option<String>,
    data_type: Option<String>,
    data_id: Option<ImageId>,
    question_type_id: Option<i64>,
}

/// Reads `SEED-Bench.json`. Categories are `question_type`, by its name, and `data_type`, which is
/// image or video.
///
/// # Errors
/// Text of another shape, or an answer that is none of the letters.
pub fn read_seed(reader: impl Read) -> Result<Vec<OptionQuestion>, SeedError> {
    let file: File =
        serde_json::from_reader(reader).map_err(|source| SeedError::Json { source })?;
    let names: HashMap<i64, String> =
        file.question_type.into_iter().map(|(name, id)| (id, name)).collect();
    let question = |row: Row| {
        let answer = row.answer.map(|answer| match answer.as_str() {
            "A" => Ok(0),
            "B" => Ok(1),
            "C" => Ok(2),
            "D" => Ok(3),
            _ => Err(SeedError::Answer { id: row.question_id.0.clone(), answer }),
        });
        let mut categories = BTreeMap::new();
        if let Some(id) = row.question_type_id {
            let name = names.get(&id).cloned().unwrap_or_else(|| id.to_string());
            categories.insert("question_type".to_owned(), name);
        }
        categories.extend(row.data_type.map(|kind| ("data_type".to_owned(), kind)));
        Ok(OptionQuestion {
            id: row.question_id,
            image: row.data_id.map(|ImageId(name)| name),
            hint: None,
            question: row.question,
            options: vec![row.choice_a, row.choice_b, row.choice_c, row.choice_d],
            answer: answer.transpose()?,
            categories,
        })
    };
    file.questions.into_iter().map(question).collect()
}
