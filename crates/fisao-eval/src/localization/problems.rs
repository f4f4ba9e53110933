//! Labels and predictions that do not fit their text.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::rows::{Place, RowError};

/// What is wrong with a span or a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// Its offsets are not in the text, or its end comes before its start.
    OutsideText,
    /// It covers nothing but white space.
    Empty,
    /// Its offsets cover another text than it says.
    OtherText,
    /// It has no offsets, and its text does not occur.
    Missing,
    /// It has no offsets, and its text occurs more than once.
    Ambiguous,
    /// A token does not follow the one before it.
    TokenMissing,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutsideText => "a span outside the text",
            Self::Empty => "an empty span",
            Self::OtherText => "a span whose offsets cover another text",
            Self::Missing => "a span whose text does not occur",
            Self::Ambiguous => "a span whose text occurs more than once",
            Self::TokenMissing => "a token that is not in the text",
        })
    }
}

/// What is done about texts with a [`Problem`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// The first is an error.
    #[default]
    Refuse,
    /// They are left out whole, for their other words would count as clean, and counted.
    Skip,
}

/// Texts that were left out, by what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Skipped {
    counts: BTreeMap<Problem, usize>,
    #[serde(skip)]
    first: BTreeMap<Problem, String>,
}

impl Skipped {
    /// How many, of all problems.
    pub fn total(&self) -> usize {
        self.counts.values().sum()
    }

    /// Problems with how many texts have each, and what was said of the first.
    pub fn each(&self) -> impl Iterator<Item = (Problem, usize, &str)> {
        let first = |problem| self.first.get(problem).map_or("", String::as_str);
        self.counts.iter().map(move |(problem, count)| (*problem, *count, first(problem)))
    }

    /// Counts a text, or refuses it.
    pub(super) fn meet(
        &mut self,
        broken: Broken,
        place: Place,
        fault: Fault,
    ) -> Result<(), RowError> {
        let Fault { problem, reason } = fault;
        match (problem, broken) {
            (Some(problem), Broken::Skip) => {
                *self.counts.entry(problem).or_default() += 1;
                self.first.entry(problem).or_insert_with(|| format!("{place}: {reason}"));
                Ok(())
            }
            _ => Err(RowError::Meaning { place, reason }),
        }
    }
}

/// What is wrong with a row; without a problem it is not a row of its kind at all.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) problem: Option<Problem>,
    pub(super) reason: String,
}

impl Fault {
    /// A row that says nothing that could be understood.
    pub(super) fn shape(reason: impl Into<String>) -> Self {
        Self { problem: None, reason: reason.into() }
    }

    /// A span or token that does not fit.
    pub(super) fn of(problem: Problem, reason: impl Into<String>) -> Self {
        Self { problem: Some(problem), reason: reason.into() }
    }
}
