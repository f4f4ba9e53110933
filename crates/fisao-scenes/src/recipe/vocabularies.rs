//! The tokenizers of the small models, trained on the world's own captions, as `tokenizer.json` files
//! of the same kind as LLaVA's and CLIP's.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Trainer};

use super::conversation;
use super::training::RecipeError;
use crate::phrase::name_prompt;
use crate::{PROMPTS, Split, World, clean_caption, phrase, vocabulary};

/// CLIP's first token.
pub const CLIP_BOS: &str = "<|startoftext|>";
/// CLIP's last token.
pub const CLIP_EOS: &str = "<|endoftext|>";
/// Llama's first token.
pub const LLAMA_BOS: &str = "<s>";
/// Llama's last token.
pub const LLAMA_EOS: &str = "</s>";
/// Llama's padding.
pub const LLAMA_PAD: &str = "<unk>";
/// Image placeholder.
pub const IMAGE: &str = "<image>";

/// Scenes whose captions the tokenizers are trained on.
const CORPUS_SCENES: u64 = 3_000;

/// Upper bound on the size of either vocabulary.
const MOST_TOKENS: usize = 1_200;

/// CLIP's splitting of text into words.
const CLIP_WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The content of a `tokenizer.json` with its token ids.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizerFile {
    /// The file's content.
    pub json: Value,
    ids: BTreeMap<String, u32>,
}

impl TokenizerFile {
    /// The file of this content.
    pub fn new(json: Value) -> Self {
        let mut ids = BTreeMap::new();
        let mut add = |token: &str, id: Option<u64>| {
            if let Some(id) = id {
                ids.insert(token.to_owned(), id as u32);
            }
        };
        for (token, id) in json["model"]["vocab"].as_object().into_iter().flatten() {
            add(token, id.as_u64());
        }
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            add(token["content"].as_str().unwrap_or_default(), token["id"].as_u64());
        }
        Self { json, ids }
    }

    /// Number of token ids.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Id of one of the special tokens this module writes.
    pub(crate) fn special_id(&self, token: &str) -> u32 {
        *self.ids.get(token).expect("every tokenizer made here holds its special tokens")
    }
}

/// Llama's kind: byte-pair merges on words that start with `▁`, bytes for unknown characters.
///
/// # Errors
/// [`RecipeError::Tokenizer`] when training fails.
pub fn llama_tokenizer(world: &World, seed: u64) -> Result<TokenizerFile, RecipeError> {
    let mut special = vec![LLAMA_PAD.to_owned(), LLAMA_BOS.to_owned(), LLAMA_EOS.to_owned()];
    special.extend((0..=255_u8).map(|byte| format!("<0x{byte:02X}>")));
    let texts = corpus(world, seed).into_iter().chain(PROMPTS.iter().map(|p| conversation(p)));
    let words = texts.flat_map(|text| llama_words(&text)).collect();
    let trainer = BpeTrainer::builder().special_tokens(added(&special));
    let model = train_bpe(trainer.vocab_size(MOST_TOKENS), words)?;
    let count = model["vocab"].as_object().map_or(0, serde_json::Map::len);
    let template = |id: &str| {
        json!([
            {"SpecialToken": {"id": LLAMA_BOS, "type_id": 0}}, {"Sequence": {"id": id, "type_id": 0}}
        ])
    };
    let pair = [template("A"), template("B")].map(|part| part.as_array().cloned());
    Ok(TokenizerFile::new(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [
            added_token(0, LLAMA_PAD), added_token(1, LLAMA_BOS), added_token(2, LLAMA_EOS),
            added_token(count, IMAGE),
        ],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template("A"),
            "pair": pair.into_iter().flatten().flatten().collect::<Vec<_>>(),
            "special_tokens": {LLAMA_BOS: {"id": LLAMA_BOS, "ids": [1], "tokens": [LLAMA_BOS]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": bpe(&model, &json!({
            "unk_token": LLAMA_PAD, "fuse_unk": true, "byte_fallback": true,
        })),
    })))
}

/// CLIP's kind: lower-cased, byte-level, merges on words that end with `</w>`.
///
/// # Errors
/// [`RecipeError::Tokenizer`] when training fails.
pub fn clip_tokenizer(world: &World, seed: u64) -> Result<TokenizerFile, RecipeError> {
    let words: Vec<String> = corpus(world, seed).iter().flat_map(|text| clip_words(text)).collect();
    // The trainer would number the last letters of words in the order of a hash map, another one in
    // every process; named beforehand they keep their place, and so do the merges, whose ties are
    // decided by it.
    let last_letters: BTreeSet<String> = words
        .iter()
        .filter_map(|word| word.chars().last())
        .map(|letter| format!("{letter}</w>"))
        .collect();
    let first: Vec<String> =
        [CLIP_BOS, CLIP_EOS].map(str::to_owned).into_iter().chain(last_letters).collect();
    let trainer = BpeTrainer::builder()
        .special_tokens(added(&first))
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .end_of_word_suffix("</w>".to_owned());
    let model = train_bpe(trainer.vocab_size(MOST_TOKENS), words)?;
    Ok(TokenizerFile::new(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [added_token(0, CLIP_BOS), added_token(1, CLIP_EOS)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": CLIP_WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing", "sep": [CLIP_EOS, 1], "cls": [CLIP_BOS, 0],
            "trim_offsets": false, "add_prefix_space": false,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": bpe(&model, &json!({
            "unk_token": CLIP_EOS, "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
            "fuse_unk": false, "byte_fallback": false,
        })),
    })))
}

/// The world's captions and phrases, and every surface form of its objects in a plain sentence.
fn corpus(world: &World, seed: u64) -> Vec<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut texts: Vec<_> = (0..CORPUS_SCENES)
        .flat_map(|index| {
            let scene = world.scene(Split::Train, seed, index);
            [clean_caption(&scene, &mut rng).text, phrase(&scene, &mut rng).text]
        })
        .collect();
    for form in vocabulary().into_iter().flat_map(|(_, forms)| forms) {
        texts.push(name_prompt(&form));
    }
    texts
}

/// Words with their leading `▁`; punctuation stands alone so that no merge crosses it.
fn llama_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for word in text.replace('\n', " ").split(' ').filter(|word| !word.is_empty()) {
        let mut current = String::from("▁");
        for letter in word.chars() {
            if letter.is_alphanumeric() {
                current.push(letter);
            } else {
                words.push(std::mem::take(&mut current));
                words.push(letter.to_string());
            }
        }
        words.push(current);
    }
    words.retain(|word| !word.is_empty());
    words
}

fn clip_words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower
        .split(|letter: char| !letter.is_alphanumeric())
        .map(str::to_owned)
        .chain(lower.chars().filter(char::is_ascii_punctuation).map(String::from))
        .filter(|word| !word.is_empty())
        .collect()
}

fn train_bpe(
    builder: tokenizers::models::bpe::BpeTrainerBuilder,
    words: Vec<String>,
) -> Result<Value, RecipeError> {
    let failed = |error: &dyn std::fmt::Display| RecipeError::Tokenizer(error.to_string());
    let mut trainer = builder.show_progress(false).build();
    trainer
        .feed(words.into_iter(), |word| Ok(vec![word.to_owned()]))
        .map_err(|error| failed(&error))?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(|error| failed(&error))?;
    serde_json::to_value(&model).map_err(|error| failed(&error))
}

/// The model's part of the file: trained merges under the given options.
fn bpe(trained: &Value, options: &Value) -> Value {
    let mut model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": false, "vocab": trained["vocab"], "merges": trained["merges"],
    });
    for (key, value) in options.as_object().into_iter().flatten() {
        model[key] = value.clone();
    }
    model
}

fn added(tokens: &[String]) -> Vec<AddedToken> {
    tokens.iter().map(|token| AddedToken::from(token.clone(), true)).collect()
}

fn added_token(id: usize, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })
}
