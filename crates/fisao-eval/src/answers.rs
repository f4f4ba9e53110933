//! What a model answered, and which question each answer belongs to.
//!
//! Files of answers differ in their names for the same things: `question_id` and `text` (LLaVA), `answer`
//! without any id (POPE), `id` and `response` (AMBER), `questionId` and `prediction` (GQA). All are read.

use std::collections::HashMap;
use std::io::BufRead;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::rows::{Place, RowError, read_rows, shortened};
use crate::written_id;

/// What a file calls a question. Numbers become text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct QuestionId(pub String);

impl<'de> Deserialize<'de> for QuestionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written_id::deserialize(deserializer).map(Self)
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The question it answers; `None` where the file goes by position.
    pub question_id: Option<QuestionId>,
    /// What the model wrote.
    pub text: String,
}

/// Fields that hold the id of the question; the first named here counts where several are given.
const ID_FIELDS: [&str; 4] = ["question_id", "questionId", "id", "index"];

/// Fields that hold nothing but what a model wrote.
const PREDICTION_FIELDS: [&str; 8] = [
    "prediction",
    "predict",
    "pred",
    "response",
    "model_answer",
    "model_response",
    "output",
    "generated_text",
];

/// Fields that hold what a model wrote in some files, and the question or the truth in others.
const AMBIGUOUS_FIELDS: [&str; 2] = ["text", "answer"];

type Row = Map<String, Value>;

/// Reads `{"question_id": …, "text": …}` rows. For the id stand `questionId`, `id` and `index` too. What the model wrote is
/// the text of `field`, and without one that of `text` or `answer`, or of `prediction`, `response` and further names that a
/// question or the truth never has. Where `text` or `answer` stand beside one of those, or beside each other, they may be the question or the truth: the
/// prediction counts, and two texts that differ without a prediction are refused. Every row must
/// have its text in the same field. Further fields are left alone.
///
/// # Errors
/// A row without a text, or with several that differ; an id on some rows only, or twice.
pub fn read_answers(reader: impl BufRead, field: Option<&str>) -> Result<Vec<Answer>, RowError> {
    let mut rows: Vec<(Place, Row)> = Vec::new();
    read_rows(reader, r#"{"question_id": …, "text": "…"}"#, |place, row: Row| {
        rows.push((place, row));
        Ok(())
    })?;
    let field = match field {
        Some(field) => field.to_owned(),
        None => answer_field(&rows)?.to_owned(),
    };
    let mut answers: Vec<Answer> = Vec::with_capacity(rows.len());
    let mut seen = HashMap::new();
    for (place, mut row) in rows {
        let meaning = |reason| RowError::Meaning { place, reason };
        let text = match row.remove(&field) {
            Some(Value::String(text)) => text,
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(yes)) => yes.to_string(),
            Some(Value::Null) | None => {
                return Err(meaning(format!("no answer; it should stand in \"{field}\"")));
            }
            Some(_) => return Err(meaning(format!("\"{field}\" holds no text"))),
        };
        let question_id = question_id(&row).map_err(meaning)?;
        if let Some(first) = answers.first()
            && first.question_id.is_some() != question_id.is_some()
        {
            let reason = "\"question_id\" must stand on every row or on none";
            return Err(meaning(reason.to_owned()));
        }
        if let Some(QuestionId(id)) = &question_id
            && let Some(earlier) = seen.insert(id.clone(), place)
        {
            return Err(meaning(format!(
                "question {id} was answered on {earlier} already; keep one of the two"
            )));
        }
        answers.push(Answer { question_id, text });
    }
    Ok(answers)
}

/// The field that holds what the model wrote, in all rows.
fn answer_field(rows: &[(Place, Row)]) -> Result<&'static str, RowError> {
    let written = |row: &Row, name: &str| row.get(name).is_some_and(|value| !value.is_null());
    let somewhere = |names: &[&'static str]| -> Vec<&'static str> {
        let found = |name: &&'static str| rows.iter().any(|(_, row)| written(row, name));
        names.iter().copied().filter(found).collect()
    };
    let predictions = somewhere(&PREDICTION_FIELDS);
    let names = if predictions.is_empty() { somewhere(&AMBIGUOUS_FIELDS) } else { predictions };
    let Some(first) = names.first() else {
        // Every row lacks it; without rows there is nothing to lack.
        return Ok("text");
    };
    for other in &names[1..] {
        let differs = |(_, row): &&(Place, Row)| row.get(*first) != row.get(*other);
        if let Some((place, _)) = rows.iter().find(differs) {
            return Err(RowError::Meaning {
                place: *place,
                reason: format!(
                    "\"{first}\" and \"{other}\" differ, so that one of them may be the question or the truth; say which \
                     holds the model's answer (--answer-field)"
                ),
            });
        }
    }
    Ok(first)
}

/// What a row calls its question.
fn question_id(row: &Row) -> Result<Option<QuestionId>, String> {
    let found = ID_FIELDS.iter().find_map(|name| {
        let value = row.get(*name).filter(|value| !value.is_null())?;
        Some((name, value))
    });
    let Some((name, value)) = found else { return Ok(None) };
    let id = QuestionId::deserialize(value);
    id.map(Some).map_err(|_| {
        let value = shortened(&value.to_string());
        format!("\"{name}\" is {value}; an id is a text or a whole number")
    })
}

/// How answers were brought together with questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairedBy {
    /// By the id of the question.
    QuestionId,
    /// The first answer with the first question, and so on, because the answers have no ids.
    Position,
}

/// Answers by question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paired<'a> {
    /// The answer to each question, in the order of the questions.
    pub texts: Vec<Option<&'a str>>,
    /// How they were found.
    pub by: PairedBy,
    /// Answers to questions that were not asked.
    pub unknown: usize,
}

impl Paired<'_> {
    /// Ids of questions without an answer.
    pub fn unanswered<'q>(&self, ids: impl IntoIterator<Item = &'q QuestionId>) -> Vec<QuestionId> {
        let missing = self.texts.iter().zip(ids).filter(|(text, _)| text.is_none());
        missing.map(|(_, id)| id.clone()).collect()
    }
}

/// Questions and answers that cannot be brought together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PairingError {
    /// By position, every question needs its answer.
    #[error(
        "{questions} questions but {answers} answers, which have no \"question_id\" to tell what \
         they answer; add it, or give one answer to every question"
    )]
    Counts {
        /// Questions asked.
        questions: usize,
        /// Answers given.
        answers: usize,
    },
    /// Two questions have the same id, so that an id says nothing.
    #[error("question id {id} is used twice, so that its answer could be to either")]
    Repeated {
        /// The id.
        id: String,
    },
    /// Ids have nothing in common.
    #[error(
        "none of the {answers} answers is to one of the {questions} questions (the first answers \
         question {answer}, the first question is {question}); are the files of the same benchmark?"
    )]
    Strangers {
        /// Questions asked.
        questions: usize,
        /// Answers given.
        answers: usize,
        /// Id of the first answer.
        answer: String,
        /// Id of the first question.
        question: String,
    },
}

/// Brings answers together with the questions of these ids: by id where the answers have ids, else by
/// position.
///
/// # Errors
/// Ids used twice, no answer to any of the questions, or counts that differ where position decides.
pub fn pair<'a>(ids: &[&QuestionId], answers: &'a [Answer]) -> Result<Paired<'a>, PairingError> {
    let by_position = answers.first().is_none_or(|answer| answer.question_id.is_none());
    if by_position {
        if ids.len() != answers.len() {
            let (questions, answers) = (ids.len(), answers.len());
            return Err(PairingError::Counts { questions, answers });
        }
        let texts = answers.iter().map(|answer| Some(answer.text.as_str())).collect();
        return Ok(Paired { texts, by: PairedBy::Position, unknown: 0 });
    }
    let mut places = HashMap::with_capacity(ids.len());
    for (place, id) in ids.iter().enumerate() {
        if places.insert(*id, place).is_some() {
            return Err(PairingError::Repeated { id: id.0.clone() });
        }
    }
    let mut texts = vec![None; ids.len()];
    let mut unknown = 0;
    for answer in answers {
        match answer.question_id.as_ref().and_then(|id| places.get(id)) {
            Some(&place) => texts[place] = Some(answer.text.as_str()),
            None => unknown += 1,
        }
    }
    match (ids.first(), answers.first().and_then(|answer| answer.question_id.as_ref())) {
        (Some(question), Some(answer)) if unknown == answers.len() => {
            Err(PairingError::Strangers {
                questions: ids.len(),
                answers: answers.len(),
                answer: answer.0.clone(),
                question: question.0.clone(),
            })
        }
        _ => Ok(Paired { texts, by: PairedBy::QuestionId, unknown }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Answer>, String> {
        read_answers(text.as_bytes(), None).map_err(|error| error.to_string())
    }

    fn id(name: &str) -> QuestionId {
        QuestionId(name.to_owned())
    }

    #[test]
    fn answer_and_id_field_aliases_are_read() {
        for row in [
            r#"{"question_id": 7, "text": "no", "prompt": "?", "metadata": {}}"#,
            r#"{"questionId": "7", "prediction": "no"}"#,
            r#"{"id": 7, "response": "no"}"#,
            r#"{"index": 8, "question_id": "7", "text": "no", "answer": "no"}"#,
            r#"{"index": 7.0, "answer": ["yes"], "prediction": "no"}"#,
        ] {
            let expected = Answer { question_id: Some(id("7")), text: "no".to_owned() };
            assert_eq!(read(row), Ok(vec![expected]), "{row}");
        }
        assert_eq!(read(r#"[{"answer": "x"}]"#).unwrap()[0].question_id, None);
    }

    #[test]
    fn invalid_answers_are_reported_by_line_or_entry() {
        let said = |text: &str| read(text).unwrap_err();
        assert_eq!(
            said("{\"id\": 1, \"text\": \"\"}\n{\"id\": 2}"),
            "line 2: no answer; it should stand in \"text\""
        );
        assert!(
            said(r#"[{"id": 1, "text": ""}, {"text": ""}]"#).starts_with("entry 2: \"question")
        );
        assert_eq!(
            said("{\"id\": 1, \"text\": \"\"}\n{\"id\": \"1\", \"text\": \"\"}"),
            "line 2: question 1 was answered on line 1 already; keep one of the two"
        );
    }

    #[test]
    fn ground_truth_field_is_not_read_as_the_answer() {
        let texts = |rows: &str| -> Vec<String> {
            read(rows).unwrap().into_iter().map(|answer| answer.text).collect()
        };
        // As VLMEvalKit writes them: the truth in "answer"; as POPE's questions with a model's response added.
        for rows in [
            r#"[{"index": 1, "answer": "No", "prediction": "Yes"}, {"index": 2, "answer": "Yes", "prediction": "No"}]"#,
            r#"[{"id": 1, "text": "A dog?", "label": "no", "response": "Yes"}, {"id": 2, "text": "A cat?", "response": "No"}]"#,
            r#"[{"id": 1, "question": "A dog?", "gt_answer": "no", "model_answer": "Yes"}, {"id": 2, "model_answer": "No"}]"#,
        ] {
            assert_eq!(texts(rows), ["Yes", "No"], "{rows}");
        }
        let said = read("{\"id\": 1, \"text\": \"A dog?\", \"answer\": \"no\"}").unwrap_err();
        assert!(said.starts_with("line 1: \"text\" and \"answer\" differ"), "{said}");
        assert!(said.contains("--answer-field"), "{said}");
        let two = r#"{"id": 1, "prediction": "yes", "response": "no"}"#;
        assert!(read(two).unwrap_err().contains("\"prediction\" and \"response\" differ"));
        let one = |field| read_answers(two.as_bytes(), Some(field)).unwrap().remove(0).text;
        assert_eq!([one("prediction"), one("response")], ["yes", "no"]);
        // A row whose prediction is missing is not answered by its truth.
        let gap = r#"[{"id": 1, "answer": "no", "prediction": "no"}, {"id": 2, "answer": "yes", "prediction": null}]"#;
        assert_eq!(read(gap).unwrap_err(), "entry 2: no answer; it should stand in \"prediction\"");
        assert!(read(r#"{"id": 1.5, "text": "no"}"#).unwrap_err().contains("\"id\" is 1.5"));
    }

    #[test]
    fn answers_are_paired_by_id_or_position() {
        let (one, two) = (id("1"), id("2"));
        let ids = [&one, &two];
        let answers = read(r#"[{"id": 2, "text": "b"}, {"id": 3, "text": "c"}]"#).unwrap();
        let paired = pair(&ids, &answers).unwrap();
        assert_eq!(paired.texts, [None, Some("b")]);
        assert_eq!((paired.by, paired.unknown), (PairedBy::QuestionId, 1));
        assert_eq!(paired.unanswered(ids), [id("1")]);

        let answers = read(r#"[{"text": "a"}, {"text": "b"}]"#).unwrap();
        let paired = pair(&ids, &answers).unwrap();
        assert_eq!((paired.texts, paired.by), (vec![Some("a"), Some("b")], PairedBy::Position));
    }

    #[test]
    fn unpairable_answers_are_rejected() {
        let (one, two) = (id("1"), id("2"));
        let answers = read(r#"[{"text": "a"}]"#).unwrap();
        assert_eq!(
            pair(&[&one, &two], &answers),
            Err(PairingError::Counts { questions: 2, answers: 1 })
        );
        let answers = read(r#"[{"id": 3, "text": "a"}]"#).unwrap();
        assert!(matches!(pair(&[&one], &answers), Err(PairingError::Strangers { .. })));
        assert_eq!(pair(&[&one, &one], &answers), Err(PairingError::Repeated { id: "1".into() }));
    }
}
