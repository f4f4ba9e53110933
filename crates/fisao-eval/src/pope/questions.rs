//! Files of questions.

use std::io::BufRead;

use serde::{Deserialize, Serialize};

use crate::answers::QuestionId;
use crate::image_id::ImageId;
use crate::rows::{RowError, read_rows};

/// What is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// The object is there.
    Yes,
    /// It is not.
    No,
}

/// A question and what is true, which is a row of a question file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Its id, unique within one file.
    pub question_id: QuestionId,
    /// The image it is about.
    pub image: ImageId,
    /// The question.
    pub text: String,
    /// What is true.
    pub label: Label,
}

impl Question {
    /// The object asked for; `None` where the question is not put as POPE puts it.
    pub fn object(&self) -> Option<&str> {
        let named = self.text.strip_prefix("Is there ")?.strip_suffix(" in the image?")?;
        named.strip_prefix("an ").or_else(|| named.strip_prefix("a "))
    }
}

/// Reads `{"question_id": …, "image": …, "text": …, "label": "yes" | "no"}` rows, one a line or as a list.
///
/// # Errors
/// A row that is not such an object.
pub fn read_questions(reader: impl BufRead) -> Result<Vec<Question>, RowError> {
    let mut questions = Vec::new();
    let expected = r#"{"question_id": …, "image": "…", "text": "…", "label": "yes" or "no"}"#;
    read_rows(reader, expected, |_, question| {
        questions.push(question);
        Ok(())
    })?;
    Ok(questions)
}
