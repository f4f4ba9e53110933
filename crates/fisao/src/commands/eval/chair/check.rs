//! `fisao eval chair --check`: why two CHAIR numbers may differ.

use std::path::Path;

use anyhow::bail;
use fisao_eval::chair::{
    Agreement, FieldCheck, OtherReport, Protocol, compare_protocols, read_other_report,
};
use fisao_formats::documents::read_json;
use fisao_report::table::{NONE, Table};
use fisao_runs::Refusal;
use serde::Serialize;
use serde_json::Value;

use super::super::report;
use super::arguments::ChairArguments;
use crate::arguments::ReportFormat;
use crate::failure::VerdictFailed;
use crate::output;

/// Characters of a digest that are shown.
const DIGEST: usize = 12;
/// What is known of lmms-eval's way to count.
const LMMS_EVAL: &str = "lmms-eval finds mentions by WordNet's lemmas, those of verbs too (\"seated\" is a chair), the reference by \
                         pattern.en's singulars: its CHAIR_I is 0.1 to 0.2 points higher on two published files";

/// A report beside another.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Comparison {
    /// Name of the other's captions, where its file is about several.
    name: Option<String>,
    /// Who wrote the other.
    source: &'static str,
    /// Whether the two measure the same thing: `null` where that is not known.
    comparable: Option<bool>,
    numbers: Vec<NumberPair>,
    fields: Vec<FieldCheck>,
    /// What else there is to know.
    notes: Vec<String>,
}

/// One number of both.
#[derive(Clone, Debug, Serialize)]
struct NumberPair {
    number: &'static str,
    first: Option<f64>,
    second: Option<f64>,
}

/// Reads the report to compare with.
pub(super) fn read(path: &Path, arguments: &ChairArguments) -> anyhow::Result<Vec<OtherReport>> {
    if arguments.captions.len() > 1 {
        bail!(
            Refusal::new("--check compares one file of captions with a report")
                .hint("give one file to --captions")
        );
    }
    if arguments.report.format == ReportFormat::Csv {
        bail!(
            Refusal::new("--check prints more than one table, which a CSV file cannot hold")
                .hint("use --format table, markdown or json")
        );
    }
    let value: Value = read_json("report", path)?;
    let found = read_other_report(&value);
    Ok(found.map_err(|error| Refusal::new(format!("{} {error}", path.display())))?)
}

impl Comparison {
    /// Of one report's numbers and protocol with another report.
    pub(super) fn of(
        [chair_s, chair_i, recall, f1]: [Option<f64>; 4],
        protocol: &Protocol,
        other: &OtherReport,
    ) -> Self {
        let fields = compare_protocols(protocol, &other.protocol);
        let comparable = if fields.iter().any(FieldCheck::forbids_comparison) {
            Some(false)
        } else if fields.iter().any(FieldCheck::leaves_measurement_open) {
            None
        } else {
            Some(true)
        };
        let number = |number, first, second| NumberPair { number, first, second };
        let mut notes = Vec::new();
        if other.missing_protocol {
            notes.push(
                "the other report has no protocol: what is not known of it may differ. Score its captions here, \
                 with the same options, to be sure"
                    .to_owned(),
            );
        }
        let silent = |of: &Protocol| of.prompt.is_none() && of.max_new_tokens.is_none();
        if silent(protocol) && silent(&other.protocol) {
            notes.push(
                "neither report says with which prompt and decoding its captions were made"
                    .to_owned(),
            );
        }
        if other.source == "lmms-eval" {
            notes.push(LMMS_EVAL.to_owned());
        }
        Self {
            name: other.name.clone(),
            source: other.source,
            comparable,
            numbers: vec![
                number("chair_s", chair_s, other.chair_s),
                number("chair_i", chair_i, other.chair_i),
                number("recall", recall, other.recall),
                number("f1", f1, other.f1),
            ],
            fields,
            notes,
        }
    }

    fn table(&self) -> Table {
        let other = self.name.as_deref().unwrap_or("other report");
        let mut table = Table::new(&["compared", "this report", other, "verdict"]);
        let percent = |value: Option<f64>| {
            value.map_or_else(|| NONE.to_owned(), |value| format!("{:.2}", 100.0 * value))
        };
        for NumberPair { number, first, second } in &self.numbers {
            let difference = first.zip(*second).map(|(first, second)| 100.0 * (second - first));
            let verdict = difference.map_or_else(String::new, |points| format!("{points:+.2}"));
            table.row([format!("{number} %"), percent(*first), percent(*second), verdict]);
        }
        for check in &self.fields {
            let value = |value: &Option<String>| {
                let text = value.as_deref().unwrap_or(NONE);
                let digest = check.field.ends_with("sha256") || check.field.ends_with("digest");
                if digest { text.chars().take(DIGEST).collect() } else { text.to_owned() }
            };
            let verdict = match check.agreement {
                Agreement::Same => "same",
                Agreement::Different => "differs",
                Agreement::Unknown => "not known",
            };
            table.row([
                check.field.to_owned(),
                value(&check.first),
                value(&check.second),
                verdict.to_owned(),
            ]);
        }
        table
    }

    /// What matters of it, a line each.
    fn reasons(&self) -> Vec<String> {
        let reason = |check: &FieldCheck| {
            let consequence = check.consequence?;
            Some(match check.agreement {
                Agreement::Unknown => {
                    format!("{} is not known: perhaps {consequence}", check.field)
                }
                _ => format!("{} differs: {consequence}", check.field),
            })
        };
        let verdict = match self.comparable {
            Some(true) => "the two measure the same: what differs above explains the numbers",
            Some(false) => "the two measure different things: their numbers cannot be compared",
            None => "whether the two measure the same is not known",
        };
        let reasons = self.fields.iter().filter_map(reason).chain(self.notes.iter().cloned());
        reasons.chain([verdict.to_owned()]).collect()
    }
}

/// Prints what was found, where it is not in the report already.
///
/// # Errors
/// The two cannot be compared.
pub(super) fn print(arguments: &ChairArguments, comparisons: &[Comparison]) -> anyhow::Result<()> {
    let format = arguments.report.format;
    for comparison in comparisons.iter().filter(|_| format != ReportFormat::Json) {
        output::line("")?;
        report::table(format, &comparison.table(), &comparison.reasons())?;
    }
    if comparisons.iter().any(|comparison| comparison.comparable == Some(false)) {
        let message = "the reports measure different things; see above".to_owned();
        return Err(VerdictFailed { message }.into());
    }
    Ok(())
}
