//! What the judge said.

use std::io::BufRead;

use serde::{Deserialize, Serialize};

use crate::answers::QuestionId;
use crate::rows::{RowError, read_rows};

/// What the judge said about one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The question; `None` where the file goes by position.
    pub question_id: Option<QuestionId>,
    /// The judge's words.
    pub text: String,
}

#[derive(Deserialize)]
struct Row {
    question_id: Option<QuestionId>,
    id: Option<QuestionId>,
    text: Option<String>,
    score: Option<f64>,
    choices: Option<Vec<Choice>>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

/// Reads `{"question_id": …, "text": "…"}` rows, where a number in "score" does too, and rows that are responses of
/// `OpenAI`'s interface as they are.
///
/// # Errors
/// A row that says nothing.
pub fn read_verdicts(reader: impl BufRead) -> Result<Vec<Verdict>, RowError> {
    let mut verdicts = Vec::new();
    read_rows(reader, r#"{"question_id": …, "text": "…"}"#, |place, row: Row| {
        let choice = row.choices.and_then(|choices| choices.into_iter().next());
        let said = choice.map(|choice| choice.message.content);
        let text = row.text.or(row.score.map(|score| score.to_string())).or(said);
        let text = text.ok_or_else(|| RowError::Meaning {
            place,
            reason: "no verdict; give it as \"text\" or \"score\"".to_owned(),
        })?;
        // A response of OpenAI has an id of its own, which names no question.
        let id = row.question_id.or(row.id.filter(|id| !id.0.starts_with("chatcmpl")));
        verdicts.push(Verdict { question_id: id, text });
        Ok(())
    })?;
    Ok(verdicts)
}
