//! The tokens that end a response, where files beside `config.json` name them.

use std::path::Path;

use fisao_models::text::Tokenizer as _;
use fisao_models::vision_language::TokenIds;

use super::config::GENERATION;
use crate::FormatError;
use crate::chat_template::special_tokens;
use crate::checkpoint::{GENERATION_CONFIG_FILE, TOKENIZER_FILE};
use crate::documents::read_settings;
use crate::fields::Fields;
use crate::tokenizer::HfTokenizer;

/// Token ids of a model whose responses end at `ends`, the first of them the usual one. Where nothing else is named, that one also
/// begins a text, and pads: padding is masked everywhere.
///
/// # Panics
/// There is no end.
pub(super) fn token_ids(
    image: u32,
    bos: Option<u32>,
    pad: Option<u32>,
    ends: Vec<u32>,
) -> TokenIds {
    let eos = ends[0];
    let stop = ends.into_iter().skip(1).collect();
    TokenIds { image, bos: bos.unwrap_or(eos), eos, stop, pad: pad.unwrap_or(eos) }
}

/// The files of a checkpoint folder that may say where a response ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndTokens<'a> {
    pub(super) folder: &'a Path,
}

impl EndTokens<'_> {
    /// Those of `generation_config.json`, which overrules the model's configuration where both name some; none if it is not
    /// there.
    fn of_generation(self, vocabulary: usize) -> Result<Vec<u32>, FormatError> {
        let path = self.folder.join(GENERATION_CONFIG_FILE);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let value = read_settings(GENERATION, &path)?;
        Fields::of_file(GENERATION, &path, &value)?.tokens("eos_token_id", vocabulary)
    }

    /// Those of [`generation_config.json`](Self::of_generation), else of the first of some parts of the configuration that names any.
    pub(super) fn named(
        self,
        config: &[&Fields<'_>],
        vocabulary: usize,
    ) -> Result<Vec<u32>, FormatError> {
        let mut ends = Vec::new();
        for part in config {
            if ends.is_empty() {
                ends = part.tokens("eos_token_id", vocabulary)?;
            }
        }
        let overruling = self.of_generation(vocabulary)?;
        Ok(if overruling.is_empty() { ends } else { overruling })
    }

    /// The id of the token that `tokenizer_config.json` calls `bos_token`, if it names one that the tokenizer and the model have.
    pub(super) fn beginning_of_tokenizer(
        self,
        vocabulary: usize,
    ) -> Result<Option<u32>, FormatError> {
        let tokens = special_tokens(self.folder)?;
        let Some(token) = tokens.get("bos_token").and_then(|token| token.as_str()) else {
            return Ok(None);
        };
        let tokenizer = HfTokenizer::open(&self.folder.join(TOKENIZER_FILE))?;
        Ok(tokenizer.token_id(token).filter(|&id| (id as usize) < vocabulary))
    }

    /// The id of the token that `tokenizer_config.json` calls `eos_token`, for a decoder to which no file gives an id.
    ///
    /// # Errors
    /// It names none, or one that the tokenizer or the model does not have.
    pub(super) fn of_tokenizer(
        self,
        family: &'static str,
        vocabulary: usize,
    ) -> Result<u32, FormatError> {
        let unknown = |reason: String| FormatError::NoEndToken {
            path: self.folder.to_owned(),
            family,
            reason,
        };
        let tokens = special_tokens(self.folder)?;
        let Some(token) = tokens.get("eos_token").and_then(|token| token.as_str()) else {
            return Err(unknown("tokenizer_config.json names no `eos_token` either".to_owned()));
        };
        let tokenizer = HfTokenizer::open(&self.folder.join(TOKENIZER_FILE))?;
        let shown = crate::fields::shortened(token);
        match tokenizer.token_id(token) {
            None => Err(unknown(format!(
                "`eos_token` of tokenizer_config.json is {shown}, which tokenizer.json does not have"
            ))),
            Some(id) if id as usize >= vocabulary => Err(unknown(format!(
                "`eos_token` of tokenizer_config.json is {shown}, whose id {id} is not below vocab_size, {vocabulary}"
            ))),
            Some(id) => Ok(id),
        }
    }
}
