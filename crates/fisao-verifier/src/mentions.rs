//! Text → units: the objects a response names and the tokens that spell them.
//!
//! Units are found on words, never on sub-word pieces, and mapped back to tokens through the byte
//! range each token spelled; so the same response gives the same units under any tokenizer.

mod negation;
mod plurals;
mod vocabulary;
mod words;

use std::ops::Range;

pub use vocabulary::{ObjectVocabulary, VocabularyError};

/// One maximal mention of an object category in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Index of the category; [`ObjectVocabulary::category`] gives its name.
    pub category: usize,
    /// Surface form of the vocabulary that matched, before the plural: "traffic light" for
    /// "Traffic lights". What a prompt template takes.
    pub form: String,
    /// The words, as written.
    pub text: String,
    /// Bytes of the response that name the object.
    pub span: Range<usize>,
    /// Tokens that spell it: first to last token whose bytes meet `span`. Never empty.
    pub tokens: Range<usize>,
    /// Whether the response says that the object is *not* there ("no dog", "without a car"). Such
    /// a unit claims nothing the image could confirm and takes no part in scoring.
    pub negated: bool,
}

impl ObjectVocabulary {
    /// Units of a decoded response, in order and without overlap: at each word the longest surface
    /// form that fits wins. `spans[t]` are the bytes of `text` that token `t` spelled, empty for
    /// tokens that spell nothing; a mention that no token spelled is not a unit.
    pub fn units(&self, text: &str, spans: &[Range<usize>]) -> Vec<Unit> {
        let words = words::words(text);
        let matches = self.matches(text, &words);
        let negated = negation::negated(text, &words, &matches);
        matches
            .into_iter()
            .zip(negated)
            .filter_map(|(found, negated)| {
                let span = words[found.words.start].span.start..words[found.words.end - 1].span.end;
                Some(Unit {
                    category: found.category,
                    form: found.form.to_owned(),
                    text: text[span.clone()].to_owned(),
                    tokens: tokens_meeting(&span, spans)?,
                    span,
                    negated,
                })
            })
            .collect()
    }
}

fn tokens_meeting(span: &Range<usize>, spans: &[Range<usize>]) -> Option<Range<usize>> {
    let meets = |token: &Range<usize>| token.start.max(span.start) < token.end.min(span.end);
    let first = spans.iter().position(meets)?;
    let last = spans.iter().rposition(meets)?;
    Some(first..last + 1)
}
