//! `tokenizer.json` through Hugging Face's tokenizers library.

mod limits;
mod spans;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fisao_models::text::{DecodedText, TextError, Tokenizer};
use serde_json::Value;

use crate::FormatError;
use crate::documents::read_text;
use crate::fields::{shortened, shown};

/// The tokenizer's file name.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// A tokenizer in Hugging Face's format.
#[derive(Clone, Debug)]
pub struct HfTokenizer {
    inner: tokenizers::Tokenizer,
    largest: Option<u32>,
    path: PathBuf,
}

impl HfTokenizer {
    /// Opens a `tokenizer.json`.
    ///
    /// # Errors
    /// It is absent, or not a tokenizer.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        Self::parse(&read_text("tokenizer (tokenizer.json)", path)?, path)
    }

    /// A tokenizer from the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// It is not a tokenizer.
    pub fn from_json(json: &str) -> Result<Self, FormatError> {
        Self::parse(json, Path::new(TOKENIZER_FILE))
    }

    fn parse(json: &str, path: &Path) -> Result<Self, FormatError> {
        let refused = |reason: String| FormatError::Tokenizer {
            path: path.to_owned(),
            reason: shortened(&reason),
        };
        let unusable = |error: tokenizers::Error| refused(explained(&error.to_string(), json));
        if !json.trim_start().starts_with('{') {
            return Err(refused("it is not a JSON object".to_owned()));
        }
        let pipelines = serde_json::from_str::<limits::Pipelines>(json);
        pipelines.map_err(|error| refused(error.to_string()))?.check().map_err(refused)?;
        let parsed = guarded(|| json.parse::<tokenizers::Tokenizer>());
        let mut inner = parsed.unwrap_or_else(|| Err(FAILED.into())).map_err(unusable)?;
        // A file may carry the padding and truncation of its last use; transformers ignores both.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(unusable)?;
        let vocabulary = inner.get_vocab(true);
        limits::check_tokens(vocabulary.keys()).map_err(refused)?;
        let largest = vocabulary.into_values().max();
        Ok(Self { inner, largest, path: path.to_owned() })
    }

    /// The text of its `tokenizer.json`.
    ///
    /// # Errors
    /// The library cannot serialise it.
    pub fn to_json(&self) -> Result<String, FormatError> {
        self.inner.to_string(true).map_err(|error| FormatError::Tokenizer {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }

    /// How many tokens it knows, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The largest token id, added ones included; `None` of an empty vocabulary.
    pub fn largest_id(&self) -> Option<u32> {
        self.largest
    }

    /// The spelling of a token in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether a token is spelled in decoded text: special tokens and unknown ids are not.
    fn is_spelled(&self, id: u32) -> bool {
        self.inner
            .id_to_token(id)
            .is_some_and(|token| !self.inner.get_added_vocabulary().is_special_token(&token))
    }
}

impl Tokenizer for HfTokenizer {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let encoded = guarded(|| self.inner.encode(text, add_special_tokens)).ok_or_else(broken)?;
        Ok(encoded.map_err(|error| failed(&error))?.get_ids().to_vec())
    }

    fn decode(&self, ids: &[u32]) -> Result<DecodedText, TextError> {
        let spelled = ids.iter().map(|&id| self.is_spelled(id)).collect::<Vec<_>>();
        let decode = |ids: &[u32]| {
            let decoded = guarded(|| self.inner.decode(ids, true)).ok_or_else(broken)?;
            decoded.map_err(|error| failed(&error))
        };
        spans::decode_with_spans(ids, &spelled, decode)
    }

    fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

/// Parts of the file by the beginning of what the library calls them, and what each may be.
const PARTS: [(&str, &str, &str); 6] = [
    ("Model", "model", "BPE, WordPiece, WordLevel or Unigram with all their fields"),
    ("Merge", "merges", "pairs of tokens, each a list of two or a text with one space"),
    ("Normalizer", "normalizer", "steps of known types with all their fields"),
    ("PreTokenizer", "pre_tokenizer", "steps of known types with all their fields"),
    ("PostProcessor", "post_processor", "steps of known types with all their fields"),
    ("Decoder", "decoder", "steps of known types with all their fields"),
];

/// What the library says, but where that is the name of a type of its own: there, which part of the file is meant, what it is
/// and what it may be.
fn explained(reason: &str, json: &str) -> String {
    let Some((_, kind)) = reason.split_once("untagged enum ") else { return reason.to_owned() };
    let Some((_, part, expected)) = PARTS.iter().find(|(name, ..)| kind.starts_with(name)) else {
        return "a part of it is of no kind that is known".to_owned();
    };
    let file = serde_json::from_str::<Value>(json).unwrap_or_default();
    let value = file.get(part).or_else(|| file.get("model")?.get(part)).unwrap_or(&Value::Null);
    let found = match value.get("type") {
        Some(kind) => format!("of type {}", shown(kind)),
        None if value.is_object() => "an object without a type".to_owned(),
        None if value.is_array() => "a list".to_owned(),
        None => shown(value),
    };
    format!("its `{part}` is {found} and cannot be read; it may be {expected}")
}

/// What is said where the library panics, which it does on tables that contradict themselves.
const FAILED: &str = "the tokenizers library fails on it: its tables contradict themselves";

/// The result of the library, or `None` where it panics. It keeps no state that a panic could leave half-changed.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

fn broken() -> TextError {
    TextError::Tokenizer(FAILED.to_owned())
}

fn failed(error: &tokenizers::Error) -> TextError {
    TextError::Tokenizer(error.to_string())
}
