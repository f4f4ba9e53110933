//! What a model answered, and which question each answer belongs to.
//!
//! Files of answers differ in their names for the same things: `question_id` and `text` (LLaVA), `answer`
//! without any id (POPE), `id` and `response` (AMBER), `questionId` and `prediction` (GQA). All are read.

use std::collections::HashMap;
use std::io::BufRead;

use serde::{Deserialize, Deserializer, Serialize};

use crate::rows::{Place, RowError, read_rows};

/// What a file calls a question. Numbers become text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct QuestionId(pub String);

impl<'de> Deserialize<'de> for QuestionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Name(String),
            Number(i64),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Name(name) => name,
            Written::Number(number) => number.to_string(),
        }))
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

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
struct AnswerRow {
    question_id: Option<QuestionId>,
    #[serde(rename = "questionId")]
    question_id_in_camel_case: Option<QuestionId>,
    id: Option<QuestionId>,
    index: Option<QuestionId>,
    text: Option<String>,
    answer: Option<String>,
    response: Option<String>,
    prediction: Option<String>,
}

/// Reads `{"question_id": …, "text": …}` rows. For the id stand `questionId`, `id` and `index` too, for the
/// text `answer`, `response` and `prediction`; the first named here counts where several are given. Further
/// fields are left alone.
///
/// # Errors
/// A row without a text; an id on some rows only, or twice.
pub fn read_answers(reader: impl BufRead) -> Result<Vec<Answer>, RowError> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut seen = HashMap::new();
    read_rows(reader, r#"{"question_id": …, "text": "…"}"#, |place, row: AnswerRow| {
        let answer = row.named(place)?;
        let meaning = |reason| RowError::Meaning { place, reason };
        if let Some(first) = answers.first()
            && first.question_id.is_some() != answer.question_id.is_some()
        {
            let reason = "\"question_id\" must stand on every row or on none";
            return Err(meaning(reason.to_owned()));
        }
        if let Some(QuestionId(id)) = &answer.question_id
            && let Some(earlier) = seen.insert(id.clone(), place)
        {
            return Err(meaning(format!(
                "question {id} was answered on {earlier} already; keep one of the two"
            )));
        }
        answers.push(answer);
        Ok(())
    })?;
    Ok(answers)
}

impl AnswerRow {
    fn named(self, place: Place) -> Result<Answer, RowError> {
        let text = self.text.or(self.answer).or(self.response).or(self.prediction);
        let text = text.ok_or_else(|| RowError::Meaning {
            place,
            reason: "no answer; give it as \"text\" (or \"answer\")".to_owned(),
        })?;
        let id = self.question_id.or(self.question_id_in_camel_case).or(self.id).or(self.index);
        Ok(Answer { question_id: id, text })
    }
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
        read_answers(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn id(name: &str) -> QuestionId {
        QuestionId(name.to_owned())
    }

    #[test]
    fn every_name_of_the_same_thing_is_read() {
        for row in [
            r#"{"question_id": 7, "text": "no", "prompt": "?", "metadata": {}}"#,
            r#"{"questionId": "7", "prediction": "no"}"#,
            r#"{"id": 7, "response": "no"}"#,
            r#"{"index": 7, "question_id": "7", "answer": "no", "response": "more"}"#,
        ] {
            let expected = Answer { question_id: Some(id("7")), text: "no".to_owned() };
            assert_eq!(read(row), Ok(vec![expected]), "{row}");
        }
        assert_eq!(read(r#"[{"answer": "x"}]"#).unwrap()[0].question_id, None);
    }

    #[test]
    fn broken_answers_are_named_by_their_place() {
        let said = |text: &str| read(text).unwrap_err();
        assert_eq!(
            said("{\"id\": 1, \"text\": \"\"}\n{\"id\": 2}"),
            "line 2: no answer; give it as \"text\" (or \"answer\")"
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
    fn answers_find_their_questions() {
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
    fn what_cannot_be_paired_is_said() {
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
