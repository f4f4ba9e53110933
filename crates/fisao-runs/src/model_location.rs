//! Where a model is, as the command line says it: a folder, or a name on the Hugging Face Hub.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fisao_formats::checkpoint::Checkpoint;
use fisao_formats::hub::{self, HubError, HubEvent, HubId, HubSettings, Wanted};
use fisao_formats::run_folder::RunFolder;
use fisao_formats::{FormatError, adapter};

use serde::{Deserialize, Serialize};

use crate::failure::Refusal;
use crate::reporter::{PhaseProgress, Reporter};

/// A folder, or the name of a model on the Hub.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelLocation(OsString);

/// What a location has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A model that describes images.
    Model,
    /// A model that compares images and text.
    Verifier,
    /// A LoRA adapter.
    Adapter,
    /// Any model that is understood.
    Any,
}

/// A model's folder, and what to call it.
#[derive(Clone, Debug)]
pub struct LocatedModel {
    /// Where its files are.
    pub folder: PathBuf,
    /// What was asked for.
    pub name: String,
}

impl From<OsString> for ModelLocation {
    fn from(text: OsString) -> Self {
        Self(text.to_str().and_then(id_of_url).map_or(text, OsString::from))
    }
}

/// The name in the address of a model's page on the Hub, such as `https://huggingface.co/owner/name/tree/main`.
fn id_of_url(text: &str) -> Option<String> {
    const HOSTS: [&str; 2] = ["huggingface.co/", "hf.co/"];
    let address = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let address = address.strip_prefix("www.").unwrap_or(address);
    let path = HOSTS.iter().find_map(|host| address.strip_prefix(host))?;
    let path = path.split(['?', '#']).next().unwrap_or(path).trim_end_matches('/');
    let mut segments = path.splitn(4, '/');
    let (owner, name) = (segments.next()?, segments.next()?);
    if matches!(owner, "datasets" | "spaces" | "api" | "collections" | "papers") {
        return None;
    }
    match (segments.next(), segments.next()) {
        (None, _) => Some(format!("{owner}/{name}")),
        (Some("tree" | "commit" | "commits" | "blob" | "resolve" | "raw"), Some(rest)) => {
            // A revision like `refs/pr/3` is written with %2F there.
            let revision = rest.split('/').next().unwrap_or(rest);
            let revision = revision.replace("%2F", "/").replace("%2f", "/");
            Some(format!("{owner}/{name}@{revision}"))
        }
        _ => None,
    }
}

/// The adapter within a run's folder, where the folder itself holds none.
fn adapter_within(folder: PathBuf, reporter: &Reporter) -> PathBuf {
    let config = |folder: &Path| folder.join(adapter::ADAPTER_CONFIG_FILE).is_file();
    let inner = folder.join(RunFolder::ADAPTER);
    if config(&folder) || !config(&inner) {
        return folder;
    }
    reporter.note(format_args!("{}: a run, of which the adapter is used", folder.display()));
    inner
}

/// As it was written.
impl std::fmt::Display for ModelLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.to_string_lossy())
    }
}

impl ModelLocation {
    /// Finds the folder; downloads a model that is named by its id, as far as it is not in the cache.
    pub fn locate(&self, role: Role, reporter: &Reporter) -> anyhow::Result<LocatedModel> {
        let name = self.0.to_string_lossy().into_owned();
        let folder = match self.id()? {
            None if role == Role::Adapter => adapter_within(PathBuf::from(&self.0), reporter),
            None => PathBuf::from(&self.0),
            Some(id) => {
                reporter
                    .note(format_args!("{id}: no such folder, so a name on the Hugging Face Hub"));
                download(&id, role, reporter)?
            }
        };
        Ok(LocatedModel { folder, name })
    }

    /// What kind of model is there, of which no weights are downloaded for that.
    pub fn checkpoint(&self, reporter: &Reporter) -> anyhow::Result<Checkpoint> {
        let folder = match self.id()? {
            None => PathBuf::from(&self.0),
            Some(id) => fetch(&id, Wanted::Configuration, reporter)?,
        };
        Ok(Checkpoint::open(&folder)?)
    }

    /// What still leads there from another folder: an absolute path, or the name on the Hub.
    pub fn lasting(&self) -> anyhow::Result<String> {
        let path = match self.id()? {
            Some(_) => PathBuf::from(&self.0),
            None => std::path::absolute(Path::new(&self.0))
                .with_context(|| format!("cannot resolve {self}"))?,
        };
        match path.into_os_string().into_string() {
            Ok(text) => Ok(text),
            Err(path) => {
                let path = Path::new(&path).display();
                bail!(Refusal::new(format!("{path} cannot be noted down: its name is not UTF-8")))
            }
        }
    }

    /// The id, unless the text is a folder that exists or plainly a path.
    fn id(&self) -> Result<Option<HubId>, HubError> {
        let path = Path::new(&self.0);
        let Some(text) = path.to_str() else { return Ok(None) };
        let name = text.split('@').next().unwrap_or(text);
        let is_path = path.is_absolute()
            || name.starts_with(['.', '~'])
            || name.ends_with('/')
            || name.contains('\\')
            || name.matches('/').count() != 1;
        if is_path || path.exists() { Ok(None) } else { text.parse().map(Some) }
    }
}

fn download(id: &HubId, role: Role, reporter: &Reporter) -> anyhow::Result<PathBuf> {
    let check = |checkpoint: &Checkpoint| check_role(role, checkpoint);
    let wanted = match role {
        Role::Adapter => Wanted::Adapter,
        Role::Model | Role::Verifier | Role::Any => Wanted::Checkpoint(&check),
    };
    fetch(id, wanted, reporter)
}

fn fetch(id: &HubId, wanted: Wanted<'_>, reporter: &Reporter) -> anyhow::Result<PathBuf> {
    let settings = HubSettings::from_environment()?;
    let mut progress: Option<PhaseProgress> = None;
    let folder = hub::fetch(id, wanted, &settings, &mut |event| match event {
        HubEvent::CacheUsed { reason } => {
            reporter.note(format_args!("{reason}: using the copy in the cache"));
        }
        HubEvent::Started { bytes, weights, .. } => {
            let name = if weights { "downloading weights" } else { "downloading settings" };
            progress = Some(reporter.transfer(name, bytes));
        }
        HubEvent::Waiting { file } => {
            reporter.note(format_args!("waiting for another process to download {file}"));
        }
        HubEvent::Advanced { file, done, total } => {
            if let Some(progress) = &progress {
                progress.message(file);
                progress.reach(done, total);
            }
        }
        HubEvent::Finished => {
            if let Some(progress) = progress.take() {
                progress.finish();
            }
        }
    })?;
    Ok(folder)
}

/// Refuses a model of another kind before its weights are downloaded.
fn check_role(role: Role, checkpoint: &Checkpoint) -> Result<(), FormatError> {
    match role {
        Role::Model => checkpoint.vision_language_config().map(drop),
        Role::Verifier => checkpoint.contrastive_vision().map(drop),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Result<Option<HubId>, HubError> {
        ModelLocation::from(OsString::from(text)).id()
    }

    #[test]
    fn hub_urls_are_converted_to_ids() {
        for (address, name) in [
            ("https://huggingface.co/llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf"),
            ("http://www.huggingface.co/owner/name/", "owner/name"),
            ("https://hf.co/owner/name/tree/main", "owner/name@main"),
            ("https://huggingface.co/owner/name/tree/refs%2Fpr%2F3?x=1", "owner/name@refs/pr/3"),
            ("https://huggingface.co/owner/name/blob/v1/config.json", "owner/name@v1"),
            ("https://huggingface.co/owner/name/resolve/v1/config.json", "owner/name@v1"),
            ("https://huggingface.co/owner/name/raw/refs%2fpr%2f3/a", "owner/name@refs/pr/3"),
            ("https://huggingface.co/datasets/a/b", "https://huggingface.co/datasets/a/b"),
            ("https://huggingface.co/a/b/discussions", "https://huggingface.co/a/b/discussions"),
            ("https://example.com/owner/name", "https://example.com/owner/name"),
            ("owner/name", "owner/name"),
        ] {
            assert_eq!(ModelLocation::from(OsString::from(address)).to_string(), name);
        }
    }

    #[test]
    fn run_folder_resolves_to_its_adapter() {
        let root = tempfile::tempdir().unwrap();
        let quiet = Reporter::silent();
        let within = || adapter_within(root.path().to_owned(), &quiet);
        assert_eq!(within(), root.path());
        let inner = root.path().join(RunFolder::ADAPTER);
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join(adapter::ADAPTER_CONFIG_FILE), "{}").unwrap();
        assert_eq!(within(), inner);
        std::fs::write(root.path().join(adapter::ADAPTER_CONFIG_FILE), "{}").unwrap();
        assert_eq!(within(), root.path());
    }

    #[test]
    fn paths_and_hub_ids_are_distinguished() {
        for path in
            ["llava", "./a/b", "../a", "/a/b", "~/a", "a/b/c", "models/", "a\\b", "src/lib.rs"]
        {
            assert!(id(path).unwrap().is_none(), "{path}");
        }
        for text in ["owner/name", "owner/name@main", "owner/name@refs/pr/3"] {
            assert!(id(text).unwrap().is_some(), "{text}");
        }
        let error = id("owner/na me").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`owner/na me` is neither a folder nor the name of a model on the Hugging Face Hub"
        );
    }
}
