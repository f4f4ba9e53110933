//! Names that texts use: which nouns and noun phrases they hold, from the texts alone.
//!
//! A small lexicon (`data/lexicon.txt`) says what common words do in a caption. What it does not list may be a noun, and is one
//! where it stands alone between an article, a number, a preposition or a comma and the next of these, a verb or the end ("a dog
//! sitting", "two dogs"). Where several such words follow one another ("traffic light", "dog feeds", "busy street"), counts decide
//! which is the head, and whether they form one name:
//!
//! * the last is the head if it stands alone elsewhere too, or if the one before it never does;
//! * both form a name if the first is hardly seen before another word, or the last hardly behind another.
//!
//! No tagger and no list of objects is asked.

mod lexicon;
mod parse;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use crate::plurals::singulars;
use lexicon::Classes;
use parse::{Phrase, phrases};

/// Fraction of a word's uses before or behind another from which both are one name.
const COHESIVE: f64 = 0.6;
/// The same of a listed adjective: "hot dog". Colours never are part of a name.
const COHESIVE_ADJECTIVE: f64 = 0.8;

/// Fraction of a noun's uses behind an article, a number or an adjective, or in the plural; an unlisted verb or adverb has fewer.
const ANNOUNCED: f64 = 0.25;

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NameKind {
    /// Something: "dog", "traffic light".
    Object,
    /// Where everything is: "kitchen".
    Setting,
    /// Something and how it is: "red car".
    Attribute,
    /// How many of something: "two dogs".
    Count,
    /// Something and where in the image it is: "dog on the left".
    Position,
}

impl NameKind {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Setting => "setting",
            Self::Attribute => "attribute",
            Self::Count => "count",
            Self::Position => "position",
        }
    }
}

/// A name that texts use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NounName {
    /// In lower case; the singular, but for counts.
    pub name: String,
    /// What it says.
    pub kind: NameKind,
    /// The noun that it is said of; its own name where nothing is.
    pub noun: String,
    /// How often it is said.
    pub mentions: usize,
    /// The texts that say it, by their places.
    pub texts: Vec<usize>,
}

/// How texts describe what they name: for each mention of a text, by its bytes, the phrase that it stands in with `{}` in the place of
/// the name ("small brown {}", "{} bed"), or `None` where it stands alone. Articles and numbers are no part of it.
pub fn descriptions(text: &str, mentions: &[Range<usize>]) -> Vec<Option<String>> {
    let phrases = phrases(text);
    let of_mention = |mention: &Range<usize>| {
        let described = &phrases
            .iter()
            .find(|it| it.described.start <= mention.start && mention.end <= it.described.end)?
            .described;
        let before = text[described.start..mention.start].to_lowercase();
        let after = text[mention.end..described.end].to_lowercase();
        let alone = before.is_empty() && after.is_empty();
        (!alone).then(|| format!("{before}{{}}{after}"))
    };
    mentions.iter().map(of_mention).collect()
}

/// The names that at least `least` texts use, by kind, the most frequent first.
pub fn noun_names<'a>(texts: impl IntoIterator<Item = &'a str>, least: usize) -> Vec<NounName> {
    let parsed: Vec<Vec<Phrase>> = texts.into_iter().map(phrases).collect();
    let counts = Counts::of(&parsed);
    let mut found: BTreeMap<(NameKind, String), (String, usize, BTreeSet<usize>)> = BTreeMap::new();
    for (text, phrases) in parsed.iter().enumerate() {
        for phrase in phrases {
            for (kind, name, noun) in counts.names(phrase, least) {
                let (_, mentions, texts) =
                    found.entry((kind, name)).or_insert_with(|| (noun, 0, BTreeSet::new()));
                *mentions += 1;
                texts.insert(text);
            }
        }
    }
    let mut names: Vec<NounName> = found
        .into_iter()
        .filter(|(_, (_, _, texts))| texts.len() >= least)
        .map(|((kind, name), (noun, mentions, texts))| {
            let texts = texts.into_iter().collect();
            NounName { name, kind, noun, mentions, texts }
        })
        .collect();
    // Equally frequent ones stay in alphabetical order.
    names.sort_by_key(|name| (name.kind, std::cmp::Reverse(name.mentions)));
    names
}

/// How words are used in all texts.
struct Counts {
    /// The singular of every noun that is seen as a plural only where it is one.
    singular: HashMap<String, String>,
    /// How often a noun stands alone, by its singular.
    alone: HashMap<String, usize>,
    /// How often an article, a number or an adjective stands before a noun, and how often the noun is there in all.
    announced: HashMap<String, (usize, usize)>,
    /// How often words stand right before their noun, by both.
    pairs: HashMap<(String, String), usize>,
    /// How often a word stands in a noun phrase.
    total: HashMap<String, usize>,
}

impl Counts {
    fn of(texts: &[Vec<Phrase>]) -> Self {
        let all = || texts.iter().flatten();
        let mut counts = Self {
            singular: singular_forms(texts),
            alone: HashMap::new(),
            announced: HashMap::new(),
            pairs: HashMap::new(),
            total: HashMap::new(),
        };
        for phrase in all() {
            let nouns = counts.nouns(phrase);
            if let [noun] = nouns.as_slice() {
                *counts.alone.entry(noun.clone()).or_default() += 1;
            }
            if let Some(noun) = nouns.last() {
                let (announced, all) = counts.announced.entry(noun.clone()).or_default();
                // A plural needs no article.
                let plural = phrase.nouns.last() != Some(noun);
                *announced += usize::from(phrase.announced || plural);
                *all += 1;
            }
            let words: Vec<String> = phrase.modifiers.iter().cloned().chain(nouns).collect();
            for pair in words.windows(2) {
                *counts.pairs.entry((pair[0].clone(), pair[1].clone())).or_default() += 1;
            }
            for word in words {
                *counts.total.entry(word).or_default() += 1;
            }
        }
        counts
    }

    /// The nouns of a phrase, the last of them in the singular.
    fn nouns(&self, phrase: &Phrase) -> Vec<String> {
        let mut nouns = phrase.nouns.clone();
        if let Some(last) = nouns.last_mut()
            && let Some(singular) = self.singular.get(last)
        {
            last.clone_from(singular);
        }
        nouns
    }

    fn stands_alone(&self, noun: &str) -> bool {
        self.alone.contains_key(noun)
    }

    /// Whether two words that follow one another form a name.
    fn is_name(&self, first: &str, last: &str, least: usize) -> bool {
        let pair = (first.to_owned(), last.to_owned());
        let count = self.pairs.get(&pair).copied().unwrap_or(0);
        if count < least {
            return false;
        }
        let fraction = |word| count as f64 / self.total.get(word).copied().unwrap_or(1) as f64;
        let classes = Classes::of(first);
        if classes.any(Classes::COLOUR.or(Classes::ABSTRACT)) && !classes.any(Classes::ADJECTIVE) {
            false
        } else if classes.any(Classes::ADJECTIVE) {
            // "hot dog", but not "busy street"
            let whole = Classes::of(last).any(Classes::SETTING.or(Classes::ABSTRACT));
            !whole && fraction(first) >= COHESIVE_ADJECTIVE
        } else if self.stands_alone(first) && !self.stands_alone(last) {
            // "fire hydrant", but not "dog barks"
            fraction(last) >= COHESIVE && fraction(first) >= COHESIVE / 2.0
        } else {
            fraction(first).max(fraction(last)) >= COHESIVE
        }
    }

    /// What a phrase names: the kind, the name, and the noun in it.
    fn names(&self, phrase: &Phrase, least: usize) -> Vec<(NameKind, String, String)> {
        let mut nouns = self.nouns(phrase);
        // "dog feeds": what never stands alone, behind what does, is no noun.
        while let [.., before, last] = nouns.as_slice()
            && !self.stands_alone(last)
            && self.stands_alone(before)
            && !self.is_name(before, last, least)
        {
            nouns.pop();
        }
        let Some(head) = nouns.pop() else { return Vec::new() };
        let (announced, all) = self.announced.get(&head).copied().unwrap_or((0, 1));
        if (announced as f64) < ANNOUNCED * all as f64 {
            return Vec::new();
        }
        // "image showcases"
        if nouns.last().is_some_and(|before| Classes::of(before).any(Classes::ABSTRACT)) {
            return Vec::new();
        }
        let before = nouns.last().or(phrase.modifiers.last());
        let joined = before.filter(|first| self.is_name(first, &head, least));
        let modifiers = &phrase.modifiers
            [..phrase.modifiers.len() - usize::from(joined.is_some() && nouns.is_empty())];
        let classes = Classes::of(&head);
        let kind = if classes.any(Classes::SETTING) {
            Some(NameKind::Setting)
        } else if classes.any(Classes::ABSTRACT) {
            None
        } else {
            Some(NameKind::Object)
        };
        let name = joined.map_or_else(|| head.clone(), |first| format!("{first} {head}"));
        let mut names = Vec::new();
        if let Some(modifier) = modifiers.last().filter(|_| nouns.is_empty() || joined.is_some()) {
            names.push((NameKind::Attribute, format!("{modifier} {name}"), name.clone()));
        }
        let Some(kind) = kind else { return names };
        if kind == NameKind::Object {
            if let Some(number) = &phrase.number {
                let written = joined.map_or_else(String::new, |first| format!("{first} "));
                let last = phrase.nouns.iter().rev().find(|noun| {
                    **noun == head || self.singular.get(*noun).is_some_and(|it| *it == head)
                });
                let counted = last.map_or_else(|| head.clone(), Clone::clone);
                let text = format!("{number} {written}{counted}");
                names.push((NameKind::Count, text, name.clone()));
            }
            if let Some(place) = &phrase.place {
                names.push((NameKind::Position, format!("{name} {place}"), name.clone()));
            }
        }
        names.push((kind, name.clone(), name));
        names
    }
}

/// Which nouns are plurals, and of what: of a word that is seen too, or of the likeliest one where a number stands before them and
/// "a" never does.
fn singular_forms(texts: &[Vec<Phrase>]) -> HashMap<String, String> {
    #[derive(Default)]
    struct Uses {
        all: usize,
        one: usize,
        several: usize,
        in_pairs: usize,
    }
    let mut uses: HashMap<&str, Uses> = HashMap::new();
    for phrase in texts.iter().flatten() {
        let Some(last) = phrase.nouns.last() else { continue };
        let uses = uses.entry(last).or_default();
        uses.all += 1;
        uses.one += usize::from(phrase.one && !phrase.in_pairs);
        uses.in_pairs += usize::from(phrase.in_pairs);
        uses.several += usize::from(phrase.number.as_deref().is_some_and(|number| number != "one"));
    }
    let mut forms = HashMap::new();
    for (word, found) in &uses {
        if 2 * found.in_pairs > found.all {
            continue;
        }
        let candidates = singulars(word);
        let seen = candidates.iter().max_by_key(|it| uses.get(it.as_str()).map_or(0, |it| it.all));
        let is_seen = seen.is_some_and(|it| uses.contains_key(it.as_str()));
        let guessed = found.several > 0 && found.one == 0;
        if let Some(singular) = seen.filter(|_| is_seen || guessed) {
            forms.insert((*word).to_owned(), singular.clone());
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str], kind: NameKind) -> Vec<String> {
        let found = noun_names(texts.iter().copied(), 2);
        found.into_iter().filter(|name| name.kind == kind).map(|name| name.name).collect()
    }

    #[test]
    fn objects_are_found_with_their_plurals_and_compounds() {
        let texts = [
            "A dog next to a traffic light.",
            "Two dogs and several traffic lights in a busy street.",
            "The dog sleeps. There is a pair of scissors in a busy street.",
            "A pair of scissors, a light and three zebras.",
            "Four zebras by a lamp; a light.",
            "A lamp.",
        ];
        let mut objects = names(&texts, NameKind::Object);
        objects.sort_unstable();
        assert_eq!(objects, ["dog", "lamp", "light", "scissors", "traffic light", "zebra"]);
        assert_eq!(names(&texts, NameKind::Setting), ["street"]);
    }

    #[test]
    fn mentions_are_described_by_the_phrase_around_them() {
        let text = "Two Small brown dogs and a cat on a dog bed, next to 3 traffic lights.";
        let at = |word: &str, from: usize| {
            let start = from + text[from..].find(word).unwrap();
            start..start + word.len()
        };
        let mentions = [at("dogs", 0), at("cat", 0), at("dog", 30), at("traffic lights", 0)];
        assert_eq!(
            descriptions(text, &mentions),
            [Some("small brown {}".to_owned()), None, Some("{} bed".to_owned()), None]
        );
    }

    #[test]
    fn verbs_that_are_not_listed_are_no_nouns() {
        let texts = [
            "A dog barks at a cat.",
            "A dog and cats, a dog, a cat, and a bird barks.",
            "The dog barks. A cat barks. A bird.",
        ];
        assert_eq!(names(&texts, NameKind::Object), ["cat", "dog", "bird"]);
    }

    #[test]
    fn attributes_counts_and_positions_are_told_apart() {
        let texts = ["Two red cars on the left.", "A red car; two red cars on the left."];
        assert_eq!(names(&texts, NameKind::Object), ["car"]);
        assert_eq!(names(&texts, NameKind::Attribute), ["red car"]);
        assert_eq!(names(&texts, NameKind::Count), ["two cars"]);
        assert_eq!(names(&texts, NameKind::Position), ["car on the left"]);
    }
}
