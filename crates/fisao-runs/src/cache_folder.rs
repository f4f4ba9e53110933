//! Where the program keeps what it can make again.

use std::env;
use std::path::PathBuf;

/// Names the folder; else it is `fisao` in `XDG_CACHE_HOME`, which is `~/.cache` by default.
pub(crate) const FOLDER: &str = "FISAO_CACHE";

/// That folder; nothing where there is no home.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named(FOLDER).or_else(|| {
        let caches = named("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")))?;
        Some(caches.join("fisao"))
    })
}
