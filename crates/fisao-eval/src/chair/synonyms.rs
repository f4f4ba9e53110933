//! The published format of synonyms: one category a line, `, ` between words, the category first.

use std::io::{self, BufRead};

use super::{ObjectVocabulary, VocabularyError};

/// The line that begins the phrases that name nothing.
const NEUTRAL: &str = "[neutral]";

/// A list of synonyms that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynonymError {
    /// The text cannot be read.
    #[error("line {line} cannot be read: {source}; give UTF-8 text")]
    Io {
        /// Counted from 1.
        line: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A line without a first word.
    #[error("line {line} has no category; begin it with the category's name")]
    NoCategory {
        /// Counted from 1.
        line: usize,
    },
    /// The words make no vocabulary.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
}

/// Reads synonyms as the reference does: the line without white space at its ends, split at every comma with a
/// space behind. Forms keep further spaces, which reference rules then look for in vain. Blank lines are passed
/// over, and so are comments (`#`); what follows a line `[neutral]` are phrases that name nothing, one a line, which the
/// published lists do not have.
///
/// # Errors
/// A line without a category, or words that [`ObjectVocabulary::new`] refuses.
pub fn read_synonyms(reader: impl BufRead) -> Result<ObjectVocabulary, SynonymError> {
    let (mut entries, mut phrases, mut neutral) = (Vec::new(), Vec::new(), false);
    for (index, line) in reader.lines().enumerate() {
        let number = index + 1;
        let line = line.map_err(|source| SynonymError::Io { line: number, source })?;
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if neutral || line == NEUTRAL {
            phrases.extend(neutral.then(|| line.to_owned()));
            neutral = true;
            continue;
        }
        let mut forms = line.split(", ").map(str::to_owned);
        let category = forms.next().filter(|category| !category.trim().is_empty());
        let category = category.ok_or(SynonymError::NoCategory { line: number })?;
        entries.push((category, forms.filter(|form| !form.trim().is_empty()).collect()));
    }
    Ok(ObjectVocabulary::with_neutral(entries, phrases)?)
}
