//! Chat templates: Jinja programs that a checkpoint brings along to write conversations the way it
//! was trained on them.
//!
//! They are looked for and rendered as transformers 5 does it (`processing_utils.py`,
//! `utils/chat_template_utils.py`).

mod jinja;
mod json;
mod limits;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::FormatError;
use crate::documents::{Wanted, read_parts, read_text};
use crate::fields::shown;

const PROCESSOR_FILE: &str = "processor_config.json";
const LEGACY_FILE: &str = "chat_template.json";
const TEMPLATE_FILE: &str = "chat_template.jinja";
const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
const WHAT: &str = "chat template";
/// Name of the template that is used where a checkpoint has several.
const DEFAULT: &str = "default";
/// The special tokens that transformers gives to templates.
const TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Where newer files list what tokens were added.
const ADDED_TOKENS: &str = "added_tokens_decoder";

/// A checkpoint's chat template, with the special tokens it may write.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatTemplate {
    source: String,
    path: PathBuf,
    tokens: Map<String, Value>,
}

/// What `chat_template` may be.
const SUPPORTED: &str =
    "a text, a list of objects with `name` and `template`, or an object of texts by name";

/// The template of a field that holds one alone, or several under names of which one is `default`.
///
/// # Errors
/// Why it is none, after "the chat template".
fn default_one(value: &Value) -> Result<&str, String> {
    let unusable = || format!("is {}, not {SUPPORTED}", shown(value));
    let named = match value {
        Value::String(template) => return Ok(template),
        Value::Array(templates) => {
            let entry = |entry: &Value| {
                let text = |key| entry.get(key).and_then(Value::as_str).is_some();
                text("name") && text("template")
            };
            if !templates.iter().all(entry) {
                return Err(unusable());
            }
            let found = templates.iter().find(|template| template["name"] == DEFAULT);
            found.map(|template| &template["template"])
        }
        Value::Object(templates) => templates.get(DEFAULT),
        _ => return Err(unusable()),
    };
    match named {
        Some(Value::String(template)) => Ok(template),
        Some(_) => Err(unusable()),
        None => Err(format!("is several, of which none is called `{DEFAULT}`")),
    }
}

impl ChatTemplate {
    /// Reads the chat template of a checkpoint folder; `None` if it has none. Where there are
    /// several, transformers' order holds: `processor_config.json`, `chat_template.json`,
    /// `chat_template.jinja`, `tokenizer_config.json`.
    ///
    /// # Errors
    /// A file does not hold what it should, or several templates and none called `default`.
    pub fn open(folder: &Path) -> Result<Option<Self>, FormatError> {
        let Some((path, source)) = find(folder)? else { return Ok(None) };
        Ok(Some(Self { source, path, tokens: special_tokens(folder)? }))
    }

    /// A template from its text, with special tokens such as `bos_token`; `path` is the file that
    /// messages name.
    pub fn new(source: String, path: PathBuf, tokens: Map<String, Value>) -> Self {
        Self { source, path, tokens }
    }

    /// The file that holds it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a conversation: a list of messages, each with a `role` and a `content`.
    ///
    /// # Errors
    /// The template is not valid, fails, or refuses the conversation.
    pub fn render(
        &self,
        messages: &Value,
        add_generation_prompt: bool,
    ) -> Result<String, FormatError> {
        let mut context = Map::from_iter([
            ("messages".to_owned(), messages.clone()),
            ("tools".to_owned(), Value::Null),
            ("documents".to_owned(), Value::Null),
            ("add_generation_prompt".to_owned(), add_generation_prompt.into()),
        ]);
        context.extend(self.tokens.clone());
        jinja::render(&self.source, &context).map_err(|jinja::Failure { line, reason }| {
            FormatError::ChatTemplate { path: self.path.clone(), line, reason }
        })
    }

    /// Writes the conversation in which a user shows one image and says something about it, up to
    /// where the model answers.
    ///
    /// # Errors
    /// As [`ChatTemplate::question`].
    pub fn instruction(&self, text: &str, placeholder: &str) -> Result<String, FormatError> {
        self.question(&[PromptPart::Image, PromptPart::Text(text)], placeholder)
    }

    /// Writes the conversation in which a user shows images and says something about them, in this order, up to where the model
    /// answers.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`]; or what it writes does not hold the image `placeholder` once for each image.
    pub fn question(
        &self,
        parts: &[PromptPart<'_>],
        placeholder: &str,
    ) -> Result<String, FormatError> {
        let written = |part: &PromptPart<'_>| match part {
            PromptPart::Image => json!({ "type": "image" }),
            PromptPart::Text(text) => json!({ "type": "text", "text": text }),
        };
        let content: Vec<Value> = parts.iter().map(written).collect();
        let shown = parts.iter().filter(|part| **part == PromptPart::Image).count();
        let prompt = self.render(&json!([{ "role": "user", "content": content }]), true)?;
        let found = prompt.matches(placeholder).count();
        if found == shown {
            return Ok(prompt);
        }
        let (shown, needed) = if shown == 1 {
            ("one image".to_owned(), "one is")
        } else {
            (format!("{shown} images"), "as many are")
        };
        Err(FormatError::ChatTemplate {
            path: self.path.clone(),
            line: None,
            reason: format!(
                "writes {found} image placeholders `{placeholder}` for {shown}, but {needed} needed"
            ),
        })
    }
}

/// A part of what a user says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptPart<'a> {
    /// An image.
    Image,
    /// Text.
    Text(&'a str),
}

fn find(folder: &Path) -> Result<Option<(PathBuf, String)>, FormatError> {
    for name in [PROCESSOR_FILE, LEGACY_FILE] {
        if let Some(found) = in_json(folder, name)? {
            return Ok(Some(found));
        }
    }
    let path = folder.join(TEMPLATE_FILE);
    if path.exists() {
        let source = read_text(WHAT, &path)?;
        return Ok(Some((path, source)));
    }
    // transformers' processors stop here; its tokenizers do not.
    in_json(folder, TOKENIZER_CONFIG_FILE)
}

/// The template under `chat_template` in a JSON file, if there are both.
fn in_json(folder: &Path, name: &str) -> Result<Option<(PathBuf, String)>, FormatError> {
    let path = folder.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let holder = read_parts(WHAT, &path, &[("chat_template", Wanted::Value)])?;
    let Some(value) = holder.get("chat_template").filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    match default_one(value) {
        Ok(source) => Ok(Some((path, source.to_owned()))),
        Err(reason) => Err(FormatError::ChatTemplate { path, line: None, reason }),
    }
}

/// The special tokens of a checkpoint folder by name, such as `bos_token`. The separate file belongs to
/// old checkpoints: it counts where the tokenizer's configuration does not list its added tokens.
///
/// # Errors
/// A file does not hold what it should.
pub fn special_tokens(folder: &Path) -> Result<Map<String, Value>, FormatError> {
    let mut wanted = TOKENS.map(|name| (name, Wanted::Value)).to_vec();
    wanted.push((ADDED_TOKENS, Wanted::Presence));
    let read = |name: &str| -> Result<Map<String, Value>, FormatError> {
        let path = folder.join(name);
        let what = "tokenizer configuration";
        if path.exists() { read_parts(what, &path, &wanted) } else { Ok(Map::new()) }
    };
    let mut all = read(TOKENIZER_CONFIG_FILE)?;
    if !all.contains_key(ADDED_TOKENS) {
        all.extend(read(SPECIAL_TOKENS_FILE)?);
    }
    let tokens = TOKENS.iter().filter_map(|&name| {
        let text = match all.get(name)? {
            Value::Object(token) => token.get("content")?.as_str()?,
            token => token.as_str()?,
        };
        Some((name.to_owned(), text.into()))
    });
    Ok(tokens.collect())
}
