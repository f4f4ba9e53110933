//! Denials after a mention.

use std::sync::LazyLock;

use super::super::lexicon::Lexicon;
use super::super::words::{Words, word_before};
use super::{Place, ends_clause, is_any, is_apostrophe, is_hyphen};

/// What a word begins when it follows a mention.
#[derive(Clone, Copy, Debug)]
enum Opening {
    /// "is", or its stem in "isn't".
    Be,
    /// "can", or its stem in "couldn't".
    Can,
    /// "does", or its stem in "doesn't".
    Do,
    Cannot,
    Nowhere,
    /// After a hyphen.
    Free,
}

static OPENINGS: LazyLock<Lexicon<Opening>> = LazyLock::new(|| {
    let groups: [(&[&str], Opening); 6] = [
        (&["is", "are", "was", "were", "isn", "aren", "wasn", "weren"], Opening::Be),
        (&["can", "could", "couldn"], Opening::Can),
        (&["do", "does", "did", "don", "doesn", "didn"], Opening::Do),
        (&["cannot"], Opening::Cannot),
        (&["nowhere"], Opening::Nowhere),
        (&["free"], Opening::Free),
    ];
    let words =
        groups.iter().flat_map(|(words, role)| words.iter().map(move |word| (*word, *role)));
    Lexicon::new(words.map(|(word, role)| (word.to_owned(), role)).collect())
});

const VISIBLE: &[&str] =
    &["visible", "present", "seen", "shown", "depicted", "pictured", "found", "there"];
const ABSENT: &[&str] = &["absent", "missing"];
const DETERMINERS: &[&str] = &["the", "this", "that", "these", "any", "either"];
const IMAGES: &[&str] =
    &["image", "picture", "photo", "photograph", "scene", "frame", "shot", "view", "sight"];
const ELSEWHERE: &[&str] = &["here", "anywhere"];
const CONJUNCTIONS: &[&str] =
    &["and", "but", "or", "because", "though", "although", "while", "since", "so"];

/// Words before a mention that leave it the subject.
const OWN_WORDS: &[&str] = &["a", "an", "the", "any", "his", "her", "its", "their", "other"];
/// Words after which a clause begins, beside conjunctions.
const CLAUSE_STARTS: &[&str] = &["that", "where"];

pub(super) fn denies(place: &Place) -> bool {
    if !may_open(&place.text.as_bytes()[place.end..]) {
        return false;
    }
    let mut words = place.following.clone();
    let Some(first) = words.next() else { return false };
    let Some(opening) = OPENINGS.get(place.text, first) else { return false };
    let between = &place.text[place.end..first.start];
    if let Opening::Free = opening {
        return is_hyphen(between);
    }
    if !is_space(between) {
        return false;
    }
    let mut rest = Rest { text: place.text, end: first.end, words };
    let said = match opening {
        Opening::Be => rest.after_be(),
        Opening::Can => rest.not() && rest.be_seen(),
        Opening::Cannot => rest.be_seen(),
        Opening::Do => rest.not() && rest.word(&["appear", "exist"]) && rest.closes(false),
        Opening::Nowhere => rest.nowhere(),
        Opening::Free => false,
    };
    said && is_subject(place, matches!(opening, Opening::Nowhere))
}

/// Whether an opening can follow, judged by two bytes: most mentions are done with here.
fn may_open(rest: &[u8]) -> bool {
    match rest {
        [b' ', letter, ..] if letter.is_ascii_alphabetic() => {
            b"acdinw".contains(&letter.to_ascii_lowercase())
        }
        [] | [b'.' | b',', ..] => false,
        _ => true,
    }
}

/// What follows the words that were read.
struct Rest<'a> {
    text: &'a str,
    /// Where the word before ended.
    end: usize,
    words: Words<'a>,
}

impl Rest<'_> {
    /// Reads one of the words given, if it comes next after space.
    fn word(&mut self, listed: &[&str]) -> bool {
        self.word_after(is_space, listed)
    }

    fn word_after(&mut self, between: fn(&str) -> bool, listed: &[&str]) -> bool {
        let mut words = self.words.clone();
        let next = words.next().filter(|next| {
            between(&self.text[self.end..next.start]) && is_any(self.text, *next, listed)
        });
        if let Some(next) = next {
            (self.end, self.words) = (next.end, words);
        }
        next.is_some()
    }

    /// "not", or the rest of "isn't".
    fn not(&mut self) -> bool {
        self.word(&["not"]) || self.word_after(is_apostrophe, &["t"])
    }

    fn after_be(&mut self) -> bool {
        if self.not() {
            return self.word(VISIBLE) && self.closes(false) || self.in_image();
        }
        self.word(ABSENT) && self.closes(true) || self.word(&["nowhere"]) && self.nowhere()
    }

    /// "in the image", "in sight".
    fn in_image(&mut self) -> bool {
        self.word(&["in"]) && {
            self.word(DETERMINERS);
            self.word(IMAGES)
        }
    }

    fn be_seen(&mut self) -> bool {
        self.word(&["be"]) && self.word(VISIBLE) && self.closes(false)
    }

    fn nowhere(&mut self) -> bool {
        self.word(&["to"]) && self.word(&["be"]) && self.word(&["seen", "found"])
            || self.word(&["in"]) && self.word(&["sight", "view"])
    }

    /// Whether the clause ends here, or only says where. `from`: a "from" says so too.
    fn closes(&mut self, from: bool) -> bool {
        let Some(next) = self.words.clone().next() else { return true };
        ends_clause(&self.text[self.end..next.start])
            || self.word(CONJUNCTIONS)
            || self.word(ELSEWHERE)
            || self.word(&["at"]) && self.word(&["all"])
            || from && self.word(&["from"])
            || self.word(&["in"]) && (self.word(DETERMINERS) || self.word(&["sight", "view"]))
    }
}

/// Whether the mention begins its clause, so that what follows is said of it and not of "the owner
/// of the dog". `with`: so does "with", which comes before "the dog nowhere to be seen".
fn is_subject(place: &Place, with: bool) -> bool {
    let text = place.text;
    let mut next = place.first;
    let mut adjectives = 0;
    while let Some(word) = word_before(text, next.start) {
        if ends_clause(&text[word.end..next.start])
            || is_any(text, word, CONJUNCTIONS)
            || is_any(text, word, CLAUSE_STARTS)
            || with && is_any(text, word, &["with"])
        {
            return true;
        }
        // An adjective stands between the mention and the article.
        if !is_any(text, word, OWN_WORDS) {
            adjectives += 1;
            if adjectives > 1 || is_any(text, next, OWN_WORDS) {
                return false;
            }
        }
        next = word;
    }
    true
}

fn is_space(between: &str) -> bool {
    !between.is_empty() && between.chars().all(char::is_whitespace)
}
