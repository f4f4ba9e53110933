//! ScienceQA: school questions with options, about half of them with an image.
//!
//! Lu et al., *Learn to Explain: Multimodal Reasoning via Thought Chains for Science Question Answering*,
//! `NeurIPS` 2022, [arXiv 2209.09513](https://arxiv.org/abs/2209.09513); rules of LLaVA's
//! `eval_science_qa.py`.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::answers::{Answer, QuestionId};
use crate::options::{INSTRUCTION, letter};
use crate::rates::Accuracy;

/// A problem. Its further fields are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The question.
    pub question: String,
    /// The options, in order.
    pub choices: Vec<String>,
    /// The right option, counted from 0.
    pub answer: usize,
    /// Text that belongs to the question; may be empty.
    #[serde(default)]
    pub hint: String,
    /// File name of the image, if there is one.
    pub image: Option<String>,
    /// Natural, social or language science.
    #[serde(default)]
    pub subject: String,
    /// "grade1" to "grade12".
    #[serde(default)]
    pub grade: String,
}

/// The problem as lmms-eval puts it to LLaVA: context, question, one option a line, and the instruction.
pub fn prompt(problem: &Problem) -> String {
    let mut lines = Vec::new();
    if !problem.hint.is_empty() {
        lines.push(format!("Context: {}", problem.hint));
    }
    lines.push(problem.question.clone());
    let lettered = problem.choices.iter().enumerate();
    lines.extend(lettered.map(|(place, choice)| format!("{}. {choice}", letter(place))));
    lines.push(INSTRUCTION.to_owned());
    lines.join("\n")
}

/// What cannot be read or scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScienceQaError {
    /// `problems.json` or `pid_splits.json` is something else.
    #[error("not ScienceQA's file: {source}; expected {expected}")]
    Json {
        /// Shape of a good file.
        expected: &'static str,
        /// What the parser met.
        source: serde_json::Error,
    },
    /// A split names a problem that is not there.
    #[error(
        "problem {id} of the split is not among the problems; are both files of the same version?"
    )]
    NoProblem {
        /// The problem.
        id: String,
    },
    /// A problem whose answer is none of its options.
    #[error(
        "problem {id} has {choices} options, but its answer is number {answer}, counted from 0"
    )]
    Answer {
        /// The problem.
        id: String,
        /// Its options.
        choices: usize,
        /// Its answer.
        answer: usize,
    },
    /// Answers without ids.
    #[error("answer {number} has no \"question_id\"; ScienceQA's answers go by the problem's id")]
    NoId {
        /// Counted from 1.
        number: usize,
    },
}

fn read<File: DeserializeOwned>(
    reader: impl Read,
    expected: &'static str,
) -> Result<File, ScienceQaError> {
    serde_json::from_reader(reader).map_err(|source| ScienceQaError::Json { expected, source })
}

/// Reads `problems.json`, an object of id → problem.
///
/// # Errors
/// Text of another shape.
pub fn read_problems(reader: impl Read) -> Result<BTreeMap<String, Problem>, ScienceQaError> {
    read(reader, r#"{"1": {"question": "…", "choices": ["…"], "answer": 0, "image": null, …}, …}"#)
}

/// Reads `pid_splits.json`, an object of split → ids.
///
/// # Errors
/// Text of another shape.
pub fn read_splits(reader: impl Read) -> Result<BTreeMap<String, Vec<String>>, ScienceQaError> {
    read(reader, r#"{"test": ["4", …], …}"#)
}

/// The option that an answer means, by its letter up to E: the letter alone; a letter, full stop and space at the
/// start; or what follows "The answer is", if that stands there once and something comes after the letter.
pub fn parse_answer(text: &str, choices: usize) -> Option<usize> {
    let mut letters = text.chars();
    let start = letters.next();
    let rest = letters.as_str();
    let said = if start.is_some_and(|start| ('A'..='E').contains(&start))
        && (rest.is_empty() || rest.starts_with(". "))
    {
        start
    } else {
        said_once(text)
    };
    (0..choices.min(5)).find(|&place| Some(letter(place)) == said)
}

/// The letter behind "The answer is", unless there are several.
fn said_once(text: &str) -> Option<char> {
    let mut found = text.match_indices("The answer is ").filter_map(|(at, words)| {
        let mut after = text[at + words.len()..].chars();
        let letter = after.next().filter(char::is_ascii_uppercase)?;
        after.next().filter(|&next| next != '\n').map(|_| letter)
    });
    found.next().filter(|_| found.next().is_none())
}

/// What the answers scored. A problem without an answer is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScienceQaReport {
    /// All problems of the split.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Those with an image.
    pub image_accuracy: Accuracy,
    /// By subject, as the file names them.
    pub subjects: BTreeMap<String, Accuracy>,
    /// By what comes with the question: "text", "image" (some have both) and "none".
    pub contexts: BTreeMap<String, Accuracy>,
    /// Grades 1 to 6 and 7 to 12.
    pub grades: BTreeMap<String, Accuracy>,
    /// Problems without an answer.
    pub unanswered: usize,
    /// Answers that mean no option.
    pub unclear: usize,
    /// Answers to problems that are not in the split.
    pub unknown_answers: usize,
    /// Every problem, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_question: Vec<Judged>,
}

/// One problem and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The problem.
    pub question_id: QuestionId,
    /// Whether it has an image.
    pub with_image: bool,
    /// What the model wrote.
    pub text: Option<String>,
    /// The option it means, counted from 0.
    pub picked: Option<usize>,
    /// The right one.
    pub answer: usize,
}

/// Scores answers to the problems of a split.
///
/// # Errors
/// A problem that is not there or whose answer is none of its options; answers without ids.
pub fn evaluate(
    problems: &BTreeMap<String, Problem>,
    split: &[String],
    answers: &[Answer],
) -> Result<ScienceQaReport, ScienceQaError> {
    let mut texts = HashMap::new();
    for (index, answer) in answers.iter().enumerate() {
        let id = answer.question_id.as_ref();
        let id = id.ok_or(ScienceQaError::NoId { number: index + 1 })?;
        texts.insert(id.0.as_str(), answer.text.as_str());
    }
    let mut report = ScienceQaReport {
        accuracy: Accuracy::default(),
        image_accuracy: Accuracy::default(),
        subjects: BTreeMap::new(),
        contexts: BTreeMap::new(),
        grades: BTreeMap::new(),
        unanswered: 0,
        unclear: 0,
        unknown_answers: 0,
        per_question: Vec::with_capacity(split.len()),
    };
    for id in split {
        let problem = problems.get(id);
        let problem = problem.ok_or_else(|| ScienceQaError::NoProblem { id: id.clone() })?;
        let (choices, answer) = (problem.choices.len(), problem.answer);
        if answer >= choices {
            return Err(ScienceQaError::Answer { id: id.clone(), choices, answer });
        }
        report.score_answer(id, problem, texts.remove(id.as_str()));
    }
    report.unknown_answers = texts.len();
    Ok(report)
}

impl ScienceQaReport {
    fn score_answer(&mut self, id: &str, problem: &Problem, text: Option<&str>) {
        let picked = text.and_then(|text| parse_answer(text, problem.choices.len()));
        let correct = picked == Some(problem.answer);
        self.unanswered += usize::from(text.is_none());
        self.unclear += usize::from(text.is_some() && picked.is_none());
        self.accuracy.count(correct);
        let (hint, image) = (!problem.hint.is_empty(), problem.image.is_some());
        if image {
            self.image_accuracy.count(correct);
        }
        for (context, is) in [("text", hint), ("image", image), ("none", !hint && !image)] {
            if is {
                self.contexts.entry(context.to_owned()).or_default().count(correct);
            }
        }
        if !problem.subject.is_empty() {
            self.subjects.entry(problem.subject.clone()).or_default().count(correct);
        }
        let grade = problem.grade.strip_prefix("grade").and_then(|grade| grade.parse::<u32>().ok());
        if let Some(grade) = grade {
            let band = if grade <= 6 { "1-6" } else { "7-12" };
            self.grades.entry(band.to_owned()).or_default().count(correct);
        }
        self.per_question.push(Judged {
            question_id: QuestionId(id.to_owned()),
            with_image: image,
            text: text.map(str::to_owned),
            picked,
            answer: problem.answer,
        });
    }
}
