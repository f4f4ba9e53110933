//! Object names: from a file or from the embedded world, for the verifier and for CHAIR.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fisao_eval::chair::read_synonyms;
use fisao_formats::FormatError;
use fisao_formats::documents::{open_text, read_json};
use serde_json::{Map, Value};

use crate::arguments::VocabularyArguments;

/// What a vocabulary file is called in errors.
const WHAT: &str = "object vocabulary ({\"category\": [\"form\", …], …})";

/// Categories with their surface forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vocabulary {
    entries: Vec<(String, Vec<String>)>,
}

impl Vocabulary {
    /// The words of the embedded world.
    pub(crate) fn of_world() -> Self {
        Self { entries: fisao_scenes::vocabulary() }
    }

    /// The file that was named, or the world's words.
    pub(crate) fn from_arguments(arguments: &VocabularyArguments) -> anyhow::Result<Self> {
        match &arguments.vocabulary {
            Some(path) => Self::read(path),
            None => Ok(Self::of_world()),
        }
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let file: Map<String, Value> = read_json(WHAT, path)?;
        let mut entries = Vec::with_capacity(file.len());
        for (category, forms) in file {
            let forms = serde_json::from_value(forms).map_err(|error| FormatError::Malformed {
                what: WHAT,
                path: PathBuf::from(path),
                reason: format!("category `{category}`: {error}"),
            })?;
            entries.push((category, forms));
        }
        Ok(Self { entries })
    }

    /// As the verifier's matcher takes it.
    pub(crate) fn for_mentions(
        &self,
    ) -> Result<fisao_verifier::mentions::ObjectVocabulary, fisao_verifier::mentions::VocabularyError>
    {
        fisao_verifier::mentions::ObjectVocabulary::new(self.entries.clone())
    }

    /// As CHAIR's matcher takes it.
    pub(crate) fn for_chair(
        &self,
    ) -> Result<fisao_eval::chair::ObjectVocabulary, fisao_eval::chair::VocabularyError> {
        fisao_eval::chair::ObjectVocabulary::new(self.entries.clone())
    }
}

/// The words that CHAIR looks for: COCO's, unless a file is named. A file is JSON as for the other commands,
/// or holds a category and its synonyms on each line.
pub(crate) fn chair_vocabulary(
    path: Option<&Path>,
) -> anyhow::Result<fisao_eval::chair::ObjectVocabulary> {
    let Some(path) = path.filter(|path| *path != Path::new("coco")) else {
        return Ok(fisao_eval::chair::ObjectVocabulary::coco());
    };
    if path.extension().is_some_and(|ending| ending == "json") {
        return Ok(Vocabulary::read(path)?.for_chair()?);
    }
    let file = open_text("object vocabulary", path)?;
    read_synonyms(file)
        .with_context(|| format!("{} cannot be read as a list of synonyms", path.display()))
}
