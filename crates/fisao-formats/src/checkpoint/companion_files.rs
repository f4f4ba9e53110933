//! What files beside `config.json` say of the model: the tokens that begin a text and end a response, and its tokenizer.

use std::cell::OnceCell;
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

/// The files beside the `config.json` of a checkpoint folder.
#[derive(Debug)]
pub(super) struct CompanionFiles<'a> {
    pub(super) folder: &'a Path,
    /// Once it is read.
    tokenizer: OnceCell<HfTokenizer>,
}

impl<'a> CompanionFiles<'a> {
    /// Those of a folder, none of which is read before it is asked for.
    pub(super) fn of(folder: &'a Path) -> Self {
        Self { folder, tokenizer: OnceCell::new() }
    }

    /// The tokenizer.
    pub(super) fn tokenizer(&self) -> Result<&HfTokenizer, FormatError> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let tokenizer = HfTokenizer::open(&self.folder.join(TOKENIZER_FILE))?;
        Ok(self.tokenizer.get_or_init(|| tokenizer))
    }

    /// The ends of `generation_config.json`, which overrules the model's configuration where both name some; none if it is not
    /// there.
    fn ends_of_generation(&self, vocabulary: usize) -> Result<Vec<u32>, FormatError> {
        let path = self.folder.join(GENERATION_CONFIG_FILE);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let value = read_settings(GENERATION, &path)?;
        Fields::of_file(GENERATION, &path, &value)?.tokens("eos_token_id", vocabulary)
    }

    /// Those of [`generation_config.json`](Self::ends_of_generation), else of the first of some parts of the configuration that names
    /// any.
    pub(super) fn named_ends(
        &self,
        config: &[&Fields<'_>],
        vocabulary: usize,
    ) -> Result<Vec<u32>, FormatError> {
        let mut ends = Vec::new();
        for part in config {
            if ends.is_empty() {
                ends = part.tokens("eos_token_id", vocabulary)?;
            }
        }
        let overruling = self.ends_of_generation(vocabulary)?;
        Ok(if overruling.is_empty() { ends } else { overruling })
    }

    /// The [named ones](Self::named_ends), else that of the [tokenizer](Self::end_of_tokenizer).
    pub(super) fn ends(
        &self,
        config: &[&Fields<'_>],
        family: &'static str,
        vocabulary: usize,
    ) -> Result<Vec<u32>, FormatError> {
        let named = self.named_ends(config, vocabulary)?;
        if named.is_empty() {
            return Ok(vec![self.end_of_tokenizer(family, vocabulary)?]);
        }
        Ok(named)
    }

    /// A token that `tokenizer_config.json` names, and its id, if the tokenizer has it.
    fn special_token(&self, key: &str) -> Result<Option<(String, Option<u32>)>, FormatError> {
        let tokens = special_tokens(self.folder)?;
        let Some(token) = tokens.get(key).and_then(|token| token.as_str()) else {
            return Ok(None);
        };
        Ok(Some((token.to_owned(), self.tokenizer()?.token_id(token))))
    }

    /// The id of the token that `tokenizer_config.json` calls `bos_token`, if it names one that the tokenizer and the model have.
    pub(super) fn beginning_of_tokenizer(
        &self,
        vocabulary: usize,
    ) -> Result<Option<u32>, FormatError> {
        let id = self.special_token("bos_token")?.and_then(|(_, id)| id);
        Ok(id.filter(|&id| (id as usize) < vocabulary))
    }

    /// The id of the token that `tokenizer_config.json` calls `eos_token`, for a decoder to which no file gives an id.
    ///
    /// # Errors
    /// It names none, or one that the tokenizer or the model does not have.
    pub(super) fn end_of_tokenizer(
        &self,
        family: &'static str,
        vocabulary: usize,
    ) -> Result<u32, FormatError> {
        let unknown = |reason: String| FormatError::NoEndToken {
            path: self.folder.to_owned(),
            family,
            reason,
        };
        let Some((token, id)) = self.special_token("eos_token")? else {
            return Err(unknown("tokenizer_config.json names no `eos_token` either".to_owned()));
        };
        let shown = crate::fields::shortened(&token);
        match id {
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
