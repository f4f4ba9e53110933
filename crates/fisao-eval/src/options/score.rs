//! Accuracy, in all and by category, of questions alone or in all their rotations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{OptionQuestion, Reading};
use crate::answers::QuestionId;
use crate::rates::Accuracy;

/// What cannot be scored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionsError {
    /// A question whose answer is kept back.
    #[error(
        "question {id} has no right answer in the file; such files are scored by their makers only"
    )]
    NoTruth {
        /// The question.
        id: String,
    },
    /// More or fewer likelihoods than options.
    #[error("question {id} has {options} options but {found} log-likelihoods; give one for each")]
    Likelihoods {
        /// The question.
        id: String,
        /// Its options.
        options: usize,
        /// Its likelihoods.
        found: usize,
    },
    /// Likelihoods of another benchmark.
    #[error(
        "none of the {rows} rows of log-likelihoods is of one of the questions (the first is of \
         question {row}, the first question is {question}); are the files of the same benchmark?"
    )]
    Strangers {
        /// Rows given.
        rows: usize,
        /// Question of the first row.
        row: String,
        /// The first question.
        question: String,
    },
    /// Rotations are told by numbers.
    #[error("question id '{id}' is not a number; MMBench's rotations are told by their \"index\"")]
    Index {
        /// The id.
        id: String,
    },
}

/// Kind of category → category → accuracy.
pub(super) type Categories = BTreeMap<String, BTreeMap<String, Accuracy>>;

/// What the questions scored, each for itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptionsReport {
    /// Over all questions. One without an answer is wrong.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// By category.
    pub categories: Categories,
    /// Questions without an answer, which count as wrong.
    pub unanswered: usize,
    /// Answers that say none of the options is right, which are wrong.
    pub refused: usize,
    /// Answers that mean no option, which are wrong.
    pub unclear: usize,
    /// Every question, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_question: Vec<Judged>,
}

/// One question and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The question.
    pub id: QuestionId,
    /// What was answered.
    pub picked: Option<Reading>,
    /// The right option, counted from 0.
    pub answer: usize,
    /// Whether it was picked.
    pub correct: bool,
}

/// Scores picks, which stand in the order of the questions.
///
/// # Errors
/// A question whose answer is kept back.
pub fn score(
    questions: &[OptionQuestion],
    picks: &[Option<Reading>],
) -> Result<OptionsReport, OptionsError> {
    assert_eq!(questions.len(), picks.len(), "one pick for each question");
    let mut per_question = Vec::with_capacity(questions.len());
    let mut categories = Categories::new();
    for (question, picked) in questions.iter().zip(picks) {
        let answer = question.answer;
        let answer = answer.ok_or_else(|| OptionsError::NoTruth { id: question.id.0.clone() })?;
        let correct = *picked == Some(Reading::Option(answer));
        sort_in(&mut categories, question, correct);
        per_question.push(Judged { id: question.id.clone(), picked: *picked, answer, correct });
    }
    let count = |picked| per_question.iter().filter(|judged| judged.picked == picked).count();
    Ok(OptionsReport {
        accuracy: per_question.iter().map(|judged| judged.correct).collect(),
        categories,
        unanswered: count(None),
        refused: count(Some(Reading::Refused)),
        unclear: count(Some(Reading::Unclear)),
        per_question,
    })
}

fn sort_in(categories: &mut Categories, question: &OptionQuestion, correct: bool) {
    for (kind, category) in &question.categories {
        let group = categories.entry(kind.clone()).or_default();
        group.entry(category.clone()).or_default().count(correct);
    }
}

/// What the questions scored that are asked in every rotation of their options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CircularReport {
    /// Questions right in all rotations / questions.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// By category of the question as first asked.
    pub categories: Categories,
    /// Rotations whose question is not in the file, which count nowhere.
    pub orphans: usize,
    /// Every question, by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

/// A question and its rotations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its index.
    pub index: u64,
    /// Rotations, itself included.
    pub rotations: usize,
    /// Rotations answered rightly.
    pub correct: usize,
}

/// Index of the first rotation less that of the question itself.
pub const ROTATION: u64 = 1_000_000;

/// Scores picks as MMBench does: a question is right if it is right in every rotation. A rotation of question 7 has the
/// index 1000007, 2000007 and so on. Where none has rotations this is [`score`].
///
/// # Errors
/// A question whose answer is kept back, or an id that is not a number.
pub fn circular(
    questions: &[OptionQuestion],
    picks: &[Option<Reading>],
) -> Result<CircularReport, OptionsError> {
    let judged = score(questions, picks)?.per_question;
    // By index: rotations, right ones, and the question where it was met.
    let mut groups: BTreeMap<u64, (usize, usize, Option<usize>)> = BTreeMap::new();
    for (place, verdict) in judged.iter().enumerate() {
        let index = verdict.id.0.parse::<u64>();
        let index = index.map_err(|_| OptionsError::Index { id: verdict.id.0.clone() })?;
        let (rotations, correct, first) = groups.entry(index % ROTATION).or_default();
        *rotations += 1;
        *correct += usize::from(verdict.correct);
        if index < ROTATION {
            *first = Some(place);
        }
    }
    let mut report = CircularReport {
        accuracy: Accuracy::default(),
        categories: Categories::new(),
        orphans: 0,
        groups: Vec::new(),
    };
    for (index, (rotations, correct, first)) in groups {
        let Some(first) = first else {
            report.orphans += rotations;
            continue;
        };
        report.accuracy.count(rotations == correct);
        sort_in(&mut report.categories, &questions[first], rotations == correct);
        report.groups.push(Group { index, rotations, correct });
    }
    Ok(report)
}
