//! Data on standard output: the only place that writes there, and nothing that would steer a terminal.

use std::fmt::Display;
use std::io::Write;

use anyhow::Context;
use fisao_report::escaping;
use fisao_runs::failure::OrInternal as _;
use serde::Serialize;

/// Prints one line; colours are dropped where they would not be seen as such.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    let text = text.to_string();
    let text = escaping::printable(&text);
    writeln!(anstream::stdout().lock(), "{text}").context("cannot write to standard output")
}

/// Prints a script of ours as it is, tabs and all.
pub(crate) fn script(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).context("cannot write to standard output")
}

/// Prints one value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value).or_internal("a result cannot be written as JSON")?;
    line(escaping::json(text))
}
