//! `fisao runs`: what is in run folders, without loading a model.

use fisao_runs::Reporter;
use fisao_runs::run_list::{self, Cells, Found, Run};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::arguments::{ReportFormat, RunsArguments};
use crate::commands::eval::report;
use crate::output;

/// Folders without a run that are named; more are counted.
const NAMED: usize = 3;

/// All there is to say, for programs.
#[derive(Serialize)]
struct Document<'a> {
    runs: &'a [Run],
    /// Dotted keys of the settings in which the runs differ, and their values in the order of the runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<Map<String, Value>>,
    /// Folders that hold no run.
    passed_over: &'a [String],
}

pub(crate) fn run(arguments: &RunsArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let Found { runs, passed_over } = run_list::find(&arguments.folders)?;
    let mut runs: Vec<Run> = runs.iter().map(Run::read).collect();
    run_list::sort(&mut runs, arguments.sort.into());
    for run in &runs {
        for remark in &run.remarks {
            reporter.warn(format!("{}: {remark}", run.path), None);
        }
    }
    if let Some(remark) = without_run(&passed_over) {
        reporter.note(remark);
    }
    let settings = arguments.compare.then(|| run_list::differences(&runs));
    match (arguments.format, settings) {
        (ReportFormat::Json, settings) => {
            let settings = settings.map(run_list::as_json);
            output::json(&Document { runs: &runs, settings, passed_over: &passed_over })
        }
        (format, Some(settings)) => {
            report::table(format, &run_list::compared(&runs, &settings), &[])
        }
        (format, None) => {
            let csv = format == ReportFormat::Csv;
            let cells = if csv { Cells::Numbers } else { Cells::Text };
            report::table(format, &run_list::listed(&runs, cells), &[])
        }
    }
}

/// How many folders hold no run, and which.
fn without_run(folders: &[String]) -> Option<String> {
    let named = folders.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match folders.len() {
        0 => None,
        1 => Some(format!("no run in {named}")),
        count if count <= NAMED => Some(format!("no run in {count} folders: {named}")),
        count => Some(format!("no run in {count} folders: {named} and {} more", count - NAMED)),
    }
}
