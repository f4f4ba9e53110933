//! Benchmarks that come down to fractions of right answers.

use std::array;

use fisao_eval::rates::Accuracy;
use fisao_eval::statistics::Bootstrap;
use serde::Serialize;

use super::report;
use super::runs::{Layout, Run};
use crate::arguments::{ReportArguments, ReportFormat};
use fisao_report::table::{NONE, percent};

/// What one run scored.
pub(super) struct Scored<Report, const N: usize> {
    pub(super) name: String,
    /// Its numbers.
    pub(super) numbers: [Accuracy; N],
    /// For each of the numbers the answers that it counts, by image or by question.
    pub(super) answers: [Vec<(String, Accuracy)>; N],
    /// Parts of the benchmark, for people who look at one run.
    pub(super) parts: Vec<(String, Accuracy)>,
    /// The whole report.
    pub(super) report: Report,
}

/// Prints runs; the table of a single one has its parts.
pub(super) fn print<Report: Serialize, const N: usize>(
    arguments: &ReportArguments,
    layout: &Layout<N>,
    scored: &[Scored<Report, N>],
) -> anyhow::Result<()> {
    let intervals = array::from_fn(|at| {
        let answers: Vec<&[(String, Accuracy)]> =
            scored.iter().map(|run| run.answers[at].as_slice()).collect();
        let [interval] = Bootstrap::default().intervals(&answers, |sum| [sum.accuracy]);
        interval
    });
    let runs = scored
        .iter()
        .map(|run| {
            let values = run.numbers.map(|number| number.accuracy);
            let counts = [run.numbers[0].questions];
            Run::new(run.name.clone(), values, &counts, &run.report, arguments)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let ([run], false) = (scored, arguments.format == ReportFormat::Json) {
        let mut table = layout.table(&runs, &intervals, arguments.format);
        for (name, part) in &run.parts {
            let rest = (3..table.width()).map(|_| NONE.to_owned());
            let cells = [name.clone(), percent(part.accuracy)].into_iter().chain(rest);
            table.row(cells.chain([part.questions.to_string()]));
        }
        return report::table(arguments.format, &table, &[]);
    }
    layout.print(arguments, runs, &intervals, &[])
}
