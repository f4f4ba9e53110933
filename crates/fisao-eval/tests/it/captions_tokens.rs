//! Tokens against Stanford's tokenizer: see `fixtures/ptb_tokens/generate.py`.

use std::fs;
use std::path::Path;

use fisao_eval::captions::{caption_tokens, treebank_tokens};
use proptest::prelude::*;

#[test]
fn treebank_tokens_match_the_reference_on_difficult_text() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/ptb_tokens/expected.json");
    let pairs: Vec<(String, String)> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert!(pairs.len() > 300);
    for (text, tokens) in pairs {
        assert_eq!(treebank_tokens(&text).join(" "), tokens, "{text}");
    }
}

#[test]
fn caption_tokens_drop_punctuation_but_keep_brackets() {
    for (caption, tokens) in [
        ("A dog, a \"big\" one; it's 'red' - really...", "a dog a big one it 's red really"),
        ("A man (left) {here}", "a man -lrb- left -rrb- -lcb- here -rcb-"),
        ("What?! Stop!", "what ?! stop"),
        ("two\nlines\r\nof text", "two lines of text"),
        (" . ", ""),
        ("", ""),
        ("🐶 dog😀s", "dog s"),
    ] {
        assert_eq!(caption_tokens(caption).join(" "), tokens, "{caption}");
    }
}

#[test]
fn abbreviations_at_the_end_of_a_caption_keep_their_full_stop() {
    assert_eq!(treebank_tokens("a bus of Acme Inc.").last().unwrap(), "inc.");
    assert_eq!(treebank_tokens("the U.S.").last().unwrap(), "u.s.");
    assert_eq!(treebank_tokens("I don't"), ["i", "do", "n't"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tokens_of_any_text_are_nonempty_and_without_spaces(text in r#"([a-zA-Z0-9 .,'"`&;:/()<>@#$_~^=*\\-]|\PC|\n){0,40}"#) {
        for token in treebank_tokens(&text) {
            prop_assert!(!token.is_empty());
            prop_assert!(!token.contains([' ', '\n', '\t']), "{token:?}");
        }
    }
}
