//! Object categories and the words that name them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

pub use fisao_mentions::VocabularyError;

use crate::digest;

/// Categories of objects with their surface forms, ready to be looked for in text.
#[derive(Clone, Debug)]
pub struct ObjectVocabulary {
    /// As given.
    entries: Vec<(String, Vec<String>)>,
    /// Names that hold an object's name and mean no object.
    neutral: Vec<String>,
    matcher: fisao_mentions::ObjectVocabulary,
}

impl ObjectVocabulary {
    /// Builds the matcher from (category, surface forms). The category's own name is always a
    /// form; plurals of every form are added unless another category lists that plural itself.
    ///
    /// # Errors
    /// An empty vocabulary, a repeated category, a form without a word, or a form given to two
    /// categories.
    pub fn new(entries: Vec<(String, Vec<String>)>) -> Result<Self, VocabularyError> {
        Self::with_neutral(entries, Vec::new())
    }

    /// The same, with phrases that hold the name of an object and mean none, like "train tracks" or "bus
    /// stop": strict rules pass over them. A phrase that is also a form of a category stays that form.
    ///
    /// # Errors
    /// As [`Self::new`]; a phrase without a word.
    pub fn with_neutral(
        entries: Vec<(String, Vec<String>)>,
        neutral: Vec<String>,
    ) -> Result<Self, VocabularyError> {
        let matcher = fisao_mentions::ObjectVocabulary::with_neutral(entries.clone(), &neutral)?;
        Ok(Self { entries, neutral, matcher })
    }

    /// Category names, in the order given.
    pub fn categories(&self) -> &[String] {
        self.matcher.categories()
    }

    /// Categories with their surface forms, as given.
    pub fn entries(&self) -> &[(String, Vec<String>)] {
        &self.entries
    }

    /// Phrases that hold an object's name and mean no object, as given.
    pub fn neutral(&self) -> &[String] {
        &self.neutral
    }

    /// The category that a name means: its own name, or one of its forms.
    pub fn category_of(&self, name: &str) -> Option<&str> {
        if let Some(own) = self.categories().iter().find(|category| *category == name) {
            return Some(own);
        }
        let mention = self.matcher.mentions(name).next()?;
        let outside = [&name[..mention.span.start], &name[mention.span.end..]];
        let whole = outside.iter().all(|text| !text.contains(char::is_alphanumeric));
        whole.then(|| self.matcher.category(mention.category))
    }

    /// Objects that a text names, denied ones too, as indices of categories and bytes of the text.
    pub(crate) fn places(&self, text: &str) -> Vec<(usize, Range<usize>)> {
        self.matcher.mentions(text).map(|mention| (mention.category, mention.span)).collect()
    }

    /// SHA-256 of the vocabulary in hexadecimal, whatever the order it was listed in: equal for two reports
    /// exactly when the same words stood for the same categories. It is the digest of a JSON list of two: an
    /// object from category to forms, and the phrases that name nothing, all sorted, without repetition or
    /// spaces.
    pub fn sha256(&self) -> String {
        let sorted: BTreeMap<&str, BTreeSet<&str>> = self
            .entries
            .iter()
            .map(|(category, forms)| {
                (category.as_str(), forms.iter().map(String::as_str).collect())
            })
            .collect();
        let neutral: BTreeSet<&str> = self.neutral.iter().map(String::as_str).collect();
        // Text and maps of text always become JSON.
        digest::of_text(&serde_json::json!([sorted, neutral]).to_string())
    }
}
