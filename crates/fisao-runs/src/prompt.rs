//! What a model is sent for what the user asks.

use std::path::{Path, PathBuf};

use anyhow::bail;
use fisao_formats::chat_template::{ChatTemplate, PromptPart, special_tokens};
use fisao_formats::tokenizer::HfTokenizer;
use fisao_models::llama::DecoderFamily;
use fisao_models::vision_language::{FamilyConfig, ImagePlace};
use fisao_scenes::recipe::conversation;
use serde_json::Value;

use crate::failure::Refusal;

/// Where the image goes, for a tokenizer that spells it in the usual way.
const IMAGE: &str = "<image>";

/// How a model wants to be spoken to.
#[derive(Clone, Debug)]
pub struct PromptFormat {
    template: Option<ChatTemplate>,
    /// What the tokenizer calls the image.
    placeholder: String,
    /// What the tokenizer begins every text with.
    bos: Option<String>,
    /// The decoder; models with Llama's are spoken to like Vicuna where they do not say otherwise.
    decoder: DecoderFamily,
    /// Where the image stands; a model that has it before the text is asked as it is, without a conversation around it.
    image: ImagePlace,
    folder: PathBuf,
}

/// A prompt as token ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// The decoder's, with one placeholder for the image, or for each of them.
    pub ids: Vec<u32>,
    /// The image encoder's own, where it reads what is asked; else empty.
    pub instruction: Vec<u32>,
}

/// A prompt as it is tokenized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The whole of it, with one image placeholder if the image stands in the text.
    pub text: String,
    /// Whether the tokenizer is to add its special tokens, or they are there already.
    pub add_special_tokens: bool,
}

impl PromptFormat {
    /// Reads what a checkpoint folder says about it.
    pub fn read(
        folder: &Path,
        tokenizer: &HfTokenizer,
        config: &dyn FamilyConfig,
    ) -> anyhow::Result<Self> {
        let bos = special_tokens(folder)?.remove("bos_token");
        Ok(Self {
            template: ChatTemplate::open(folder)?,
            placeholder: tokenizer.token(config.tokens().image).unwrap_or_else(|| IMAGE.to_owned()),
            bos: bos.as_ref().and_then(Value::as_str).map(str::to_owned),
            decoder: config.decoder().family,
            image: config.image_place(),
            folder: folder.to_owned(),
        })
    }

    /// Where the image stands.
    pub fn image_place(&self) -> ImagePlace {
        self.image
    }

    /// The prompt for what the user asks. A text that holds the image placeholder is taken as it is;
    /// any other is put into the model's conversation. Where the image stands before the text, the text is the prompt.
    pub fn prompt(&self, text: &str) -> anyhow::Result<Prompt> {
        if self.image == ImagePlace::BeforeText {
            let text = text.replace(&self.placeholder, "");
            let text = text.trim_start().to_owned();
            return Ok(Prompt { text, add_special_tokens: true });
        }
        let text = if text.contains(&self.placeholder) {
            text.to_owned()
        } else if let Some(template) = &self.template {
            template.instruction(text, &self.placeholder)?
        } else if self.decoder == DecoderFamily::Llama {
            conversation(text).replace(IMAGE, &self.placeholder)
        } else {
            bail!(self.wordless())
        };
        Ok(self.begun(text))
    }

    /// The prompt for images and what the user says about them, in this order. With a single text that holds image placeholders it is
    /// taken as it is.
    pub fn question(&self, parts: &[PromptPart<'_>]) -> anyhow::Result<Prompt> {
        let texts = parts.iter().filter_map(|part| match part {
            PromptPart::Text(text) => Some(*text),
            PromptPart::Image => None,
        });
        let texts: Vec<&str> = texts.collect();
        if let [text] = texts[..]
            && (text.contains(&self.placeholder)
                || parts == [PromptPart::Image, PromptPart::Text(text)])
        {
            return self.prompt(text);
        }
        match &self.template {
            Some(template) if self.image == ImagePlace::InText => {
                Ok(self.begun(template.question(parts, &self.placeholder)?))
            }
            _ => bail!(self.wordless()),
        }
    }

    /// A text that is the whole prompt.
    fn begun(&self, text: String) -> Prompt {
        let begun = self.bos.as_ref().is_some_and(|bos| text.starts_with(bos));
        Prompt { text, add_special_tokens: !begun }
    }

    fn wordless(&self) -> Refusal {
        let (folder, decoder) = (self.folder.display(), self.decoder.name());
        Refusal::new(format!(
            "{folder} has no chat template, and a `{decoder}` decoder has no usual one"
        ))
        .hint(format!(
            "write the whole conversation yourself: --prompt \"… {} …\", with the image placeholder \
             where the image goes",
            self.placeholder
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reporter::Reporter;

    fn format(template: Option<&str>, decoder: DecoderFamily) -> PromptFormat {
        let template = template.map(|source| {
            ChatTemplate::new(
                source.to_owned(),
                "chat_template.jinja".into(),
                serde_json::Map::new(),
            )
        });
        PromptFormat {
            template,
            placeholder: IMAGE.to_owned(),
            bos: Some("<s>".to_owned()),
            decoder,
            image: ImagePlace::InText,
            folder: "model".into(),
        }
    }

    #[test]
    fn prompt_with_image_placeholder_is_used_verbatim() {
        let format = format(Some("{{ raise_exception('never') }}"), DecoderFamily::Llama);
        let prompt = format.prompt("<image> a dog").unwrap();
        assert_eq!(prompt, Prompt { text: "<image> a dog".to_owned(), add_special_tokens: true });
        let prompt = format.prompt("<s><image> a dog").unwrap();
        assert!(!prompt.add_special_tokens, "one beginning is enough");
    }

    #[test]
    fn template_with_bos_token_disables_special_tokens() {
        let source = "<s>[INST] <image>{{ messages[0].content[1].text }} [/INST]";
        let prompt = format(Some(source), DecoderFamily::Qwen2).prompt("Look.").unwrap();
        assert_eq!(prompt.text, "<s>[INST] <image>Look. [/INST]");
        assert!(!prompt.add_special_tokens);
    }

    #[test]
    fn llama_without_template_uses_the_vicuna_format() {
        let prompt = format(None, DecoderFamily::Llama).prompt("Look.").unwrap();
        assert_eq!(prompt.text, "USER: <image>\nLook. ASSISTANT:");
        assert!(prompt.add_special_tokens);
        let error = format(None, DecoderFamily::Qwen2).prompt("Look.").unwrap_err();
        assert_eq!(
            error.to_string(),
            "model has no chat template, and a `qwen2` decoder has no usual one"
        );
    }

    /// The demo's numbers were made with [`conversation`].
    #[test]
    fn built_in_model_template_writes_its_training_format() {
        let models = crate::bundle::embedded(fisao_scenes::WorldKind::Clear).unwrap();
        let policy = models.policy(None, &crate::device::cpu(), &Reporter::silent()).unwrap();
        for text in fisao_scenes::PROMPTS.iter().copied().chain(["Naïve <b>\n{{ 1 }} ", ""]) {
            let prompt = policy.format.prompt(text).unwrap();
            assert_eq!(prompt.text, conversation(text));
            assert!(prompt.add_special_tokens);
        }
        assert!(policy.format.template.is_some());
    }
}
