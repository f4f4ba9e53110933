//! The cache of downloads, in the layout that Python's `huggingface_hub` uses:
//! `models--owner--name/{refs,blobs,snapshots}`, where a ref is a file that holds a commit, and a
//! snapshot a folder of links to blobs.

use std::fs;
use std::path::{Path, PathBuf};

use super::HubId;
use super::id::is_path_part;
use crate::FormatError;

/// One model's part of the cache.
#[derive(Debug)]
pub(super) struct ModelCache<'a> {
    root: &'a Path,
    id: &'a HubId,
}

impl<'a> ModelCache<'a> {
    pub(super) fn new(root: &'a Path, id: &'a HubId) -> Self {
        Self { root, id }
    }

    /// Folder of a commit's files. `commit` is a plain name.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// Where content lies, by the Hub's name for it, which is a plain name.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder().join("blobs").join(etag)
    }

    /// The commit that a revision was when it was last asked for.
    pub(super) fn commit(&self) -> Option<String> {
        let revision = self.id.revision();
        let reference = self.folder().join("refs").join(revision);
        match fs::read_to_string(reference) {
            Ok(commit) => Some(commit.trim().to_owned()).filter(|commit| is_path_part(commit)),
            // A commit is its own name.
            Err(_) => self.snapshot(revision).is_dir().then(|| revision.to_owned()),
        }
    }

    /// Notes that the revision is this commit.
    pub(super) fn remember(&self, commit: &str) -> Result<(), FormatError> {
        if commit == self.id.revision() || self.commit().as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder().join("refs").join(self.id.revision());
        crate::documents::write_bytes(&path, commit.as_bytes())
    }

    /// Links a file of a commit to content that is there already, known by the Hub's name for it. Returns whether it could.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> bool {
        let path = self.snapshot(commit).join(file);
        if !is_path_part(etag) || !self.blob(etag).is_file() {
            return false;
        }
        if let Some(folder) = path.parent() {
            // If that fails, so does the link.
            let _ = fs::create_dir_all(folder);
        }
        // Another process may have made it in the meantime.
        if !path.exists() {
            link(&self.blob(etag), etag, &path, Path::new(file).components().count() - 1);
        }
        path.exists()
    }

    /// Removes a link that leads nowhere, which would be in the way of a new one.
    pub(super) fn unlink_dangling(&self, commit: &str, file: &str) {
        let path = self.snapshot(commit).join(file);
        if path.is_symlink() && !path.exists() {
            // If that fails, so does the download, and says why.
            let _ = fs::remove_file(path);
        }
    }

    fn folder(&self) -> PathBuf {
        self.root.join(format!("models--{}", self.id.repository().replace('/', "--")))
    }
}

/// `depth` is the number of folders around the file in its commit.
#[cfg(unix)]
fn link(_blob: &Path, etag: &str, path: &Path, depth: usize) {
    let blobs = format!("{}../../blobs", "../".repeat(depth));
    // If that fails, the file is not there, which is what counts.
    let _ = std::os::unix::fs::symlink(Path::new(&blobs).join(etag), path);
}

/// Elsewhere links need rights that few accounts have.
#[cfg(not(unix))]
fn link(blob: &Path, _etag: &str, path: &Path, _depth: usize) {
    if fs::hard_link(blob, path).is_err() {
        let _ = fs::copy(blob, path);
    }
}
