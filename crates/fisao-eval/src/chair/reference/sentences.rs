//! Sentence boundaries as NLTK's Punkt finds them in lower-case English.
//!
//! Kiss & Strunk, *Unsupervised Multilingual Sentence Boundary Detection*, 2006; the rules are those of
//! `nltk.tokenize.punkt` 3.9 with its English model. CHAIR lower-cases a caption before it looks for sentences,
//! which leaves little of the model to matter: a word in lower case never begins a sentence after an
//! abbreviation, an ellipsis, an initial or a number (the model knows four words, all of them from the stock
//! market pages, that it has seen begin a sentence in lower case and never with a capital). So collocations,
//! sentence starters and the spellings of 20,000 words fall away, and the abbreviations remain.
//!
//! Departure: the model also knows some sixty pairs and triples of initials ("j.p", "r.h") that are left out.
//! Where one of them ends a word, its full stop becomes a token of its own here and stays with the word there;
//! neither is ever the name of an object.

use std::ops::Range;

use super::tokens::is_word_letter;

/// Abbreviations of English that the model knows, without their full stop: they end no sentence.
const ABBREVIATIONS: &[&[&str]] = &[
    &["adm", "dr", "gen", "lt", "maj", "messrs", "mr", "mrs", "ms", "prof", "rep", "reps", "sen"],
    &["bros", "cie", "co", "corp", "cos", "inc", "ltd", "jr", "sr", "ph.d", "m.b.a"],
    &["jan", "feb", "aug", "sep", "sept", "oct", "nov", "dec", "tues", "wed", "fri", "yr"],
    &["a.m", "p.m", "a.d", "vs", "chg", "ft", "mg", "ok", "ave", "st", "ct", "col", "sw"],
    &["u.k", "u.n", "u.s", "u.s.a", "u.s.s.r", "l.a", "n.y", "d.c", "n.c", "n.d", "n.h", "n.j"],
    &["n.m", "r.i", "s.c", "w.va", "ala", "ariz", "calif", "colo", "conn", "fla", "ga", "ill"],
    &["kan", "ky", "mich", "minn", "nev", "okla", "ore", "pa", "tenn", "va", "vt", "wash", "wis"],
];

/// Single letters that the model takes for abbreviations.
const LETTERS: &str = "cdefghklmnprstvw";

/// The words in lower case that may begin a sentence for all the model knows.
const BEGINNERS: [&str; 4] = ["administrators", "b-week", "r-revised", "z-holiday"];

/// What Python calls white space in text.
pub(super) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\x1c'..='\x1f').contains(&letter)
}

/// The sentences of a lower-cased text as byte ranges, in order, without the white space between them.
pub(super) fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut slices = Vec::new();
    let mut from = 0;
    for end in candidates(text) {
        if breaks(&text[end.word..end.context]) {
            slices.push(from..end.at + 1);
            from = end.next.unwrap_or(end.at + 1);
        }
    }
    slices.push(from..text.trim_end_matches(is_space).len());
    realign(text, &slices)
}

/// A full stop, question or exclamation mark that may end a sentence.
#[derive(Clone, Copy)]
struct Candidate {
    /// Where the word before it begins.
    word: usize,
    /// Where it stands.
    at: usize,
    /// Where the next word begins; `None` when a closing or opening mark follows at once.
    next: Option<usize>,
    /// Where that word, or that mark, ends.
    context: usize,
}

/// Marks after which a word ends wherever they stand.
fn ends_word(letter: char) -> bool {
    matches!(
        letter,
        ')' | '"' | ';' | '}' | ']' | '*' | ':' | '@' | '\'' | '(' | '{' | '[' | '?' | '!'
    )
}

fn candidates(text: &str) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut previous: Option<Candidate> = None;
    let marks = text.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'.' | b'?' | b'!'));
    for (at, _) in marks {
        let Some((next, context)) = what_follows(text, at + 1) else { continue };
        let (from, stop) = previous.map_or((0, 0), |mark| (mark.word, mark.at));
        // White space in the very first place counts as none, in the original too.
        let space = text.as_bytes()[stop..at].iter().rposition(|&byte| is_ascii_space(byte));
        let word = space.filter(|&place| place > 0).map_or(from, |place| stop + place + 1);
        // Of several marks on one word ("what?!") the last one decides.
        found.extend(previous.filter(|mark| mark.at <= word));
        previous = Some(Candidate { word, at, next, context });
    }
    found.extend(previous);
    found
}

fn is_ascii_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Start of the next word, if white space comes first, and end of what follows; `None` when nothing that
/// allows an end of a sentence follows.
fn what_follows(text: &str, at: usize) -> Option<(Option<usize>, usize)> {
    let rest = &text[at..];
    let first = rest.chars().next()?;
    if ends_word(first) {
        return Some((None, at + first.len_utf8()));
    }
    let word = rest.trim_start_matches(is_space);
    let next = at + rest.len() - word.len();
    let length = word.find(is_space).unwrap_or(word.len());
    (next > at && length > 0).then_some((Some(next), next + length))
}

/// A word of a context with what its form alone says.
struct Word<'a> {
    text: &'a str,
    ends_sentence: bool,
}

/// Whether a sentence ends before the last word of a context.
fn breaks(context: &str) -> bool {
    let mut words = Vec::new();
    for line in context.split('\n') {
        words_of_line(line, &mut words);
    }
    words.windows(2).any(|pair| pair[0].ends_sentence && !goes_on(&pair[0], &pair[1]))
}

/// Whether a number or an initial with its full stop belongs to what follows.
fn goes_on(word: &Word, next: &Word) -> bool {
    let numbered = word.text.ends_with('.') && (is_number(word.text) || is_initial(word.text));
    let bare = next.text.strip_suffix('.').filter(|_| next.ends_sentence).unwrap_or(next.text);
    let punctuation = matches!(next.text, ";" | ":" | "," | "." | "!" | "?");
    numbered
        && (punctuation || next.text.starts_with(char::is_lowercase) && !BEGINNERS.contains(&bare))
}

/// A sign and a point, if any, then a digit, then digits, commas, points and hyphens.
fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let digits = digits.strip_prefix(['.', ',']).unwrap_or(digits);
    digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'.' | b'-'))
}

fn is_initial(word: &str) -> bool {
    let mut letters = word.chars();
    let first = letters.next();
    first.is_some_and(|letter| is_word_letter(letter) && !letter.is_ascii_digit())
        && letters.next() == Some('.')
        && letters.next().is_none()
}

fn is_abbreviation(word: &str) -> bool {
    let known = |word: &str| {
        ABBREVIATIONS.iter().any(|group| group.contains(&word))
            || word.len() == 1 && LETTERS.contains(word)
    };
    known(word) || word.rsplit('-').next().is_some_and(known)
}

/// Splits a line by Punkt's own rules, which leave full stops on their words.
fn words_of_line<'a>(line: &'a str, words: &mut Vec<Word<'a>>) {
    let mut at = 0;
    while let Some(first) = line[at..].chars().next() {
        let rest = &line[at..];
        let length = if is_space(first) {
            at += first.len_utf8();
            continue;
        } else if let Some(length) = long_mark(rest) {
            length
        } else if opens_no_word(first) {
            first.len_utf8()
        } else {
            word_length(rest)
        };
        let text = &rest[..length];
        let stopped = text.len() > 1 && text.ends_with('.') && !text.ends_with("..");
        let ends_sentence = match text {
            "." | "?" | "!" => true,
            _ => stopped && !is_abbreviation(&text[..text.len() - 1]),
        };
        words.push(Word { text, ends_sentence });
        at += length;
    }
}

fn opens_no_word(letter: char) -> bool {
    "(\"`{[:;&#*@)}]-,".contains(letter)
}

/// The length of a word that begins here: up to white space, a mark that ends words, or a comma before one.
fn word_length(text: &str) -> usize {
    let ends = |rest: &str| {
        rest.chars().next().is_none_or(|letter| is_space(letter) || ends_word(letter))
            || long_mark(rest).is_some()
    };
    let later = text.char_indices().skip(1);
    let end = later.map(|(at, _)| at).find(|&at| {
        let rest = &text[at..];
        ends(rest) || rest.strip_prefix(',').is_some_and(ends)
    });
    end.unwrap_or(text.len())
}

/// The length of a dash of hyphens or an ellipsis, with or without spaces.
fn long_mark(text: &str) -> Option<usize> {
    let run = |mark: u8| text.bytes().take_while(|&byte| byte == mark).count();
    let (hyphens, points) = match text.as_bytes().first()? {
        b'-' => (run(b'-'), 0),
        b'.' => (0, run(b'.')),
        _ => return None,
    };
    if hyphens.max(points) >= 2 {
        return Some(hyphens.max(points));
    }
    (points == 1).then(|| spaced_ellipsis(text)).flatten()
}

/// ". . ." and longer.
fn spaced_ellipsis(text: &str) -> Option<usize> {
    let (mut length, mut spaced) = (0, 0);
    while let Some(rest) = text[length..].strip_prefix('.') {
        let Some(space) = rest.chars().next().filter(|&letter| is_space(letter)) else {
            return (spaced >= 2).then_some(length + 1);
        };
        if !rest[space.len_utf8()..].starts_with('.') {
            return (spaced >= 2).then_some(length + 1);
        }
        length += 1 + space.len_utf8();
        spaced += 1;
    }
    None
}

/// Gives closing quotes and brackets at the start of a sentence back to the one before.
fn realign(text: &str, slices: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut sentences = Vec::with_capacity(slices.len());
    let mut taken = 0;
    for (index, slice) in slices.iter().enumerate() {
        let start = slice.start + taken;
        taken = 0;
        let mut end = slice.end;
        if let Some(next) = slices.get(index + 1)
            && let Some((closers, length)) = closers(text.get(next.clone()).unwrap_or_default())
        {
            end = next.start + closers;
            taken = length;
        }
        if start < end {
            sentences.push(start..end);
        }
    }
    sentences
}

/// How many closing marks begin a sentence, and their length with the white space behind them, if white space,
/// a dash or the end follows them.
fn closers(sentence: &str) -> Option<(usize, usize)> {
    let closing = |byte: &u8| matches!(byte, b'"' | b'\'' | b')' | b']' | b'}');
    let count = sentence.bytes().take_while(|byte| closing(byte)).count();
    let rest = &sentence[count..];
    let blank = rest.len() - rest.trim_start_matches(is_space).len();
    let ends = blank > 0 || rest.is_empty() || rest.starts_with("--");
    (count > 0 && ends).then_some((count, count + blank))
}
