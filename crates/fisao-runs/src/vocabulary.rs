//! Object names: from a file or from the built-in synthetic dataset, for the verifier and for CHAIR.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fisao_eval::chair::{Rules, read_synonyms};
use fisao_formats::FormatError;
use fisao_formats::digest::sha256_parts;
use fisao_formats::documents::open_text;
use fisao_verifier::calibration::{Calibration, VocabularyIdentity};
use fisao_verifier::listing::Listing;
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use crate::failure::Refusal;

/// What a vocabulary file is called in errors.
const WHAT: &str = "object vocabulary ({\"category\": [\"form\", …], …})";

/// The words of the built-in synthetic dataset, by name.
pub const WORLD: &str = "world";
/// COCO's 80 categories.
const COCO: &str = "coco";
/// About 800 common things.
const EVERYDAY: &str = "everyday";
/// What stands for a list that is to be [found](crate::found_vocabulary) in captions.
pub const AUTO: &str = "auto";
/// Lists that are known by name instead of being files.
const BUILT_IN: [&str; 3] = [WORLD, COCO, EVERYDAY];

/// Categories with their surface forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    pub(crate) entries: Vec<(String, Vec<String>)>,
    /// Phrases that hold an object's name and mean no object.
    pub(crate) neutral: Vec<String>,
}

impl Vocabulary {
    /// The words of the built-in synthetic dataset.
    pub fn of_world() -> Self {
        Self { entries: fisao_scenes::vocabulary(), neutral: Vec::new() }
    }

    /// The file or list that was named, or else the [usual](usual_list) one.
    pub fn chosen(
        named: Option<&Path>,
        embedded: bool,
        calibration: Option<&Calibration>,
    ) -> anyhow::Result<Self> {
        Self::named(named.unwrap_or_else(|| Path::new(usual_list(embedded, calibration))))
    }

    /// A file, or a list that is known by name.
    pub fn named(path: &Path) -> anyhow::Result<Self> {
        match path.to_str() {
            Some(WORLD) => Ok(Self::of_world()),
            Some(COCO) => Ok(Self::from(&fisao_eval::chair::ObjectVocabulary::coco())),
            Some(EVERYDAY) => Ok(Self::from(Listing::everyday())),
            Some(AUTO) => Err(Refusal::new("--vocabulary auto finds objects in captions, and there are none here")
                .hint("name the list that verify, calibrate, align or study verifier wrote with it, a vocabulary.txt")
                .into()),
            _ if is_json(path) => Self::read(path),
            _ => Self::listed(path),
        }
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let file: Map<String, Value> =
            serde_json::from_reader(open_text(WHAT, path)?).map_err(|error| {
                FormatError::Malformed {
                    what: WHAT,
                    path: PathBuf::from(path),
                    reason: error.to_string(),
                }
            })?;
        let mut entries = Vec::with_capacity(file.len());
        for (category, forms) in file {
            let forms = serde_json::from_value(forms).map_err(|error| FormatError::Malformed {
                what: WHAT,
                path: PathBuf::from(path),
                reason: format!("category `{category}`: {error}"),
            })?;
            entries.push((category, forms));
        }
        Ok(Self { entries, neutral: Vec::new() })
    }

    fn listed(path: &Path) -> anyhow::Result<Self> {
        let mut text = String::new();
        open_text(WHAT, path)?
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let listing = Listing::parse(&text).with_context(|| {
            format!("{} cannot be read as a list of categories", path.display())
        })?;
        Ok(Self::from(listing))
    }

    /// Every category's name with its forms.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = self
            .entries
            .iter()
            .flat_map(|(category, forms)| std::iter::once(category).chain(forms));
        names.map(String::as_str)
    }

    /// As the verifier's matcher takes it.
    pub fn for_mentions(
        &self,
    ) -> Result<fisao_verifier::mentions::ObjectVocabulary, fisao_verifier::mentions::VocabularyError>
    {
        let entries = self.entries.clone();
        fisao_verifier::mentions::ObjectVocabulary::with_neutral(entries, &self.neutral)
    }

    /// A part of its categories, drawn by a seed; at least one.
    #[must_use]
    pub fn part(&self, fraction: f64, seed: u64) -> Self {
        let count = (fraction * self.entries.len() as f64).round().max(1.0) as usize;
        if count >= self.entries.len() {
            return self.clone();
        }
        let mut drawn: Vec<usize> = (0..self.entries.len()).collect();
        drawn.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        drawn.truncate(count);
        drawn.sort_unstable();
        let entries = drawn.into_iter().map(|at| self.entries[at].clone()).collect();
        Self { entries, neutral: self.neutral.clone() }
    }

    /// Its size and content.
    pub fn identity(&self) -> VocabularyIdentity {
        let entries = self.entries.iter().flat_map(|(category, forms)| {
            // An empty part ends each entry.
            std::iter::once(category).chain(forms).map(String::as_bytes).chain([&[] as &[u8]])
        });
        let neutral = self.neutral.iter().map(String::as_bytes);
        let sha256 = sha256_parts(entries.chain(neutral));
        VocabularyIdentity { categories: self.entries.len(), sha256 }
    }

    /// As CHAIR's matcher takes it.
    pub fn for_chair(
        &self,
    ) -> Result<fisao_eval::chair::ObjectVocabulary, fisao_eval::chair::VocabularyError> {
        let (entries, neutral) = (self.entries.clone(), self.neutral.clone());
        fisao_eval::chair::ObjectVocabulary::with_neutral(entries, neutral)
    }
}

impl From<Listing> for Vocabulary {
    fn from(Listing { entries, neutral }: Listing) -> Self {
        Self { entries, neutral }
    }
}

impl From<&fisao_eval::chair::ObjectVocabulary> for Vocabulary {
    fn from(vocabulary: &fisao_eval::chair::ObjectVocabulary) -> Self {
        Self { entries: vocabulary.entries().to_vec(), neutral: vocabulary.neutral().to_vec() }
    }
}

/// Whether the list is to be found.
pub fn is_automatic(named: Option<&Path>) -> bool {
    named == Some(Path::new(AUTO))
}

/// Why a list cannot be found where a calibration is given.
pub(crate) fn other_than_calibrated(hint: &str) -> Refusal {
    Refusal::new("--vocabulary auto finds another list than the calibration was made with")
        .hint(hint)
}

/// The list that is taken where none is named: that which the calibration was made with if it is a built-in one, else the synthetic
/// dataset's for the built-in models and everyday things for all others.
pub fn usual_list(embedded: bool, calibration: Option<&Calibration>) -> &'static str {
    let made_with = calibration.and_then(|calibration| calibration.made_with.as_ref());
    let calibrated = made_with.and_then(|made_with| {
        let same = |name: &&str| {
            Vocabulary::named(Path::new(name))
                .is_ok_and(|list| list.identity() == made_with.vocabulary)
        };
        BUILT_IN.into_iter().find(same)
    });
    calibrated.unwrap_or(if embedded { WORLD } else { EVERYDAY })
}

fn is_json(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".gz").unwrap_or(&name).rsplit('.').next() == Some("json")
}

/// The words that CHAIR looks for: COCO's, unless a file or another list is named, as for the other commands. For reference
/// rules a file of lines is read as the published scorers read theirs.
pub fn chair_vocabulary(
    named: Option<&Path>,
    rules: Rules,
) -> anyhow::Result<fisao_eval::chair::ObjectVocabulary> {
    let Some(path) = named.filter(|path| *path != Path::new(COCO)) else {
        return Ok(fisao_eval::chair::ObjectVocabulary::coco());
    };
    let listed = !is_json(path) && !BUILT_IN.iter().any(|name| path == Path::new(name));
    if listed && rules == Rules::Reference {
        return read_synonyms(open_text(WHAT, path)?)
            .with_context(|| format!("{} cannot be read as a list of categories", path.display()));
    }
    Ok(Vocabulary::named(path)?.for_chair()?)
}
