//! Accuracy, precision, recall and F1 of answers, with "No" as the positive class.

use serde::{Deserialize, Serialize};

use super::data::{Kind, Starts, percent};
use crate::rates::rate;

/// What the answers scored, in all and by what they are about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discriminative {
    /// All questions.
    pub all: YesNo,
    /// Whether an object is there; every answer is no.
    pub existence: YesNo,
    /// State, number and action together.
    pub attribute: YesNo,
    /// What state an object is in.
    pub state: YesNo,
    /// How many there are.
    pub number: YesNo,
    /// What it does.
    pub action: YesNo,
    /// How two objects stand to each other.
    pub relation: YesNo,
    /// Every answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_question: Vec<Answered>,
}

/// An answer by yes or no, and what is true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Id of the query.
    pub id: u64,
    /// What it is about.
    pub kind: Kind,
    /// Whether yes is right.
    pub yes: bool,
    /// What the model wrote.
    pub response: String,
}

/// What a group of answers scored, as fractions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct YesNo {
    /// Right answers / questions.
    pub accuracy: Option<f64>,
    /// Right among the answers "No".
    pub precision: Option<f64>,
    /// Answered "No" among the questions to which no is right.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall.
    pub f1: Option<f64>,
    /// Questions that were answered.
    pub questions: usize,
    /// Right answers.
    pub correct: usize,
    /// Questions to which no is right.
    pub truth_no: usize,
    /// Answers "No".
    pub said_no: usize,
    /// Answers "No" that are right.
    pub right_no: usize,
    /// Answers that are neither "Yes" nor "No", letter for letter, which are wrong.
    pub neither: usize,
    /// The numbers as the official script prints them; `None` without questions.
    pub official: Option<OfficialAnswers>,
}

/// Percentages with one decimal, over denominators that start at 0.001; F1 is that of the rounded numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfficialAnswers {
    /// Accuracy.
    pub accuracy: f64,
    /// Precision.
    pub precision: f64,
    /// Recall.
    pub recall: f64,
    /// F1.
    pub f1: f64,
}

const ATTRIBUTES: [Kind; 3] = [Kind::State, Kind::Number, Kind::Action];

/// Sums up answers.
pub(super) fn summarise(per_question: Vec<Answered>, starts: &Starts) -> Discriminative {
    let some = |kinds: &[Kind], prefixes: &[&str], guard: f64| {
        let chosen = per_question.iter().filter(|answer| kinds.contains(&answer.kind));
        group(chosen, starts, prefixes, guard)
    };
    Discriminative {
        all: group(per_question.iter(), starts, &[""], 0.0001),
        existence: some(&[Kind::Existence], &["ha_"], 0.001),
        attribute: some(&ATTRIBUTES, &["as_", "an_", "aa_"], 0.0001),
        state: some(&[Kind::State], &["as_"], 0.0001),
        number: some(&[Kind::Number], &["an_"], 0.0001),
        action: some(&[Kind::Action], &["aa_"], 0.0001),
        relation: some(&[Kind::Relation], &["asso_"], 0.0001),
        per_question,
    }
}

/// Scores a group. `prefixes` name its official counters, `guard` is what the official F1 adds to its denominator.
fn group<'a>(
    answers: impl Iterator<Item = &'a Answered>,
    starts: &Starts,
    prefixes: &[&str],
    guard: f64,
) -> YesNo {
    let mut counts = YesNo::default();
    for &Answered { yes, ref response, .. } in answers {
        counts.questions += 1;
        counts.correct += usize::from(response == if yes { "Yes" } else { "No" });
        counts.truth_no += usize::from(!yes);
        counts.said_no += usize::from(response == "No");
        counts.right_no += usize::from(!yes && response == "No");
        counts.neither += usize::from(response != "Yes" && response != "No");
    }
    let YesNo { questions, correct, truth_no, said_no, right_no, .. } = counts;
    let official = |name: &str, part: usize, whole: usize| {
        let start = |what: &str| -> f64 {
            prefixes.iter().map(|prefix| starts.of(&format!("{prefix}qa_{name}_{what}"))).sum()
        };
        percent((start("score") + part as f64) / (start("num") + whole as f64))
    };
    let precision = official("ans_no", right_no, said_no);
    let recall = official("no", right_no, truth_no);
    let (p, r) = (precision / 100.0, recall / 100.0);
    YesNo {
        accuracy: rate(correct, questions),
        precision: rate(right_no, said_no),
        recall: rate(right_no, truth_no),
        f1: rate(2 * right_no, said_no + truth_no),
        official: (questions > 0).then(|| OfficialAnswers {
            accuracy: official("correct", correct, questions),
            precision,
            recall,
            f1: percent(2.0 * p * r / (p + r + guard)),
        }),
        ..counts
    }
}
