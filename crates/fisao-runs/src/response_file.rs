//! Responses on their way to a result, kept beside it until it is there: the same command resumes where it was interrupted.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fisao_align::AlignError;
use fisao_align::run_control::ResponseStore;
use fisao_align::tasks::TaskSource;
use fisao_formats::FormatError;
use fisao_formats::data_record::{DataChanges, DataRecord, RowDigest, digest_bytes};
use fisao_formats::folder_lock::FolderLock;
use fisao_models::generation::{Generated, Sampling};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::Refusal;
use crate::reporter::Reporter;

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct Header {
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
pub struct ResponseFile {
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
    /// It was started with something else, another process writes it, or it cannot be read or written.
    pub fn open(
        output: &Path,
        record: DataRecord,
        name: impl Fn(usize) -> String,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        Self::open_or(output, record, reporter, |path, changes| {
            let (path, changes) = (path.display(), changes.describe(&name));
            let message = format!("{path} was started with something else: {changes}");
            let hint =
                format!("delete {path} to start anew, or resume with what it was started with");
            Err(Refusal::new(message).hint(hint).into())
        })
    }

    /// The same of responses that are soon written again: a file that was started with something else is begun anew.
    pub fn open_or_renew(
        output: &Path,
        record: DataRecord,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        Self::open_or(output, record, reporter, |path, changes| {
            let path = path.display();
            reporter.note(format!(
                "{path} was started with something else: {changes}; it is begun anew"
            ));
            Ok(())
        })
    }

    fn open_or(
        output: &Path,
        record: DataRecord,
        reporter: &Reporter,
        differs: impl FnOnce(&Path, &DataChanges) -> anyhow::Result<()>,
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
        let mut whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut known = HashMap::new();
        if let Some((begun, rest)) = text[..whole].split_once('\n') {
            let Header { record: begun } = parsed(&path, begun, 1)?;
            if let Some(changes) = begun.changes(&record) {
                differs(&path, &changes)?;
                whole = 0;
            } else {
                for (line, text) in rest.lines().enumerate() {
                    let Line { seed, stream, responses } = parsed(&path, text, line + 2)?;
                    known.insert((seed, stream), responses);
                }
                let (path, count) = (path.display(), known.len());
                reporter.note(format!("{path}: {count} responses are there already"));
            }
        }
        let failed = |error| FormatError::io("write", &path, error);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        file.set_len(whole as u64).map_err(failed)?;
        let file = Mutex::new(file);
        let kept = Self { path, known, file, _lock: lock };
        if whole == 0 {
            kept.append(&(serde_json::to_string(&Header { record })? + "\n"))?;
        }
        Ok(kept)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file: the result is there, or never will be.
    pub fn finish(self) {
        // One that stays costs space.
        let _ = fs::remove_file(&self.path);
    }

    fn append(&self, lines: &str) -> Result<(), FormatError> {
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
        written.map_err(|error| FormatError::io("write", &self.path, error))
    }
}

/// What a line of the file holds.
fn parsed<T: DeserializeOwned>(path: &Path, text: &str, line: usize) -> Result<T, FormatError> {
    serde_json::from_str(text).map_err(|error| FormatError::Line {
        path: path.to_owned(),
        line,
        reason: error.to_string(),
    })
}

/// What responses to some tasks depend on besides the model, and the length of the longest prompt, tokens.
pub(crate) fn record_of(
    tasks: &dyn TaskSource,
    sampling: &Sampling,
) -> Result<(DataRecord, usize), AlignError> {
    let mut longest = 0;
    let bytes = |ids: &[u32]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
    let row = |at: usize| {
        let task = tasks.task(at)?;
        longest = longest.max(task.prompt.len());
        let pixels: Vec<u8> =
            task.image.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(RowDigest::new([task.id.as_bytes(), &bytes(&task.prompt)], digest_bytes(&pixels)))
    };
    let rows = (0..tasks.count()).map(row).collect::<Result<_, AlignError>>()?;
    let Sampling { max_new_tokens, temperature, seed } = sampling;
    let record = DataRecord::new(rows)
        .with_input("version of fisao", env!("CARGO_PKG_VERSION"))
        .with_input("length", max_new_tokens.to_string())
        .with_input("temperature", temperature.to_string())
        .with_input("seed", seed.to_string());
    Ok((record, longest))
}

/// Removes what was kept for a result that is there now.
pub fn discard(output: &Path) {
    // One that stays costs space.
    let _ = fs::remove_file(beside(output));
}

/// Whether responses are kept for a result: more than what they depend on.
pub fn is_kept(output: &Path) -> bool {
    fs::read_to_string(beside(output)).is_ok_and(|text| text.lines().nth(1).is_some())
}

/// Where the responses of a result are kept.
fn beside(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    output.with_file_name(name)
}

impl ResponseStore for ResponseFile {
    fn get(&self, seed: u64, stream: u64) -> Option<Vec<Generated>> {
        self.known.get(&(seed, stream)).cloned()
    }

    fn insert(
        &self,
        seed: u64,
        streams: &[u64],
        responses: &[Generated],
    ) -> Result<(), AlignError> {
        let each = responses.len() / streams.len().max(1);
        let mut lines = String::new();
        for (&stream, responses) in streams.iter().zip(responses.chunks(each.max(1))) {
            let line = Line { seed, stream, responses: responses.to_vec() };
            let text = serde_json::to_string(&line);
            lines += &text.map_err(|error| AlignError::Unkept(error.into()))?;
            lines.push('\n');
        }
        self.append(&lines).map_err(|error| AlignError::Unkept(error.into()))
    }
}
