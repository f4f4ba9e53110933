//! Which model it is: by content, not by name.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fisao_formats::FormatError;
use fisao_formats::digest::{model_bytes, sha256_model, sha256_model_sampled};
use fisao_verifier::calibration::ModelIdentity;
use tempfile::TempDir;

use crate::reporter::Reporter;

/// From this size on reading a model takes long enough to be shown, bytes.
const LARGE: u64 = 1 << 30;

/// Where the content of a model can be looked up. Looking is put off until someone asks, as it reads every byte, and done
/// once.
#[derive(Clone, Debug)]
pub struct Origin {
    folder: PathBuf,
    sha256: Arc<OnceLock<String>>,
    /// Of an embedded model: keeps its temporary folder for as long as someone may ask.
    unpacked: Option<Arc<TempDir>>,
}

impl Origin {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), sha256: Arc::default(), unpacked: None }
    }

    /// The same within a temporary folder.
    pub(super) fn unpacked(self, folder: &Arc<TempDir>) -> Self {
        Self { unpacked: Some(Arc::clone(folder)), ..self }
    }

    /// Whether the model is one of those that come with the command.
    pub(super) fn is_embedded(&self) -> bool {
        self.unpacked.is_some()
    }

    /// The model's content, under a name, or under its folder's where it was given none.
    pub(super) fn identity(
        &self,
        name: Option<&str>,
        reporter: &Reporter,
    ) -> anyhow::Result<ModelIdentity> {
        let name = name.map_or_else(|| self.folder.display().to_string(), str::to_owned);
        let sha256 = if let Some(known) = self.sha256.get() {
            known.clone()
        } else {
            let found = self.lookup(&name, reporter)?;
            self.sha256.get_or_init(|| found).clone()
        };
        Ok(ModelIdentity { name, sha256 })
    }

    /// The model's content as far as [a sample](sha256_model_sampled) tells it.
    pub(super) fn sample(&self) -> Result<String, FormatError> {
        sha256_model_sampled(&self.folder)
    }

    fn lookup(&self, name: &str, reporter: &Reporter) -> anyhow::Result<String> {
        let bytes = model_bytes(&self.folder)?;
        let progress =
            (bytes >= LARGE).then(|| reporter.transfer(&format!("digest of {name}"), bytes));
        let advance = |bytes| {
            if let Some(progress) = &progress {
                progress.advance(bytes);
            }
        };
        let sha256 = sha256_model(&self.folder, &advance)?;
        if let Some(progress) = progress {
            progress.finish();
        }
        Ok(sha256)
    }
}
