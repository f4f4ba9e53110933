//! The published scorers' rules on cases written here. What NLTK 3.9 and `pattern.en` 3.6 make of each was looked
//! up by running them.

use fisao_eval::chair::{MentionFinder, ObjectVocabulary, Rules, read_synonyms, reference};
use proptest::prelude::*;

fn tokens(text: &str) -> Vec<String> {
    reference::tokenize(text).into_iter().map(|token| token.text).collect()
}

fn vocabulary() -> ObjectVocabulary {
    let list = "person, man, woman, child, people, baby, passenger\nbus, minibus\ndog, collie\n\
                elephant\nbear\nteddy bear, teddybear\ntie, bow tie\nwine glass\nchair, seat\n\
                toilet\ntrain\nmotorcycle,  motor bike, motor cycle\ncell phone, iPhone\nbison \n";
    read_synonyms(list.as_bytes()).unwrap()
}

fn found(text: &str) -> Vec<(String, String)> {
    let vocabulary = vocabulary();
    let mut finder = MentionFinder::new(&vocabulary, Rules::Reference);
    finder.mentions(text).into_iter().map(|mention| (mention.category, mention.text)).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(c, t)| ((*c).to_owned(), (*t).to_owned())).collect()
}

#[test]
fn words_are_tokenised_as_in_nltk() {
    for (text, expected) in [
        ("A dog, a cat.", "a dog , a cat ."),
        ("It costs 3,500.5, roughly.", "it costs 3,500.5 , roughly ."),
        ("The woman's dogs' bowls", "the woman 's dogs ' bowls"),
        ("\"Hi,\" he said (twice).", "`` hi , '' he said ( twice ) ."),
        ("He can't; they'll cannot -- wanna go", "he ca n't ; they 'll can not -- wan na go"),
        ("wanna-be gonna-be", "wanna-be gon na -be"),
        ("Wait... what?! No: yes", "wait ... what ? ! no : yes"),
        ("a,,b", "a , ,b"),
        ("“Well” — ‘so’", "“ well ” — ‘ so ’"),
        ("'tis cold", "'t is cold"),
        ("Say 'a b' loud", "say ' a b ' loud"),
    ] {
        assert_eq!(tokens(text).join(" "), expected, "{text}");
    }
}

#[test]
fn sentences_are_split_as_in_punkt() {
    for (text, expected) in [
        // A full stop leaves its word only where a sentence ends.
        ("He ran. She sat.", "he ran . she sat ."),
        ("On Main St. the dog ran.", "on main st. the dog ran ."),
        ("Built in 1950. the car", "built in 1950. the car"),
        ("Built in 1950. \"Nice\" car", "built in 1950 . `` nice '' car"),
        ("Plan b. is good", "plan b. is good"),
        ("The end... and more. Yes", "the end ... and more . yes"),
        ("He said \"stop.\" Then left.", "he said `` stop . '' then left ."),
        ("no space.after it", "no space.after it"),
        ("One . . . two. Three", "one . . . two . three"),
    ] {
        assert_eq!(tokens(text).join(" "), expected, "{text}");
    }
}

#[test]
fn singular_forms_are_bug_for_bug_those_of_pattern() {
    for (word, singular) in [
        ("dogs", "dog"),
        ("women", "woman"),
        ("children", "child"),
        ("buses", "bus"),
        ("bus", "bu"),
        ("glasses", "glass"),
        ("glass", "glas"),
        ("knives", "knife"),
        ("shelves", "shelve"),
        ("ties", "ty"),
        ("cookies", "cookies"),
        ("hour", "hmy"),
        ("benches", "bench"),
        ("oxen", "ox"),
        ("oxens", "oxs"),
        ("scissors", "scissors"),
        ("s", "s"),
        ("slice", "slouse"),
        ("pasta", "pastum"),
        ("dogs'", "dog's"),
        ("mothers-in-law", "mother-in-law"),
        ("two-dogs", "two-dog"),
        ("psychoanalyses", "psychoanalyasis"),
        ("analyses", "analysis"),
        ("roses", "rose"),
        ("'", "'s"),
        ("", ""),
    ] {
        assert_eq!(reference::singularize(word), singular, "{word}");
    }
}

#[test]
fn objects_are_found_and_missed_as_in_the_reference() {
    assert_eq!(found("A bus and two buses"), pairs(&[("bus", "buses")]));
    assert_eq!(found("ties and collies"), pairs(&[]));
    assert_eq!(
        found("A baby elephant, a baby and a TEDDY bear"),
        pairs(&[("elephant", "baby elephant"), ("person", "baby"), ("teddy bear", "TEDDY bear"),])
    );
    assert_eq!(found("wine glasses, glasses"), pairs(&[("wine glass", "wine glasses")]));
    assert_eq!(found("a passenger train"), pairs(&[("train", "passenger train")]));
    assert_eq!(found("train tracks"), pairs(&[]));
    assert_eq!(
        found("baby baby elephant"),
        pairs(&[("person", "baby"), ("elephant", "baby elephant")])
    );
    // Forms with a stray space or a capital are never met.
    assert_eq!(found("motor bike, iPhone, iphone"), pairs(&[]));
    assert_eq!(
        found("motor cycle, bison"),
        pairs(&[("motorcycle", "motor cycle"), ("bison", "bison")])
    );
    assert_eq!(found("teddy-bear, dog-house"), pairs(&[]));
}

#[test]
fn toilet_removes_every_seat_mention_as_in_the_reference() {
    assert_eq!(found("a seat"), pairs(&[("chair", "seat")]));
    assert_eq!(found("a toilet seat"), pairs(&[("toilet", "toilet seat")]));
    assert_eq!(
        found("a toilet, a chair and two seats"),
        pairs(&[("toilet", "toilet"), ("chair", "chair")])
    );
}

#[test]
fn published_lists_keep_stray_spaces() {
    let read = |text: &str| read_synonyms(text.as_bytes()).unwrap();
    let forms = |text: &str| read(text).entries()[0].1.clone();
    assert_eq!(forms("cake,  cheesecake, cupcake \n"), [" cheesecake", "cupcake"]);
    assert_eq!(forms("# comment\ncake,pie, tart"), ["tart"]);
    let list = read("cake, pie\n[neutral]\n# comment\npie chart\n");
    assert_eq!((list.entries().len(), list.neutral()), (1, &["pie chart".to_owned()][..]));
}

#[test]
fn invalid_synonyms_are_reported_by_line() {
    let said = |text: &[u8]| read_synonyms(text).unwrap_err().to_string();
    assert_eq!(said(b"dog\n\n, cat"), "line 3 has no category; begin it with the category's name");
    assert!(said(b"dog\n\xff").starts_with("line 2 cannot be read"));
    assert!(said(b"dog, pup\nwolf, pup").contains("'pup' names both 'dog' and 'wolf'"));
    assert!(said(b"\n").contains("empty"));
}

proptest! {
    /// Any text at all: no panic, and every word's bytes are in order and inside the text.
    #[test]
    fn token_spans_are_ordered_and_tokens_keep_all_letters(text in "(\\PC|[.,?!'\"`()-]{1,3}|dog|cannot|St\\. |[0-9]\\. |\\s|İ|Σ|“){0,40}") {
        let mut end = 0;
        for token in reference::tokenize(&text) {
            prop_assert!(token.span.start >= end || token.span.start == token.span.end || token.span.end <= end + 4);
            prop_assert!(text.get(token.span.clone()).is_some(), "{:?}", token);
            end = token.span.end;
        }
        let letters = |text: &str| -> String {
            text.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect()
        };
        prop_assert_eq!(letters(&tokens(&text).concat()), letters(&text));
    }

    /// Punctuation that stands alone does not change how the words around it are read, whichever of the two
    /// ways through a sentence is taken: a tilde between spaces forces the longer one.
    #[test]
    fn short_and_long_tokeniser_paths_agree(text in "([a-z]{1,4}|[0-9]|cannot|wanna|, |,[0-9]| |\\.[a-z]|-[a-z]){0,20}\\.?") {
        prop_assume!(!text.contains("..") && !text.contains(".,") && !text.contains(",."));
        let mut marked = tokens(&format!("~ {text}"));
        marked.remove(0);
        prop_assert_eq!(marked, tokens(&text));
    }
}
