//! A report in the format that was asked for.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::arguments::{ReportArguments, ReportFormat};
use crate::output;
use crate::table::Table;

/// Prints a report. `table` is what people see of it, `notes` what they have to know beside it, and
/// `details` the fields that JSON leaves out unless they are asked for, at any depth.
pub(super) fn print(
    arguments: &ReportArguments,
    report: &impl Serialize,
    details: &[&str],
    table: &Table,
    notes: &[String],
) -> anyhow::Result<()> {
    match arguments.format {
        ReportFormat::Table => {
            output::line(table.aligned())?;
            notes.iter().try_for_each(output::line)
        }
        ReportFormat::Markdown => {
            output::line(table.markdown())?;
            notes.iter().try_for_each(|note| output::line(format!("\n{note}")))
        }
        ReportFormat::Csv => output::line(table.csv()),
        ReportFormat::Json => {
            let mut value = serde_json::to_value(report).context("a report is plain data")?;
            if !arguments.per_image {
                remove(&mut value, details);
            }
            output::json(&value)
        }
    }
}

fn remove(value: &mut Value, fields: &[&str]) {
    match value {
        Value::Object(object) => {
            object.retain(|key, _| !fields.contains(&key.as_str()));
            object.values_mut().for_each(|value| remove(value, fields));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| remove(item, fields)),
        _ => {}
    }
}

/// The fields of a value that is an object.
pub(super) fn fields(value: &impl Serialize) -> anyhow::Result<Map<String, Value>> {
    match serde_json::to_value(value).context("a report is plain data")? {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}
