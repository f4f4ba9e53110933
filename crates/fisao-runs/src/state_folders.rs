//! Saved states of long work: one folder each, with a digest of every file.
//!
//! A state's folder appears complete or not at all, and older ones stay until a newer one is there: whenever a process
//! is killed or a disk fills up, the last state that was saved is whole. Its manifest holds a digest of each of its files, so
//! that one that was damaged later is not taken for what was saved.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use fisao_formats::FormatError;
use fisao_formats::digest::sha256_file;
use fisao_formats::documents::{read_json, write_json};
use serde::{Deserialize, Serialize};

use crate::failure::Refusal;
use crate::reporter::Reporter;

/// File of the digests of the others.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Begins the name of a folder that is not complete yet.
pub(crate) const UNFINISHED: &str = ".writing-";

/// SHA-256 of the files of a state by their names.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    sha256: BTreeMap<String, String>,
}

/// The states of one run.
#[derive(Debug, Clone)]
pub struct StateFolders {
    root: PathBuf,
    /// What is counted, such as `iteration`: begins the name of a state's folder, and the number of those done follows.
    unit: &'static str,
    /// Files of a state.
    files: &'static [&'static str],
}

impl StateFolders {
    /// Those in a folder, which need not exist.
    pub fn new(root: PathBuf, unit: &'static str, files: &'static [&'static str]) -> Self {
        Self { root, unit, files }
    }

    /// The folder that they are in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the state after so many units is.
    pub fn folder(&self, number: usize) -> PathBuf {
        self.root.join(self.name(number))
    }

    fn name(&self, number: usize) -> String {
        format!("{}-{number}", self.unit)
    }

    /// Saves a state, whose files `write` puts into a folder, and removes those older than the last `keep`.
    pub fn save(
        &self,
        number: usize,
        keep: usize,
        write: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if let Err(error) = self.write(&self.name(number), write) {
            // What was begun takes room that the next attempt may need.
            let _ = self.saved();
            return Err(error);
        }
        let mut saved = self.saved()?;
        saved.retain(|&other| other < number);
        saved.sort_unstable();
        for &old in saved.iter().rev().skip(keep.saturating_sub(1)) {
            // A leftover costs space, not correctness.
            let _ = fs::remove_dir_all(self.folder(old));
        }
        Ok(())
    }

    /// Units done in the newest state, if there is one.
    pub fn newest(&self) -> Option<usize> {
        self.saved().ok()?.into_iter().max()
    }

    /// The newest state whose files are what was saved and which `read` takes; `None` if none was saved yet. One that is
    /// damaged or not taken is passed over with a warning, where there are others: what lies between is done again.
    pub fn load<State>(
        &self,
        reporter: &Reporter,
        read: impl Fn(&Path) -> anyhow::Result<State>,
    ) -> anyhow::Result<Option<State>> {
        let mut saved = self.saved()?;
        saved.sort_unstable();
        let (several, mut first) = (saved.len() > 1, None);
        for number in saved.into_iter().rev() {
            let folder = self.folder(number);
            match self.check(&folder, reporter).and_then(|()| read(&folder)) {
                Ok(state) => return Ok(Some(state)),
                Err(error) => {
                    if several {
                        let unit = self.unit;
                        reporter.warn(
                            format!("the state after {unit} {number} is passed over: {error:#}"),
                            Some("the one before it is taken, if there is one"),
                        );
                    }
                    first.get_or_insert(error);
                }
            }
        }
        first.map_or(Ok(None), Err)
    }

    /// Numbers of the states, in no order; what was left unfinished is removed.
    pub fn saved(&self) -> Result<Vec<usize>, FormatError> {
        let failed = |error| FormatError::io("read", &self.root, error);
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut saved = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                let _ = fs::remove_dir_all(entry.path());
            }
            let number = name.strip_prefix(self.unit).and_then(|rest| rest.strip_prefix('-'));
            saved.extend(number.and_then(|number| number.parse::<usize>().ok()));
        }
        Ok(saved)
    }

    /// Writes a state as the folder `name`, in place of one that is there.
    fn write(
        &self,
        name: &str,
        write: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let unfinished = self.root.join(format!("{UNFINISHED}{name}"));
        let failed = |error| FormatError::io("write", &unfinished, error);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(error).into());
            }
            _ => fs::create_dir_all(&unfinished).map_err(failed)?,
        }
        write(&unfinished)?;
        let digest = |&name: &&str| Ok((name.to_owned(), sha256_file(&unfinished.join(name))?));
        let sha256 = self.files.iter().map(digest).collect::<Result<_, FormatError>>()?;
        write_json(&unfinished.join(MANIFEST), &Manifest { sha256 })?;
        let complete = self.root.join(name);
        if complete.exists() {
            fs::remove_dir_all(&complete).map_err(failed)?;
        }
        fs::rename(&unfinished, &complete).map_err(failed)?;
        // The rename survives a power cut only once the folder is on the disk too.
        #[cfg(unix)]
        File::open(&self.root).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(())
    }

    /// Compares the files of a state with its manifest. States of earlier versions have none.
    fn check(&self, folder: &Path, reporter: &Reporter) -> anyhow::Result<()> {
        let path = folder.join(MANIFEST);
        if !path.exists() {
            note_undigested(folder, reporter);
            return Ok(());
        }
        let Manifest { sha256 } = read_json("manifest of a state", &path)?;
        for &name in self.files {
            let file = folder.join(name);
            if sha256.get(name) != Some(&sha256_file(&file)?) {
                let file = file.display();
                let message = format!("{file} is damaged: its bytes are not those that were saved");
                return Err(Refusal::new(message).into());
            }
        }
        Ok(())
    }
}

/// Says of a state of an earlier version that nothing tells whether it is whole.
pub fn note_undigested(path: &Path, reporter: &Reporter) {
    let path = path.display();
    reporter
        .note(format!("{path} has no digests of its files: whether they are damaged is not known"));
}
