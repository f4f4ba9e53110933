//! Vocabulary and texts full of what is hard about them.

use std::ops::Range;

use proptest::prelude::*;

pub(super) fn entries() -> Vec<(String, Vec<String>)> {
    let entry = |category: &str, forms: &[&str]| {
        (category.to_owned(), forms.iter().map(ToString::to_string).collect())
    };
    vec![
        entry("person", &["man", "woman", "baby"]),
        entry("dog", &["puppy"]),
        entry("hot dog", &["hotdog"]),
        entry("cat", &[]),
        entry("car", &["dark car"]),
        entry("traffic light", &["stoplight", "traffic light pole"]),
        entry("car seat", &["baby car seat of doom"]),
        entry("wine glass", &["glass of wine"]),
        entry("straße", &["café table"]),
        entry("kite", &["sky"]),
        entry("ski", &["İstanbul"]),
        entry("skis", &[]),
        entry("犬", &[]),
        entry("skateboarding ramp structure", &["supercalifragilistic"]),
    ]
}

/// One of them begins with a negation, another holds one.
pub(super) fn neutral() -> Vec<String> {
    ["baby blanket", "hot dog stand", "no man", "house without dog", "cat"]
        .map(str::to_owned)
        .to_vec()
}

const NAMES: &[&str] = &[
    "dog",
    "dogs",
    "Dog",
    "DOGS",
    "hot",
    "HOT",
    "hotdog",
    "man",
    "men",
    "baby",
    "blanket",
    "blankets",
    "car",
    "cars",
    "seat",
    "seats",
    "doom",
    "wine",
    "glass",
    "glasses",
    "traffic",
    "light",
    "Lights",
    "pole",
    "skateboarding",
    "ramp",
    "structure",
    "supercalifragilistic",
    "Supercalifragilistics",
    "straße",
    "STRASSE",
    "STRAẞE",
    "café",
    "CAFÉ",
    "cafe\u{301}",
    "table",
    "stand",
    "house",
    "\u{212a}ite",
    "s\u{212a}y",
    "İstanbul",
    "i\u{307}stanbul",
    "ISTANBUL",
    "ΣΑΣ",
    "犬",
    "犬犬",
    "cat",
    "cats",
    "dog\u{301}",
    "supercalifragilist\u{212a}",
    "supercalixxxgilistic",
    "dogsdogsdogsdogsdogsdogsdogsdogsdogsdogsdogs",
];
const FUNCTION: &[&str] = &[
    "no",
    "No",
    "not",
    "without",
    "never",
    "neither",
    "nor",
    "none",
    "cannot",
    "lack",
    "lac\u{212a}",
    "devoid",
    "free",
    "absence",
    "empty",
    "only",
    "doubt",
    "but",
    "than",
    "all",
    "longer",
    "a",
    "the",
    "any",
    "red",
    "big",
    "or",
    "OR",
    "and",
    "of",
    "is",
    "are",
    "isn't",
    "isn\u{2019}t",
    "t",
    "can",
    "can't",
    "be",
    "see",
    "visible",
    "seen",
    "absent",
    "missing",
    "nowhere",
    "to",
    "found",
    "in",
    "image",
    "sight",
    "from",
    "at",
    "there",
    "without noticing",
    "does",
    "was",
    "appear",
    "set",
    "broke",
    "these",
    "with",
    "because",
    "here",
    "owner",
    "s",
];
const GAPS: &[&str] = &[
    " ", " ", " ", " ", " ", " ", " ", " ", "  ", "-", "_", "\u{2010}", "\u{2011}", "\u{2014}",
    ", ", ", ", ". ", "; ", " (", ") ", "'", "\u{2019}", "\n", "\t", "\u{a0}", "\u{3000}",
    "\u{301}", "😀", "", "/", "\0",
];

/// Names and negations between all kinds of gaps, now and then any Unicode.
pub(super) fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof![prop::sample::select(NAMES), prop::sample::select(FUNCTION)];
    let piece = prop_oneof![
        20 => (word, prop::sample::select(GAPS)).prop_map(|(word, gap)| format!("{word}{gap}")),
        1 => "\\PC{0,3}",
        1 => "[ -~]{0,9}",
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

/// A text cut into tokens, some of which spell nothing.
pub(super) fn tokens() -> impl Strategy<Value = (String, Vec<Range<usize>>)> {
    (text(), prop::collection::vec(0..8_u8, 1..40)).prop_map(|(text, cuts)| {
        let ends = text.char_indices().map(|(at, _)| at).skip(1).chain([text.len()]);
        let mut spans: Vec<Range<usize>> = Vec::new();
        let mut start = 0;
        for (end, cut) in ends.zip(cuts.iter().cycle()) {
            match cut {
                0..3 => spans.push(std::mem::replace(&mut start, end)..end),
                3 => spans.push(text.len()..text.len()),
                4 => spans.push(start..start),
                _ => {}
            }
        }
        (text, spans)
    })
}

/// Spans that no tokenizer gives: in any order, over each other, turned round.
pub(super) fn arbitrary_spans() -> impl Strategy<Value = (String, Vec<Range<usize>>)> {
    (text(), prop::collection::vec((0..200_usize, 0..200_usize), 0..12)).prop_map(|(text, ends)| {
        let spans = ends.into_iter().map(|(start, end)| start..end).collect();
        (text, spans)
    })
}
