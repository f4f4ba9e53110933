//! Text embeddings of whole vocabularies, kept between runs.
//!
//! A file belongs to one verifier, one set of templates, one list of names, one device and one version of FiSAO, so that what an
//! alignment reads is, to the bit, what it would have computed. Caching never fails a run: a folder that cannot be written
//! costs time, no more.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fisao_align::mentions::MentionScorer;
use fisao_formats::digest::sha256_parts;
use fisao_formats::named_vectors::{read_named_vectors, write_named_vectors};
use fisao_models::contrastive::ContrastiveModel;
use fisao_models::text::Tokenizer;
use fisao_verifier::mentions::ObjectVocabulary;
use fisao_verifier::scorer::Verifier;

use crate::bundle::LoadedVerifier;
use crate::cache_folder::{FOLDER, cache_folder};
use crate::reporter::Reporter;
use crate::vocabulary::Vocabulary;

/// What takes less time to embed is not worth a file.
const WORTH_KEEPING: Duration = Duration::from_secs(1);
/// Names embedded between two steps of the progress bar.
const STEP: usize = 64;
/// Groups of names, and names of a group, that a warning shows.
const SHOWN: usize = 6;

/// Finds and scores what a vocabulary names, with every name [learned](learn).
///
/// # Errors
/// A name cannot be scored.
pub fn scorer(
    loaded: &LoadedVerifier,
    tokenizer: Arc<dyn Tokenizer>,
    words: &Vocabulary,
    reporter: &Reporter,
) -> anyhow::Result<MentionScorer> {
    let vocabulary = words.for_mentions()?;
    let mut verifier = loaded.verifier.clone();
    learn(loaded, &mut verifier, &vocabulary, reporter)?;
    Ok(MentionScorer { tokenizer, vocabulary, verifier })
}

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
    if verifier.decoder().is_some() {
        return look_up_tokens(verifier, vocabulary, reporter);
    }
    let file = file(loaded, &names, reporter)?;
    if recall(verifier, &names, file.as_ref(), reporter) {
        return Ok(verifier.learn(vocabulary)?);
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
    Ok(verifier.learn(vocabulary)?)
}

/// Looks up the first token of every name for a decoder, which takes next to no time, and warns of objects that it cannot tell apart.
///
/// # Errors
/// A name cannot be scored.
pub fn look_up_tokens(
    verifier: &mut Verifier,
    vocabulary: &ObjectVocabulary,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    verifier.embed_names(vocabulary.forms().map(|(form, _)| form))?;
    let categories: BTreeMap<&str, usize> = vocabulary.forms().collect();
    let groups = verifier.names_of_one_token().into_iter().filter(|names| {
        // Names of one object may well begin alike.
        let mut of_names = names.iter().map(|name| categories.get(name));
        let first = of_names.next();
        of_names.any(|category| Some(category) != first)
    });
    let groups: Vec<String> = groups.map(|names| named(&names)).collect();
    if groups.is_empty() {
        return Ok(());
    }
    let more = match groups.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more such groups"),
    };
    let shown = groups[..groups.len().min(SHOWN)].join("; ");
    reporter.warn(
        format!("names of different objects begin with the same token, by which the decoder reads them: {shown}{more}"),
        Some("their scores are the same; a contrastive verifier tells them apart"),
    );
    Ok(())
}

/// Names of a group, as many as are worth showing.
fn named(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("'{name}'")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Reads what an earlier run kept, if it did; computes nothing.
pub fn recall_only(
    loaded: &LoadedVerifier,
    verifier: &mut Verifier,
    vocabulary: &ObjectVocabulary,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    if verifier.decoder().is_some() {
        return Ok(());
    }
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
    let Some(width) = verifier.contrastive().map(ContrastiveModel::dim) else { return false };
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
    Some(cache_folder()?.join("text-embeddings"))
}

fn file(
    loaded: &LoadedVerifier,
    names: &[&str],
    reporter: &Reporter,
) -> anyhow::Result<Option<PathBuf>> {
    let Some(folder) = folder() else { return Ok(None) };
    let identity = loaded.identity(reporter)?;
    let templates = serde_json::to_vec(&identity.templates)?;
    let device = format!("{:?}", loaded.verifier.device());
    let version = env!("CARGO_PKG_VERSION").as_bytes();
    let parts = [identity.model.sha256.as_bytes(), &templates, device.as_bytes(), version];
    let names = names.iter().map(|name| name.as_bytes());
    let key = sha256_parts(parts.into_iter().chain(names));
    Ok(Some(folder.join(format!("{key}.safetensors"))))
}
