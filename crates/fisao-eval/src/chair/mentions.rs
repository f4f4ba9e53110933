//! Words of a text and the objects they name, as byte ranges.

use std::ops::Range;

use super::ObjectVocabulary;

/// One object named in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Category of the vocabulary the words belong to.
    pub category: String,
    /// Bytes of the text that name it.
    pub span: Range<usize>,
    /// The text at `span`, as written.
    pub text: String,
}

impl ObjectVocabulary {
    /// Objects the text names by strict rules, in order, without overlap: at each word the longest surface
    /// form that fits wins ("hot dog" is never also a dog).
    pub fn mentions(&self, text: &str) -> Vec<Mention> {
        super::MentionFinder::new(self, super::Rules::Strict).mentions(text)
    }
}
