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

/// A lower-cased word and the bytes it came from.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
}

/// Maximal runs of letters, digits and combining accents. An apostrophe or a hyphen ends a word:
/// "dog's" names a dog and "hot-dog" reads like "hot dog".
pub(crate) fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, letter) in text.char_indices().chain([(text.len(), ' ')]) {
        match (start, is_word_letter(letter)) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                // The span is taken before lower-casing, which can change a word's length.
                words.push(Word { text: text[from..at].to_lowercase(), span: from..at });
                start = None;
            }
            _ => {}
        }
    }
    words
}

fn is_word_letter(letter: char) -> bool {
    letter.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&letter)
}

/// Whether what stands between two words lets them form one name: space or hyphen, not a comma.
fn joins(between: &str) -> bool {
    between.chars().all(|c| c.is_whitespace() || matches!(c, '-' | '\u{2010}' | '\u{2011}' | '_'))
}

impl ObjectVocabulary {
    /// Objects the text names, in order, without overlap: at each word the longest surface form
    /// that fits wins ("hot dog" is never also a dog).
    pub fn mentions(&self, text: &str) -> Vec<Mention> {
        let words = words(text);
        let mut mentions = Vec::new();
        let mut at = 0;
        while at < words.len() {
            let joined = 1 + words[at..]
                .windows(2)
                .take_while(|pair| joins(&text[pair[0].span.end..pair[1].span.start]))
                .count();
            let Some((length, category)) = self.longest_match(&words[at..at + joined]) else {
                at += 1;
                continue;
            };
            let span = words[at].span.start..words[at + length - 1].span.end;
            mentions.push(Mention {
                category: category.to_owned(),
                text: text[span.clone()].to_owned(),
                span,
            });
            at += length;
        }
        mentions
    }
}
