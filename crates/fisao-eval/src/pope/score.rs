//! Accuracy, precision, recall, F1 and yes ratio, per split and over splits.
//!
//! A question without an answer is answered wrongly, and by neither yes nor no: it counts among the questions of accuracy and
//! yes ratio, what it asks for is not found (recall, F1), and precision, which is about the answers "yes", does not know it.
//! POPE's own script knows no such questions: it takes as many answers as questions, by position.

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

/// Answers by kind, and questions without one.
#[derive(derive_more::Add, Clone, Copy, Debug, Default)]
struct Counts {
    answered: Confusion,
    /// Unanswered questions whose answer is yes.
    unanswered_yes: usize,
    /// Those whose answer is no.
    unanswered_no: usize,
}

impl Counts {
    fn of(said_yes: Option<bool>, label: Label) -> Self {
        let mut counts = Self::default();
        match (said_yes, label) {
            (Some(said_yes), _) => counts.answered.count(said_yes, label == Label::Yes),
            (None, Label::Yes) => counts.unanswered_yes = 1,
            (None, Label::No) => counts.unanswered_no = 1,
        }
        counts
    }
}

impl Scores {
    fn of(counts: &Counts) -> Self {
        let Counts { answered, unanswered_yes, unanswered_no } = *counts;
        let questions = answered.total() + unanswered_yes + unanswered_no;
        // What is not found, whether it was denied or not answered.
        let found =
            Confusion { false_negative: answered.false_negative + unanswered_yes, ..answered };
        Self {
            accuracy: rate(answered.true_positive + answered.true_negative, questions),
            precision: answered.precision(),
            recall: found.recall(),
            f1: found.f1(),
            yes_ratio: rate(answered.said_positive(), questions),
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
    /// Over all questions; those without an answer count as wrong.
    #[serde(flatten)]
    pub scores: Scores,
    /// Over the questions that were answered alone, where some were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores_of_answered: Option<Scores>,
    /// Questions, answered or not.
    pub questions: usize,
    /// Answers by kind.
    pub counts: Confusion,
    /// How answers found their questions.
    pub paired_by: PairedBy,
    /// Questions without an answer.
    pub unanswered: Vec<QuestionId>,
    /// The images that they are about, and what is true.
    #[serde(skip)]
    missed: Vec<(ImageId, Label)>,
    /// Answers to questions that the split does not ask.
    pub unknown_answers: usize,
    /// Answers without the word "yes" that count as yes all the same, as in POPE's own script: everything does in which
    /// [`parse_answer`] finds no no.
    #[serde(default)]
    pub yes_by_default: usize,
    /// Every answered question, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_question: Vec<Judged>,
}

/// One answer and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The question.
    pub question_id: QuestionId,
    /// The image it is about.
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

/// Whether the word "yes" is in an answer, in whatever case.
fn says_yes(text: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|word| word.eq_ignore_ascii_case("yes"))
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
    let mut counts = Counts::default();
    let mut missed = Vec::new();
    let mut yes_by_default = 0;
    let mut per_question = Vec::with_capacity(questions.len());
    for (question, text) in questions.iter().zip(&paired.texts) {
        let said_yes = text.map(parse_answer);
        counts = counts + Counts::of(said_yes, question.label);
        let (Some(text), Some(said_yes)) = (text, said_yes) else {
            missed.push((question.image.clone(), question.label));
            continue;
        };
        yes_by_default += usize::from(said_yes && !says_yes(text));
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
        scores_of_answered: (!missed.is_empty())
            .then(|| Scores::of(&Counts { answered: counts.answered, ..Counts::default() })),
        questions: questions.len(),
        counts: counts.answered,
        paired_by: paired.by,
        unanswered: paired.unanswered(ids),
        missed,
        unknown_answers: paired.unknown,
        yes_by_default,
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

/// Bootstrap intervals over images of accuracy, precision, recall, F1 and yes ratio, averaged over splits and
/// runs. The questions about an image stay together, over all splits.
pub fn intervals(reports: &[&PopeReport], bootstrap: Bootstrap) -> [Option<Interval>; 5] {
    fn images(split: &SplitReport) -> Vec<(&str, Counts)> {
        let answered = split.per_question.iter().map(|judged| {
            (judged.image.0.as_str(), Counts::of(Some(judged.said_yes), judged.label))
        });
        let missed =
            split.missed.iter().map(|(image, label)| (image.0.as_str(), Counts::of(None, *label)));
        answered.chain(missed).collect()
    }
    let splits: Vec<_> = reports.iter().flat_map(|report| &report.splits).map(images).collect();
    bootstrap.intervals(&splits, |counts| Scores::of(counts).values())
}
