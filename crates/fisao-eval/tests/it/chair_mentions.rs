use fisao_eval::chair::{ObjectVocabulary, VocabularyError};
use proptest::prelude::*;

fn vocabulary() -> ObjectVocabulary {
    let entry = |category: &str, forms: &[&str]| {
        (category.to_owned(), forms.iter().map(ToString::to_string).collect())
    };
    ObjectVocabulary::new(vec![
        entry("person", &["person", "man", "woman", "child"]),
        entry("dog", &["dog", "puppy"]),
        entry("hot dog", &["hot dog", "hotdog"]),
        entry("bus", &["bus"]),
        entry("knife", &["knife"]),
        entry("dog house", &[]),
        entry("wine glass", &["wine glass", "glass of wine"]),
        entry("traffic light", &["traffic light", "stoplight"]),
        entry("sheep", &["sheep", "lamb"]),
    ])
    .expect("a well-formed vocabulary")
}

fn found(text: &str) -> Vec<(String, String)> {
    vocabulary().mentions(text).into_iter().map(|m| (m.category, m.text)).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(c, t)| ((*c).to_owned(), (*t).to_owned())).collect()
}

#[test]
fn plural_and_capitalised_mentions_are_found() {
    let text = "Two DOGS, three buses; knives and people. A flock of sheep!";
    assert_eq!(
        found(text),
        pairs(&[
            ("dog", "DOGS"),
            ("bus", "buses"),
            ("knife", "knives"),
            ("person", "people"),
            ("sheep", "sheep"),
        ])
    );
    assert_eq!(vocabulary().mentions(text)[0].span, 4..8);
}

#[test]
fn the_longest_name_wins_and_is_counted_once() {
    assert_eq!(found("a hot dog and a dog"), pairs(&[("hot dog", "hot dog"), ("dog", "dog")]));
    assert_eq!(found("hot-dogs"), pairs(&[("hot dog", "hot-dogs")]));
    assert_eq!(found("dog houses"), pairs(&[("dog house", "dog houses")]));
    assert_eq!(found("it is hot, dog"), pairs(&[("dog", "dog")]));
    assert_eq!(found("glasses of wine"), pairs(&[("wine glass", "glasses of wine")]));
    assert_eq!(found("Traffic\n lights"), pairs(&[("traffic light", "Traffic\n lights")]));
}

#[test]
fn mentions_match_whole_words_only() {
    assert_eq!(found("a dogma, business, manner, hotdoggery and dog2"), pairs(&[]));
    assert_eq!(found("the dog's bowl"), pairs(&[("dog", "dog")]));
}

#[test]
fn spans_are_correct_where_lowercasing_changes_length() {
    let text = "İİ — 🐶 dog";
    let mention = vocabulary().mentions(text).remove(0);
    assert_eq!(&text[mention.span], "dog");
}

#[test]
fn listed_plural_takes_precedence_over_a_derived_plural() {
    let vocabulary = ObjectVocabulary::new(vec![
        ("glass".into(), vec![]),
        ("eyewear".into(), vec!["glasses".into()]),
    ])
    .unwrap();
    assert_eq!(vocabulary.mentions("glasses")[0].category, "eyewear");
    assert_eq!(vocabulary.mentions("glass")[0].category, "glass");
}

#[test]
fn invalid_vocabularies_are_rejected() {
    let new = |entries: &[(&str, &[&str])]| {
        ObjectVocabulary::new(
            entries
                .iter()
                .map(|(c, f)| ((*c).to_owned(), f.iter().map(ToString::to_string).collect()))
                .collect(),
        )
        .unwrap_err()
    };
    assert_eq!(new(&[]), VocabularyError::Empty);
    assert_eq!(
        new(&[("cat", &[]), ("cat", &[])]),
        VocabularyError::DuplicateCategory { category: "cat".into() }
    );
    assert_eq!(
        new(&[("cat", &["--"])]),
        VocabularyError::NoWord { category: "cat".into(), form: "--".into() }
    );
    assert_eq!(
        new(&[("cat", &["Puma "]), ("shoe", &["puma"])]),
        VocabularyError::Ambiguous {
            form: "puma".into(),
            first: "cat".into(),
            second: "shoe".into()
        }
    );
}

proptest! {
    /// Any text at all: spans are in order, disjoint, on character boundaries and spell the text.
    #[test]
    fn mention_spans_are_ordered_disjoint_and_spell_the_text(text in "(\\PC|dog|hot dog|glass of wine| |-|é|İ|\u{301}){0,40}") {
        let mut end = 0;
        for mention in vocabulary().mentions(&text) {
            prop_assert!(mention.span.start >= end && mention.span.start < mention.span.end);
            prop_assert_eq!(text.get(mention.span.clone()), Some(mention.text.as_str()));
            end = mention.span.end;
        }
    }

    /// Names separated by words that name nothing are exactly the mentions.
    #[test]
    fn inserted_names_are_exactly_the_mentions(
        planted in prop::collection::vec(
            prop::sample::select(vec![
                ("dogs", "dog"), ("hot dog", "hot dog"), ("Buses", "bus"), ("men", "person"),
                ("stoplights", "traffic light"), ("glass of wine", "wine glass"),
            ]),
            0..12,
        ),
        filler in prop::sample::select(vec![" and the ", ", ", " near a very hot, ", " … "]),
    ) {
        let text = planted.iter().map(|(form, _)| *form).collect::<Vec<_>>().join(filler);
        let expected: Vec<&str> = planted.iter().map(|(_, category)| *category).collect();
        let mentions = vocabulary().mentions(&text);
        let found: Vec<&str> = mentions.iter().map(|m| m.category.as_str()).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn coco_vocabulary_finds_synonyms_and_skips_neutral_phrases() {
    let coco = ObjectVocabulary::coco();
    assert_eq!(coco.categories().len(), 80);
    let found = |text: &str| -> Vec<(String, String)> {
        coco.mentions(text).into_iter().map(|m| (m.category, m.text)).collect()
    };
    assert_eq!(
        found("A baby elephant, three wine glasses, a remote control and two hair dryers."),
        pairs(&[
            ("elephant", "baby elephant"),
            ("wine glass", "wine glasses"),
            ("remote", "remote control"),
            ("hair drier", "hair dryers"),
        ])
    );
    // What holds an object's name and means none.
    assert_eq!(found("train tracks, a bus stop, toilet paper and a dog house"), pairs(&[]));
    assert_eq!(found("toilet seats"), pairs(&[("toilet", "toilet seats")]));
    assert_eq!(coco.category_of("aeroplanes"), Some("airplane"));
    assert_eq!(coco.category_of("train track"), None);
}

#[test]
fn vocabulary_digest_depends_on_content_but_not_on_order() {
    let new = |entries: &[(&str, &[&str])], neutral: &[&str]| {
        let list = |forms: &[&str]| forms.iter().map(ToString::to_string).collect();
        let entries = entries.iter().map(|(c, forms)| ((*c).to_owned(), list(forms))).collect();
        ObjectVocabulary::with_neutral(entries, list(neutral)).unwrap().sha256()
    };
    let first = new(&[("cat", &["puma", "lion"]), ("dog", &[])], &[]);
    assert_eq!(first, new(&[("dog", &[]), ("cat", &["lion", "puma"])], &[]));
    assert_ne!(first, new(&[("cat", &["puma"]), ("dog", &["lion"])], &[]));
    assert_ne!(first, new(&[("cat", &["puma", "lion"]), ("dog", &[])], &["dog house"]));
    // sha256 of [{"cat":["lion","puma"],"dog":[]},[]]
    assert_eq!(first, "78fe9e8511089694977c369e6d72c1c6a1814e5287d2114e988973b6e8c12b1d");
}
