//! MME: two questions about each image, one to be answered with yes and one with no.
//!
//! Fu et al., *MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models*,
//! [arXiv 2306.13394](https://arxiv.org/abs/2306.13394); rules of the official `calculation.py`.
//!
//! ```text
//! acc   = right answers / questions           acc+ = images with both answers right / images
//! score = 100 · acc + 100 · acc+ of a task;   perception, cognition = sums over their tasks
//! ```

use std::array;
use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::ops::Add;

use serde::{Deserialize, Serialize};

use crate::rates::rate;
use crate::statistics::{Bootstrap, Interval};

/// Tasks whose scores make up perception.
pub const PERCEPTION: [&str; 10] = [
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
];

/// Tasks whose scores make up cognition.
pub const COGNITION: [&str; 4] =
    ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"];

/// What LLaVA's evaluation writes behind a question, in place of "Please answer yes or no."
pub const PROMPT_SUFFIX: &str = "\nAnswer the question using a single word or phrase.";

/// The question as LLaVA's evaluation puts it.
pub fn prompt(question: &str) -> String {
    let question = question.trim_end();
    let bare = question.strip_suffix("Please answer yes or no.").unwrap_or(question);
    format!("{}{PROMPT_SUFFIX}", bare.trim_end())
}

/// A question, what is right, and what the model wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The image.
    pub image: String,
    /// The question.
    pub question: String,
    /// Whether the answer is yes.
    pub yes: bool,
    /// What the model wrote.
    pub answer: String,
}

/// A task's file that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MmeError {
    /// The text cannot be read, or is not UTF-8.
    #[error("{task}: line {line} cannot be read: {source}")]
    Io {
        /// The task.
        task: String,
        /// Counted from 1.
        line: usize,
        /// What the system said.
        source: io::Error,
    },
    /// Not four columns.
    #[error(
        "{task}: line {line} has {found} columns between tabs; expected 4: image, question, ground \
         truth, answer (white space other than spaces in an answer must be replaced by spaces)"
    )]
    Columns {
        /// The task.
        task: String,
        /// Counted from 1.
        line: usize,
        /// How many there are.
        found: usize,
    },
    /// The ground truth is neither yes nor no.
    #[error("{task}: line {line} has '{found}' as ground truth; it must be Yes or No")]
    Truth {
        /// The task.
        task: String,
        /// Counted from 1.
        line: usize,
        /// What it is.
        found: String,
    },
    /// The two questions of an image do not stand together.
    #[error(
        "{task}: line {line} asks about '{image}' but no second question about it follows; the two \
         questions of an image stand on lines after each other"
    )]
    Odd {
        /// The task.
        task: String,
        /// The line of the lonely question, counted from 1.
        line: usize,
        /// Its image.
        image: String,
    },
}

/// How an answer is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// As `calculation.py`: lower-cased; "yes" anywhere in the first four characters is a yes, else "no" there
    /// is a no.
    #[default]
    Official,
    /// As lmms-eval: the same after white space around it and all full stops are taken away, and "y" or "n" alone
    /// count.
    LmmsEval,
}

impl Reading {
    /// Whether an answer is a yes; `None` if it is neither.
    pub fn parse(self, answer: &str) -> Option<bool> {
        let mut answer = answer.to_lowercase();
        if self == Self::LmmsEval {
            answer = answer.trim().replace('.', "");
            match answer.as_str() {
                "y" => return Some(true),
                "n" => return Some(false),
                _ => {}
            }
        }
        let start: String = answer.chars().take(4).collect();
        if start.contains("yes") { Some(true) } else { start.contains("no").then_some(false) }
    }
}

/// What one task scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Right answers / questions.
    pub acc: Option<f64>,
    /// Images with both answers right / images.
    pub acc_plus: Option<f64>,
    /// 100 · acc + 100 · acc+, from 0 to 200.
    pub score: Option<f64>,
    /// Questions, two for each image.
    pub questions: usize,
    /// Answers that are neither yes nor no, which are wrong.
    pub other: usize,
    /// Every question, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_question: Vec<Judged>,
}

/// One answer and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The question and its answer.
    #[serde(flatten)]
    pub row: Row,
    /// What was read: yes, no, or neither.
    pub said_yes: Option<bool>,
}

/// What all tasks scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MmeReport {
    /// By the name of the task.
    pub tasks: BTreeMap<String, TaskReport>,
    /// Sum of the scores of the perception tasks that are there, at most 2000.
    pub perception: Option<f64>,
    /// Perception tasks that are not there. Unless this is empty, the sum is not comparable with a published
    /// one.
    pub perception_missing: Vec<String>,
    /// Sum of the scores of the cognition tasks that are there, at most 800.
    pub cognition: Option<f64>,
    /// Cognition tasks that are not there.
    pub cognition_missing: Vec<String>,
    /// Tasks that belong to neither, and to no sum.
    pub unknown_tasks: Vec<String>,
}

/// Reads the file of a task: image, question, ground truth and answer between tabs, one question a line. Empty
/// lines are passed over.
///
/// # Errors
/// A line that is not that, or an image without its second question.
pub fn read_task(task: &str, reader: impl BufRead) -> Result<Vec<Row>, MmeError> {
    read(task, reader, true)
}

/// Reads a task that is to be answered still: as [`read_task`], but the column of answers may be missing, and what is in
/// it does not count.
///
/// # Errors
/// See [`read_task`].
pub fn read_questions(task: &str, reader: impl BufRead) -> Result<Vec<Row>, MmeError> {
    read(task, reader, false)
}

fn read(task: &str, reader: impl BufRead, answered: bool) -> Result<Vec<Row>, MmeError> {
    let mut rows: Vec<(usize, Row)> = Vec::new();
    for (index, text) in reader.lines().enumerate() {
        let (task, line) = (|| task.to_owned(), index + 1);
        let text = text.map_err(|source| MmeError::Io { task: task(), line, source })?;
        let text = text.trim_start_matches('\u{feff}');
        if text.trim().is_empty() {
            continue;
        }
        let columns: Vec<&str> = text.split('\t').collect();
        let (image, question, truth, answer) = match columns[..] {
            [image, question, truth, answer] if answered => (image, question, truth, answer),
            [image, question, truth] | [image, question, truth, _] if !answered => {
                (image, question, truth, "")
            }
            _ => return Err(MmeError::Columns { task: task(), line, found: columns.len() }),
        };
        let yes = match truth.trim().to_lowercase().trim_end_matches('.') {
            "yes" => true,
            "no" => false,
            _ => return Err(MmeError::Truth { task: task(), line, found: truth.to_owned() }),
        };
        let [image, question, answer] = [image, question, answer].map(str::to_owned);
        rows.push((line, Row { image, question, yes, answer }));
    }
    for pair in rows.chunks(2) {
        if pair.len() != 2 || pair[0].1.image != pair[1].1.image {
            let (line, image) = (pair[0].0, pair[0].1.image.clone());
            return Err(MmeError::Odd { task: task.to_owned(), line, image });
        }
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// What the numbers of a task are made of, for one image or several.
#[derive(derive_more::Add, Clone, Copy, Debug, Default)]
struct Counts {
    images: usize,
    /// Questions answered rightly.
    right: usize,
    /// Images with both answers right.
    both: usize,
}

impl Counts {
    /// Of the two questions about an image.
    fn of(pair: &[Judged]) -> Self {
        let right = pair.iter().filter(|judged| judged.said_yes == Some(judged.row.yes)).count();
        Self { images: 1, right, both: usize::from(right == 2) }
    }

    fn acc(&self) -> Option<f64> {
        rate(self.right, 2 * self.images)
    }

    fn acc_plus(&self) -> Option<f64> {
        rate(self.both, self.images)
    }

    fn score(&self) -> Option<f64> {
        let (acc, acc_plus) = (self.acc()?, self.acc_plus()?);
        Some(acc * 100.0 + acc_plus * 100.0)
    }
}

/// Scores one task. Its rows are in pairs, as [`read_task`] sees to.
pub fn score_task(rows: Vec<Row>, reading: Reading) -> TaskReport {
    let per_question: Vec<Judged> =
        rows.into_iter().map(|row| Judged { said_yes: reading.parse(&row.answer), row }).collect();
    let counts = per_question.chunks(2).map(Counts::of).fold(Counts::default(), Counts::add);
    TaskReport {
        acc: counts.acc(),
        acc_plus: counts.acc_plus(),
        score: counts.score(),
        questions: per_question.len(),
        other: per_question.iter().filter(|judged| judged.said_yes.is_none()).count(),
        per_question,
    }
}

/// Puts tasks side by side and sums them up.
pub fn evaluate(tasks: BTreeMap<String, TaskReport>) -> MmeReport {
    let known = |name: &str| PERCEPTION.contains(&name) || COGNITION.contains(&name);
    let (perception, perception_missing) = sum(&tasks, &PERCEPTION);
    let (cognition, cognition_missing) = sum(&tasks, &COGNITION);
    MmeReport {
        perception,
        perception_missing,
        cognition,
        cognition_missing,
        unknown_tasks: tasks.keys().filter(|name| !known(name)).cloned().collect(),
        tasks,
    }
}

/// Sum over the tasks that have a score, and the names of the others.
fn sum(tasks: &BTreeMap<String, TaskReport>, names: &[&str]) -> (Option<f64>, Vec<String>) {
    let score = |name: &&str| tasks.get(*name).and_then(|task| task.score);
    let scores: Vec<f64> = names.iter().filter_map(score).collect();
    let missing = names.iter().filter(|name| score(name).is_none()).map(ToString::to_string);
    ((!scores.is_empty()).then(|| scores.iter().sum()), missing.collect())
}

/// Tasks that have a sum.
const TASKS: usize = PERCEPTION.len() + COGNITION.len();

/// Counts of every task.
#[derive(Clone, Copy, Debug, Default)]
struct AllCounts([Counts; TASKS]);

impl Add for AllCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(array::from_fn(|task| self.0[task] + other.0[task]))
    }
}

/// Bootstrap intervals over images of perception and cognition, averaged over runs. Images are drawn from all
/// tasks together; a resample without an image of one of the tasks is left out.
pub fn intervals(reports: &[&MmeReport], bootstrap: Bootstrap) -> [Option<Interval>; 2] {
    fn images(report: &MmeReport) -> Vec<((usize, &str), AllCounts)> {
        let mut images = Vec::new();
        for (at, name) in PERCEPTION.iter().chain(&COGNITION).enumerate() {
            for pair in report.tasks.get(*name).into_iter().flat_map(|t| t.per_question.chunks(2)) {
                let mut counts = AllCounts::default();
                counts.0[at] = Counts::of(pair);
                images.push(((at, pair[0].row.image.as_str()), counts));
            }
        }
        images
    }
    let runs: Vec<_> = reports.iter().map(|report| images(report)).collect();
    let there = |task: usize, name: &str| {
        reports.iter().any(|report| report.tasks.contains_key(name)).then_some(task)
    };
    let of = |names: &[&str], from: usize| -> Vec<usize> {
        names.iter().enumerate().filter_map(|(at, name)| there(from + at, name)).collect()
    };
    let (perception, cognition) = (of(&PERCEPTION, 0), of(&COGNITION, PERCEPTION.len()));
    bootstrap.intervals(&runs, |counts| {
        let sum = |tasks: &[usize]| {
            let scores = tasks.iter().map(|&task| counts.0[task].score());
            let sum: Option<f64> = scores.sum();
            sum.filter(|_| !tasks.is_empty())
        };
        [sum(&perception), sum(&cognition)]
    })
}
