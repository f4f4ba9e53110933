//! Words as `nltk.word_tokenize` splits them.
//!
//! The rules are those of `NLTKWordTokenizer` in NLTK 3.9, sentence by sentence, on lower-cased text. NLTK
//! rewrites the sentence some twenty times and then splits at white space; here every character keeps its place
//! in the caption through the rewriting, so that a word can be shown where it stands.

use std::ops::Range;

use super::rewriting::Sentence;
use super::sentences::{is_space, sentences};

/// A word of the lower-cased text and where it stands in the text as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Lower-cased; a straight double quote is two backticks where it opens and two apostrophes where it closes.
    pub text: String,
    /// Bytes of the text it came from.
    pub span: Range<usize>,
}

/// The words of a text, as NLTK splits its lower-cased form.
pub fn tokenize(text: &str) -> Vec<Token> {
    let lower = Lowered::new(text);
    let mut tokens = Vec::new();
    each_token(&lower.text, |token, span| {
        tokens.push(Token { text: token.to_owned(), span: lower.origin(span) });
    });
    tokens
}

/// The sentences of a text, as NLTK splits its lower-cased form: bytes of the text, without the white space between.
pub fn sentence_spans(text: &str) -> Vec<Range<usize>> {
    let lower = Lowered::new(text);
    let spans = sentences(&lower.text).into_iter().filter(|span| !span.is_empty());
    spans.map(|span| lower.origin(span)).collect()
}

/// A text in lower case that knows where its letters came from.
pub(super) struct Lowered<'a> {
    pub(super) text: String,
    written: &'a str,
    /// Byte of the lower-cased text → byte of the character it came from; `None` when they agree.
    origins: Option<Vec<u32>>,
}

impl<'a> Lowered<'a> {
    pub(super) fn new(written: &'a str) -> Self {
        if written.is_ascii() {
            return Self { text: written.to_ascii_lowercase(), written, origins: None };
        }
        // The whole text is lower-cased at once, because a sigma at the end of a word has a form of its own.
        let text = written.to_lowercase();
        let mut origins = Vec::with_capacity(text.len());
        let mut letters = text.chars();
        for (at, letter) in written.char_indices() {
            for lowered in letters.by_ref().take(letter.to_lowercase().count()) {
                origins.extend(std::iter::repeat_n(at as u32, lowered.len_utf8()));
            }
        }
        Self { text, written, origins: Some(origins) }
    }

    /// Where bytes of the lower-cased text stand in the text as written.
    pub(super) fn origin(&self, span: Range<usize>) -> Range<usize> {
        let Some(origins) = &self.origins else { return span };
        let place = |at: usize| origins.get(at).map_or(self.written.len(), |&at| at as usize);
        let last = place(span.end.saturating_sub(1));
        let width = self.written[last..].chars().next().map_or(0, char::len_utf8);
        place(span.start)..last + width
    }
}

/// Hands on every token of a lower-cased text with its bytes in that text.
pub(super) fn each_token(text: &str, mut each: impl FnMut(&str, Range<usize>)) {
    for sentence in sentences(text) {
        let start = sentence.start;
        let sentence = &text[sentence];
        if is_plain(sentence) {
            each_plain_token(sentence, |span| {
                each_part(&sentence[span.clone()], start + span.start, &mut each);
            });
        } else {
            Sentence::new(sentence).each_token(|token, span| {
                each_rewritten_token(token, start + span.start..start + span.end, &mut each);
            });
        }
    }
}

/// Whether commas and full stops are all the punctuation there is, never two of them in a row.
fn is_plain(sentence: &str) -> bool {
    let mut previous = b' ';
    sentence.bytes().all(|byte| {
        let twice = matches!(byte, b'.' | b',' | b'-') && matches!(previous, b'.' | b',' | b'-');
        previous = byte;
        !twice
            && (byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'\n' | b'.' | b',' | b'-'))
    })
}

/// The rules for sentences without other punctuation, where only two of them do anything: a comma stands alone
/// unless a digit follows it, and so does the full stop at the very end.
fn each_plain_token(sentence: &str, mut each: impl FnMut(Range<usize>)) {
    let bytes = sentence.as_bytes();
    let length = sentence.trim_end_matches([' ', '\n']).len();
    let mut from = 0;
    for at in 0..=length {
        let byte = bytes.get(at).filter(|_| at < length);
        let last = at + 1 == length && at > 0;
        let alone = match byte {
            Some(b',') => !bytes.get(at + 1).is_some_and(u8::is_ascii_digit),
            Some(b'.') => last,
            Some(b' ' | b'\n') | None => false,
            Some(_) => continue,
        };
        if alone || matches!(byte, None | Some(b' ' | b'\n')) {
            if from < at {
                each(from..at);
            }
            if alone {
                each(at..at + 1);
            }
            from = at + 1;
        }
    }
}

fn each_rewritten_token(
    token: &str,
    span: Range<usize>,
    each: &mut impl FnMut(&str, Range<usize>),
) {
    if token.len() == span.len() {
        each_part(token, span.start, each);
    } else {
        each(token, span);
    }
}

/// Contractions without an apostrophe, or with one that nothing else splits at: where they part.
const CONTRACTIONS: [(&str, &str); 8] = [
    ("can", "not"),
    ("d", "'ye"),
    ("gim", "me"),
    ("gon", "na"),
    ("got", "ta"),
    ("lem", "me"),
    ("more", "'n"),
    ("wan", "na"),
];

/// Hands on a token, or the parts of the contractions in it.
fn each_part(token: &str, at: usize, each: &mut impl FnMut(&str, Range<usize>)) {
    if !may_contract(token) {
        return each(token, at..at + token.len());
    }
    let mut cuts = vec![0, token.len()];
    for (first, second) in CONTRACTIONS {
        let whole = format!("{first}{second}");
        for (place, found) in token.match_indices(&whole) {
            let end = place + found.len();
            // "wanna" needs white space behind it, the others only the end of a word.
            let closed = if second == "na" && first == "wan" {
                end == token.len()
            } else {
                !token[end..].starts_with(is_word_letter)
            };
            if closed && !token[..place].ends_with(is_word_letter) {
                cuts.extend([place, place + first.len(), end]);
            }
        }
    }
    for whole in ["'tis", "'twas"] {
        for (place, found) in token.match_indices(whole) {
            // White space, or by now the end of another contraction, comes before it.
            if cuts.contains(&place) && !token[place + found.len()..].starts_with(is_word_letter) {
                cuts.extend([place + 2, place + found.len()]);
            }
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    for cut in cuts.windows(2) {
        each(&token[cut[0]..cut[1]], at + cut[0]..at + cut[1]);
    }
}

/// Whether a token can hold a contraction at all, at a glance.
fn may_contract(token: &str) -> bool {
    token.len() >= 4
        && (matches!(token.as_bytes()[0], b'c' | b'd' | b'g' | b'l' | b'm' | b'w')
            || token.bytes().any(|byte| !byte.is_ascii_alphanumeric()))
        && (token.contains('\'')
            || ["cannot", "gimme", "gonna", "gotta", "lemme", "wanna"]
                .iter()
                .any(|word| token.contains(word)))
}

/// What Python's `\w` takes for part of a word.
pub(super) fn is_word_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// What Python's `\s` takes for white space.
pub(super) fn is_blank(letter: char) -> bool {
    is_space(letter)
}
