//! Nouns of the vocabulary in a text.
//!
//! The official script tags words with NLTK and reduces nouns with WordNet's lemmatizer. Here a word is looked up
//! among the benchmark's own words and their English plurals, which finds the same wherever tagger and
//! lemmatizer agree with the dictionary. For the few words of the vocabulary that are mostly something else than
//! nouns, their neighbours decide; these rules are **ours**.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use fisao_mentions::plurals;

/// Which plurals are looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plurals {
    /// Those WordNet's lemmatizer reduces to a word of the vocabulary: "men" stays "men", "leaves" becomes "leaf"
    /// where the vocabulary has "leave" and "vases" becomes "vas", and a word that is a plural itself ("slippers") is reduced
    /// and never found. Words with a capital are not looked up.
    #[default]
    Official,
    /// All of them, whatever the case.
    All,
}

/// Plurals that WordNet's lemmatizer does not bring back to the word of the vocabulary they belong to.
const REDUCED_OTHERWISE: [&str; 3] = ["men", "leaves", "vases"];

/// Surface forms and the words of the vocabulary they stand for.
#[derive(Clone, Debug)]
pub struct Lemmas {
    forms: HashMap<String, String>,
    plurals: Plurals,
}

impl Lemmas {
    /// Of the keys and values of `relation.json`.
    pub fn new(associations: &BTreeMap<String, Vec<String>>, rules: Plurals) -> Self {
        let words = || associations.keys().chain(associations.values().flatten());
        let official = rules == Plurals::Official;
        let mut forms = HashMap::new();
        for word in words() {
            let form = if official { word.clone() } else { word.to_lowercase() };
            if !(official && is_plural(word)) {
                forms.insert(form, word.clone());
            }
        }
        for word in words().filter(|word| !is_plural(word)) {
            for plural in plurals(word) {
                if !(official && REDUCED_OTHERWISE.contains(&plural.as_str())) {
                    let plural = if official { plural } else { plural.to_lowercase() };
                    forms.entry(plural).or_insert_with(|| word.clone());
                }
            }
        }
        Self { forms, plurals: rules }
    }

    /// The word of the vocabulary that a word of a text stands for.
    pub fn of(&self, word: &str) -> Option<&str> {
        match self.plurals {
            Plurals::Official => self.forms.get(word),
            Plurals::All => self.forms.get(&word.to_lowercase()),
        }
        .map(String::as_str)
    }
}

/// Whether a word of the vocabulary is a plural already, such as "chopsticks": its last "s" is not that of
/// "glass", "bus" or "tennis".
fn is_plural(word: &str) -> bool {
    word.ends_with('s') && !["ss", "us", "is"].iter().any(|ending| word.ends_with(ending))
}

/// Words before "can" that make it a tin.
const BEFORE_A_CAN: [&str; 16] = [
    "a",
    "the",
    "one",
    "this",
    "that",
    "each",
    "trash",
    "garbage",
    "rubbish",
    "recycling",
    "tin",
    "soda",
    "beer",
    "watering",
    "paint",
    "spray",
];

/// Words after "can" that make it a verb all the same, as in "the trash can be".
const AFTER_MAY: [&str; 6] = ["be", "also", "have", "not", "see", "is"];

/// What "to" makes a verb: to board a train, to watch a game.
const BEHIND_TO: [&str; 8] =
    ["board", "watch", "drink", "support", "ski", "skate", "paddle", "lounge"];

/// Whether a word is a noun where it stands, between the words before and after.
fn is_noun(before: Option<&str>, word: &str, after: Option<&str>) -> bool {
    let before = before.map(str::to_lowercase).unwrap_or_default();
    match word.to_lowercase().as_str() {
        "can" => {
            let after = after.unwrap_or_default();
            BEFORE_A_CAN.contains(&before.as_str()) && !AFTER_MAY.contains(&after)
        }
        "hot" => false,
        word => before != "to" || !BEHIND_TO.contains(&word),
    }
}

/// Nouns of the vocabulary in a text, in order: as written, and the word of the vocabulary.
pub(super) fn nouns<'a>(text: &'a str, lemmas: &'a Lemmas) -> Vec<(&'a str, &'a str)> {
    let words: Vec<&str> = words(text).collect();
    let noun = |(at, word): (usize, &&'a str)| {
        let before = at.checked_sub(1).map(|at| words[at]);
        let lemma = lemmas.of(word)?;
        is_noun(before, word, words.get(at + 1).copied()).then_some((*word, lemma))
    };
    words.iter().enumerate().filter_map(noun).collect()
}

/// Words of a text: runs of letters and digits, with the hyphens inside them; what follows an apostrophe is a word
/// of its own.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_alphanumeric() || letter == '-'))
        .map(|word| word.trim_matches('-'))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lemmas(plurals: Plurals) -> Lemmas {
        let words = ["man", "leave", "vase", "glass", "bus", "slippers", "TV", "e-book", "child"];
        Lemmas::new(&words.map(|word| (word.to_owned(), Vec::new())).into(), plurals)
    }

    #[test]
    fn words_are_lemmatised_to_vocabulary_nouns() {
        let (official, all) = (lemmas(Plurals::Official), lemmas(Plurals::All));
        for (word, by_official, by_all) in [
            ("man", Some("man"), Some("man")),
            ("men", None, Some("man")),
            ("leaves", None, Some("leave")),
            ("vases", None, Some("vase")),
            ("glasses", Some("glass"), Some("glass")),
            ("buses", Some("bus"), Some("bus")),
            ("bu", None, None),
            ("slippers", None, Some("slippers")),
            ("slipper", None, None),
            ("Bus", None, Some("bus")),
            ("TV", Some("TV"), Some("TV")),
            ("children", Some("child"), Some("child")),
            ("sky", None, None),
        ] {
            assert_eq!((official.of(word), all.of(word)), (by_official, by_all), "{word}");
        }
    }

    #[test]
    fn hyphens_stay_inside_words() {
        let found: Vec<&str> = words("The man's e-book -- a TV/radio, wow!- ").collect();
        assert_eq!(found, ["The", "man", "s", "e-book", "a", "TV", "radio", "wow"]);
    }

    #[test]
    fn adjacent_words_distinguish_nouns_from_verbs() {
        let words = ["can", "hot", "board", "dog", "person"];
        let lemmas =
            Lemmas::new(&words.map(|word| (word.to_owned(), Vec::new())).into(), Plurals::Official);
        let found =
            |text| -> Vec<&str> { nouns(text, &lemmas).iter().map(|noun| noun.0).collect() };
        assert_eq!(found("A person can be seen; the trash can also be seen"), ["person"]);
        assert_eq!(found("A can and the trash can. Two cans"), ["can", "can", "cans"]);
        assert_eq!(found("a hot dog"), ["dog"]);
        assert_eq!(found("waiting to board, a board"), ["board"]);
        assert_eq!(found("next to dog"), ["dog"]);
    }
}
