//! The folder of one run: what it was asked, what it measured, what it made.
//!
//! Every file in it is written atomically, except `metrics.jsonl`, which grows line by line.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::FormatError;
use crate::documents::{write_atomically, write_bytes, write_json, write_toml};

/// The folder of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    root: PathBuf,
}

impl RunFolder {
    /// The resolved configuration, TOML; its presence marks the folder as a run.
    pub const CONFIG: &'static str = "config.toml";
    /// One JSON object per step.
    pub const METRICS: &'static str = "metrics.jsonl";
    /// The result, JSON.
    pub const SUMMARY: &'static str = "summary.json";
    /// The report, HTML.
    pub const REPORT: &'static str = "report.html";
    /// The adapter's folder, PEFT layout.
    pub const ADAPTER: &'static str = "adapter";

    /// Makes a folder for a new run, and its parents.
    ///
    /// # Errors
    /// The folder holds a run, or anything else, already; or it cannot be made.
    pub fn create(root: &Path) -> Result<Self, FormatError> {
        let marks = [Self::CONFIG, Self::METRICS, Self::SUMMARY];
        if let Some(mark) = marks.iter().find(|mark| root.join(mark).exists()) {
            return Err(FormatError::RunExists { path: root.into(), file: (*mark).to_owned() });
        }
        match fs::read_dir(root) {
            Ok(mut entries) => {
                if let Some(Ok(entry)) = entries.next() {
                    let file = entry.file_name().to_string_lossy().into_owned();
                    return Err(FormatError::FolderNotEmpty { path: root.into(), file });
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(root).map_err(|error| FormatError::io("create", root, error))?;
            }
            Err(error) => return Err(FormatError::io("use as output folder", root, error)),
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Opens the folder of a run that was started before.
    ///
    /// # Errors
    /// It holds no run.
    pub fn open(root: &Path) -> Result<Self, FormatError> {
        if root.join(Self::CONFIG).is_file() {
            Ok(Self { root: root.to_owned() })
        } else {
            Err(FormatError::NoRun { path: root.to_owned(), file: Self::CONFIG })
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file of the run is.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Writes a JSON file into the folder, atomically.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_json<T: Serialize + ?Sized>(
        &self,
        name: &str,
        value: &T,
    ) -> Result<(), FormatError> {
        write_json(&self.path(name), value)
    }

    /// Writes a TOML file into the folder, atomically.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_toml<T: Serialize + ?Sized>(
        &self,
        name: &str,
        value: &T,
    ) -> Result<(), FormatError> {
        write_toml(&self.path(name), value)
    }

    /// Writes any other file into the folder, atomically.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
        write_bytes(&self.path(name), bytes)
    }

    /// Opens `metrics.jsonl` for appending.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn metrics(&self) -> Result<MetricsWriter, FormatError> {
        MetricsWriter::append(&self.path(Self::METRICS))
    }

    /// Drops the records of `metrics.jsonl` that `keep` refuses, and a last line that broke off: a
    /// resumed run repeats the steps since its last saved state, and would record them twice.
    ///
    /// # Errors
    /// The file cannot be read or written, or a complete line of it is not JSON.
    pub fn retain_metrics(
        &self,
        keep: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<(), FormatError> {
        let path = self.path(Self::METRICS);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(FormatError::io("read", &path, error)),
        };
        let mut kept = String::new();
        let mut reader = BufReader::new(file);
        for line in 1.. {
            let mut text = String::new();
            reader.read_line(&mut text).map_err(|error| FormatError::io("read", &path, error))?;
            if !text.ends_with('\n') {
                break;
            }
            let record = serde_json::from_str(&text).map_err(|error| FormatError::Line {
                path: path.clone(),
                line,
                reason: error.to_string(),
            })?;
            if keep(&record) {
                kept.push_str(&text);
            }
        }
        write_atomically(&path, |file| file.write_all(kept.as_bytes()))
    }
}

/// Appends records to a JSON-lines file; each is on its way to the disk when `write` returns, so a
/// run that is killed loses no step it has reported.
#[derive(Debug)]
pub struct MetricsWriter {
    file: File,
    path: PathBuf,
}

impl MetricsWriter {
    /// Opens a file for appending, made if absent.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn append(path: &Path) -> Result<Self, FormatError> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| FormatError::io("write", path, error))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Appends one record as one line.
    ///
    /// # Errors
    /// The record is not representable in JSON, or the disk is full.
    pub fn write<T: Serialize + ?Sized>(&mut self, record: &T) -> Result<(), FormatError> {
        let failed = |error| FormatError::io("write", &self.path, error);
        let mut line = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        // One call for the whole line, so that an interruption cannot leave half of it.
        self.file.write_all(&line).map_err(failed)
    }
}
