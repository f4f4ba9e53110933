//! Words of a text and the objects they name, as byte ranges.

use std::borrow::Cow;
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
pub(crate) struct Word<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) span: Range<usize>,
}

/// Maximal runs of letters, digits and combining accents. An apostrophe or a hyphen ends a word:
/// "dog's" names a dog and "hot-dog" reads like "hot dog".
pub(crate) fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, letter) in text.char_indices().chain([(text.len(), ' ')]) {
        match (start, is_word_letter(letter)) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                // The span is taken before lower-casing, which can change a word's length.
                words.push(Word { text: lower_case(&text[from..at]), span: from..at });
                start = None;
            }
            _ => {}
        }
    }
    words
}

fn lower_case(word: &str) -> Cow<'_, str> {
    let lower = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if lower { Cow::Borrowed(word) } else { Cow::Owned(word.to_lowercase()) }
}

fn is_word_letter(letter: char) -> bool {
    letter.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&letter)
}

/// Whether what stands between two words lets them form one name: space or hyphen, not a comma.
fn joins(between: &str) -> bool {
    between.chars().all(|c| c.is_whitespace() || matches!(c, '-' | '\u{2010}' | '\u{2011}' | '_'))
}

impl ObjectVocabulary {
    /// Objects the text names by strict rules, in order, without overlap: at each word the longest surface
    /// form that fits wins ("hot dog" is never also a dog).
    pub fn mentions(&self, text: &str) -> Vec<Mention> {
        super::MentionFinder::new(self, super::Rules::Strict).mentions(text)
    }

    /// The same as indices of categories and bytes of the text.
    pub(crate) fn places(&self, text: &str) -> Vec<(usize, Range<usize>)> {
        let words = words(text);
        let mut places = Vec::new();
        let mut at = 0;
        while at < words.len() {
            let joined = |length: usize| {
                words[at..at + length]
                    .windows(2)
                    .all(|pair| joins(&text[pair[0].span.end..pair[1].span.start]))
            };
            let Some((length, meaning)) = self.longest_match(&words[at..], joined) else {
                at += 1;
                continue;
            };
            let span = words[at].span.start..words[at + length - 1].span.end;
            places.extend(meaning.map(|category| (category, span)));
            at += length;
        }
        places
    }
}
