//! What the environment says about the Hub, under the names that Python's `huggingface_hub` reads.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::FormatError;

const ENDPOINT: &str = "https://huggingface.co";
const PATIENCE: Duration = Duration::from_secs(30);
/// Nobody waits longer for a byte.
const LONGEST_PATIENCE: f64 = 3600.0;

/// Where the Hub and its cache are.
#[derive(Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// Folder of downloads, shared with Python: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, which is
    /// `~/.cache/huggingface` by default.
    pub cache: PathBuf,
    /// Address of the Hub, without a slash at its end: `HF_ENDPOINT`, else that of Hugging Face.
    pub endpoint: String,
    /// Access token: `HF_TOKEN`, else the content of `token` in `HF_HOME`.
    pub token: Option<String>,
    /// Whether the network is not to be used: `HF_HUB_OFFLINE` is `1`, `true`, `yes` or `on`.
    pub offline: bool,
    /// How long the Hub may take to be found, to accept a connection, to answer, and to send the next byte: the seconds of
    /// `HF_HUB_DOWNLOAD_TIMEOUT`, else 30.
    pub patience: Duration,
}

impl HubSettings {
    /// Reads the environment and the token file.
    ///
    /// # Errors
    /// The working folder, which a relative cache folder counts from, is gone.
    pub fn from_environment() -> Result<Self, FormatError> {
        Self::resolve(|name| env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn resolve(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, FormatError> {
        let text = |name: &str| variable(name)?.into_string().ok();
        let folder = |name: &str| variable(name).map(|path| from_home(Path::new(&path)));
        let home = folder("HF_HOME").unwrap_or_else(|| {
            let caches =
                folder("XDG_CACHE_HOME").unwrap_or_else(|| from_home(Path::new("~/.cache")));
            caches.join("huggingface")
        });
        let cache = folder("HF_HUB_CACHE")
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .unwrap_or_else(|| home.join("hub"));
        let token_file = folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok());
        let offline = text("HF_HUB_OFFLINE").or_else(|| text("TRANSFORMERS_OFFLINE"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Ok(Self {
            cache: std::path::absolute(&cache)
                .map_err(|error| FormatError::io("find", &cache, error))?,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: offline.is_some_and(|value| is_true(&value)),
            patience: text("HF_HUB_DOWNLOAD_TIMEOUT")
                .and_then(|text| seconds(&text))
                .unwrap_or(PATIENCE),
        })
    }
}

impl std::fmt::Debug for HubSettings {
    /// The token stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubSettings")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("patience", &self.patience)
            .finish()
    }
}

/// A path with `~` resolved, as Python resolves it.
fn from_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// A number of seconds that can be waited; anything else counts as not set.
fn seconds(value: &str) -> Option<Duration> {
    let seconds = value.trim().parse::<f64>().ok()?;
    (seconds > 0.0 && seconds <= LONGEST_PATIENCE).then(|| Duration::from_secs_f64(seconds))
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> HubSettings {
        let find = |name: &str| variables.iter().find(|(found, _)| *found == name);
        HubSettings::resolve(|name| find(name).map(|(_, value)| value.into())).unwrap()
    }

    #[test]
    fn cache_location_matches_huggingface_hub() {
        let cache = |variables: &[(&str, &str)]| of(variables).cache;
        let home = env::home_dir().unwrap();
        assert_eq!(cache(&[]), home.join(".cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/h/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
        assert_eq!(cache(&[("HF_HUB_CACHE", "~/c")]), home.join("c"));
        assert!(cache(&[("HF_HUB_CACHE", "c")]).is_absolute());
    }

    #[test]
    fn token_comes_from_the_variable_or_else_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = ("HF_HOME", folder.path().to_str().unwrap());
        assert_eq!(of(&[home]).token.as_deref(), Some("hf_file"));
        let settings = of(&[home, ("HF_TOKEN", " hf_variable ")]);
        assert_eq!(settings.token.as_deref(), Some("hf_variable"));
        assert!(!format!("{settings:?}").contains("hf_variable"));
        assert_eq!(of(&[("HF_HOME", "/nowhere")]).token, None);
    }

    #[test]
    fn offline_endpoint_and_timeout_match_huggingface_hub() {
        for (value, offline) in
            [("1", true), ("True", true), ("YES", true), ("on", true), ("0", false), ("no", false)]
        {
            assert_eq!(of(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
        assert!(of(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert_eq!(of(&[]).endpoint, "https://huggingface.co");
        assert_eq!(of(&[("HF_ENDPOINT", "http://localhost:1/")]).endpoint, "http://localhost:1");
        for (value, expected) in [("1.5", 1500), ("0", 30_000), ("NaN", 30_000), ("1e9", 30_000)] {
            let patience = of(&[("HF_HUB_DOWNLOAD_TIMEOUT", value)]).patience;
            assert_eq!(patience.as_millis(), expected, "{value}");
        }
    }
}
