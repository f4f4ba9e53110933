//! What common English words do in a caption.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Classes of a word, one bit each; none of a word that is not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes(u16);

impl Classes {
    pub(super) const DETERMINER: Self = Self(1);
    pub(super) const NUMBER: Self = Self(1 << 1);
    pub(super) const MEASURE: Self = Self(1 << 2);
    pub(super) const PREPOSITION: Self = Self(1 << 3);
    pub(super) const FUNCTION: Self = Self(1 << 4);
    pub(super) const VERB: Self = Self(1 << 5);
    pub(super) const ADVERB: Self = Self(1 << 6);
    pub(super) const COLOUR: Self = Self(1 << 7);
    pub(super) const ADJECTIVE: Self = Self(1 << 8);
    pub(super) const ABSTRACT: Self = Self(1 << 9);
    pub(super) const SETTING: Self = Self(1 << 10);
    pub(super) const NOUN: Self = Self(1 << 11);
    /// Ends like a participle, and is not listed.
    pub(super) const PARTICIPLE: Self = Self(1 << 12);

    /// Whether the word is of one of some classes.
    pub(super) fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// Those of either.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of a word in lower case.
    pub(super) fn of(word: &str) -> Self {
        if let Some(classes) = WORDS.get(word) {
            return *classes;
        }
        let stem = |ending: &str| word.strip_suffix(ending).map_or(0, str::len);
        if word.bytes().all(|byte| byte.is_ascii_digit()) {
            Self::NUMBER
        } else if stem("ly") > 2 {
            Self::ADVERB
        } else if ABSTRACT_ENDINGS.iter().any(|ending| stem(ending) > 2) {
            Self::ABSTRACT
        } else if stem("ing") > 2 || stem("ed") > 2 {
            Self::PARTICIPLE
        } else {
            Self::default()
        }
    }
}

/// Endings of nouns that nothing can be pointed at; what can is listed.
const ABSTRACT_ENDINGS: [&str; 9] =
    ["tion", "sion", "ness", "ity", "ance", "ence", "ship", "ism", "ment"];

/// Sections of the lexicon and what they stand for.
const SECTIONS: [(&str, Classes); 12] = [
    ("[determiner]", Classes::DETERMINER),
    ("[number]", Classes::NUMBER),
    ("[measure]", Classes::MEASURE),
    ("[preposition]", Classes::PREPOSITION),
    ("[function]", Classes::FUNCTION),
    ("[verb]", Classes::VERB),
    ("[adverb]", Classes::ADVERB),
    ("[colour]", Classes::COLOUR),
    ("[adjective]", Classes::ADJECTIVE),
    ("[abstract]", Classes::ABSTRACT),
    ("[setting]", Classes::SETTING),
    ("[noun]", Classes::NOUN),
];

static WORDS: LazyLock<HashMap<&'static str, Classes>> = LazyLock::new(|| {
    let mut words = HashMap::new();
    let mut section = Classes::default();
    for line in include_str!("../../data/lexicon.txt").lines() {
        if line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            let known = SECTIONS.iter().find(|(name, _)| *name == line);
            section = known.expect("the lexicon has known sections only").1;
            continue;
        }
        for word in line.split_whitespace() {
            let classes: &mut Classes = words.entry(word).or_default();
            *classes = classes.or(section);
        }
    }
    words
});

#[cfg(test)]
mod tests {
    use super::Classes;

    #[test]
    fn words_have_the_classes_of_their_sections_or_endings() {
        assert!(Classes::of("the").any(Classes::DETERMINER));
        assert!(Classes::of("left").any(Classes::VERB));
        assert!(Classes::of("left").any(Classes::ABSTRACT));
        assert!(Classes::of("12").any(Classes::NUMBER));
        assert!(Classes::of("slowly").any(Classes::ADVERB));
        assert!(Classes::of("juggling").any(Classes::PARTICIPLE));
        assert_eq!(Classes::of("building"), Classes::NOUN);
        assert_eq!(Classes::of("zebra"), Classes::default());
        assert_eq!(Classes::of("sing"), Classes::default());
    }
}
