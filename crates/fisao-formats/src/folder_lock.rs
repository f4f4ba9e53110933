//! A folder that one process writes into at a time.
//!
//! The lock is a file in the folder, locked as files are and with its owner's process id and host written into it. Where that
//! process was killed, the operating system has let go of the file, and whoever comes next on the same host takes it over. On
//! another host nothing can be known about it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::FormatError;

/// Name of the lock file in its folder.
pub const LOCK_FILE: &str = ".fisao.lock";

pub use crate::lock_owner::LockOwner;

/// A folder that this process alone writes into, until this is dropped.
#[derive(Debug)]
pub struct FolderLock {
    path: PathBuf,
    _file: File,
}

impl FolderLock {
    /// Locks a folder, which must be there. Returns the lock, and the owner that ended without releasing it, if there was one.
    ///
    /// # Errors
    /// [`FormatError::Locked`] when another process holds the lock, or one on another host did not release it; or the lock
    /// file cannot be written.
    pub fn acquire(folder: &Path) -> Result<(Self, Option<LockOwner>), FormatError> {
        Self::acquire_at(folder.join(LOCK_FILE), folder)
    }

    /// Locks a file that is to be written, by a lock file beside it.
    ///
    /// # Errors
    /// See [`acquire`](Self::acquire).
    pub fn acquire_file(file: &Path) -> Result<(Self, Option<LockOwner>), FormatError> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        Self::acquire_at(file.with_file_name(name), file)
    }

    /// By the lock file at `path`, for what an error calls `locked`.
    fn acquire_at(path: PathBuf, locked: &Path) -> Result<(Self, Option<LockOwner>), FormatError> {
        let failed = |error| FormatError::io("lock", &path, error);
        loop {
            let mut options = OpenOptions::new();
            let mut file = options
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .map_err(failed)?;
            let is_held = match file.try_lock() {
                Ok(()) => Some(false),
                Err(TryLockError::WouldBlock) => Some(true),
                // A file system without locks: what is written in the file has to do.
                Err(TryLockError::Error(_)) => None,
            };
            if is_held == Some(false) && !is_at(&file, &path) {
                // The owner removed the file after we had opened it.
                continue;
            }
            let before = owner(&mut file);
            let held = |owner| FormatError::Locked {
                locked: locked.to_owned(),
                owner,
                file: path.clone(),
            };
            if is_held == Some(true) {
                return Err(held(before));
            }
            let here = LockOwner { pid: std::process::id(), host: host() };
            if let Some(other) = &before {
                let alive = is_held.is_none() && other.pid != here.pid && is_alive(other.pid);
                if other.host != here.host || alive {
                    return Err(held(before));
                }
            }
            let text = serde_json::to_string(&here).map_err(|error| failed(error.into()))?;
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(text.as_bytes()))
                .map_err(failed)?;
            return Ok((Self { path, _file: file }, before));
        }
    }

    /// The same lock after its folder was renamed.
    pub(crate) fn moved_to(mut self, folder: &Path) -> Self {
        self.path = folder.join(LOCK_FILE);
        self
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // One that stays is taken over, as its owner no longer holds it.
        let _ = fs::remove_file(&self.path);
    }
}

/// What the file says of its owner; a file that was just made, or cut off as it was written, says nothing.
fn owner(file: &mut File) -> Option<LockOwner> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Whether an open file is still the one under this path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity =
        |known: io::Result<fs::Metadata>| known.ok().map(|known| (known.dev(), known.ino()));
    identity(file.metadata()) == identity(fs::metadata(path))
}

/// Elsewhere a file that is open cannot be removed.
#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    let there: io::Result<fs::Metadata> = fs::metadata(path);
    there.is_ok()
}

#[cfg(unix)]
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // One that we may not signal is alive, too.
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
fn is_alive(_pid: u32) -> bool {
    true
}

/// Name of this host.
#[cfg(unix)]
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn host() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, pid: u32, host: &str) {
        let owner = LockOwner { pid, host: host.to_owned() };
        fs::write(folder.join(LOCK_FILE), serde_json::to_string(&owner).unwrap()).unwrap();
    }

    #[test]
    fn folder_lock_is_exclusive_until_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, before) = FolderLock::acquire(folder.path()).unwrap();
        assert_eq!(before, None);
        let error = FolderLock::acquire(folder.path()).unwrap_err();
        let text = format!("{error} / {}", error.hint().unwrap());
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        drop(lock);
        assert!(!folder.path().join(LOCK_FILE).exists());
        FolderLock::acquire(folder.path()).unwrap();
    }

    #[test]
    fn lock_of_a_dead_process_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 4_000_000, &host());
        let (_lock, before) = FolderLock::acquire(folder.path()).unwrap();
        assert_eq!(before.unwrap().pid, 4_000_000);
        // A file that was cut off as it was written names nobody.
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join(LOCK_FILE), "{\"pid\":").unwrap();
        assert_eq!(FolderLock::acquire(other.path()).unwrap().1, None);
    }

    #[test]
    fn lock_held_on_another_host_is_respected() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 7, "elsewhere");
        let error = FolderLock::acquire(folder.path()).unwrap_err();
        assert!(error.to_string().contains("process 7 on elsewhere"), "{error}");
        assert!(error.hint().unwrap().contains(LOCK_FILE), "{error}");
        assert!(folder.path().join(LOCK_FILE).exists());
    }

    #[cfg(unix)]
    #[test]
    fn is_alive_distinguishes_running_and_absent_processes() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(4_000_000));
    }
}
