//! Words of a text, as byte ranges.

use std::ops::Range;

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
pub(crate) fn joins(between: &str) -> bool {
    between.chars().all(|c| c.is_whitespace() || matches!(c, '-' | '\u{2010}' | '\u{2011}' | '_'))
}
