//! Singular forms as `pattern.en` makes them.
//!
//! The rules are those of `pattern.text.en.inflect.singularize` (Pattern 3.6, De Smedt & Daelemans, 2012), which
//! follow Bermi Ferrer Martinez' Inflector; they are written down here as data. Several are plainly wrong English
//! ("bus" → "bu", "tie" in "ties" → "ty", "hour" → "hmy") and kept so, because published CHAIR numbers rest on
//! them.

use std::borrow::Cow;

/// Second parts of compounds whose first part is singularised alone ("mothers-in-law").
const PREPOSITIONS: &str = " about above across after among around at athwart before behind below beneath beside \
     besides between betwixt beyond but by during except for from in into near of off on onto out over since till \
     to under until unto upon with ";

/// Words with one form for both numbers, and words that cannot be counted. Whatever one of them *ends in* stays
/// as it is too: the original asks whether the list's word ends with the caption's and not the reverse.
const UNCHANGED: &[&str] = &[
    "bison debris headquarters pincers trout bream diabetes herpes pliers tuna breeches djinn high-jinks",
    "proceedings whiting britches eland homework rabies wildebeest carp elk innings salmon chassis flounder",
    "jackanapes scissors christmas gallows mackerel series clippers georgia measles shears cod graffiti mews",
    "species contretemps mumps swine corps news swiss",
    "advice equipment happiness luggage software bread fruit information mathematics progress understanding",
    "butter furniture ketchup mayonnaise research water cheese garbage knowledge meat rice electricity gravel",
    "love mustard sand",
];

/// Words in "-ie". Their plurals are recognised, and then returned unchanged instead of singular.
const IN_IE: &[&str] = &[
    "alergie auntie beanie birdie bogie bombie collie cookie cutie doggie eyrie freebie goonie groupie hankie",
    "hippie hoagie hottie indie junkie laddie laramie lingerie meanie newbie nightie oldie pixie quickie reverie",
    "rookie softie sortie stoolie sweetie techie toughie valkyrie veggie weenie yuppie zombie",
];

/// Irregular plurals, replaced wherever they end a word ("women", but "hour" and "velour" too).
const IRREGULAR: &[(&str, &str)] = &[
    ("atlantes", "atlas"),
    ("atlases", "atlas"),
    ("axes", "axe"),
    ("beeves", "beef"),
    ("brethren", "brother"),
    ("children", "child"),
    ("corpora", "corpus"),
    ("corpuses", "corpus"),
    ("ephemerides", "ephemeris"),
    ("feet", "foot"),
    ("ganglia", "ganglion"),
    ("geese", "goose"),
    ("genera", "genus"),
    ("genii", "genie"),
    ("graffiti", "graffito"),
    ("helves", "helve"),
    ("kine", "cow"),
    ("leaves", "leaf"),
    ("loaves", "loaf"),
    ("men", "man"),
    ("mongooses", "mongoose"),
    ("monies", "money"),
    ("moves", "move"),
    ("mythoi", "mythos"),
    ("numena", "numen"),
    ("occipita", "occiput"),
    ("octopodes", "octopus"),
    ("opera", "opus"),
    ("opuses", "opus"),
    ("our", "my"),
    ("oxen", "ox"),
    ("penes", "penis"),
    ("penises", "penis"),
    ("people", "person"),
    ("sexes", "sex"),
    ("soliloquies", "soliloquy"),
    ("teeth", "tooth"),
    ("testes", "testis"),
    ("trilbys", "trilby"),
    ("turves", "turf"),
    ("zoa", "zoon"),
];

/// What has to stand before an ending.
enum Before {
    /// Nothing need to.
    Anything,
    /// Any letter.
    Letter,
    /// A letter that is none of these.
    LetterBut(&'static str),
    /// Nothing at all: the ending is the word.
    Nothing,
}

/// An ending, in the variants that are treated alike: drop so many letters, add these.
struct Ending(&'static [&'static str], Before, usize, &'static str);

use Before::{Anything, Letter, LetterBut, Nothing};

/// The first that fits decides.
const ENDINGS: &[Ending] = &[
    Ending(&["ae"], Letter, 1, ""),
    Ending(&["itis"], Letter, 0, ""),
    Ending(&["eaux"], Letter, 1, ""),
    Ending(&["quizzes"], Anything, 3, ""),
    Ending(&["matrices"], Anything, 4, "ix"),
    Ending(&["apices", "vertices", "indices"], Anything, 4, "ex"),
    Ending(&["aliases", "statuses"], Anything, 2, ""),
    Ending(&["ci", "ii", "oi", "pi", "ri", "ti", "vi", "|i"], Anything, 1, "us"),
    Ending(&["crises", "axes", "testes"], Anything, 2, "is"),
    Ending(&["shoes"], Anything, 1, ""),
    Ending(&["oes", "buses"], Anything, 2, ""),
    Ending(&["mice", "lice", "|ice"], Anything, 3, "ouse"),
    Ending(&["xes", "ches", "sses", "shes"], Anything, 2, ""),
    Ending(&["movies"], Anything, 1, ""),
    Ending(&["ombies"], Letter, 1, ""),
    Ending(&["series"], Anything, 0, ""),
    Ending(&["ies"], LetterBut("aeiouy"), 3, "y"),
    Ending(&["quies"], Anything, 3, "y"),
    Ending(&["alves", "elves", "olves"], Anything, 3, "f"),
    Ending(&["eaves"], LetterBut("d"), 3, "f"),
    Ending(&["arves"], Anything, 3, "f"),
    Ending(&["erves"], Anything, 1, ""),
    Ending(&["lives", "nives", "wives"], Anything, 3, "fe"),
    Ending(&["lves", "rves"], Anything, 3, "f"),
    Ending(&["aves", "eves", "oves", "sives", "tives", "hives"], Anything, 1, ""),
    Ending(&["ves"], LetterBut("f"), 3, "fe"),
    Ending(&["analyses"], Nothing, 2, "is"),
    Ending(&["analyses"], Letter, 3, "asis"),
    Ending(&["bases", "diagnoses", "parentheses", "prognoses", "synopses"], Anything, 2, "is"),
    Ending(&["theses"], Anything, 2, "is"),
    Ending(&["opses", "yses"], Letter, 2, "is"),
    Ending(&["hoses", "doses", "roses", "ooses", "noses", "boses", "closes"], Anything, 1, ""),
    Ending(&["poses"], Anything, 1, ""),
    Ending(&["fructose", "glucose", "galactose", "lactose", "ketose"], Anything, 0, ""),
    Ending(&["maltose", "ribose", "saccharose", "cellulose"], Anything, 0, ""),
    Ending(&["oses"], Letter, 2, "is"),
    Ending(&["ia", "ta"], Anything, 1, "um"),
    Ending(&["news"], Anything, 0, ""),
    Ending(&["s"], Anything, 1, ""),
];

/// The singular of a lower-case word, by the rules of `pattern.en`.
pub fn singularize(word: &str) -> Cow<'_, str> {
    if let Some((head, rest)) = word.split_once('-') {
        let second = rest.split('-').next().unwrap_or_default();
        if !second.is_empty() && PREPOSITIONS.contains(&format!(" {second} ")) {
            return Cow::Owned(format!("{}-{rest}", singularize(head)));
        }
    }
    if let Some(owner) = word.strip_suffix('\'') {
        return Cow::Owned(format!("{}'s", singularize(owner)));
    }
    if in_list(UNCHANGED, |listed| listed.ends_with(word)) {
        return Cow::Borrowed(word);
    }
    let stem = word.strip_suffix('s').unwrap_or_default();
    if stem.ends_with("ie") && in_list(IN_IE, |listed| stem.ends_with(listed)) {
        return Cow::Borrowed(word);
    }
    for (plural, singular) in IRREGULAR {
        if let Some(stem) = word.strip_suffix(plural) {
            return Cow::Owned(format!("{stem}{singular}"));
        }
    }
    by_ending(word)
}

fn in_list(list: &[&str], fits: impl Fn(&str) -> bool) -> bool {
    list.iter().any(|line| line.split(' ').any(&fits))
}

fn by_ending(word: &str) -> Cow<'_, str> {
    // The only rule of the original that looks at a beginning; two rules before it could fit such a word.
    if let Some(rest) = word.strip_prefix("oxen") {
        let earlier = ENDINGS[..6].iter().find(|ending| ending.fits(word));
        return earlier.map_or(Cow::Owned(format!("ox{rest}")), |ending| ending.applied(word));
    }
    ENDINGS
        .iter()
        .find(|ending| ending.fits(word))
        .map_or(Cow::Borrowed(word), |ending| ending.applied(word))
}

impl Ending {
    fn fits(&self, word: &str) -> bool {
        self.0.iter().filter_map(|ending| word.strip_suffix(ending)).any(|stem| match self.1 {
            Anything => true,
            Letter => !stem.is_empty(),
            LetterBut(letters) => stem.chars().next_back().is_some_and(|c| !letters.contains(c)),
            Nothing => stem.is_empty(),
        })
    }

    fn applied<'a>(&self, word: &'a str) -> Cow<'a, str> {
        let stem = &word[..word.len() - self.2];
        if self.3.is_empty() {
            Cow::Borrowed(stem)
        } else {
            Cow::Owned(format!("{stem}{}", self.3))
        }
    }
}
