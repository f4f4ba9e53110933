//! Text embeddings of whole vocabularies, kept between runs.
//!
//! A file belongs to one verifier, one set of templates, one list of names, one device and one version of FiSAO, so that what an
//! alignment reads is, to the bit, what it would have computed. Caching never fails a run: a folder that cannot be written
//! costs time, no more.

use std::env;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fisao_formats::digest::sha256_parts;
use fisao_formats::named_vectors::{read_named_vectors, write_named_vectors};
use fisao_verifier::mentions::ObjectVocabulary;
use fisao_verifier::scorer::Verifier;

use crate::bundle::LoadedVerifier;
use crate::reporter::Reporter;

/// Folder of the cache; else `fisao` in `XDG_CACHE_HOME`, which is `~/.cache` by default.
const FOLDER: &str = "FISAO_CACHE";
/// What takes less time to embed is not worth a file.
const WORTH_KEEPING: Duration = Duration::from_secs(1);
/// Names embedded between two steps of the progress bar.
const STEP: usize = 64;

/// Embeds every name of a vocabulary, or reads the embeddings of an earlier run.
///
/// # Errors
/// A name cannot be scored.
pub fn learn(
    loaded: &LoadedVerifier,
    verifier: &mut Verifier,
    vocabulary: &ObjectVocabulary,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let names: Vec<&str> = vocabulary.forms().map(|(form, _)| form).collect();
    let file = file(loaded, &names, reporter)?;
    if recall(verifier, &names, file.as_ref(), reporter) {
        return Ok(());
    }
    let started = Instant::now();
    let progress = reporter.phase("embedding names", names.len() as u64);
    for part in names.chunks(STEP) {
        verifier.embed_names(part.iter().copied())?;
        progress.advance(part.len() as u64);
    }
    progress.finish();
    if let Some(file) = file.filter(|_| started.elapsed() >= WORTH_KEEPING) {
        let kept = file
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(write_named_vectors(&file, verifier.embeddings())?));
        if let Err(error) = kept {
            let hint = format!("set {FOLDER} to a folder that can be written");
            reporter.warn(format!("text embeddings cannot be kept: {error}"), Some(&hint));
        }
    }
    Ok(())
}

/// Reads what an earlier run kept, if it did; computes nothing.
pub fn recall_only(
    loaded: &LoadedVerifier,
    verifier: &mut Verifier,
    vocabulary: &ObjectVocabulary,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    // Looking for a file takes a digest of the whole model, which pays only where there may be one.
    if folder().is_some_and(|folder| folder.is_dir()) {
        let names: Vec<&str> = vocabulary.forms().map(|(form, _)| form).collect();
        let file = file(loaded, &names, reporter)?;
        recall(verifier, &names, file.as_ref(), reporter);
    }
    Ok(())
}

/// Whether the verifier knows every name now.
fn recall(
    verifier: &mut Verifier,
    names: &[&str],
    file: Option<&PathBuf>,
    reporter: &Reporter,
) -> bool {
    let Some(file) = file.filter(|file| file.is_file()) else { return false };
    let width = verifier.model().dim();
    match read_named_vectors(file) {
        Ok(vectors) if vectors.iter().all(|(_, vector)| vector.len() == width) => {
            verifier.insert_embeddings(vectors);
            names.iter().all(|name| verifier.embeddings().contains_key(*name))
        }
        Ok(_) => false,
        Err(error) => {
            reporter.warn(error, Some("the names are embedded again"));
            false
        }
    }
}

fn folder() -> Option<PathBuf> {
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = named(FOLDER).or_else(|| {
        let caches = named("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")))?;
        Some(caches.join("fisao"))
    })?;
    Some(folder.join("text-embeddings"))
}

fn file(
    loaded: &LoadedVerifier,
    names: &[&str],
    reporter: &Reporter,
) -> anyhow::Result<Option<PathBuf>> {
    let Some(folder) = folder() else { return Ok(None) };
    let identity = loaded.identity(reporter)?;
    let templates = serde_json::to_vec(&identity.templates)?;
    let device = format!("{:?}", loaded.verifier.model().vision().device());
    let version = env!("CARGO_PKG_VERSION").as_bytes();
    let parts = [identity.model.sha256.as_bytes(), &templates, device.as_bytes(), version];
    let names = names.iter().map(|name| name.as_bytes());
    let key = sha256_parts(parts.into_iter().chain(names));
    Ok(Some(folder.join(format!("{key}.safetensors"))))
}
