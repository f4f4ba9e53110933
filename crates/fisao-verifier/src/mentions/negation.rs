//! Mentions that deny their object: "no dog", "without a car", "there isn't any traffic light".
//!
//! A unit is negated when, walking back from it inside its clause, a negation comes before
//! anything that could end the negation's reach: punctuation, another mention, or a second word
//! that is neither function word nor the unit's own adjective. "or" carries the verdict of the
//! mention before it ("no dogs or cats"); "and" does not.

use super::vocabulary::Match;
use super::words::Word;

const CUES: &[&str] = &[
    "no", "not", "without", "never", "neither", "nor", "none", "cannot", "lack", "lacks",
    "lacking", "devoid",
];

/// "not only a dog" and "no doubt a dog" claim the dog.
const AFFIRMING: &[&str] = &["only", "just", "merely", "doubt"];

/// Words between a negation and what it denies that do not end its reach.
const FUNCTION_WORDS: &[&str] = &[
    "a", "an", "the", "any", "other", "single", "visible", "sign", "signs", "trace", "traces",
    "hint", "of", "is", "are", "be", "been", "was", "were", "appear", "appears", "seem", "seems",
    "to", "see", "seen", "show", "shows", "contain", "contains", "include", "includes", "have",
    "has", "having", "there",
];

/// One verdict per match, in order.
pub(crate) fn negated(text: &str, words: &[Word], matches: &[Match<'_>]) -> Vec<bool> {
    let mut verdicts: Vec<bool> = Vec::with_capacity(matches.len());
    for (index, found) in matches.iter().enumerate() {
        let earlier = index.checked_sub(1).map(|i| (matches[i].words.end, verdicts[i]));
        verdicts.push(is_negated(text, words, found.words.start, earlier));
    }
    verdicts
}

/// `earlier` is the mention before: the index after its last word, and its verdict.
fn is_negated(text: &str, words: &[Word], start: usize, earlier: Option<(usize, bool)>) -> bool {
    let between = |left: usize| &text[words[left].span.end..words[left + 1].span.start];
    let mut adjectives = 0;
    let mut alternative = false;
    for at in (0..start).rev() {
        let next_is_or = words[at + 1].text == "or";
        if ends_clause(between(at)) && !next_is_or {
            return false;
        }
        if let Some((end, verdict)) = earlier
            && at < end
        {
            return alternative && verdict;
        }
        let word = words[at].text.as_str();
        let contraction = word == "t" && at > 0 && matches!(between(at - 1), "'" | "\u{2019}");
        if contraction || CUES.contains(&word) {
            return !AFFIRMING.contains(&words[at + 1].text.as_str());
        }
        if word == "or" {
            alternative = true;
        } else if !FUNCTION_WORDS.contains(&word) {
            adjectives += 1;
            if adjectives > 1 {
                return false;
            }
        }
    }
    false
}

fn ends_clause(between: &str) -> bool {
    between.contains(['.', ',', ';', ':', '!', '?', '(', ')', '\n', '\u{2013}', '\u{2014}'])
}
