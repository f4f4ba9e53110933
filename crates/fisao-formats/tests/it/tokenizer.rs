//! Which bytes of a decoded text each token spelled, for every family of tokenizers.

use std::ops::Range;

use fisao_formats::tokenizer::HfTokenizer;
use fisao_models::text::{DecodedText, Tokenizer};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::tiny;

/// Llama's: `▁` for spaces, a `▁` put before the text, bytes for unknown characters.
fn llama(decoder: &Value) -> HfTokenizer {
    let mut tokens = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens
        .extend(["▁", "a", "b", "d", "g", "o", "é", "▁a", "do", "dog", "▁dog"].map(str::to_owned));
    let vocab = tokens.iter().enumerate().map(|(id, token)| (token.clone(), Value::from(id)));
    let spec = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special(&[0, 1, 2], &tokens),
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" }] },
        "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>",
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "vocab": Value::Object(vocab.collect()),
            "merges": ["▁ a", "d o", "do g", "▁ dog"] },
    });
    HfTokenizer::from_json(&spec.to_string()).expect("a valid tokenizer.json")
}

fn llama_decoder() -> Value {
    json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
        { "type": "ByteFallback" }, { "type": "Fuse" },
        { "type": "Strip", "content": " ", "start": 1, "stop": 0 }] })
}

fn metaspace_decoder() -> Value {
    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true })
}

/// GPT-2's characters for bytes: printable ones stand for themselves, the others follow from 256 on.
fn byte_characters() -> Vec<char> {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256;
    let characters = (0..256_u32).map(|byte| {
        if printable(&byte) {
            byte
        } else {
            next += 1;
            next - 1
        }
    });
    characters.map(|code| char::from_u32(code).expect("no surrogates there")).collect()
}

/// GPT-2's and Qwen's: every token is a string of bytes; the bytes of each id.
fn byte_level() -> (HfTokenizer, Vec<Vec<u8>>) {
    let characters = byte_characters();
    let words: [&[u8]; 4] = [b"do", b" d", b" do", b"\x8f\xab"];
    let bytes = (0..=255_u8).map(|byte| vec![byte]);
    let bytes = bytes.chain(words.map(<[u8]>::to_vec)).collect::<Vec<_>>();
    let spell = |bytes: &[u8]| bytes.iter().map(|&b| characters[b as usize]).collect::<String>();
    let mut tokens = bytes.iter().map(|bytes| spell(bytes)).collect::<Vec<_>>();
    tokens.push("<|end|>".to_owned());
    let vocab = tokens.iter().enumerate().map(|(id, token)| (token.clone(), Value::from(id)));
    let pair = |a: &[u8], b: &[u8]| json!([spell(a), spell(b)]);
    let spec = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special(&[260], &tokens),
        "normalizer": null, "post_processor": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "vocab": Value::Object(vocab.collect::<Map<_, _>>()),
            "merges": [pair(b"d", b"o"), pair(b" ", b"d"), pair(b" ", b"do"), pair(b"\x8f", b"\xab")] },
    });
    (HfTokenizer::from_json(&spec.to_string()).expect("a valid tokenizer.json"), bytes)
}

/// BERT's: `##` joins a piece to the one before.
fn word_piece() -> HfTokenizer {
    let tokens = ["[UNK]", "dog", "##s", "a", ".", "n", "'", "t"].map(str::to_owned).to_vec();
    let vocab = tokens.iter().enumerate().map(|(id, token)| (token.clone(), Value::from(id)));
    let spec = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special(&[0], &tokens),
        "normalizer": null, "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null,
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": Value::Object(vocab.collect()) },
    });
    HfTokenizer::from_json(&spec.to_string()).expect("a valid tokenizer.json")
}

fn special(ids: &[usize], tokens: &[String]) -> Vec<Value> {
    let added = ids.iter().map(|&id| {
        json!({ "id": id, "content": tokens[id], "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true })
    });
    added.collect()
}

fn ids(tokenizer: &HfTokenizer, tokens: &[&str]) -> Vec<u32> {
    tokens.iter().map(|token| tokenizer.token_id(token).expect("a known token")).collect()
}

fn pieces(decoded: &DecodedText) -> Vec<&str> {
    decoded.spans.iter().map(|span| &decoded.text[span.clone()]).collect()
}

#[test]
fn llama_spans_include_the_leading_space_except_at_the_start() {
    let tokenizer = llama(&llama_decoder());
    let ids = ids(&tokenizer, &["<s>", "▁a", "▁dog", "do", "▁", "</s>"]);
    let decoded = tokenizer.decode(&ids).expect("known ids");
    assert_eq!(decoded.text, "a dogdo ");
    assert_eq!(pieces(&decoded), ["", "a", " dog", "do", " ", ""]);
    let decoded = llama(&metaspace_decoder()).decode(&ids).expect("known ids");
    assert_eq!(pieces(&decoded), ["", "a", " dog", "do", " ", ""]);
}

#[test]
fn byte_tokens_of_one_character_share_its_span() {
    let tokenizer = llama(&llama_decoder());
    // 叫 is E5 8F AB; é is a token of its own.
    let ids = ids(&tokenizer, &["▁a", "<0xE5>", "<0x8F>", "<0xAB>", "é", "▁dog"]);
    let decoded = tokenizer.decode(&ids).expect("known ids");
    assert_eq!(decoded.text, "a叫é dog");
    assert_eq!(decoded.spans, [0..1, 1..4, 1..4, 1..4, 4..6, 6..10]);
    // Special tokens between them spell nothing and separate nothing.
    let ids = [&ids[..2], &[2], &ids[2..4]].concat();
    let decoded = tokenizer.decode(&ids).expect("known ids");
    assert_eq!(decoded.spans, [0..1, 1..4, 1..1, 1..4, 1..4]);
}

#[test]
fn incomplete_byte_tokens_keep_their_order() {
    let tokenizer = llama(&llama_decoder());
    let ids = ids(&tokenizer, &["▁a", "<0xE5>", "<0x8F>", "b"]);
    let decoded = tokenizer.decode(&ids).expect("known ids");
    assert_eq!(decoded.text, "a\u{fffd}\u{fffd}b");
    assert_eq!(decoded.spans, [0..1, 1..4, 4..7, 7..8]);
}

#[test]
fn word_level_and_word_piece_spans_include_the_leading_space() {
    let tokenizer = tiny::tokenizer();
    let ids = tokenizer.encode("a dog on the bench.", true).expect("known words");
    let decoded = tokenizer.decode(&ids).expect("known ids");
    assert_eq!(pieces(&decoded), ["", "a", " dog", " on", " the", " bench", " ."]);

    let tokenizer = word_piece();
    let ids = tokenizer.encode("a dogs.", false).expect("known words");
    let decoded = tokenizer.decode(&ids).expect("known ids");
    assert_eq!(decoded.text, "a dogs.");
    assert_eq!(pieces(&decoded), ["a", " dog", "s", "."]);
}

#[test]
fn ids_beyond_the_vocabulary_decode_to_nothing() {
    // Embedding tables are padded, so an untrained model does emit such ids.
    let tokenizer = tiny::tokenizer();
    let decoded = tokenizer.decode(&[3, 999, 5]).expect("unknown ids are no error");
    assert_eq!(pieces(&decoded), ["a", "", " dog"]);
    assert_eq!(tokenizer.decode(&[]).expect("nothing"), DecodedText::default());
}

#[test]
fn truncation_setting_in_the_tokenizer_file_is_ignored() {
    let ids = tiny::tokenizer().encode("a dog and a cat and the bench", false).expect("known");
    assert_eq!(ids.len(), 8);
}

/// Spans are in range, on character boundaries, ordered, and cover the text.
fn check_spans(decoded: &DecodedText, ids: &[u32]) -> Result<(), TestCaseError> {
    prop_assert_eq!(decoded.spans.len(), ids.len());
    let (mut start, mut end) = (0, 0);
    for span in &decoded.spans {
        prop_assert!(decoded.text.get(span.clone()).is_some(), "{:?} of {:?}", span, decoded);
        prop_assert!(
            span.start >= start && span.start <= end,
            "gap before {:?}: {:?}",
            span,
            decoded
        );
        (start, end) = (span.start, end.max(span.end));
    }
    prop_assert_eq!(end, decoded.text.len());
    Ok(())
}

proptest! {
    #[test]
    fn spans_cover_any_encoded_text(text in "[ab dogé叫🙂'.,\\n]{0,80}|\\PC{0,60}") {
        for tokenizer in [llama(&llama_decoder()), llama(&metaspace_decoder()), byte_level().0, word_piece(), tiny::tokenizer()] {
            let ids = tokenizer.encode(&text, true).expect("any text");
            check_spans(&tokenizer.decode(&ids).expect("its own ids"), &ids)?;
        }
    }

    #[test]
    fn spans_cover_the_text_of_any_ids(ids in prop::collection::vec(0..280_u32, 0..80)) {
        for tokenizer in [llama(&llama_decoder()), llama(&metaspace_decoder()), byte_level().0, word_piece(), tiny::tokenizer()] {
            check_spans(&tokenizer.decode(&ids).expect("any ids"), &ids)?;
        }
    }

    /// Byte-level tokens are strings of bytes, so their spans follow from the bytes alone.
    #[test]
    fn byte_level_spans_follow_from_token_bytes(text in "[ad o叫é🙂]{0,120}") {
        let (tokenizer, bytes) = byte_level();
        let ids = tokenizer.encode(&text, false).expect("any text");
        let decoded = tokenizer.decode(&ids).expect("its own ids");
        prop_assert_eq!(&decoded.text, &text);
        let mut start = 0;
        let expected = ids.iter().map(|&id| {
            let own = start..start + bytes[id as usize].len();
            start = own.end;
            whole_characters(&text, own)
        });
        prop_assert_eq!(&decoded.spans, &expected.collect::<Vec<_>>());
    }

    /// Where nothing is normalised away, decoding places tokens where encoding found them.
    #[test]
    fn spans_equal_the_offsets_of_encoding(text in "(a|dog)([abdoé]{0,9} [abdog]){0,20}") {
        let tokenizer = llama(&llama_decoder());
        let inner: tokenizers::Tokenizer = tokenizer.to_json().expect("serialisable").parse().expect("its own JSON");
        let encoding = inner.encode(text.as_str(), false).expect("any text");
        let decoded = tokenizer.decode(encoding.get_ids()).expect("its own ids");
        prop_assert_eq!(&decoded.text, &text);
        let offsets = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        prop_assert_eq!(&decoded.spans, &offsets.collect::<Vec<_>>());
    }
}

/// A range of bytes widened to the characters it touches.
fn whole_characters(text: &str, range: Range<usize>) -> Range<usize> {
    let down = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let up = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at += 1;
        }
        at
    };
    down(range.start)..up(range.end)
}

#[test]
fn tokenizer_that_would_exhaust_memory_is_rejected() {
    let mut file: Value =
        serde_json::from_str(&tiny::tokenizer().to_json().expect("it serialises"))
            .expect("the library writes JSON");
    let double = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aa" });
    for (part, list) in [("normalizer", "normalizers"), ("decoder", "decoders")] {
        let sound = file[part].take();
        file[part] = json!({ "type": "Sequence", list: vec![&double; 40] });
        let error = HfTokenizer::from_json(&file.to_string()).expect_err("it doubles 40 times");
        let expected = "texts up to 1099511627776 times as long, more than 16384";
        assert!(error.to_string().contains(expected), "{error}");
        // A few replacements are what tokenizers are made of.
        file[part] = json!({ "type": "Sequence", list: vec![&double; 3] });
        HfTokenizer::from_json(&file.to_string()).expect("a usable tokenizer");
        file[part] = sound;
    }
    file["model"]["vocab"]["b".repeat(20_000)] = json!(23);
    let error = HfTokenizer::from_json(&file.to_string()).expect_err("no token is that long");
    assert!(error.to_string().contains("it has a token of 20000 bytes"), "{error}");
}

#[test]
fn unknown_tokenizer_components_are_reported_by_name() {
    let sound = json!({
        "model": { "type": "WordLevel", "vocab": { "<unk>": 0 }, "unk_token": "<unk>" }
    });
    HfTokenizer::from_json(&sound.to_string()).expect("a usable tokenizer");
    for (part, value, found) in [
        ("model", json!({ "type": "Rebus", "vocab": {} }), "of type \"Rebus\""),
        ("model", json!({ "vocab": [5] }), "an object without a type"),
        ("normalizer", json!({ "type": "Upsidedown" }), "of type \"Upsidedown\""),
        ("pre_tokenizer", json!({ "type": "Upsidedown" }), "of type \"Upsidedown\""),
        ("post_processor", json!({ "type": "Upsidedown" }), "of type \"Upsidedown\""),
        ("decoder", json!({ "type": "Upsidedown" }), "of type \"Upsidedown\""),
        ("decoder", json!({ "kind": 7 }), "an object without a type"),
    ] {
        let mut file = sound.clone();
        file[part] = value;
        let error =
            HfTokenizer::from_json(&file.to_string()).expect_err("no such kind").to_string();
        assert!(!error.contains("untagged"), "{error}");
        assert!(error.contains(&format!("its `{part}` is {found} and cannot be read")), "{error}");
    }
}
