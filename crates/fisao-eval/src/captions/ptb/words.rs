//! Words: contractions, apostrophes, hyphens, slashes.

use super::text::{Text, digit, hyphen, inside_mark, letter, letter_or_digit};
use super::{Form, Found};

/// Two words that are written as one, with the length of the first.
const FUSED: [(&str, usize); 8] = [
    ("cannot", 3),
    ("gonna", 3),
    ("gotta", 3),
    ("lemme", 3),
    ("gimme", 3),
    ("wanna", 3),
    ("'tis", 2),
    ("'twas", 2),
];

/// Words with an apostrophe at their start, end or where a contraction would be split.
const WITH_APOSTROPHE: [&str; 15] = [
    "dunkin'",
    "somethin'",
    "ol'",
    "'em",
    "'till",
    "'til",
    "'cause",
    "cont'd.",
    "cont'd",
    "nor'easter",
    "c'mon",
    "e'er",
    "s'mores",
    "ev'ry",
    "li'l",
];

/// Words and parts of words that stay whole though they hold a mark.
const WHOLE: [&str; 16] = [
    "-lrb-",
    "-rrb-",
    "-lcb-",
    "-rcb-",
    "-lsb-",
    "-rsb-",
    "c.d.s",
    "pro-",
    "anti-",
    "s&p-500",
    "s&amp;p-500",
    "s&ls",
    "s&amp;ls",
    "c++",
    "c#",
    "f#",
];

/// "can not", "gon na", "'t was".
pub(super) fn fused(text: &Text, at: usize) -> Option<Found> {
    FUSED.iter().find_map(|(word, first)| {
        let reach = text.says(at, word)?;
        let second = word.len() - first;
        Some(Found { reach, ..Found::plain(reach - second) })
    })
}

/// A letter, letters and digits, and as much again behind a full stop, a question mark or an exclamation mark.
fn end_of_word(text: &Text, at: usize) -> Option<usize> {
    let mut end = one_word(text, at)?;
    while matches!(text.at(end), '.' | '!' | '?') {
        let Some(next) = one_word(text, end + 1) else { break };
        end = next;
    }
    Some(end)
}

fn one_word(text: &Text, at: usize) -> Option<usize> {
    let mut end = text.letters(at);
    if end == at {
        return None;
    }
    loop {
        let next = text.letters(text.run(end, digit));
        if next == end {
            return Some(end);
        }
        end = next;
    }
}

/// A word, and the word before "'s", "'re" and the like.
pub(super) fn word(text: &Text, at: usize) -> Option<Found> {
    let end = end_of_word(text, at)?;
    let reach = end_of_auxiliary(text, end).unwrap_or(end);
    Some(Found { reach, form: Form::WithoutSoftHyphens, ..Found::plain(end) })
}

/// The word before "n't".
pub(super) fn negated(text: &Text, at: usize) -> Option<Found> {
    let part = |it: char| it.is_ascii_alphabetic() || it == '\u{ad}';
    let apostrophe = text.run(at, part);
    let end = apostrophe.checked_sub(1).filter(|&end| end > at)?;
    let reach = end_of_not(text, end)?;
    let last = text.slice(at, end).iter().rev().find(|&&it| it != '\u{ad}')?;
    let form = Form::WithoutSoftHyphens;
    (!matches!(last, 'n' | 'N')).then_some(Found { reach, form, ..Found::plain(end) })
}

/// "'s", "'m", "'d", "'re", "'ve", "'ll".
fn end_of_auxiliary(text: &Text, at: usize) -> Option<usize> {
    let next = text.apostrophe(at)?;
    text.says_any(next, &["re", "ve", "ll", "m", "s", "d"])
}

/// "n't".
fn end_of_not(text: &Text, at: usize) -> Option<usize> {
    let apostrophe = text.says(at, "n")?;
    text.inner_apostrophe(apostrophe).and_then(|next| text.says(next, "t"))
}

/// "'s" and the like where no letter follows.
pub(super) fn auxiliary(text: &Text, at: usize) -> Option<Found> {
    let end = end_of_auxiliary(text, at)?;
    let alone = !text.at(end).is_ascii_alphabetic();
    alone.then_some(Found { reach: end + 1, form: Form::ClosingQuote, ..Found::plain(end) })
}

/// "'s" and the like before further letters.
pub(super) fn begun_auxiliary(text: &Text, at: usize) -> Option<Found> {
    let end = end_of_auxiliary(text, at)?;
    Some(Found { form: Form::ClosingQuote, ..Found::plain(end) })
}

/// "n't".
pub(super) fn not(text: &Text, at: usize) -> Option<Found> {
    let end = end_of_not(text, at)?;
    Some(Found { form: Form::ClosingQuote, ..Found::plain(end) })
}

/// Words of which an apostrophe is part.
pub(super) fn with_apostrophe(text: &Text, at: usize) -> Option<Found> {
    let listed = WITH_APOSTROPHE.iter().filter_map(|word| spelled(text, at, word)).max();
    let ends = [
        listed,
        spelled(text, at, "nat'l"),
        and_between(text, at),
        one_letter(text, at),
        before_a_name(text, at),
        after_a_vowel(text, at),
        decade(text, at),
        exclamation(text, at),
    ];
    Some(Found::plain(ends.into_iter().flatten().max()?))
}

/// A listed word, with any apostrophe for its own.
fn spelled(text: &Text, at: usize, word: &str) -> Option<usize> {
    let (before, after) = word.split_once('\'')?;
    let apostrophe = text.says(at, before)?;
    text.apostrophe(apostrophe).and_then(|next| text.says(next, after))
}

/// 'n' and 'n
fn and_between(text: &Text, at: usize) -> Option<usize> {
    let end = text.apostrophe(at).and_then(|next| text.says(next, "n"))?;
    Some(text.apostrophe(end).unwrap_or(end))
}

/// l' d' j'
fn one_letter(text: &Text, at: usize) -> Option<usize> {
    let next = text.one(at, |it| matches!(it, 'l' | 'L' | 'd' | 'D' | 'j' | 'J'))?;
    text.apostrophe(next)
}

/// A capital, but not I or Y, or an "n", before an apostrophe and two letters or more: "B'Gosh".
fn before_a_name(text: &Text, at: usize) -> Option<usize> {
    let next = text.one(at, |it| matches!(it, 'A'..='H' | 'J'..='X' | 'Z' | 'n'))?;
    let start = text.inner_apostrophe(next)?;
    let end = text.run(start, letter);
    (end >= start + 2).then_some(end)
}

/// Letters, the last a vowel, an apostrophe, a vowel or a capital: "Shi'ite".
fn after_a_vowel(text: &Text, at: usize) -> Option<usize> {
    let apostrophe = text.run(at, letter);
    let last = apostrophe.checked_sub(1).filter(|&last| last > at)?;
    let vowel = |it: char| matches!(it.to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u' | 'y');
    text.one(last, vowel)?;
    let start = text.inner_apostrophe(apostrophe)?;
    let next =
        text.one(start, |it| matches!(it, 'a' | 'e' | 'i' | 'o' | 'u') || it.is_ascii_uppercase())?;
    Some(text.run(next, letter))
}

/// '90s
fn decade(text: &Text, at: usize) -> Option<usize> {
    let start = text.apostrophe(at)?;
    let next = text.one(start, |it| matches!(it, '2'..='9'))?;
    text.says(next, "0s")
}

/// O'o
fn exclamation(text: &Text, at: usize) -> Option<usize> {
    let next = text.says(at, "o")?;
    text.inner_apostrophe(next).and_then(|next| text.says(next, "o"))
}

/// y' before a letter: "y' all".
pub(super) fn you(text: &Text, at: usize) -> Option<Found> {
    let next = text.says(at, "y")?;
    let end = text.apostrophe(next)?;
    letter(text.at(end)).then_some(Found { reach: end + 1, ..Found::plain(end) })
}

/// Words that stay whole though they hold a mark.
pub(super) fn whole(text: &Text, at: usize) -> Option<Found> {
    let listed = text.says_any(at, &WHOLE);
    let spelled = ["cap'n", "c'est"].iter().find_map(|word| spelled(text, at, word));
    Some(Found { form: Form::Ampersand, ..Found::plain(listed.or(spelled)?) })
}

/// Words with slashes: "and/or", "co-op/shop".
pub(super) fn with_slashes(text: &Text, at: usize) -> Option<Found> {
    let part = |start| {
        let mut end = text.some(start, usize::MAX, |it| it.is_ascii_alphanumeric())?;
        for _ in 0..2 {
            let behind = text
                .says(end, "-")
                .and_then(|next| text.some(next, usize::MAX, |it| it.is_ascii_alphabetic()));
            end = behind.unwrap_or(end);
        }
        Some(end)
    };
    let behind_slash = |at| text.says_any(at, &["/", "\\/"]).and_then(part);
    let one = behind_slash(part(at)?)?;
    Some(Found::plain(behind_slash(one).unwrap_or(one)))
}

/// A word before a full stop that is followed by a mark inside of the sentence: "etc.,".
pub(super) fn stopped_word(text: &Text, at: usize) -> Option<Found> {
    stopped(text, end_of_word(text, at)?)
}

/// With the full stop, where a mark inside of the sentence follows.
fn stopped(text: &Text, end: usize) -> Option<Found> {
    let stop = text.says(end, ".")?;
    let form = Form::WithoutSoftHyphens;
    inside_mark(text.at(stop)).then_some(Found { reach: stop + 1, form, ..Found::plain(stop) })
}

/// Words and numbers with hyphens, the first perhaps with full stops and commas: "10,000-mile",
/// "U.S.-based".
pub(super) fn hyphenated(text: &Text, at: usize) -> Option<Found> {
    text.one(at, |it| it.is_ascii_alphanumeric())?;
    let first = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | ',' | '\u{ad}');
    let mut end = text.run(at, first);
    let part = |start| {
        let word = |it: char| it.is_ascii_alphanumeric() || it == '\u{ad}';
        text.some(start, usize::MAX, word).max(super::abbreviations::end_of_initials(text, start))
    };
    let mut hyphens = 0;
    while let Some(next) = text.says(end, "-").and_then(part) {
        (end, hyphens) = (next, hyphens + 1);
    }
    let form = Form::WithoutSoftHyphens;
    (hyphens > 0).then_some(Found { form, ..Found::plain(end) })
}

/// Letters and digits with hyphens, and before each part perhaps a letter with an apostrophe:
/// "d'Avignon", "o'clock", "state-of-the-art".
fn end_of_compound(text: &Text, at: usize) -> Option<usize> {
    let elided = |start| {
        let next = text.one(start, |it| matches!(it, 'd' | 'D' | 'o' | 'O' | 'l' | 'L'))?;
        let start = text.inner_apostrophe(next)?;
        text.some(start, usize::MAX, letter_or_digit).filter(|&end| end >= start + 2)
    };
    let part = |start| elided(start).max(text.some(start, usize::MAX, letter_or_digit));
    let mut end = part(at)?;
    while let Some(next) = text.one(end, hyphen).and_then(part) {
        end = next;
    }
    Some(end)
}

/// See [`end_of_compound`].
pub(super) fn compound(text: &Text, at: usize) -> Option<Found> {
    Some(Found::plain(end_of_compound(text, at)?))
}

/// With the full stop, where a mark inside of the sentence follows.
pub(super) fn stopped_compound(text: &Text, at: usize) -> Option<Found> {
    Some(Found { form: Form::Plain, ..stopped(text, end_of_compound(text, at)?)? })
}

/// Capitals around "&" or "+": "AT&T".
fn end_of_initials_and(text: &Text, at: usize) -> Option<usize> {
    let capitals = |start| text.some(start, usize::MAX, |it| it.is_ascii_uppercase());
    let joined = |at| text.says_any(at, &["&amp;", "&", "+"]).and_then(capitals);
    let mut end = joined(capitals(at)?)?;
    while let Some(next) = joined(end) {
        end = next;
    }
    Some(end)
}

/// See [`end_of_initials_and`].
pub(super) fn initials_and(text: &Text, at: usize) -> Option<Found> {
    let end = end_of_initials_and(text, at)?;
    Some(Found { form: Form::Ampersand, ..Found::plain(end) })
}

/// With the full stop, where a mark inside of the sentence follows.
pub(super) fn stopped_initials_and(text: &Text, at: usize) -> Option<Found> {
    Some(Found { form: Form::Ampersand, ..stopped(text, end_of_initials_and(text, at)?)? })
}
