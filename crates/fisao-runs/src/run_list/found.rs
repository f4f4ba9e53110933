//! Where the runs are.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;
use fisao_formats::run_folder::RunFolder;

use crate::failure::Refusal;

/// Levels below a given folder that are searched.
const LEVELS: usize = 2;

/// Folders of runs, and those in which there is none.
#[derive(Debug, Default)]
pub struct Found {
    /// The runs, by folder.
    pub runs: Vec<RunFolder>,
    /// Folders without a run.
    pub passed_over: Vec<String>,
}

/// Looks for runs in folders and below them. Every run is found once, by whatever links lead to it.
///
/// # Errors
/// One of the folders does not exist.
pub fn find(folders: &[PathBuf]) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    for folder in folders {
        if !folder.exists() {
            bail!(
                Refusal::new(format!("no folder at {}", folder.display()))
                    .hint("name folders of runs, or folders that hold some: fisao runs FOLDER")
            );
        }
        found.search(folder, LEVELS, &mut seen);
    }
    Ok(found)
}

impl Found {
    /// Whether there is a run in the folder or, so many levels, below it.
    fn search(&mut self, folder: &Path, levels: usize, seen: &mut HashSet<PathBuf>) -> bool {
        if let Ok(run) = RunFolder::open(folder) {
            let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
            if seen.insert(real) {
                self.runs.push(run);
            }
            return true;
        }
        let passed_over = self.passed_over.len();
        let inner = if levels == 0 { Vec::new() } else { folders_in(folder) };
        let mut any = false;
        for folder in inner {
            any |= self.search(&folder, levels - 1, seen);
        }
        if !any {
            // Where there is none at all it is said once.
            self.passed_over.truncate(passed_over);
            self.passed_over.push(folder.display().to_string());
        }
        any
    }
}

/// The folders in a folder, by name, links after what they may lead to; none where it cannot be read. Hidden ones are
/// no runs, but often large.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let shown = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let mut folders: Vec<PathBuf> =
        shown.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort_by_cached_key(|path| (path.is_symlink(), path.clone()));
    folders
}
