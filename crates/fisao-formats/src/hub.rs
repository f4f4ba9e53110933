//! Models by their name on the Hugging Face Hub: what is missing is downloaded into the cache that
//! Python's `huggingface_hub` uses too, and a folder of that cache is what comes back.
//!
//! This is the only module that uses a network. It asks for one listing each time, so that a model
//! that changed on the Hub is noticed; content that is there already is not downloaded again. Without
//! a network, a complete copy in the cache does.

mod cache;
mod error;
mod id;
mod remote;
mod settings;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use error::HubError;
pub use id::HubId;
pub use settings::HubSettings;

use self::cache::ModelCache;
use self::id::is_path_part;
use self::remote::{ListedFile, Listing, Remote, Step};
use crate::FormatError;
use crate::adapter::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE};
use crate::checkpoint::{CONFIG_FILE, Checkpoint, FamilyFormat, TOKENIZER_FILE};
use crate::weights::{INDEX_FILE, PICKLES, SHARD_LIST, ShardIndex, WEIGHTS_FILE};

/// What a checkpoint consists of beside its weights; not every checkpoint has all of them.
const SETTINGS_FILES: [&str; 10] = [
    CONFIG_FILE,
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
];
/// Of these, one tells how images are prepared.
const PROCESSOR_FILES: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];
const PROCESSORS: &str = "preprocessor_config.json or processor_config.json";
const WEIGHTS: &str = "model.safetensors or model.safetensors.index.json";

/// What a name is expected to stand for.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// A model, if this check of its configuration passes; it runs before the weights are
    /// downloaded.
    Checkpoint(&'a dyn Fn(&Checkpoint) -> Result<(), FormatError>),
    /// The settings of a model without its weights; the cache does not call the model complete.
    Configuration,
    /// A LoRA adapter in PEFT's layout.
    Adapter,
}

/// One thing to tell whoever waits for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubEvent<'a> {
    /// The Hub could not be asked, so the copy in the cache has to do.
    CacheUsed {
        /// Why.
        reason: &'a str,
    },
    /// Files are about to be downloaded.
    Started {
        /// How many.
        files: usize,
        /// Bytes of all of them, as far as the Hub says; 0 where it does not.
        bytes: u64,
        /// Whether they are the weights.
        weights: bool,
    },
    /// Another process is downloading this file; it is waited for.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// More has arrived.
    Advanced {
        /// The file.
        file: &'a str,
        /// Bytes that are there now, of all files of this part.
        done: u64,
        /// Bytes of all files of this part, as far as known.
        total: u64,
    },
    /// All of these files are there.
    Finished,
}

/// Brings a model of the Hub into the cache, as far as it is not there; returns its folder.
///
/// # Errors
/// There is no such model, or we may not have it; it is not what is wanted; neither the Hub nor the
/// cache can provide it; it cannot be written.
pub fn fetch(
    id: &HubId,
    wanted: Wanted<'_>,
    settings: &HubSettings,
    report: &mut dyn FnMut(HubEvent<'_>),
) -> Result<PathBuf, HubError> {
    let cache = ModelCache::new(&settings.cache, id);
    if settings.offline {
        return cached(&cache, wanted)?.map_err(|missing| HubError::Offline {
            id: id.clone(),
            cache: settings.cache.clone(),
            missing,
        });
    }
    let remote = Remote::new(settings, id);
    let listing = match remote.listing() {
        Ok(listing) => listing,
        Err(error @ (HubError::Unreachable { .. } | HubError::Server { .. })) => {
            return match cached(&cache, wanted)? {
                Ok(folder) => {
                    report(HubEvent::CacheUsed { reason: &error.to_string() });
                    Ok(folder)
                }
                Err(missing) => Err(error.lacking(missing)),
            };
        }
        Err(error) => return Err(error),
    };
    let mut fetching = Fetching { id, cache: &cache, remote: &remote, listing: &listing, report };
    let folder = match wanted {
        Wanted::Checkpoint(accept) => fetching.checkpoint(accept)?,
        Wanted::Configuration => return fetching.configuration(),
        Wanted::Adapter => fetching.adapter()?,
    };
    // Only now: a download that stops leaves the revision at the commit that is complete.
    cache.remember(&listing.commit)?;
    Ok(folder)
}

/// The folder of a complete copy in the cache, or else the file that it lacks.
fn cached(cache: &ModelCache<'_>, wanted: Wanted<'_>) -> Result<Result<PathBuf, String>, HubError> {
    let first = match wanted {
        Wanted::Checkpoint(_) | Wanted::Configuration => CONFIG_FILE,
        Wanted::Adapter => ADAPTER_CONFIG_FILE,
    };
    let Some(commit) = cache.commit() else { return Ok(Err(first.to_owned())) };
    let folder = cache.snapshot(&commit);
    let lacks = |name: &str| !folder.join(name).exists();
    let mut needed = vec![first.to_owned()];
    match wanted {
        Wanted::Configuration => {}
        Wanted::Adapter => needed.push(ADAPTER_WEIGHTS_FILE.to_owned()),
        Wanted::Checkpoint(_) => {
            if PROCESSOR_FILES.iter().all(|name| lacks(name)) {
                needed.push(PROCESSORS.to_owned());
            }
            needed.push(TOKENIZER_FILE.to_owned());
            if let Ok(checkpoint) = Checkpoint::open(&folder) {
                needed.extend(checkpoint.instruction_tokenizer_file());
            }
            if !lacks(WEIGHTS_FILE) || lacks(INDEX_FILE) {
                needed.push(WEIGHTS_FILE.to_owned());
            } else {
                needed.extend(shards(&folder)?);
            }
        }
    }
    Ok(match needed.into_iter().find(|name| lacks(name)) {
        None => Ok(folder),
        Some(missing) => Err(missing),
    })
}

/// The files that the list of shards names.
fn shards(folder: &Path) -> Result<BTreeSet<String>, FormatError> {
    let path = folder.join(INDEX_FILE);
    let index = ShardIndex::read(&path)?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    // The names become paths in the cache and parts of addresses.
    match names.iter().find(|name| !is_path_part(name) || !name.ends_with(".safetensors")) {
        None => Ok(names),
        Some(name) => Err(FormatError::Malformed {
            what: SHARD_LIST,
            path,
            reason: format!("`{name}` is not the name of a safetensors file"),
        }),
    }
}

/// One model on its way into the cache.
struct Fetching<'a> {
    id: &'a HubId,
    cache: &'a ModelCache<'a>,
    remote: &'a Remote<'a>,
    listing: &'a Listing,
    report: &'a mut dyn FnMut(HubEvent<'_>),
}

impl Fetching<'_> {
    /// Everything but the weights.
    fn configuration(&mut self) -> Result<PathBuf, HubError> {
        if !self.has(CONFIG_FILE) {
            let adapter = self.has(ADAPTER_CONFIG_FILE);
            let hint = adapter.then_some(
                "it is an adapter: give it with --adapter, and the model it was trained on with \
                 --model",
            );
            return Err(self.lacks(CONFIG_FILE, hint));
        }
        let own: Vec<String> = FamilyFormat::all_instruction_tokenizer_files().collect();
        let mut settings = SETTINGS_FILES.to_vec();
        settings.extend(own.iter().map(String::as_str));
        let sharded = !self.has(WEIGHTS_FILE) && self.has(INDEX_FILE);
        settings.extend(sharded.then_some(INDEX_FILE));
        self.bring(&settings, false)?;
        Ok(self.folder())
    }

    fn checkpoint(
        &mut self,
        accept: &dyn Fn(&Checkpoint) -> Result<(), FormatError>,
    ) -> Result<PathBuf, HubError> {
        let folder = self.configuration()?;
        let single = self.has(WEIGHTS_FILE);
        let sharded = !single && self.has(INDEX_FILE);
        let opened = Checkpoint::open(&folder)?;
        accept(&opened)?;
        if !self.has(TOKENIZER_FILE) {
            let hint = "make one with transformers: AutoTokenizer.from_pretrained(name)\
                        .save_pretrained(folder)";
            return Err(self.lacks(TOKENIZER_FILE, Some(hint)));
        }
        if let Some(file) = opened.instruction_tokenizer_file().filter(|file| !self.has(file)) {
            let hint = "make it with transformers: AutoProcessor.from_pretrained(name)\
                        .save_pretrained(folder)";
            return Err(self.lacks(&file, Some(hint)));
        }
        if !PROCESSOR_FILES.iter().any(|name| self.has(name)) {
            return Err(self.lacks(PROCESSORS, None));
        }
        if !single && !sharded {
            return Err(match PICKLES.iter().find(|name| self.has(name)) {
                Some(file) => self.pickle(file),
                None => self.lacks(WEIGHTS, None),
            });
        }
        if single {
            self.bring(&[WEIGHTS_FILE], true)?;
        } else {
            let names = shards(&folder)?;
            if let Some(name) = names.iter().find(|name| !self.has(name)) {
                return Err(self.lacks(name, None));
            }
            self.bring(&names.iter().map(String::as_str).collect::<Vec<_>>(), true)?;
        }
        Ok(folder)
    }

    fn adapter(&mut self) -> Result<PathBuf, HubError> {
        const PICKLE: &str = "adapter_model.bin";
        if !self.has(ADAPTER_CONFIG_FILE) {
            let hint = "an adapter is a LoRA in PEFT's layout";
            return Err(self.lacks(ADAPTER_CONFIG_FILE, Some(hint)));
        }
        if !self.has(ADAPTER_WEIGHTS_FILE) {
            return Err(if self.has(PICKLE) {
                self.pickle(PICKLE)
            } else {
                self.lacks(ADAPTER_WEIGHTS_FILE, None)
            });
        }
        self.bring(&[ADAPTER_CONFIG_FILE], false)?;
        self.bring(&[ADAPTER_WEIGHTS_FILE], true)?;
        Ok(self.folder())
    }

    /// Downloads what the Hub has of these files and the cache has not.
    fn bring(&mut self, names: &[&str], weights: bool) -> Result<(), HubError> {
        let files = names.iter().filter_map(|name| self.listing.file(name));
        let missing: Vec<&ListedFile> = files.filter(|file| self.is_missing(file)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let bytes = missing.iter().filter_map(|file| file.size).fold(0, u64::saturating_add);
        (self.report)(HubEvent::Started { files: missing.len(), bytes, weights });
        let mut before = 0_u64;
        for file in missing {
            let name = &file.name;
            let report = &mut *self.report;
            self.remote.download(
                self.cache,
                &self.listing.commit,
                file,
                &mut |step| match step {
                    Step::Waiting => report(HubEvent::Waiting { file: name }),
                    Step::At { done, total } => {
                        let done = before.saturating_add(done);
                        let total = bytes.max(before.saturating_add(total));
                        report(HubEvent::Advanced { file: name, done, total });
                    }
                },
            )?;
            let path = self.folder().join(name);
            before += path.metadata().map_err(|error| FormatError::io("read", &path, error))?.len();
        }
        (self.report)(HubEvent::Finished);
        Ok(())
    }

    /// Whether a file has to be downloaded. One whose content the cache knows from another commit is
    /// linked to that; an empty one says nothing, and cannot be asked for by ranges.
    fn is_missing(&self, file: &ListedFile) -> bool {
        let there = self.folder().join(&file.name).metadata();
        let whole = |data: &std::fs::Metadata| file.size.is_none_or(|size| data.len() == size);
        if file.size == Some(0) || there.is_ok_and(|data| whole(&data)) {
            return false;
        }
        self.cache.unlink_dangling(&self.listing.commit, &file.name);
        match (&file.etag, file.size) {
            (Some(etag), Some(size)) => {
                let blob = is_path_part(etag).then(|| self.cache.blob(etag));
                let known = blob.and_then(|blob| blob.metadata().ok());
                known.is_none_or(|data| data.len() != size)
                    || !self.cache.link(&self.listing.commit, &file.name, etag)
            }
            _ => true,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.listing.file(name).is_some()
    }

    fn folder(&self) -> PathBuf {
        self.cache.snapshot(&self.listing.commit)
    }

    fn lacks(&self, file: &str, hint: Option<&'static str>) -> HubError {
        HubError::Lacks { id: self.id.clone(), file: file.to_owned(), hint }
    }

    fn pickle(&self, file: &str) -> HubError {
        HubError::PickleOnly { id: self.id.clone(), file: file.to_owned() }
    }
}
