//! MM-Vet: open questions, each of which takes several capabilities.
//!
//! Yu et al., *MM-Vet: Evaluating Large Multimodal Models for Integrated Capabilities*,
//! [arXiv 2308.02490](https://arxiv.org/abs/2308.02490); rules of the official `mm-vet_evaluator.py`.
//!
//! ```text
//! score of an answer = 0.0 … 1.0, by the judge
//! score of a capability = 100 · mean over the questions that take it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::{JudgeRequest, Template, TemplateError, Verdict};
use crate::answers::{Answer, PairingError, QuestionId, pair};
use crate::keyed::read_keyed;

/// The judge's prompt, in this project's words.
pub const TEMPLATE: &str = "\
How right is the prediction? Answer with one number from 0.0 (all wrong) to 1.0 (all right) in steps of 0.1 and \
nothing else. Where the truth joins parts by <AND>, each part counts for its share; where it joins them by <OR>, \
one of them is enough.

Question: {question}
Truth: {answer}
Prediction: {prediction}
Number: ";

/// Places that a prompt must have.
pub const PLACES: [&str; 3] = ["question", "answer", "prediction"];

/// LLaVA's evaluation asks MM-Vet's questions as they are.
pub fn prompt(question: &str) -> String {
    question.to_owned()
}

/// A question. Its further fields are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Its id, the key of the file.
    #[serde(skip, default = "unnamed")]
    pub id: QuestionId,
    /// File name of the image.
    #[serde(rename = "imagename")]
    pub image: String,
    /// The question.
    pub question: String,
    /// The truth, with `<AND>` and `<OR>` between its parts.
    pub answer: String,
    /// Capabilities it takes.
    pub capability: BTreeSet<String>,
}

fn unnamed() -> QuestionId {
    QuestionId(String::new())
}

/// What cannot be read or scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MmVetError {
    /// `mm-vet.json`, or a file of grades, is something else.
    #[error("not MM-Vet's file: {source}; expected {expected}")]
    Json {
        /// Shape of a good file.
        expected: &'static str,
        /// What the parser met.
        source: serde_json::Error,
    },
    /// Answers without their questions.
    #[error(transparent)]
    Pairing(#[from] PairingError),
    /// A prompt without a place for the answer.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A grade outside the scale.
    #[error("question {id} is graded {score}; grades are from 0 to 1")]
    Grade {
        /// The question.
        id: String,
        /// Its grade.
        score: f64,
    },
    /// A verdict without an id.
    #[error("verdict {number} has no \"question_id\"; repeat that of the request")]
    NoId {
        /// Counted from 1.
        number: usize,
    },
}

/// Reads `mm-vet.json`, an object of id → question, in the order of the file.
///
/// # Errors
/// Text of another shape.
pub fn read_questions(reader: impl Read) -> Result<Vec<Question>, MmVetError> {
    let expected =
        r#"{"v1_0": {"imagename": "…", "question": "…", "answer": "…", "capability": ["…"]}, …}"#;
    let questions: Vec<(String, Question)> =
        read_keyed(reader).map_err(|source| MmVetError::Json { expected, source })?;
    let named = |(id, question)| Question { id: QuestionId(id), ..question };
    Ok(questions.into_iter().map(named).collect())
}

/// Reads a model's answers in the official form, an object of id → text.
///
/// # Errors
/// Text of another shape.
pub fn read_results(reader: impl Read) -> Result<Vec<Answer>, MmVetError> {
    let expected = r#"{"v1_0": "…", …}"#;
    let results: Vec<(String, String)> =
        read_keyed(reader).map_err(|source| MmVetError::Json { expected, source })?;
    let answer = |(id, text)| Answer { question_id: Some(QuestionId(id)), text };
    Ok(results.into_iter().map(answer).collect())
}

/// What to ask the judge about every answer. The template's places are `{question}`, `{answer}` (the truth) and
/// `{prediction}`. Questions without an answer are left out.
///
/// # Errors
/// A template without one of the places, or answers that cannot be brought together with the questions.
pub fn requests(
    questions: &[Question],
    answers: &[Answer],
    template: &str,
) -> Result<Vec<JudgeRequest>, MmVetError> {
    let template = Template::new(template, &PLACES)?;
    let ids: Vec<&QuestionId> = questions.iter().map(|question| &question.id).collect();
    let texts = pair(&ids, answers)?.texts;
    let request = |(question, text): (&Question, Option<&str>)| {
        let answer = question.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ");
        let values =
            [("question", question.question.as_str()), ("answer", &answer), ("prediction", text?)];
        Some(JudgeRequest { question_id: question.id.clone(), prompt: template.fill(&values) })
    };
    Ok(questions.iter().zip(texts).filter_map(request).collect())
}

/// Id → grades from 0 to 1, one for each time the judge was asked.
pub type Grades = BTreeMap<QuestionId, Vec<f64>>;

/// Reads the official file of grades, `{"v1_0": {"score": [0.5, …]}, …}`.
///
/// # Errors
/// Text of another shape.
pub fn read_grades(reader: impl Read) -> Result<Grades, MmVetError> {
    #[derive(Deserialize)]
    struct Row {
        score: Vec<f64>,
    }
    let expected = r#"{"v1_0": {"score": [0.5, …]}, …}"#;
    let rows: BTreeMap<String, Row> =
        serde_json::from_reader(reader).map_err(|source| MmVetError::Json { expected, source })?;
    Ok(rows.into_iter().map(|(id, row)| (QuestionId(id), row.score)).collect())
}

/// The number that a judge's words begin with. The official script takes what comes before the first space, asks
/// up to five times for a number from 0 to 1, and then takes 0.
pub fn parse_grade(text: &str) -> Option<f64> {
    let number: f64 = text.split(' ').next()?.trim().parse().ok()?;
    (0.0..=1.0).contains(&number).then_some(number)
}

/// Grades from verdicts, several of one question in their order, and how many were no grade and count as 0.
///
/// # Errors
/// A verdict that does not say on what.
pub fn grade(verdicts: &[Verdict]) -> Result<(Grades, usize), MmVetError> {
    let mut grades = Grades::new();
    let mut unclear = 0;
    for (index, verdict) in verdicts.iter().enumerate() {
        let id = verdict.question_id.clone();
        let id = id.ok_or(MmVetError::NoId { number: index + 1 })?;
        let grade = parse_grade(&verdict.text);
        unclear += usize::from(grade.is_none());
        grades.entry(id).or_default().push(grade.unwrap_or(0.0));
    }
    Ok((grades, unclear))
}

/// What the grades come to, from 0 to 100 as MM-Vet is reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MmVetReport {
    /// All questions.
    pub total: Mean,
    /// By capability.
    pub capabilities: BTreeMap<String, Mean>,
    /// By the capabilities that a question takes together, such as "ocr+math".
    pub combinations: BTreeMap<String, Mean>,
    /// The total of each time the judge was asked; as many as the question asked least often has grades.
    pub runs: Vec<f64>,
    /// Standard deviation of the runs, with n in the denominator as the official script has it.
    pub standard_deviation: Option<f64>,
    /// Questions without a grade, which no mean counts.
    pub ungraded: usize,
    /// Grades of questions that are not in the file.
    pub unknown: usize,
    /// Mean grade of each question, from 0 to 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub per_question: BTreeMap<QuestionId, f64>,
}

/// A mean of grades.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// 100 · mean grade; `None` over nothing.
    pub score: Option<f64>,
    /// Questions.
    pub questions: usize,
}

impl Mean {
    fn add(&mut self, grade: f64) {
        let sum = self.score.unwrap_or(0.0) * self.questions as f64 + 100.0 * grade;
        self.questions += 1;
        self.score = Some(sum / self.questions as f64);
    }
}

/// Sums up grades. A question graded several times counts with the mean.
///
/// # Errors
/// A grade outside the scale.
pub fn evaluate(questions: &[Question], grades: &Grades) -> Result<MmVetReport, MmVetError> {
    let mut report = MmVetReport {
        total: Mean::default(),
        capabilities: BTreeMap::new(),
        combinations: BTreeMap::new(),
        runs: Vec::new(),
        standard_deviation: None,
        ungraded: 0,
        unknown: 0,
        per_question: BTreeMap::new(),
    };
    let mut graded = Vec::new();
    for question in questions {
        let Some(scores) = grades.get(&question.id).filter(|scores| !scores.is_empty()) else {
            report.ungraded += 1;
            continue;
        };
        if let Some(&score) = scores.iter().find(|score| !(0.0..=1.0).contains(*score)) {
            return Err(MmVetError::Grade { id: question.id.0.clone(), score });
        }
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        report.total.add(mean);
        for capability in &question.capability {
            report.capabilities.entry(capability.clone()).or_default().add(mean);
        }
        let together: Vec<&str> = question.capability.iter().map(String::as_str).collect();
        report.combinations.entry(together.join("+")).or_default().add(mean);
        report.per_question.insert(question.id.clone(), mean);
        graded.push(scores);
    }
    report.unknown = grades.len() - graded.len();
    let runs = graded.iter().map(|scores| scores.len()).min().unwrap_or(0);
    let total = |run: usize| {
        100.0 * graded.iter().map(|scores| scores[run]).sum::<f64>() / graded.len() as f64
    };
    report.runs = (0..runs).map(total).collect();
    if runs > 0 {
        let mean = report.runs.iter().sum::<f64>() / runs as f64;
        let squares: f64 = report.runs.iter().map(|run| (run - mean).powi(2)).sum();
        report.standard_deviation = Some((squares / runs as f64).sqrt());
    }
    Ok(report)
}
