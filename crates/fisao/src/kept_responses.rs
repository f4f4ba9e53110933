//! Responses on their way to a result, kept beside it until it is there: the same command goes on where it was interrupted.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fisao_align::AlignError;
use fisao_align::course::KeptResponses;
use fisao_formats::{DataRecord, FolderLock, FormatError};
use fisao_models::generation::Generated;
use serde::{Deserialize, Serialize};

use crate::failure::Refusal;
use crate::reporter::Reporter;

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct Begun {
    record: DataRecord,
}

/// Any other line: the responses to one task.
#[derive(Serialize, Deserialize)]
struct Line {
    seed: u64,
    stream: u64,
    responses: Vec<Generated>,
}

/// The responses of a file, which grows.
pub(crate) struct ResponseFile {
    path: PathBuf,
    known: HashMap<(u64, u64), Vec<Generated>>,
    file: Mutex<File>,
    _lock: FolderLock,
}

impl ResponseFile {
    /// Opens or begins the file that lies beside `output` until that is there; `record` is what the responses depend on, and
    /// `name` tells what its row at an index is called.
    ///
    /// # Errors
    /// It was begun with something else, another process writes it, or it cannot be read or written.
    pub(crate) fn open(
        output: &Path,
        record: DataRecord,
        name: impl Fn(usize) -> String,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let path = beside(output);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| FormatError::io("create", parent, error))?;
        }
        let (lock, _) = FolderLock::acquire_file(output)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(FormatError::io("read", &path, error).into()),
        };
        // A last line that was not written to its end does not count.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let malformed = |error: serde_json::Error, line: usize| FormatError::Line {
            path: path.clone(),
            line,
            reason: error.to_string(),
        };
        let mut known = HashMap::new();
        if let Some(first) = lines.next() {
            let begun: Begun = serde_json::from_str(first).map_err(|error| malformed(error, 1))?;
            if let Some(changes) = begun.record.changes(&record) {
                let (path, changes) = (path.display(), changes.describe(name));
                return Err(Refusal::new(format!(
                    "{path} was begun with something else: {changes}"
                ))
                .hint(format!("delete {path} to begin anew, or go on with what it was begun with"))
                .into());
            }
            for (line, text) in lines.enumerate() {
                let Line { seed, stream, responses } =
                    serde_json::from_str(text).map_err(|error| malformed(error, line + 2))?;
                known.insert((seed, stream), responses);
            }
            reporter.note(format!(
                "{}: {} responses are there already",
                path.display(),
                known.len()
            ));
        }
        let failed = |error| FormatError::io("write", &path, error);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        file.set_len(whole as u64).map_err(failed)?;
        let file = Mutex::new(file);
        let kept = Self { path, known, file, _lock: lock };
        if whole == 0 {
            kept.append(&(serde_json::to_string(&Begun { record })? + "\n"))?;
        }
        Ok(kept)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file: the result is there, or never will be.
    pub(crate) fn finish(self) {
        // One that stays costs space.
        let _ = fs::remove_file(&self.path);
    }

    fn append(&self, lines: &str) -> Result<(), FormatError> {
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
        written.map_err(|error| FormatError::io("write", &self.path, error))
    }
}

/// Where the responses of a result are kept.
fn beside(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    output.with_file_name(name)
}

impl KeptResponses for ResponseFile {
    fn known(&self, seed: u64, stream: u64) -> Option<Vec<Generated>> {
        self.known.get(&(seed, stream)).cloned()
    }

    fn keep(&self, seed: u64, streams: &[u64], responses: &[Generated]) -> Result<(), AlignError> {
        let each = responses.len() / streams.len().max(1);
        let mut lines = String::new();
        for (&stream, responses) in streams.iter().zip(responses.chunks(each.max(1))) {
            let line = Line { seed, stream, responses: responses.to_vec() };
            let text = serde_json::to_string(&line);
            lines += &text.map_err(|error| AlignError::Unkept(error.to_string()))?;
            lines.push('\n');
        }
        self.append(&lines).map_err(|error| AlignError::Unkept(error.to_string()))
    }
}
