//! A report in the format that was asked for.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::arguments::ReportFormat;
use crate::output;
use fisao_report::table::Table;

/// Prints what people see of a report, and what they have to know beside it.
pub(crate) fn table(format: ReportFormat, table: &Table, notes: &[String]) -> anyhow::Result<()> {
    match format {
        ReportFormat::Markdown => {
            output::line(table.markdown())?;
            notes.iter().try_for_each(|note| output::line(format!("\n{note}")))
        }
        ReportFormat::Csv => output::line(table.csv()),
        ReportFormat::Table | ReportFormat::Json => {
            output::line(table.aligned())?;
            notes.iter().try_for_each(output::line)
        }
    }
}

/// The fields of a value that is an object.
pub(super) fn fields(value: &impl Serialize) -> anyhow::Result<Map<String, Value>> {
    match serde_json::to_value(value).context("a report is plain data")? {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}
