//! Runs below each other.

use jiff::tz::TimeZone;

use super::run::{Run, Scores};
use fisao_report::table::{NONE, Table, percent};

/// Something measured: what it is called, and how it is shown.
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) shown: fn(&Run) -> String,
}

const ITERATIONS: Measure = Measure {
    name: "iterations",
    shown: |run| {
        format!("{}/{}", run.iterations, run.planned.map_or("?".into(), |n| n.to_string()))
    },
};
const REWARD: Measure = Measure {
    name: "reward",
    shown: |run| run.reward.map_or_else(none, |reward| format!("{reward:+.2}")),
};
const KL: Measure =
    Measure { name: "KL", shown: |run| run.kl.map_or_else(none, |kl| format!("{kl:.2}")) };
const LENGTH: Measure = Measure {
    name: "length",
    shown: |run| run.length.map_or_else(none, |length| format!("{length:.1}")),
};
const WARNINGS: Measure = Measure {
    name: "warnings",
    shown: |run| run.warnings.map_or_else(none, |count| count.to_string()),
};
const SCORES: [Measure; 3] = [
    Measure { name: "CHAIR_I %", shown: |run| change(run, |scores| scores.chair_i) },
    Measure { name: "CHAIR_S %", shown: |run| change(run, |scores| scores.chair_s) },
    Measure { name: "recall %", shown: |run| change(run, |scores| scores.recall) },
];

/// The same in columns of one number each, for programs.
const ITERATION_COLUMNS: [Measure; 2] = [
    Measure { name: "iterations", shown: |run| run.iterations.to_string() },
    Measure {
        name: "planned iterations",
        shown: |run| run.planned.map_or_else(none, |planned| planned.to_string()),
    },
];
const SCORE_COLUMNS: [Measure; 6] = [
    Measure { name: "base CHAIR_I %", shown: |run| score(run.base.as_ref(), |of| of.chair_i) },
    Measure { name: "CHAIR_I %", shown: |run| score(run.aligned.as_ref(), |of| of.chair_i) },
    Measure { name: "base CHAIR_S %", shown: |run| score(run.base.as_ref(), |of| of.chair_s) },
    Measure { name: "CHAIR_S %", shown: |run| score(run.aligned.as_ref(), |of| of.chair_s) },
    Measure { name: "base recall %", shown: |run| score(run.base.as_ref(), |of| of.recall) },
    Measure { name: "recall %", shown: |run| score(run.aligned.as_ref(), |of| of.recall) },
];

/// What runs are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunOrder {
    /// By name.
    #[default]
    Path,
    /// Finished ones first.
    State,
    /// By the method's name.
    Method,
    /// The smallest first.
    Seed,
    /// The one written last first.
    Written,
    /// The one that has come furthest first.
    Iterations,
    /// The largest reward first.
    Reward,
    /// The smallest KL first.
    Kl,
    /// The shortest captions first.
    Length,
    /// The fewest warnings first.
    Warnings,
    /// The lowest `CHAIR_I` first.
    ChairI,
    /// The lowest `CHAIR_S` first.
    ChairS,
    /// The highest recall first.
    Recall,
}

/// What a cell of a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cells {
    /// What people read, such as a score before and after.
    Text,
    /// One number, for programs.
    Numbers,
}

/// What the runs measured, for a table with such cells.
fn columns(runs: &[Run], cells: Cells) -> Vec<Measure> {
    if cells == Cells::Text {
        return measures(runs);
    }
    let mut columns = Vec::from(ITERATION_COLUMNS);
    columns.extend([REWARD, KL, LENGTH, WARNINGS]);
    if runs.iter().any(|run| run.base.is_some() || run.aligned.is_some()) {
        columns.extend(SCORE_COLUMNS);
    }
    columns
}

/// What the runs measured; scores only where one of them has any.
pub(super) fn measures(runs: &[Run]) -> Vec<Measure> {
    let mut measures = vec![ITERATIONS, REWARD, KL, LENGTH, WARNINGS];
    if runs.iter().any(|run| run.base.is_some() || run.aligned.is_some()) {
        measures.extend(SCORES);
    }
    measures
}

/// A row for each run.
pub fn table(runs: &[Run], cells: Cells) -> Table {
    let measures = columns(runs, cells);
    let names = measures.iter().map(|measure| measure.name);
    let columns: Vec<&str> =
        ["run", "state", "method", "seed", "last written"].into_iter().chain(names).collect();
    let mut table = Table::new(&columns);
    for run in runs {
        let about = [
            run.path.clone(),
            run.state.name().to_owned(),
            run.method.clone().unwrap_or_else(none),
            run.seed.map_or_else(none, |seed| seed.to_string()),
            written(run),
        ];
        table.row(about.into_iter().chain(measures.iter().map(|measure| (measure.shown)(run))));
    }
    table
}

/// Sorts runs; of equals, by path.
pub fn sort(runs: &mut [Run], order: RunOrder) {
    runs.sort_by(|a, b| a.path.cmp(&b.path));
    let aligned =
        |run: &Run, score: fn(&Scores) -> Option<f64>| run.aligned.as_ref().and_then(score);
    match order {
        RunOrder::Path => {}
        RunOrder::State => runs.sort_by_key(|run| run.state),
        RunOrder::Method => {
            runs.sort_by_cached_key(|run| (run.method.is_none(), run.method.clone()));
        }
        RunOrder::Seed => runs.sort_by_key(|run| (run.seed.is_none(), run.seed)),
        RunOrder::Written => runs.sort_by_key(|run| std::cmp::Reverse(run.written)),
        RunOrder::Iterations => runs.sort_by_key(|run| std::cmp::Reverse(run.iterations)),
        RunOrder::Reward => largest_first(runs, |run| run.reward),
        RunOrder::Kl => smallest_first(runs, |run| run.kl),
        RunOrder::Length => smallest_first(runs, |run| run.length),
        RunOrder::Warnings => smallest_first(runs, |run| run.warnings.map(|count| count as f64)),
        RunOrder::ChairI => smallest_first(runs, |run| aligned(run, |scores| scores.chair_i)),
        RunOrder::ChairS => smallest_first(runs, |run| aligned(run, |scores| scores.chair_s)),
        RunOrder::Recall => largest_first(runs, |run| aligned(run, |scores| scores.recall)),
    }
}

fn smallest_first(runs: &mut [Run], value: impl Fn(&Run) -> Option<f64>) {
    let rank = |run: &Run| value(run).unwrap_or(f64::INFINITY);
    runs.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
}

fn largest_first(runs: &mut [Run], value: impl Fn(&Run) -> Option<f64>) {
    smallest_first(runs, |run| value(run).map(|value| -value));
}

/// One of a model's scores.
fn score(scores: Option<&Scores>, of: fn(&Scores) -> Option<f64>) -> String {
    percent(scores.and_then(of))
}

/// A score before and after, or whichever of them there is.
fn change(run: &Run, score: fn(&Scores) -> Option<f64>) -> String {
    match (run.base.as_ref(), run.aligned.as_ref()) {
        (None, None) => none(),
        (base, aligned) => {
            format!("{} → {}", self::score(base, score), self::score(aligned, score))
        }
    }
}

/// When the run was last written, to the minute, where the reader lives.
fn written(run: &Run) -> String {
    let local = |written: jiff::Timestamp| written.to_zoned(TimeZone::system());
    run.written.map_or_else(none, |time| local(time).strftime("%Y-%m-%d %H:%M").to_string())
}

fn none() -> String {
    NONE.to_owned()
}
