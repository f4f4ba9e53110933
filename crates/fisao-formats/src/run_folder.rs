//! The folder of one run: what it was asked, what it measured, what it made.
//!
//! Every file in it is written atomically, except `metrics.jsonl` and its like, which grow line by line; and so is the
//! folder itself, with the files that a run begins with.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::FormatError;
use crate::documents::{
    check_output_folder, write_atomically, write_bytes, write_json, write_toml,
};
use crate::folder_lock::{FolderLock, LOCK_FILE, LockOwner};

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    root: PathBuf,
    /// Of whoever writes into it.
    lock: Option<Arc<FolderLock>>,
}

impl RunFolder {
    /// The resolved configuration, TOML; its presence marks the folder as a run.
    pub const CONFIG: &'static str = "config.toml";
    /// One JSON object per step: what was measured, the same in every equal run.
    pub const METRICS: &'static str = "metrics.jsonl";
    /// One JSON object per step: how long it took.
    pub const TIMINGS: &'static str = "timings.jsonl";
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
        Self::create_with(root, |_| Ok(()))
    }

    /// Makes a folder for a new run with the files that `fill` writes into it, and locks it. It appears complete or not at
    /// all: a process that is killed meanwhile leaves neither a run that cannot be resumed nor a folder that is taken.
    ///
    /// # Errors
    /// As [`create`](Self::create), or what `fill` says.
    pub fn create_with<E: From<FormatError>>(
        root: &Path,
        fill: impl FnOnce(&Self) -> Result<(), E>,
    ) -> Result<Self, E> {
        Self::check_free(root)?;
        let io = |error| FormatError::io("create", root, error);
        let absolute = std::path::absolute(root).map_err(io)?;
        let parent = absolute.parent().unwrap_or(&absolute);
        fs::create_dir_all(parent).map_err(io)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".starting-");
        // Temporary folders are private by default; this one becomes an ordinary one.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let staging = builder.tempdir_in(parent).map_err(io)?;
        fill(&Self { root: staging.path().to_owned(), lock: None })?;
        let (lock, _) = FolderLock::acquire(staging.path())?;
        // An empty folder that is there already gives way, unless it is one that cannot, such as the current one.
        let lock = if fs::rename(staging.path(), root).is_ok() {
            drop(staging.keep());
            lock.moved_to(root)
        } else {
            drop(lock);
            fs::create_dir_all(root).map_err(io)?;
            let (lock, _) = FolderLock::acquire(root)?;
            // Another process may have begun a run in it in the meantime.
            Self::check_free(root)?;
            let mut files: Vec<_> =
                fs::read_dir(staging.path()).map_err(io)?.collect::<Result<_, _>>().map_err(io)?;
            // What makes the folder a run comes last.
            files.sort_by_key(|file| file.file_name() == Self::CONFIG);
            for file in files {
                fs::rename(file.path(), root.join(file.file_name())).map_err(io)?;
            }
            lock
        };
        #[cfg(unix)]
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok(Self { root: root.to_owned(), lock: Some(Arc::new(lock)) })
    }

    /// Refuses a folder that holds something already, or that cannot be written into.
    ///
    /// # Errors
    /// The folder holds a run, or anything else; or it cannot be looked into, made, or written into.
    pub fn check_free(root: &Path) -> Result<(), FormatError> {
        let marks = [Self::CONFIG, Self::METRICS, Self::SUMMARY];
        if let Some(mark) = marks.iter().find(|mark| root.join(mark).exists()) {
            return Err(FormatError::RunExists { path: root.into(), file: (*mark).to_owned() });
        }
        match fs::read_dir(root) {
            Ok(mut entries) => {
                let other = entries.find(|entry| {
                    entry.as_ref().map_or(true, |entry| entry.file_name() != LOCK_FILE)
                });
                if let Some(Ok(entry)) = other {
                    let file = entry.file_name().to_string_lossy().into_owned();
                    return Err(FormatError::FolderNotEmpty { path: root.into(), file });
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(FormatError::io("use as output folder", root, error)),
        }
        check_output_folder(root)
    }

    /// Opens the folder of a run that was started before, to read what is in it.
    ///
    /// # Errors
    /// It holds no run.
    pub fn open(root: &Path) -> Result<Self, FormatError> {
        if root.join(Self::CONFIG).is_file() {
            Ok(Self { root: root.to_owned(), lock: None })
        } else {
            Err(FormatError::NoRun { path: root.to_owned(), file: Self::CONFIG })
        }
    }

    /// Opens the folder of a run that was started before, and locks it, to resume the run. Returns the process too that
    /// ended without releasing the lock, if one did.
    ///
    /// # Errors
    /// It holds no run, or another process writes into it.
    pub fn open_to_write(root: &Path) -> Result<(Self, Option<LockOwner>), FormatError> {
        let folder = Self::open(root)?;
        let (lock, before) = FolderLock::acquire(root)?;
        Ok((Self { lock: Some(Arc::new(lock)), ..folder }, before))
    }

    /// Whether this process alone writes into it.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
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

    /// Opens a file of records, such as [`METRICS`](Self::METRICS), for appending.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn records(&self, name: &str) -> Result<MetricsWriter, FormatError> {
        MetricsWriter::append(&self.path(name))
    }

    /// Shows every whole record of a file to `see`, with the line it is written in; an absent file has none, and a last line
    /// that was truncated is none.
    ///
    /// # Errors
    /// The file cannot be read, or a complete line of it is not JSON.
    pub fn each_record(
        &self,
        name: &str,
        mut see: impl FnMut(&serde_json::Value, &str),
    ) -> Result<(), FormatError> {
        let path = self.path(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(FormatError::io("read", &path, error)),
        };
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
            see(&record, &text);
        }
        Ok(())
    }

    /// Gives a file that an earlier version wrote its present name, unless there is one of that name.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn rename_former(&self, former: &str, present: &str) -> Result<(), FormatError> {
        let (former, present) = (self.path(former), self.path(present));
        if !former.exists() || present.exists() {
            return Ok(());
        }
        std::fs::rename(&former, &present)
            .map_err(|error| FormatError::io("rename", &former, error))
    }

    /// Drops the records of a file that `keep` refuses, and a last line that was truncated: a
    /// resumed run repeats the steps since its last saved state, and would record them twice.
    /// What `keep` changes in a record is written; the others stay as they are, byte for byte.
    ///
    /// # Errors
    /// The file cannot be read or written, or a complete line of it is not JSON.
    pub fn retain_records(
        &self,
        name: &str,
        mut keep: impl FnMut(&mut serde_json::Value) -> bool,
    ) -> Result<(), FormatError> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(());
        }
        let mut kept = String::new();
        self.each_record(name, |record, text| {
            let mut changed = record.clone();
            match keep(&mut changed) {
                true if changed == *record => kept.push_str(text),
                true => kept.extend([&changed.to_string(), "\n"]),
                false => {}
            }
        })?;
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

    /// Waits until everything is on the disk, as it has to be before a state is saved that comes after it.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn sync(&self) -> Result<(), FormatError> {
        self.file.sync_data().map_err(|error| FormatError::io("write", &self.path, error))
    }
}
