//! Words of a text, and where given tokens stand in it.

use std::ops::Range;

use super::problems::{Fault, Problem};
use crate::rows::shortened;

/// Words: maximal runs of letters and digits of any script, joined by a single apostrophe or hyphen between two of
/// them ("dog's", "T-shirt"). Nothing else is a word. In bytes of the text.
pub fn words(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut characters = text.char_indices().peekable();
    // Whether the last character seen was of a word, or joins one to what may follow.
    let (mut inside, mut joins) = (false, false);
    while let Some((start, character)) = characters.next() {
        let end = characters.peek().map_or(text.len(), |&(next, _)| next);
        if character.is_alphanumeric() {
            match words.last_mut() {
                Some(word) if inside || joins => word.end = end,
                _ => words.push(start..end),
            }
            (inside, joins) = (true, false);
        } else {
            joins = inside && matches!(character, '\'' | '’' | '-');
            inside = false;
        }
    }
    words
}

/// Where each of some tokens stands in the text they were made of, in order; `None` for one that is empty. White
/// space may lie between them, and the marks of tokenizers for it (`▁`, `Ġ`, `##`) are no part of a token. Case of
/// ASCII letters does not matter, as some tokenizers lower it.
pub(super) fn align<'a>(
    text: &str,
    tokens: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<Option<Range<usize>>>, Fault> {
    let mut position = 0;
    tokens
        .into_iter()
        .enumerate()
        .map(|(at, token)| {
            let bare = token.trim_start_matches(['▁', 'Ġ']);
            let bare =
                if bare == "##" { bare } else { bare.strip_prefix("##").unwrap_or(bare) }.trim();
            if bare.is_empty() {
                return Ok(None);
            }
            let rest = text[position..].trim_start();
            let start = text.len() - rest.len();
            let found = rest.get(..bare.len()).filter(|found| found.eq_ignore_ascii_case(bare));
            let found = found.ok_or_else(|| {
                let following: String = rest.chars().take(20).collect();
                let token = shortened(token);
                let reason = format!(
                    "token {} '{token}' is not where the text goes on with '{following}'",
                    at + 1
                );
                Fault::of(Problem::TokenMissing, reason)
            })?;
            position = start + found.len();
            Ok(Some(start..position))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<&str> {
        words(text).into_iter().map(|word| &text[word]).collect()
    }

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        assert_eq!(
            of("A dog's T-shirt, 3 cafés — ok?"),
            ["A", "dog's", "T-shirt", "3", "cafés", "ok"]
        );
        assert_eq!(
            of("'quoted' -dash- rock'n'roll a--b a'"),
            ["quoted", "dash", "rock'n'roll", "a", "b", "a"]
        );
        assert_eq!(of("...\n"), [""; 0]);
        assert_eq!(of("狗 和 猫"), ["狗", "和", "猫"]);
    }

    #[test]
    fn tokens_are_found_in_order() {
        let text = "Two Cafés, playing";
        let found = align(text, ["▁two", "", " caf", "és", ",", "play", "##ing"]).unwrap();
        let found: Vec<_> = found.into_iter().map(|at| at.map(|at| &text[at])).collect();
        let expected = ["Two", "Caf", "és", ",", "play", "ing"].map(Some);
        assert_eq!(found, [&expected[..1], &[None], &expected[1..]].concat());
        let fault = align(text, ["two", "cars"]).unwrap_err();
        assert_eq!(fault.problem, Some(Problem::TokenMissing));
        assert_eq!(
            fault.reason,
            "token 2 'cars' is not where the text goes on with 'Cafés, playing'"
        );
        assert!(align("é", ["a"]).is_err(), "not within a character");
    }
}
