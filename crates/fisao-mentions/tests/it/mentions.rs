mod negation;
mod reference;
mod settled;

use std::ops::Range;

use fisao_mentions::{ObjectVocabulary, VocabularyError};
use proptest::prelude::*;

fn vocabulary() -> ObjectVocabulary {
    let entry = |category: &str, forms: &[&str]| {
        (category.to_owned(), forms.iter().map(ToString::to_string).collect())
    };
    ObjectVocabulary::new(vec![
        entry("person", &["man", "woman"]),
        entry("dog", &["puppy"]),
        entry("hot dog", &["hotdog"]),
        entry("cat", &[]),
        entry("car", &[]),
        entry("traffic light", &["stoplight"]),
        entry("car seat", &[]),
        entry("wine glass", &["glass of wine"]),
    ])
    .expect("a well-formed vocabulary")
}

/// Each token spells the given piece.
fn spelled(pieces: &[&str]) -> (String, Vec<Range<usize>>) {
    let mut text = String::new();
    let spans = pieces
        .iter()
        .map(|piece| {
            let start = text.len();
            text.push_str(piece);
            start..text.len()
        })
        .collect();
    (text, spans)
}

/// The whole text as one token.
fn claims(text: &str) -> Vec<(String, bool)> {
    let vocabulary = vocabulary();
    let whole = 0..text.len();
    vocabulary
        .token_mentions(text, &[whole])
        .into_iter()
        .map(|mention| (vocabulary.category(mention.category).to_owned(), mention.negated))
        .collect()
}

fn denied(text: &str) -> Vec<bool> {
    claims(text).into_iter().map(|(_, negated)| negated).collect()
}

#[test]
fn mentions_are_mapped_to_the_tokens_that_spell_them() {
    let (text, spans) =
        spelled(&["A", " hot", " d", "ogs", " and", "", " tra", "ffic", " ", "light", "s."]);
    let vocabulary = vocabulary();
    let mentions = vocabulary.token_mentions(&text, &spans);
    assert_eq!(mentions.len(), 2);
    assert_eq!(vocabulary.category(mentions[0].category), "hot dog");
    assert_eq!((mentions[0].text.as_str(), mentions[0].form.as_str()), ("hot dogs", "hot dog"));
    assert_eq!((mentions[0].span.clone(), mentions[0].tokens.clone()), (2..10, 1..4));
    assert_eq!((mentions[1].form.as_str(), mentions[1].tokens.clone()), ("traffic light", 6..11));
}

#[test]
fn neutral_phrases_are_not_mentions() {
    let entries = vec![("person".to_owned(), vec!["baby".to_owned()])];
    let neutral = ["baby blanket".to_owned(), "baby".to_owned()];
    let vocabulary = ObjectVocabulary::with_neutral(entries, &neutral).unwrap();
    let text = "A baby under two baby blankets, babies";
    let whole = 0..text.len();
    let found = vocabulary.token_mentions(text, &[whole]);
    let words: Vec<&str> = found.iter().map(|mention| mention.text.as_str()).collect();
    // What a category lists stays a name, whatever else is said of it.
    assert_eq!(words, ["baby", "babies"]);
}

#[test]
fn empty_tokens_belong_to_no_mention() {
    let (text, mut spans) = spelled(&["", "dog", ""]);
    assert_eq!(vocabulary().token_mentions(&text, &spans)[0].tokens, 1..2);
    spans[1] = 0..0;
    assert!(vocabulary().token_mentions(&text, &spans).is_empty());
}

#[test]
fn mention_form_is_the_one_listed_in_the_vocabulary() {
    let form = |text: &str| {
        let whole = 0..text.len();
        vocabulary().token_mentions(text, &[whole])[0].form.clone()
    };
    assert_eq!(form("Women"), "woman");
    assert_eq!(form("people"), "person");
    assert_eq!(form("glasses of wine"), "glass of wine");
    assert_eq!(form("Traffic-lights"), "traffic light");
    assert_eq!(form("puppies"), "puppy");
    assert_eq!(form("car seats"), "car seat");
    assert_eq!(form("car, seat"), "car");
}

#[test]
fn negated_mentions_are_flagged() {
    for text in [
        "no dog",
        "There is no dog.",
        "There isn't a dog",
        "there aren\u{2019}t any dogs",
        "a street without a car",
        "no red car",
        "no sign of people",
        "It is not a cat",
        "the street does not appear to have any cars",
    ] {
        assert_eq!(denied(text), [true], "{text}");
    }
    assert_eq!(denied("no dogs or cats"), [true, true]);
    assert_eq!(denied("without a car, or a man"), [true, true]);
    assert_eq!(denied("neither a dog nor a cat"), [true, true]);
}

#[test]
fn asserted_mentions_are_not_flagged_as_negated() {
    for text in [
        "a dog",
        "No, a dog",
        "There is no snow. A dog runs",
        "not only a dog",
        "no doubt a dog",
        "without snow on the roof of the car",
        "nothing but a knotted dog",
    ] {
        assert_eq!(denied(text), [false], "{text}");
    }
    assert_eq!(denied("no dogs and a cat"), [true, false]);
    assert_eq!(denied("a dog or a cat"), [false, false]);
    assert_eq!(denied("no man is holding the dog"), [true, false]);
    assert_eq!(denied("a man without a car near a dog"), [false, true, false]);
}

#[test]
fn invalid_vocabularies_are_rejected() {
    let new = |entries: &[(&str, &str)]| {
        let entry = |(c, f): &(&str, &str)| ((*c).to_owned(), vec![(*f).to_owned()]);
        ObjectVocabulary::new(entries.iter().map(entry).collect()).unwrap_err()
    };
    assert_eq!(new(&[]), VocabularyError::Empty);
    assert!(new(&[("cat", "cat"), ("cat", "cat")]).to_string().contains("'cat' is listed twice"));
    assert!(new(&[("cat", "…")]).to_string().contains("'…', which holds no word"));
    let long = "a ".repeat(100_000);
    let refused = "'a a a a …' has 100000 words; a form or phrase may have at most 64";
    assert_eq!(new(&[("cat", &long)]).to_string(), refused);
    assert_eq!(
        new(&[("cat", "Puma"), ("shoe", "puma")]).to_string(),
        "'puma' names both 'cat' and 'shoe'; keep it under one of them"
    );
}

/// Any text, cut into tokens anywhere between characters.
fn tokenised() -> impl Strategy<Value = (String, Vec<Range<usize>>)> {
    let pieces = prop::collection::vec(
        prop_oneof![
            "\\PC{0,3}",
            prop::sample::select(vec![
                "dog", "d", "og", "s", " ", "hot ", "İ", "no ", "n't ", "glass", " of wine",
                "\u{301}", "tra", "ffic ", "light", ", or ",
            ])
            .prop_map(str::to_owned),
        ],
        0..30,
    );
    pieces.prop_map(|pieces| spelled(&pieces.iter().map(String::as_str).collect::<Vec<_>>()))
}

proptest! {
    #[test]
    fn mention_tokens_spell_the_mention_without_extra_tokens((text, spans) in tokenised()) {
        let mut end = 0;
        for mention in vocabulary().token_mentions(&text, &spans) {
            prop_assert!(mention.span.start >= end && mention.span.start < mention.span.end);
            end = mention.span.end;
            prop_assert_eq!(text.get(mention.span.clone()), Some(mention.text.as_str()));
            let spelled: String =
                spans[mention.tokens.clone()].iter().map(|span| &text[span.clone()]).collect();
            prop_assert!(spelled.contains(&mention.text), "{spelled:?} lacks {:?}", mention.text);
            // No token at either end is there for nothing.
            for token in [mention.tokens.start, mention.tokens.end - 1] {
                let token = &spans[token];
                prop_assert!(token.start < mention.span.end && mention.span.start < token.end);
            }
        }
    }

    /// Where tokens are cut changes no mention but its tokens.
    #[test]
    fn mentions_do_not_depend_on_tokenisation((text, spans) in tokenised()) {
        let whole = 0..text.len();
        let found = |spans: &[Range<usize>]| -> Vec<_> {
            vocabulary()
                .token_mentions(&text, spans)
                .into_iter()
                .map(|mention| (mention.category, mention.span, mention.negated))
                .collect()
        };
        prop_assert_eq!(found(&spans), found(&[whole]));
    }
}
