//! The cache of downloads, in the layout that Python's `huggingface_hub` uses:
//! `models--owner--name/{refs,blobs,snapshots}`, where a ref is a file that holds a commit, and a
//! snapshot a folder of links to blobs.

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};

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

    /// The model at a revision, as `hf-hub` names it.
    pub(super) fn repo(&self, revision: &str) -> Repo {
        let repository = self.id.repository().to_owned();
        Repo::with_revision(repository, RepoType::Model, revision.to_owned())
    }

    /// Folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        Cache::new(self.root.to_owned()).repo(self.repo(commit)).pointer_path(commit)
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

    /// Links a file of a commit to content that is there already, known by the Hub's name for it.
    /// Returns whether it could.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str, size: u64) -> bool {
        let blob = self.folder().join("blobs").join(etag);
        if !is_path_part(etag) || fs::metadata(&blob).map(|data| data.len()).ok() != Some(size) {
            return false;
        }
        let snapshot = self.snapshot(commit);
        let linked = fs::create_dir_all(&snapshot).is_ok()
            && symlink(&Path::new("../../blobs").join(etag), &snapshot.join(file));
        linked && snapshot.join(file).exists()
    }

    /// Removes a link that leads nowhere, which would be in the way of a new one.
    pub(super) fn unlink_dangling(&self, commit: &str, file: &str) {
        let path = self.snapshot(commit).join(file);
        if path.is_symlink() && !path.exists() {
            // If that fails, so does the download, and says why.
            let _ = fs::remove_file(path);
        }
    }

    /// Removes what arrived so far of a blob.
    pub(super) fn discard_part(&self, etag: &str) -> bool {
        let part = self.folder().join("blobs").join(etag).with_extension("part");
        fs::remove_file(part).is_ok()
    }

    fn folder(&self) -> PathBuf {
        self.root.join(self.repo(self.id.revision()).folder_name())
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> bool {
    std::os::unix::fs::symlink(target, link).is_ok()
}

/// Elsewhere links need rights that few accounts have; the file is downloaded again.
#[cfg(not(unix))]
fn symlink(_target: &Path, _link: &Path) -> bool {
    false
}
