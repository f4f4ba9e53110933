//! What may be appended to a text changes no mention that is settled.

use fisao_mentions::Mention;
use proptest::prelude::*;

use super::vocabulary;

/// Mentions of a text that are settled.
fn settled(text: &str) -> Vec<String> {
    let vocabulary = vocabulary();
    let end = vocabulary.settled(text);
    let mentions = vocabulary.mentions(text).filter(|mention| mention.span.start < end);
    mentions.map(|mention| text[mention.span].to_owned()).collect()
}

#[test]
fn mention_is_settled_when_no_longer_name_can_follow() {
    let cases: [(&str, &[&str]); 14] = [
        ("a dog", &[]),
        ("a dog ", &["dog"]),
        ("a dog.", &["dog"]),
        ("a dog's", &["dog"]),
        ("a dogma", &[]),
        ("a car", &[]),
        ("a car ", &[]),
        ("a car,", &["car"]),
        ("a car s", &[]),
        ("a car seat", &[]),
        ("a car seat ", &["car seat"]),
        ("a car p", &["car"]),
        ("a car and", &["car"]),
        ("a cat and a glass of", &["cat"]),
    ];
    for (text, expected) in cases {
        assert_eq!(settled(text), expected, "{text}");
    }
}

#[test]
fn whole_text_is_settled_where_no_word_may_grow() {
    for text in ["", "It rains.", "A dog. "] {
        assert_eq!(vocabulary().settled(text), text.len(), "{text}");
    }
    assert_eq!(vocabulary().settled("It rai"), 3);
    assert_eq!(vocabulary().settled("a hot"), 2);
}

proptest! {
    #[test]
    fn settled_mentions_are_those_of_any_longer_text(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "a", "hot", "dog", "dogs", "do", "g", "car", "cars", "seat", "s", "glass", "of", "wine",
                "traffic", "light", " ", " ", " ", " ", "-", ", ", ".", "é",
            ]),
            0..12,
        ),
        cut in 0usize..12,
    ) {
        let vocabulary = vocabulary();
        let (begun, whole) = (words[..cut.min(words.len())].concat(), words.concat());
        let end = vocabulary.settled(&begun);
        let before = |mention: &Mention<'_>| mention.span.start < end;
        let of = |mention: Mention<'_>| (mention.category, mention.span);
        let found: Vec<_> = vocabulary.mentions(&begun).filter(before).map(of).collect();
        let expected: Vec<_> = vocabulary.mentions(&whole).filter(before).map(of).collect();
        prop_assert_eq!(found, expected);
    }
}
