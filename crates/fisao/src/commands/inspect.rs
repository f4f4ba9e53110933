//! `fisao inspect`: what is in a checkpoint or adapter, and what it can be used for.

mod adapter;
mod checkpoint;

use std::collections::BTreeMap;

use fisao_formats::adapter::ADAPTER_CONFIG_FILE;
use fisao_formats::checkpoint::CONFIG_FILE;
use fisao_formats::checkpoint::Checkpoint;
use fisao_formats::weights::SafetensorsSource;
use fisao_runs::Reporter;
use fisao_runs::model_location::Role;
use indicatif::DecimalBytes;
use owo_colors::OwoColorize;
use serde::Serialize;

use crate::arguments::{Format, InspectArguments};
use crate::output;

/// What there is, as printed.
#[derive(Debug, Serialize)]
struct Inspection {
    path: String,
    /// `model_type`, or `adapter`.
    kind: String,
    /// What it is made of, in words.
    architecture: String,
    parameters: u64,
    /// Parameters by part, in the order of the model.
    parts: Vec<Part>,
    /// Tensors by the type they are stored in.
    dtypes: BTreeMap<String, Stored>,
    files: usize,
    bytes: u64,
    /// Whose names the tensors have.
    naming: String,
    /// Tensors that the model does not use, by key.
    unused: Vec<String>,
    /// What it can be used for.
    uses: Vec<Use>,
}

#[derive(Debug, Serialize)]
struct Part {
    name: String,
    parameters: u64,
}

#[derive(Debug, Default, Serialize)]
struct Stored {
    tensors: usize,
    bytes: u64,
}

/// One thing that can be done with it.
#[derive(Debug, Serialize)]
struct Use {
    command: &'static str,
    ready: bool,
    /// What else it takes, or what is wrong or missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Use {
    fn ready(command: &'static str) -> Self {
        Self { command, ready: true, note: None }
    }

    fn with(command: &'static str, note: impl Into<String>) -> Self {
        Self { command, ready: true, note: Some(note.into()) }
    }

    fn not(command: &'static str, note: impl Into<String>) -> Self {
        Self { command, ready: false, note: Some(note.into()) }
    }
}

/// The weights of a checkpoint or adapter, added up.
struct Weighed {
    dtypes: BTreeMap<String, Stored>,
    files: usize,
    bytes: u64,
}

/// Adds up weights; with `check`, reads all of them and refuses values that are NaN or infinite.
fn weigh(weights: &SafetensorsSource, check: bool, reporter: &Reporter) -> anyhow::Result<Weighed> {
    let files = weights.files();
    let bytes = files.iter().map(|(_, bytes)| bytes).sum();
    if check {
        let progress = reporter.transfer("checking weights", bytes);
        weights.check_finite(&mut |bytes| progress.advance(bytes))?;
        progress.finish();
    }
    let mut dtypes = BTreeMap::<String, Stored>::new();
    for (_, dtype, bytes, _) in weights.sizes() {
        let stored = dtypes.entry(dtype).or_default();
        stored.tensors += 1;
        stored.bytes += bytes;
    }
    Ok(Weighed { dtypes, files: files.len(), bytes })
}

pub(crate) fn run(arguments: &InspectArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let folder = arguments.place.locate(Role::Any, reporter)?.folder;
    let is_adapter =
        folder.join(ADAPTER_CONFIG_FILE).exists() && !folder.join(CONFIG_FILE).exists();
    let inspection = if is_adapter {
        adapter::inspect(&folder, arguments.check, reporter)?
    } else {
        checkpoint::inspect(&Checkpoint::open(&folder)?, arguments.check, reporter)?
    };
    match arguments.format {
        Format::Text => output::line(in_words(&inspection)),
        Format::Json => output::json(&inspection),
    }
}

/// For people, with colour codes.
fn in_words(found: &Inspection) -> String {
    let mut lines = vec![found.path.bold().to_string()];
    let mut tell = |what: &str, text: &str| lines.push(format!("  {what:<12}{text}"));
    tell("kind", &found.kind);
    tell("made of", &found.architecture);
    let parts = found.parts.iter().map(|part| format!("{} {}", part.name, count(part.parameters)));
    let parts = parts.collect::<Vec<_>>().join(", ");
    tell("parameters", &format!("{} ({parts})", count(found.parameters)));
    let types = found.dtypes.iter().map(|(dtype, stored)| {
        format!("{} tensors of {dtype} ({})", stored.tensors, DecimalBytes(stored.bytes))
    });
    let files =
        if found.files == 1 { "one file".to_owned() } else { format!("{} files", found.files) };
    let types = types.collect::<Vec<_>>().join(", ");
    tell("weights", &format!("{types} in {files}, {}", DecimalBytes(found.bytes)));
    tell("names", &found.naming);
    if let Some(first) = found.unused.first() {
        let warning = format!("{} tensors are not used, first `{first}`", found.unused.len());
        tell("unused", &warning.yellow().to_string());
    }
    for (index, usage) in found.uses.iter().enumerate() {
        let mark = if usage.ready { "yes".green().to_string() } else { "no ".red().to_string() };
        let note = usage.note.as_ref().map_or_else(String::new, |note| format!("  {note}"));
        let what = if index == 0 { "use for" } else { "" };
        tell(what, &format!("{:<11}{mark}{note}", usage.command));
    }
    lines.join("\n")
}

/// A number of parameters, to three digits.
fn count(number: u64) -> String {
    let number = number as f64;
    for (unit, factor) in [("B", 1e9), ("M", 1e6), ("K", 1e3)] {
        if number >= factor {
            return format!("{:.2} {unit}", number / factor);
        }
    }
    format!("{number}")
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn large_counts_are_abbreviated() {
        assert_eq!(count(7_063_427_072), "7.06 B");
        assert_eq!(count(303_507_456), "303.51 M");
        assert_eq!(count(12), "12");
    }
}
