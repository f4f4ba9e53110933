//! What the folder of one run tells. Keys are looked up one by one: runs of other versions have others, and are listed
//! all the same.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use fisao_formats::adapter::ADAPTER_CONFIG_FILE;
use fisao_formats::documents::{read_json, read_toml};
use fisao_formats::run_folder::RunFolder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::demo;
use crate::renamed::renamed_key;

/// Iterations over which what was measured last is averaged.
const LAST: usize = 5;
/// The method of runs whose settings do not name one.
const FIRST_METHOD: &str = "ppo";

/// One run, as printed for programs.
#[derive(Debug, Serialize)]
pub struct Run {
    /// Its folder.
    pub path: String,
    /// Whether it came to its end.
    pub state: State,
    /// How the policy is trained: `objective.kind` of the settings; `None` where they cannot be read.
    pub method: Option<String>,
    /// Seed, from the settings.
    pub seed: Option<i64>,
    /// Iterations done: whole lines of the metrics.
    pub iterations: usize,
    /// Iterations in all.
    pub planned: Option<i64>,
    /// When a file of the run was last written, UTC.
    #[serde(serialize_with = "in_seconds")]
    pub written: Option<Timestamp>,
    /// Reward of a caption, mean over the last iterations.
    pub reward: Option<f64>,
    /// KL of a caption from the reference, nats, mean over the last iterations.
    pub kl: Option<f64>,
    /// Tokens of a caption, mean over the last iterations.
    pub length: Option<f64>,
    /// Kinds of warnings in the summary; `None` without one.
    pub warnings: Option<usize>,
    /// Scores of the model before and after, where the summary has them.
    pub base: Option<Scores>,
    /// The same of the model after it.
    pub aligned: Option<Scores>,
    /// What is wrong with its files.
    pub remarks: Vec<String>,
    /// Settings by their dotted keys.
    #[serde(skip)]
    pub settings: BTreeMap<String, toml::Value>,
}

/// Whether a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has an adapter or a summary.
    Finished,
    /// Under way, interrupted or killed: its folder looks the same.
    Unfinished,
}

impl State {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Unfinished => "unfinished",
        }
    }
}

/// How a model describes held-out images, fractions.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Scores {
    /// Mentions that are hallucinated.
    pub chair_i: Option<f64>,
    /// Captions with a hallucinated mention.
    pub chair_s: Option<f64>,
    /// Objects of the images that are mentioned.
    pub recall: Option<f64>,
}

impl Run {
    /// Reads a run. What cannot be read becomes a remark.
    pub fn read(folder: &RunFolder) -> Self {
        let mut remarks = Vec::new();
        let settings = settings(folder, RunFolder::CONFIG, "", &mut remarks);
        let metrics = Metrics::read(folder, &mut remarks);
        let summary = summary(folder, &mut remarks);
        let options = settings_of_demo(folder, &mut remarks);
        let adapter = folder.path(RunFolder::ADAPTER).join(ADAPTER_CONFIG_FILE);
        let finished = folder.path(RunFolder::SUMMARY).exists() || adapter.exists();
        let integer = |key: &str| settings.get(key).and_then(toml::Value::as_integer);
        let method = settings.get("objective.kind").and_then(toml::Value::as_str);
        let method = (!settings.is_empty()).then(|| method.unwrap_or(FIRST_METHOD).to_owned());
        let scores = |model: &str| Scores::deserialize(summary.get(model)?).ok();
        Self {
            path: folder.root().display().to_string(),
            state: if finished { State::Finished } else { State::Unfinished },
            method,
            seed: integer("seed"),
            iterations: metrics.lines,
            planned: integer("align.iterations"),
            written: written(folder.root()),
            reward: metrics.mean("reward_mean"),
            kl: metrics.mean("kl"),
            length: metrics.mean("length_mean"),
            warnings: summary.get("warnings").and_then(Value::as_array).map(Vec::len),
            base: scores("base"),
            aligned: scores("aligned"),
            remarks,
            settings: settings.into_iter().chain(options).collect(),
        }
    }
}

/// The values of a TOML file by their dotted keys, each behind `prefix`.
fn settings(
    folder: &RunFolder,
    file: &str,
    prefix: &str,
    remarks: &mut Vec<String>,
) -> BTreeMap<String, toml::Value> {
    let mut settings = BTreeMap::new();
    match read_toml::<toml::Table>("configuration", &folder.path(file)) {
        Ok(table) => flatten(table, prefix, &mut settings),
        Err(error) => remarks.push(format!("no settings: {error}").trim_end().to_owned()),
    }
    settings
}

/// What else a demo was asked, such as whether its calibration knew annotations.
fn settings_of_demo(
    folder: &RunFolder,
    remarks: &mut Vec<String>,
) -> BTreeMap<String, toml::Value> {
    if folder.path(demo::OPTIONS).exists() {
        settings(folder, demo::OPTIONS, "demo.", remarks)
    } else {
        BTreeMap::new()
    }
}

/// Values by the dotted keys that lead to them.
fn flatten(table: toml::Table, prefix: &str, settings: &mut BTreeMap<String, toml::Value>) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) => flatten(inner, &format!("{key}."), settings),
            value => {
                // Former names, so that equal settings of runs of different versions stand in one row.
                settings.insert(renamed_key(&key), value);
            }
        }
    }
}

fn summary(folder: &RunFolder, remarks: &mut Vec<String>) -> Value {
    let path = folder.path(RunFolder::SUMMARY);
    if !path.exists() {
        return Value::Null;
    }
    read_json("summary", &path).unwrap_or_else(|error| {
        remarks.push(format!("no scores: {error}"));
        Value::Null
    })
}

/// What was measured.
#[derive(Debug, Default)]
struct Metrics {
    /// Whole lines.
    lines: usize,
    /// The last of them.
    last: Vec<Value>,
}

impl Metrics {
    fn read(folder: &RunFolder, remarks: &mut Vec<String>) -> Self {
        let text = match fs::read(folder.path(RunFolder::METRICS)) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    remarks.push(format!("no metrics: {error}"));
                }
                return Self::default();
            }
        };
        let mut lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
        // What follows the last line's end: nothing, unless the run was killed while it wrote.
        if lines.pop().is_some_and(|rest| !rest.is_empty()) {
            remarks
                .push("the last line of metrics.jsonl was truncated and is not counted".to_owned());
        }
        let parsed = lines.iter().map(|line| serde_json::from_slice(line).ok());
        let mut whole: Vec<Value> = parsed.flatten().filter(Value::is_object).collect();
        match lines.len() - whole.len() {
            0 => {}
            1 => remarks.push("a line of metrics.jsonl cannot be read".to_owned()),
            count => remarks.push(format!("{count} lines of metrics.jsonl cannot be read")),
        }
        let metrics =
            Self { lines: whole.len(), last: whole.split_off(whole.len().saturating_sub(LAST)) };
        let unknown = |key: &&str| !metrics.last.iter().any(|line| line.get(*key).is_some());
        let absent: Vec<&str> =
            ["reward_mean", "kl", "length_mean"].into_iter().filter(unknown).collect();
        if metrics.lines > 0 && !absent.is_empty() {
            let absent = absent.join(", ");
            remarks.push(format!("metrics.jsonl is of another version, without {absent}"));
        }
        metrics
    }

    /// Mean over the last iterations that have it.
    fn mean(&self, key: &str) -> Option<f64> {
        let values = self.last.iter().filter_map(|line| line.get(key)?.as_f64());
        let values: Vec<f64> = values.collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }
}

/// When a file in the folder, or in one of its folders, was last written.
fn written(folder: &Path) -> Option<Timestamp> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let modified = |entry: &fs::DirEntry| -> Option<SystemTime> {
        let data = entry.metadata().ok()?;
        if data.is_file() { data.modified().ok() } else { None }
    };
    let inner = entries(folder).flat_map(|entry| entries(&entry.path()));
    let latest = entries(folder).chain(inner).filter_map(|entry| modified(&entry)).max()?;
    Timestamp::from_second(Timestamp::try_from(latest).ok()?.as_second()).ok()
}

#[expect(clippy::ref_option, reason = "serde asks for this signature")]
fn in_seconds<S: serde::Serializer>(
    written: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    written.map(|written| written.to_string()).serialize(serializer)
}
