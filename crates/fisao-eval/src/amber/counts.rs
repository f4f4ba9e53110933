//! What the rates are made of, for intervals.

use std::array;
use std::ops::Add;

use super::generative::Description;
use super::{AmberReport, Answered};
use crate::rates::rate;
use crate::statistics::{Bootstrap, Interval};

/// The numbers that AMBER is reported by: of descriptions, then of answers.
pub const NAMES: [&str; 8] =
    ["chair", "cover", "hal", "cog", "accuracy", "precision", "recall", "f1"];

/// Numerators and denominators of [`NAMES`], in their order.
#[derive(Clone, Copy, Debug, Default)]
struct Counts([(usize, usize); NAMES.len()]);

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let sum = |at: usize| (self.0[at].0 + other.0[at].0, self.0[at].1 + other.0[at].1);
        Self(array::from_fn(sum))
    }
}

impl From<&Description> for Counts {
    fn from(description: &Description) -> Self {
        let wrong = description.hallucinated();
        Self([
            (wrong, description.nouns.len()),
            (description.covered.len(), description.annotated),
            (usize::from(wrong > 0), 1),
            (description.likely_named.len(), description.likely),
            (0, 0),
            (0, 0),
            (0, 0),
            (0, 0),
        ])
    }
}

impl From<&Answered> for Counts {
    fn from(answer: &Answered) -> Self {
        let (no, said_no) = (usize::from(!answer.yes), usize::from(answer.response == "No"));
        let right = answer.response == if answer.yes { "Yes" } else { "No" };
        let none = (0, 0);
        let [accuracy, precision, recall] =
            [(usize::from(right), 1), (no * said_no, said_no), (no * said_no, no)];
        Self([
            none,
            none,
            none,
            none,
            accuracy,
            precision,
            recall,
            (2 * no * said_no, said_no + no),
        ])
    }
}

/// Bootstrap intervals over queries, in the order of [`NAMES`], averaged over runs.
pub fn intervals(reports: &[&AmberReport], bootstrap: Bootstrap) -> [Option<Interval>; 8] {
    let queries = |report: &&AmberReport| -> Vec<(u64, Counts)> {
        let descriptions = report.generative.per_description.iter();
        let answers = report.discriminative.per_question.iter();
        let described = descriptions.map(|description| (description.id, description.into()));
        described.chain(answers.map(|answer| (answer.id, answer.into()))).collect()
    };
    let runs: Vec<_> = reports.iter().map(queries).collect();
    bootstrap.intervals(&runs, |Counts(counts)| counts.map(|(part, whole)| rate(part, whole)))
}
