//! Accuracy, precision, recall, F1 and yes ratio, per split and over splits.

use serde::{Deserialize, Serialize};

use super::{Label, Question};
use crate::answers::{Answer, PairedBy, PairingError, QuestionId, pair};
use crate::image_id::ImageId;
use crate::rates::{Confusion, mean, rate};
use crate::statistics::{Bootstrap, Interval};

/// The numbers POPE is reported by, all as fractions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Right answers / questions.
    pub accuracy: Option<f64>,
    /// Right among the answers "yes".
    pub precision: Option<f64>,
    /// Found among what is there.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall.
    pub f1: Option<f64>,
    /// Answers "yes" / questions; 0.5 if the model leans to neither side.
    pub yes_ratio: Option<f64>,
}

impl Scores {
    fn of(counts: &Confusion) -> Self {
        Self {
            accuracy: counts.accuracy(),
            precision: counts.precision(),
            recall: counts.recall(),
            f1: counts.f1(),
            yes_ratio: rate(counts.said_positive(), counts.total()),
        }
    }

    /// Accuracy, precision, recall, F1 and yes ratio.
    pub fn values(&self) -> [Option<f64>; 5] {
        [self.accuracy, self.precision, self.recall, self.f1, self.yes_ratio]
    }
}

/// What one split scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitReport {
    /// Its name, such as "random", "popular" or "adversarial".
    pub name: String,
    /// Over the questions that were answered.
    #[serde(flatten)]
    pub scores: Scores,
    /// Questions that were answered.
    pub questions: usize,
    /// Answers by kind.
    pub counts: Confusion,
    /// How answers found their questions.
    pub paired_by: PairedBy,
    /// Questions without an answer, which no rate counts.
    pub unanswered: Vec<QuestionId>,
    /// Answers to questions that the split does not ask.
    pub unknown_answers: usize,
    /// Every answered question, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_question: Vec<Judged>,
}

/// One answer and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The question.
    pub question_id: QuestionId,
    /// The picture it is about.
    pub image: ImageId,
    /// What the model wrote.
    pub answer: String,
    /// Whether that was read as a yes.
    pub said_yes: bool,
    /// What is true.
    pub label: Label,
}

/// What all splits scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PopeReport {
    /// One report for each split, in the order given.
    pub splits: Vec<SplitReport>,
    /// Each number averaged over the splits; `None` where a split has none.
    pub mean: Scores,
}

/// Reads an answer as POPE's `evaluate.py` does: no, if the text before the first full stop, rid of commas,
/// holds "No", "no" or "not" between spaces; everything else, even "NO" or nothing at all, is yes.
pub fn parse_answer(text: &str) -> bool {
    let sentence = text.split('.').next().unwrap_or(text).replace(',', "");
    !sentence.split(' ').any(|word| matches!(word, "No" | "no" | "not"))
}

/// Scores the answers to one split, which is one file of questions.
///
/// # Errors
/// Answers that cannot be brought together with the questions.
pub fn score_split(
    name: &str,
    questions: &[Question],
    answers: &[Answer],
) -> Result<SplitReport, PairingError> {
    let ids: Vec<&QuestionId> = questions.iter().map(|question| &question.question_id).collect();
    let paired = pair(&ids, answers)?;
    let mut counts = Confusion::default();
    let mut per_question = Vec::with_capacity(questions.len());
    for (question, text) in questions.iter().zip(&paired.texts) {
        let Some(text) = text else { continue };
        let said_yes = parse_answer(text);
        counts.count(said_yes, question.label == Label::Yes);
        per_question.push(Judged {
            question_id: question.question_id.clone(),
            image: question.image.clone(),
            answer: (*text).to_owned(),
            said_yes,
            label: question.label,
        });
    }
    Ok(SplitReport {
        name: name.to_owned(),
        scores: Scores::of(&counts),
        questions: counts.total(),
        counts,
        paired_by: paired.by,
        unanswered: paired.unanswered(ids),
        unknown_answers: paired.unknown,
        per_question,
    })
}

/// Puts splits side by side and averages them.
pub fn evaluate(splits: Vec<SplitReport>) -> PopeReport {
    let over =
        |number: fn(&Scores) -> Option<f64>| mean(splits.iter().map(|split| number(&split.scores)));
    let mean = Scores {
        accuracy: over(|scores| scores.accuracy),
        precision: over(|scores| scores.precision),
        recall: over(|scores| scores.recall),
        f1: over(|scores| scores.f1),
        yes_ratio: over(|scores| scores.yes_ratio),
    };
    PopeReport { splits, mean }
}

/// Bootstrap intervals over pictures of accuracy, precision, recall, F1 and yes ratio, averaged over splits and
/// runs. The questions about a picture stay together, over all splits.
pub fn intervals(reports: &[&PopeReport], bootstrap: Bootstrap) -> [Option<Interval>; 5] {
    fn pictures(split: &SplitReport) -> Vec<(&str, Confusion)> {
        let counts = |judged: &Judged| {
            let mut counts = Confusion::default();
            counts.count(judged.said_yes, judged.label == Label::Yes);
            counts
        };
        split.per_question.iter().map(|judged| (judged.image.0.as_str(), counts(judged))).collect()
    }
    let splits: Vec<_> = reports.iter().flat_map(|report| &report.splits).map(pictures).collect();
    bootstrap.intervals(&splits, |counts| Scores::of(counts).values())
}
