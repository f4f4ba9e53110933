//! How objects are found in text, and the finder that does it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::reference::{Lexicon, ReferenceForms};
use super::{Mention, ObjectVocabulary};

/// By which rules words are taken for objects. Numbers are comparable only within one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rules {
    /// Whole words, the longest name first, with the plurals of English.
    #[default]
    Strict,
    /// Bug-for-bug compatible with the published scorers, for numbers to be put beside a paper's. Made for the
    /// published list of synonyms.
    Reference,
}

/// Finds the objects that texts name. Keeps the words it has met, so one finder for many texts is quicker than
/// many.
#[derive(Clone, Debug)]
pub struct MentionFinder<'v> {
    vocabulary: &'v ObjectVocabulary,
    reference: Option<(ReferenceForms<'v>, Lexicon)>,
}

impl<'v> MentionFinder<'v> {
    /// A finder by these rules.
    pub fn new(vocabulary: &'v ObjectVocabulary, rules: Rules) -> Self {
        let reference = match rules {
            Rules::Strict => None,
            Rules::Reference => {
                Some((ReferenceForms::new(vocabulary.entries()), Lexicon::default()))
            }
        };
        Self { vocabulary, reference }
    }

    /// Objects the text names, in order.
    pub fn mentions(&mut self, text: &str) -> Vec<Mention> {
        let categories = self.vocabulary.categories();
        self.places(text)
            .into_iter()
            .map(|(category, span)| Mention {
                category: categories[category].clone(),
                text: text[span.clone()].to_owned(),
                span,
            })
            .collect()
    }

    /// The same as indices of categories and bytes of the text.
    pub(crate) fn places(&mut self, text: &str) -> Vec<(usize, Range<usize>)> {
        match &mut self.reference {
            None => self.vocabulary.places(text),
            Some((forms, lexicon)) => lexicon.mentions(text, forms),
        }
    }
}
