//! The seam between models and tokenizers.

use std::ops::Range;

/// Decoded token ids, with the bytes of the text that each of them spelled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DecodedText {
    /// The text; special tokens leave no trace in it.
    pub text: String,
    /// One byte range of `text` per token id, in order. Special and unknown tokens have an empty
    /// range; tokens that spell one character together share its range.
    pub spans: Vec<Range<usize>>,
}

/// Why text and token ids could not be converted into each other.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The tokenizer itself failed.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
    /// A prompt has not as many image placeholders as it shows images.
    #[error(
        "the prompt holds {found} image placeholders, but {}: write `<image>` {}, or leave it out to use the model's own template",
        if *needed == 1 { "exactly one is needed".to_owned() } else { format!("shows {needed} images") },
        if *needed == 1 { "once" } else { "where each of them goes" }
    )]
    ImagePlaceholders {
        /// How many there are.
        found: usize,
        /// Images that are shown.
        needed: usize,
    },
}

/// Text to token ids and back.
pub trait Tokenizer: Send + Sync {
    /// Token ids of `text`; `add_special_tokens` adds what the tokenizer's template adds (BOS, EOS).
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when the text cannot be encoded.
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError>;

    /// Text of `ids` with the range each of them spelled. An id outside the vocabulary spells nothing:
    /// its range is empty, as a special token's is.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when the tokenizer's decoder fails.
    fn decode(&self, ids: &[u32]) -> Result<DecodedText, TextError>;

    /// The id of a token given by its exact spelling in the vocabulary.
    fn token_id(&self, token: &str) -> Option<u32>;
}
