//! Folders that one process writes into at a time.

use std::fs;
use std::path::Path;

use fisao_formats::FormatError;
use fisao_formats::folder_lock::{FolderLock, LockOwner};
use fisao_formats::run_folder::RunFolder;

use crate::reporter::Reporter;

/// Locks a folder, which is made if it is not there.
///
/// # Errors
/// Another process writes into it, or it cannot be made or written into.
pub fn lock(folder: &Path, reporter: &Reporter) -> Result<FolderLock, FormatError> {
    fs::create_dir_all(folder).map_err(|error| FormatError::io("create", folder, error))?;
    let (lock, before) = FolderLock::acquire(folder)?;
    tell(folder, before.as_ref(), reporter);
    Ok(lock)
}

/// Opens and locks the folder of a run that is resumed.
///
/// # Errors
/// It holds no run, or another process writes into it.
pub fn go_on(folder: &Path, reporter: &Reporter) -> Result<RunFolder, FormatError> {
    let (opened, before) = RunFolder::open_to_write(folder)?;
    tell(folder, before.as_ref(), reporter);
    Ok(opened)
}

fn tell(folder: &Path, before: Option<&LockOwner>, reporter: &Reporter) {
    if let Some(LockOwner { pid, .. }) = before {
        let folder = folder.display();
        reporter.note(format!(
            "{folder}: process {pid}, which wrote into it, has ended; its lock is taken over"
        ));
    }
}
