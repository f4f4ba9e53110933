//! Bounds on what a `tokenizer.json` may make of a text. It is a program of replacements, which can make a short text as long
//! as memory: `a` to `aa`, forty times over.
//!
//! Each step lengthens a text by a factor that can be read off the file; the product of all of them is bounded. By this count
//! Qwen2's is 6, Llama's 12, CLIP's 18, T5's 176 and ALBERT's 2904.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A text may become so many times as long before it is split into tokens, and tokens on their way back to a text.
const LONGEST_GROWTH: f64 = 16384.0;
/// Bytes of one token.
const LONGEST_TOKEN: usize = 1 << 14;
/// Tokens that are put around a text.
const MOST_ADDED: usize = 1024;
/// Sequences within each other.
const DEPTH: usize = 8;
/// Steps of one kind in all; each may hold a pattern, which takes a hundred kilobytes.
const MOST_STEPS: usize = 64;
/// Objects and lists in one part of the file: a value takes a hundred times the two bytes that it is written in.
const MOST_VALUES: usize = 1 << 14;
/// Unicode's longest compatibility decomposition, in bytes for each byte.
const COMPATIBILITY: f64 = 11.0;
/// Its longest canonical one.
const CANONICAL: f64 = 3.0;

/// The parts of the file that are programs.
#[derive(Deserialize)]
pub(super) struct Pipelines {
    #[serde(default)]
    normalizer: Part,
    #[serde(default)]
    pre_tokenizer: Part,
    #[serde(default)]
    post_processor: Part,
    #[serde(default)]
    decoder: Part,
}

/// One of them, of bounded size.
#[derive(Default)]
struct Part(Value);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let values = text.get().bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
        if values > MOST_VALUES {
            return Err(D::Error::custom(format!(
                "a pipeline holds {values} values, more than {MOST_VALUES}"
            )));
        }
        serde_json::from_str(text.get()).map(Self).map_err(D::Error::custom)
    }
}

impl Pipelines {
    /// The reason why they are refused.
    pub(super) fn check(&self) -> Result<(), String> {
        let before = steps(&self.normalizer.0, "normalizers")?;
        let split = steps(&self.pre_tokenizer.0, "pretokenizers")?;
        let after = steps(&self.decoder.0, "decoders")?;
        let around = steps(&self.post_processor.0, "processors")?;
        let texts = [
            (
                "its normalizer and pre_tokenizer make",
                before.iter().chain(&split).collect::<Vec<_>>(),
            ),
            ("its decoder makes", after.iter().collect()),
        ];
        for (what, steps) in texts {
            let growth = steps.into_iter().map(|step| growth(step)).product::<Result<f64, _>>()?;
            if growth > LONGEST_GROWTH {
                return Err(format!(
                    "{what} texts up to {growth:.0} times as long, more than {LONGEST_GROWTH}"
                ));
            }
        }
        let repeated = around.into_iter().map(repetitions).product::<Result<f64, _>>()?;
        if repeated <= LONGEST_GROWTH {
            return Ok(());
        }
        Err(format!(
            "its post_processor repeats texts {repeated:.0} times, more than {LONGEST_GROWTH}"
        ))
    }
}

/// A token that is longer than any real one.
pub(super) fn check_tokens<'a>(tokens: impl IntoIterator<Item = &'a String>) -> Result<(), String> {
    match tokens.into_iter().map(String::len).max() {
        Some(longest) if longest > LONGEST_TOKEN => {
            Err(format!("it has a token of {longest} bytes, more than {LONGEST_TOKEN}"))
        }
        _ => Ok(()),
    }
}

/// The steps of a part, those of sequences one by one.
fn steps<'a>(part: &'a Value, list: &str) -> Result<Vec<&'a Value>, String> {
    let mut steps = Vec::new();
    let mut open = vec![(part, 0)];
    while let Some((step, depth)) = open.pop() {
        if depth > DEPTH {
            return Err(format!("its {list} are nested more than {DEPTH} deep"));
        }
        match step.get(list).and_then(Value::as_array) {
            Some(inner) => open.extend(inner.iter().map(|step| (step, depth + 1))),
            None => steps.push(step),
        }
        if steps.len() > MOST_STEPS {
            return Err(format!("it has more than {MOST_STEPS} {list}"));
        }
    }
    Ok(steps)
}

/// How many times as long a text may become.
fn growth(step: &Value) -> Result<f64, String> {
    let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default();
    Ok(match step.get("type").and_then(Value::as_str).unwrap_or_default() {
        "Replace" => replacement(step.get("pattern"), text("content")),
        "Prepend" => 1.0 + text("prepend").len() as f64,
        "Metaspace" => text("replacement").len().max(1) as f64 + 1.0,
        "ByteLevel" => 2.0,
        "NFKC" | "NFKD" => COMPATIBILITY,
        "NFC" | "NFD" | "BertNormalizer" => CANONICAL,
        "Lowercase" => 1.5,
        "Precompiled" => longest_entry(text("precompiled_charsmap")),
        "FixedLength" if step.get("length").and_then(Value::as_u64) == Some(0) => {
            return Err("its pre_tokenizer cuts texts into pieces of no length".to_owned());
        }
        _ => 1.0,
    })
}

/// A replacement of every occurrence of a text; a pattern may match a single byte, or nothing before it.
fn replacement(pattern: Option<&Value>, content: &str) -> f64 {
    let literal = pattern.and_then(|pattern| pattern.get("String")?.as_str());
    let content = content.len() as f64;
    match literal {
        Some(text) if !text.is_empty() => (content / text.len() as f64).max(1.0),
        _ => 1.0 + content,
    }
}

/// The longest replacement of `SentencePiece`'s compiled table: a length, a trie, then texts with a zero byte behind each.
fn longest_entry(table: &str) -> f64 {
    let bytes = STANDARD.decode(table).unwrap_or_default();
    let texts = bytes
        .split_first_chunk::<4>()
        .and_then(|(length, rest)| rest.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..));
    let longest =
        texts.map_or(0, |texts| texts.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0));
    // What is as long stands for several bytes; a character of its own tables has three.
    (longest as f64 / 3.0).max(1.0)
}

/// How many times a post-processor repeats what it is given.
fn repetitions(step: &Value) -> Result<f64, String> {
    if step.get("type").and_then(Value::as_str) != Some("TemplateProcessing") {
        return Ok(1.0);
    }
    let tokens = step.get("special_tokens").and_then(Value::as_object);
    let (mut copies, mut added) = (0_usize, 0_usize);
    for piece in step.get("single").and_then(Value::as_array).into_iter().flatten() {
        if let Some(sequence) = piece.get("Sequence") {
            if sequence.get("id").and_then(Value::as_str) != Some("A") {
                return Err("its post_processor puts a second text beside a single one".to_owned());
            }
            copies += 1;
        } else if let Some(token) = piece.get("SpecialToken") {
            let id = token.get("id").and_then(Value::as_str).unwrap_or_default();
            let ids = tokens.and_then(|tokens| tokens.get(id)?.get("ids")?.as_array());
            added += ids
                .ok_or_else(|| {
                    format!(
                        "its post_processor adds a token that it does not name, `{}`",
                        crate::fields::shortened(id)
                    )
                })?
                .len();
        }
    }
    if added > MOST_ADDED {
        return Err(format!(
            "its post_processor adds {added} tokens to a text, more than {MOST_ADDED}"
        ));
    }
    Ok(copies.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "it is written at the call")]
    fn refused(part: &str, steps: Value) -> String {
        let file = json!({ part: steps });
        serde_json::from_str::<Pipelines>(&file.to_string()).unwrap().check().unwrap_err()
    }

    /// Patterns cost memory however little they do to a text, and so do values that mean nothing.
    #[test]
    fn tokenizer_with_too_many_steps_or_values_is_refused() {
        let split = json!({ "type": "Split", "pattern": { "Regex": "\\p{L}" }, "behavior": "Removed", "invert": true });
        let many = json!({ "type": "Sequence", "pretokenizers": vec![split; 700] });
        assert!(refused("pre_tokenizer", many).contains("more than 64 pretokenizers"));
        let file = format!("{{\"decoder\": [{}[]]}}", "[],".repeat(20_000));
        let error = serde_json::from_str::<Pipelines>(&file).err().unwrap().to_string();
        assert!(error.contains("20002 values, more than 16384"), "{error}");
    }

    #[test]
    fn tokenizer_steps_that_blow_up_texts_are_rejected() {
        let double = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aa" });
        let pattern = json!({ "type": "Replace", "pattern": { "Regex": "" }, "content": "aa" });
        let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false });
        let many = |step: &Value, list: &str| json!({ "type": "Sequence", list: vec![step; 40] });
        for (part, list, step) in [
            ("normalizer", "normalizers", &double),
            ("normalizer", "normalizers", &pattern),
            ("normalizer", "normalizers", &bytes),
            ("pre_tokenizer", "pretokenizers", &bytes),
            ("decoder", "decoders", &double),
        ] {
            assert!(refused(part, many(step, list)).contains("times as long, more than 16384"));
        }
        let long = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "a".repeat(20_000) });
        assert!(refused("normalizer", long).contains("20000 times as long"));
        let mut deep = double;
        for _ in 0..20 {
            deep = json!({ "type": "Sequence", "normalizers": [deep] });
        }
        assert!(refused("normalizer", deep).contains("nested more than 8 deep"));
        let twice = json!({ "type": "TemplateProcessing", "special_tokens": {}, "pair": [],
                            "single": vec![json!({ "Sequence": { "id": "A", "type_id": 0 } }); 2] });
        let around = json!({ "type": "Sequence", "processors": vec![twice; 40] });
        assert!(refused("post_processor", around).contains("repeats texts"));
    }

    #[test]
    fn settings_that_would_panic_in_tokenizers_are_rejected() {
        let piece = |kind: &str, id: &str| json!({ kind: { "id": id, "type_id": 0 } });
        let template = |piece: Value| json!({ "type": "TemplateProcessing", "special_tokens": {}, "single": [piece], "pair": [] });
        assert!(
            refused("post_processor", template(piece("Sequence", "B"))).contains("second text")
        );
        assert!(
            refused("post_processor", template(piece("SpecialToken", "</s>"))).contains("`</s>`")
        );
        let nothing = json!({ "type": "FixedLength", "length": 0 });
        assert!(refused("pre_tokenizer", nothing).contains("no length"));
    }

    #[test]
    fn token_length_is_limited() {
        assert!(check_tokens(&["a".repeat(LONGEST_TOKEN)]).is_ok());
        assert!(
            check_tokens(&["a".repeat(LONGEST_TOKEN + 1)]).unwrap_err().contains("16385 bytes")
        );
    }
}
