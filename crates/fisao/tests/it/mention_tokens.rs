//! From the words of a caption to the tokens that spell them, under every family of tokenizers: what
//! carries a reward is what spelled the name, and no token less would do.
//!
//! The mapping joins two crates that do not know each other, the tokenizer's spans and the
//! vocabulary's mentions, so it is tested where both are at hand.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use fisao_formats::tokenizer::HfTokenizer;
use fisao_models::text::Tokenizer;
use fisao_verifier::mentions::ObjectVocabulary;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Names of the vocabulary below, plurals included.
const NAMES: &[&str] = &[
    "dog",
    "dogs",
    "puppy",
    "hot dog",
    "hot dogs",
    "traffic light",
    "traffic lights",
    "people",
    "man",
    "bus",
    "buses",
    "knives",
    "café",
    "cafés",
    "crème brûlée",
    "glasses of wine",
    "piñata",
    "éclair",
    "éclairs",
];

/// Words that name nothing.
const OTHERS: &[&str] =
    &["a", "the", "no", "two", "on", "of", "hot", "naïve", "grün", "doggedly", "manner", "busy"];

/// Characters that no tokenizer below has a token for: spelled in bytes, or not at all.
const FOREIGN: &[&str] = &["🙂", "叫", "👩‍🚒", "½"];

const SEPARATORS: &[&str] =
    &[" ", " ", " ", " ", ", ", ". ", "-", " - ", "'s ", "\n", " — ", "!? "];

/// Letters and signs that every tokenizer below knows.
const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZéèûñïüÉÈÛÑÏÜ,.-'!?";

/// Pieces that are tokens of their own, with and without the space before them: whole names, parts
/// of names, and parts that are longer than a name.
const PIECES: &[&str] = &[
    "dog", " dog", " hot", "tra", "ff", "ic", " light", " people", " man", "us", " b", "kni",
    " caf", "fé", "crè", "lé", " brû", "gl", "asses", " wine", " DO", "GS", "ñat",
];

fn vocabulary() -> ObjectVocabulary {
    let entry = |category: &str, forms: &[&str]| {
        (category.to_owned(), forms.iter().map(ToString::to_string).collect())
    };
    ObjectVocabulary::new(vec![
        entry("dog", &["puppy"]),
        entry("hot dog", &[]),
        entry("traffic light", &[]),
        entry("person", &["man"]),
        entry("bus", &[]),
        entry("knife", &[]),
        entry("café", &[]),
        entry("crème brûlée", &[]),
        entry("wine glass", &["glass of wine"]),
        entry("piñata", &[]),
        entry("éclair", &[]),
    ])
    .expect("a well-formed vocabulary")
}

/// A tokenizer under test.
struct Family {
    name: &'static str,
    tokenizer: HfTokenizer,
    /// Whether it can spell any text, to the last letter.
    lossless: bool,
}

static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| {
    let family = |name, tokenizer, lossless| Family { name, tokenizer, lossless };
    vec![
        family("byte-level", byte_level(), true),
        family("llama", llama(), true),
        family("clip", clip(), false),
        family("word-piece", word_piece(), false),
    ]
});

/// Merges that build `pieces` from their symbols, from left to right, and every token on the way.
fn merged(pieces: &[Vec<String>]) -> (Vec<Value>, BTreeSet<String>) {
    let (mut merges, mut tokens) = (Vec::new(), BTreeSet::new());
    for symbols in pieces {
        let mut left = symbols[0].clone();
        for right in &symbols[1..] {
            let whole = format!("{left}{right}");
            if tokens.insert(whole.clone()) {
                merges.push(json!([left, right]));
            }
            left = whole;
        }
    }
    (merges, tokens)
}

/// A vocabulary that begins with the unknown token.
fn numbered(tokens: impl IntoIterator<Item = String>) -> Value {
    let mut seen = BTreeSet::new();
    let tokens = std::iter::once("<unk>".to_owned()).chain(tokens);
    let distinct = tokens.filter(|token| seen.insert(token.clone()));
    Value::Object(distinct.enumerate().map(|(id, token)| (token, Value::from(id))).collect())
}

fn parsed(
    normalizer: &Value,
    pre_tokenizer: &Value,
    decoder: &Value,
    model: &Value,
) -> HfTokenizer {
    let unknown = json!({ "id": 0, "content": "<unk>", "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true });
    let spec = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [unknown],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": decoder, "model": model,
    });
    HfTokenizer::from_json(&spec.to_string()).expect("a valid tokenizer.json")
}

fn bpe(vocab: &Value, merges: &[Value], suffix: Option<&str>, byte_fallback: bool) -> Value {
    json!({ "type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": false,
            "continuing_subword_prefix": null, "end_of_word_suffix": suffix,
            "byte_fallback": byte_fallback, "vocab": vocab, "merges": merges })
}

/// GPT-2's characters for bytes: printable ones stand for themselves, the others follow from 256 on.
fn byte_characters() -> Vec<char> {
    let mut next = 255;
    let characters = (0..256_u32).map(|byte| {
        if matches!(byte, 33..=126 | 161..=172 | 174..=255) {
            return byte;
        }
        next += 1;
        next
    });
    characters.map(|code| char::from_u32(code).expect("no surrogates there")).collect()
}

/// GPT-2's and Qwen's: every token is a string of bytes, the space before a word among them.
fn byte_level() -> HfTokenizer {
    let characters = byte_characters();
    let symbols =
        |piece: &&str| piece.bytes().map(|byte| characters[byte as usize].to_string()).collect();
    let (merges, tokens) = merged(&PIECES.iter().map(symbols).collect::<Vec<_>>());
    let vocab = numbered(characters.iter().map(ToString::to_string).chain(tokens));
    let level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                        "use_regex": true });
    parsed(&Value::Null, &level, &level, &bpe(&vocab, &merges, None, false))
}

/// Llama's: `▁` for a space, one before the text, bytes for unknown characters.
fn llama() -> HfTokenizer {
    let spaced = |piece: &&str| piece.replace(' ', "▁").chars().map(String::from).collect();
    let (merges, tokens) = merged(&PIECES.iter().map(spaced).collect::<Vec<_>>());
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let letters = ALPHABET.chars().chain(['▁']).map(String::from);
    let vocab = numbered(bytes.chain(letters).chain(tokens));
    let normalizer = json!({ "type": "Sequence", "normalizers": [
        { "type": "Prepend", "prepend": "▁" },
        { "type": "Replace", "pattern": { "String": " " }, "content": "▁" }] });
    let decoder = json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
        { "type": "ByteFallback" }, { "type": "Fuse" },
        { "type": "Strip", "content": " ", "start": 1, "stop": 0 }] });
    parsed(&normalizer, &Value::Null, &decoder, &bpe(&vocab, &merges, None, true))
}

/// CLIP's: lower case, and `</w>` where a word ends. Its decoder is the one that undoes it.
fn clip() -> HfTokenizer {
    let ended = |piece: &&str| {
        let mut symbols: Vec<String> = piece.trim().chars().map(String::from).collect();
        symbols.last_mut().expect("no piece is empty").push_str("</w>");
        symbols
    };
    let inner = |piece: &&str| piece.trim().chars().map(String::from).collect();
    let pieces = PIECES.iter().map(ended).chain(PIECES.iter().map(inner)).collect::<Vec<_>>();
    let (merges, tokens) = merged(&pieces);
    let letters = ALPHABET.chars().flat_map(|letter| [letter.into(), format!("{letter}</w>")]);
    let vocab = numbered(letters.chain(tokens));
    let normalizer =
        json!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }, { "type": "Lowercase" }] });
    let decoder = json!({ "type": "BPEDecoder", "suffix": "</w>" });
    let words = json!({ "type": "Whitespace" });
    parsed(&normalizer, &words, &decoder, &bpe(&vocab, &merges, Some("</w>"), false))
}

/// BERT's: lower case, `##` joins a piece to the one before, punctuation loses the space before it.
fn word_piece() -> HfTokenizer {
    let pieces = PIECES.iter().map(|piece| piece.trim().to_owned());
    let starts = pieces.chain(ALPHABET.chars().map(String::from)).collect::<Vec<_>>();
    let inner = starts.iter().map(|piece| format!("##{piece}")).collect::<Vec<_>>();
    let model = json!({ "type": "WordPiece", "unk_token": "<unk>", "max_input_chars_per_word": 100,
                        "continuing_subword_prefix": "##",
                        "vocab": numbered(starts.into_iter().chain(inner)) });
    let decoder = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
    let words = json!({ "type": "Whitespace" });
    parsed(&json!({ "type": "Lowercase" }), &words, &decoder, &model)
}

/// A word in lower, upper or title case.
fn any_word() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => prop::sample::select(NAMES).prop_map(str::to_owned),
        3 => prop::sample::select(OTHERS).prop_map(str::to_owned),
        1 => prop::sample::select(FOREIGN).prop_map(str::to_owned),
        1 => "[a-z]{1,7}",
    ];
    (word, 0..4).prop_map(|(word, case)| match case {
        0 => word.to_uppercase(),
        1 => {
            let first = word.chars().next().expect("no word is empty");
            format!("{}{}", first.to_uppercase(), &word[first.len_utf8()..])
        }
        _ => word,
    })
}

/// Words with something between them, a name among them.
fn any_caption() -> impl Strategy<Value = String> {
    let parts = prop::collection::vec((any_word(), prop::sample::select(SEPARATORS)), 0..14);
    (parts, prop::sample::select(NAMES), any::<prop::sample::Index>()).prop_map(
        |(mut parts, name, at)| {
            let at = at.index(parts.len() + 1);
            parts.insert(at, (name.to_owned(), " "));
            let text = parts.into_iter().map(|(word, separator)| word + separator);
            text.collect::<String>().trim_end().to_owned()
        },
    )
}

/// Which categories a text names, in order.
fn named(vocabulary: &ObjectVocabulary, text: &str) -> Vec<usize> {
    let whole = 0..text.len();
    vocabulary.token_mentions(text, &[whole]).into_iter().map(|mention| mention.category).collect()
}

/// Letters and signs alone: what a tokenizer that re-spaces and lower-cases leaves of a text.
fn letters(text: &str) -> String {
    text.split_whitespace().collect::<String>().to_lowercase()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn mention_tokens_are_minimal_and_spell_the_mention(caption in any_caption()) {
        let vocabulary = vocabulary();
        for Family { name, tokenizer, .. } in FAMILIES.iter() {
            let ids = tokenizer.encode(&caption, false).expect("any text");
            let decoded = tokenizer.decode(&ids).expect("its own ids");
            let spelling = |ids: &[u32]| tokenizer.decode(ids).expect("its own ids").text;
            for mention in vocabulary.token_mentions(&decoded.text, &decoded.spans) {
                let own = &ids[mention.tokens.clone()];
                let whole = spelling(own);
                prop_assert!(whole.contains(&mention.text), "{name}: {mention:?} is spelled {whole:?}");
                for fewer in [&own[1..], &own[..own.len() - 1]] {
                    let part = spelling(fewer);
                    prop_assert!(!part.contains(&mention.text), "{name}: {part:?} spells {mention:?}");
                }
            }
        }
    }

    /// Mentions are found on words: as long as a tokenizer can spell a caption, which one it is makes no
    /// difference to what the caption names.
    #[test]
    fn every_tokenizer_gives_the_same_mentions(caption in any_caption()) {
        let vocabulary = vocabulary();
        let expected = named(&vocabulary, &caption);
        prop_assert!(!expected.is_empty());
        for Family { name, tokenizer, lossless } in FAMILIES.iter() {
            let ids = tokenizer.encode(&caption, false).expect("any text");
            let decoded = tokenizer.decode(&ids).expect("its own ids");
            if *lossless {
                prop_assert_eq!(&decoded.text, &caption, "{}", name);
            } else if letters(&decoded.text) != letters(&caption) {
                continue;
            }
            let mentions = vocabulary.token_mentions(&decoded.text, &decoded.spans);
            let found: Vec<usize> = mentions.iter().map(|mention| mention.category).collect();
            prop_assert_eq!(&found, &expected, "{} reads {:?}", name, decoded.text);
        }
    }
}

/// The property above leaves captions out that a tokenizer cannot spell: not the ordinary ones.
#[test]
fn ordinary_captions_round_trip_through_every_tokenizer() {
    let caption = "Two DOGS, a crème brûlée and a hot-dog on the café's traffic light!";
    for Family { name, tokenizer, .. } in FAMILIES.iter() {
        let ids = tokenizer.encode(caption, false).expect("any text");
        assert!(ids.len() > 16, "{name} takes {} tokens", ids.len());
        let decoded = tokenizer.decode(&ids).expect("its own ids");
        assert_eq!(letters(&decoded.text), letters(caption), "{name}");
        let mentions = vocabulary().token_mentions(&decoded.text, &decoded.spans);
        assert_eq!(mentions.len(), 5, "{name}: {mentions:?}");
        assert!(mentions.iter().any(|mention| mention.tokens.len() > 1), "{name}: {mentions:?}");
    }
}
