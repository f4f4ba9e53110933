//! Which model it is: by content, not by name.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fisao_formats::digest::{model_bytes, sha256_model};
use fisao_verifier::calibration::ModelIdentity;

use crate::reporter::Reporter;

/// From this size on reading a model takes long enough to be shown, bytes.
const LARGE: u64 = 1 << 30;

/// Where the content of a model can be looked up. Looking is put off until someone asks, as it reads every byte.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// In a folder that will still be there, with the digest once somebody asked.
    Folder(PathBuf, Arc<OnceLock<String>>),
    /// It has been looked up.
    Known(ModelIdentity),
}

impl Origin {
    pub(super) fn of(folder: &Path) -> Self {
        Self::Folder(folder.to_owned(), Arc::default())
    }

    /// What the model is called when it was given no other name.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Folder(folder, _) => folder.display().to_string(),
            Self::Known(identity) => identity.name.clone(),
        }
    }

    /// Looks the content up while its folder is there.
    pub(super) fn looked_up(&self, name: &str, reporter: &Reporter) -> anyhow::Result<Self> {
        Ok(Self::Known(self.identity(name, reporter)?))
    }

    /// The model's content, under a name.
    pub(super) fn identity(
        &self,
        name: &str,
        reporter: &Reporter,
    ) -> anyhow::Result<ModelIdentity> {
        let (folder, known) = match self {
            Self::Known(identity) => return Ok(identity.clone()),
            Self::Folder(folder, known) => (folder, known),
        };
        let name = name.to_owned();
        if let Some(sha256) = known.get() {
            return Ok(ModelIdentity { name, sha256: sha256.clone() });
        }
        let bytes = model_bytes(folder)?;
        let progress =
            (bytes >= LARGE).then(|| reporter.transfer(&format!("digest of {name}"), bytes));
        let advance = |bytes| {
            if let Some(progress) = &progress {
                progress.advance(bytes);
            }
        };
        let sha256 = sha256_model(folder, &advance)?;
        if let Some(progress) = progress {
            progress.finish();
        }
        Ok(ModelIdentity { name, sha256: known.get_or_init(|| sha256).clone() })
    }
}
