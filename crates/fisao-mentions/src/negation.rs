//! Mentions that deny their object: "no dog", "without a car", "there isn't any traffic light".
//!
//! A mention is negated by what comes before it or by what follows it.
//!
//! **Before** ([`before`]). Walking back from the mention inside its clause, a negation comes before
//! anything that could end the negation's reach: punctuation, another mention, or a second word
//! that is neither function word nor the mention's own adjective. "or" carries the verdict of the
//! mention before it ("no dogs or cats"), also through a list that ends in it ("no dogs, cats, or
//! birds"); "and" does not. Negations are
//! * "no", "not" and "n't", "never", "neither", "nor", "none", "cannot";
//! * "without", "lack", "lacks", "lacked", "lacking", "devoid", and before "of" also "free",
//!   "absence", "void", "empty" and "bereft". After "no", "not", "n't" or "never" these claim: "no
//!   lack of dogs", "not without a dog".
//!
//! These look like one and are none:
//! * a word on the way that takes it back ([`before::AFFIRMING`]): "not only a dog", "no doubt a
//!   dog", "none other than a dog", "not all dogs";
//! * "none of the dogs", which says something else of dogs that are there;
//! * "no longer", but for "there is no longer a dog";
//! * "no" as part of a name, told by a hyphen or an article, unless the mention comes next: "a
//!   no-parking sign", "a no parking sign";
//! * "cannot see a dog without noticing", which denies twice;
//! * "set free of", "broke free of".
//!
//! **After** ([`after`]). The mention begins its clause, or is all but its article, and there follows
//! * "is not" or "isn't" and "visible", "present", "seen", "shown", "depicted", "pictured", "found"
//!   or "there", and "cannot be seen" with its like;
//! * "is not in the image" with its like;
//! * "is absent", "is missing";
//! * "nowhere to be seen", "nowhere to be found", "nowhere in sight";
//! * "does not appear", "does not exist".
//!
//! What comes next must end the clause, go on to another, or say in what: "the dog is not seen
//! barking", "is not visible to the cat", "is missing a leg" claim the dog. "is no longer visible"
//! claims it too: it was there. Wherever it stands, a mention before "-free" is negated: "a car-free
//! street". Of "dogs and cats are absent" only the cats are.

mod after;
mod before;

pub(crate) use before::denying_words;

use super::words::{Word, Words};

/// A mention whose verdict is asked for.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) text: &'a str,
    /// First word of the mention.
    pub(crate) first: Word,
    /// Where its last word ends.
    pub(crate) end: usize,
    /// Words that follow it.
    pub(crate) following: &'a Words<'a>,
    /// Where the mention before ended, and whether something before denied that one.
    pub(crate) earlier: Option<(usize, bool)>,
}

impl Place<'_> {
    /// Whether something before denies the mention.
    pub(crate) fn is_denied_before(&self) -> bool {
        before::denies(self)
    }

    /// Whether something after denies the mention.
    pub(crate) fn is_denied_after(&self) -> bool {
        after::denies(self)
    }
}

const CLAUSE_ENDS: [char; 11] =
    ['.', ',', ';', ':', '!', '?', '(', ')', '\n', '\u{2013}', '\u{2014}'];

/// Whether what stands between two words ends a clause.
fn ends_clause(between: &str) -> bool {
    between != " " && between.contains(CLAUSE_ENDS)
}

/// Whether what stands between two items of a list is a comma and no more.
fn is_comma(between: &str) -> bool {
    between.trim() == ","
}

fn is_hyphen(between: &str) -> bool {
    matches!(between, "-" | "\u{2010}" | "\u{2011}")
}

fn is_apostrophe(between: &str) -> bool {
    matches!(between, "'" | "\u{2019}")
}

/// Whether a word is one of those given in lower case.
fn is_any(text: &str, word: Word, listed: &[&str]) -> bool {
    listed.iter().any(|listed| word.of(text).eq_ignore_ascii_case(listed))
}
