//! Whole checkpoints in Hugging Face layout, which transformers loads as they are.
//!
//! `config.json` is written last, so a folder without it was interrupted and is not taken for a
//! checkpoint by anyone.

use std::path::Path;

use burn::tensor::TensorData;
use fisao_models::clip::Clip;
use fisao_models::image::{ImageProcessor, PixelBudget, Resize};
use fisao_models::parameters::Parameters;
use fisao_models::vision_language::llava::{FeatureSelect, LlavaConfig};
use fisao_models::vision_language::{FamilyConfig as _, VisionLanguageConfig, VisionLanguageModel};
use serde_json::{Map, Value, json};

use super::config_writer::{clip_config_json, generation_config_json, llava_config_json};
use super::{CONFIG_FILE, TOKENIZER_FILE};
use crate::FormatError;
use crate::documents::{write_bytes, write_json};
use crate::processor::{GRID_PINPOINTS, pinpoints_json};
use crate::tokenizer::HfTokenizer;
use crate::weights::{StoredDtype, WEIGHTS_FILE, write_safetensors};

/// Vicuna's conversation format, as the LLaVA-1.5 checkpoints spell it: `USER: <image>\nquestion
/// ASSISTANT: answer`, images before text.
const VICUNA_TEMPLATE: &str = "\
{% for message in messages %}\
{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}\
{% if message['content'] is string %}{{ message['content'] + ' ' }}{% else %}\
{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}\
{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}\
{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

/// The tokens that a tokenizer's configuration names by role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: String,
    /// Ends a text.
    pub eos: String,
    /// Fills a batch.
    pub pad: String,
    /// Stands for what the vocabulary lacks.
    pub unk: String,
}

/// Every tensor of a model under its canonical name, as f32.
pub fn named_tensors<M: Parameters + Clone>(model: &M) -> Vec<(String, TensorData)> {
    let mut tensors = Vec::new();
    // The walk lends tensors mutably; a clone shares them, so nothing is copied.
    model.clone().visit_mut("", &mut |name, parameter| {
        tensors.push((name.to_owned(), TensorData::new(parameter.values(), parameter.shape())));
    });
    tensors
}

/// Writes `model.safetensors` and then `config.json`.
///
/// # Errors
/// A file cannot be written.
pub fn write_checkpoint(
    folder: &Path,
    config: &Value,
    tensors: &[(String, TensorData)],
    dtype: StoredDtype,
) -> Result<(), FormatError> {
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(&folder.join(WEIGHTS_FILE), tensors, dtype)?;
    write_json(&folder.join(CONFIG_FILE), config)
}

/// Writes a LLaVA model: weights, `generation_config.json`, `config.json`. An adapter on it is not
/// written.
///
/// # Errors
/// It is of another family, or a file cannot be written.
pub fn write_llava(
    folder: &Path,
    model: &VisionLanguageModel,
    dtype: StoredDtype,
) -> Result<(), FormatError> {
    let VisionLanguageConfig::Llava(config) = model.config() else {
        let found = model.config().family().model_type();
        let path = folder.to_owned();
        return Err(FormatError::WrongModelType { path, expected: "llava", found });
    };
    write_json(&folder.join("generation_config.json"), &generation_config_json(config))?;
    let config = llava_config_json(config, dtype);
    write_checkpoint(folder, &config, &named_tensors(model), dtype)
}

/// Writes a CLIP model: weights, `config.json`.
///
/// # Errors
/// A file cannot be written.
pub fn write_clip(folder: &Path, model: &Clip, dtype: StoredDtype) -> Result<(), FormatError> {
    let config = clip_config_json(model.config(), dtype);
    write_checkpoint(folder, &config, &named_tensors(model), dtype)
}

/// Writes what prepares a LLaVA's text and images: tokenizer, Vicuna chat template, image processor
/// and `processor_config.json`.
///
/// # Errors
/// A file cannot be written.
pub fn write_llava_processing(
    folder: &Path,
    config: &LlavaConfig,
    tokenizer: &HfTokenizer,
    special: &SpecialTokens,
    images: &ImageProcessor,
) -> Result<(), FormatError> {
    let strategy = match config.vision_feature_select_strategy {
        FeatureSelect::Default => "default",
        FeatureSelect::Full => "full",
    };
    let next = config.model_type() == "llava_next";
    let class = if next { "LlavaNextProcessor" } else { "LlavaProcessor" };
    let processor = json!({
        "processor_class": class,
        "image_token": "<image>",
        "num_additional_image_tokens": config.vision.positions() - config.vision.patches(),
        "patch_size": config.vision.patch_size,
        "vision_feature_select_strategy": strategy,
    });
    write_json(&folder.join("processor_config.json"), &processor)?;
    let mut images = image_processor_json(images, class);
    if next {
        // Its class cuts tiles of this size.
        images["image_processor_type"] = "LlavaNextImageProcessor".into();
        images["crop_size"] = images["size"].clone();
    }
    write_json(&folder.join("preprocessor_config.json"), &images)?;
    write_bytes(&folder.join("chat_template.jinja"), VICUNA_TEMPLATE.as_bytes())?;
    let limit = config.text.max_position_embeddings;
    let template = [
        ("chat_template", Value::from(VICUNA_TEMPLATE)),
        ("processor_class", Value::from(class)),
        // Responses are appended, so prompts of a batch have to end together.
        ("padding_side", Value::from("left")),
    ];
    write_tokenizer(folder, tokenizer, special, limit, &template)
}

/// Writes what prepares a CLIP's text and images: tokenizer and image processor.
///
/// # Errors
/// A file cannot be written.
pub fn write_clip_processing(
    folder: &Path,
    longest_text: usize,
    tokenizer: &HfTokenizer,
    special: &SpecialTokens,
    images: &ImageProcessor,
) -> Result<(), FormatError> {
    write_json(
        &folder.join("preprocessor_config.json"),
        &image_processor_json(images, "CLIPProcessor"),
    )?;
    let class = [("processor_class", Value::from("CLIPProcessor"))];
    write_tokenizer(folder, tokenizer, special, longest_text, &class)
}

fn write_tokenizer(
    folder: &Path,
    tokenizer: &HfTokenizer,
    special: &SpecialTokens,
    limit: usize,
    more: &[(&str, Value)],
) -> Result<(), FormatError> {
    write_bytes(&folder.join(TOKENIZER_FILE), tokenizer.to_json()?.as_bytes())?;
    let roles = json!({
        "bos_token": special.bos,
        "eos_token": special.eos,
        "pad_token": special.pad,
        "unk_token": special.unk,
    });
    write_json(&folder.join("special_tokens_map.json"), &roles)?;
    let Value::Object(mut config) = roles else { unreachable!("it was made an object above") };
    config.extend([
        ("tokenizer_class".to_owned(), Value::from("PreTrainedTokenizerFast")),
        ("model_max_length".to_owned(), Value::from(limit)),
        // Off, or decoding would delete spaces and no longer be the tokens' own text.
        ("clean_up_tokenization_spaces".to_owned(), Value::from(false)),
    ]);
    config.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    write_json::<Map<_, _>>(&folder.join("tokenizer_config.json"), &config)
}

fn image_processor_json(images: &ImageProcessor, processor_class: &str) -> Value {
    let class = match (&images.tiles, images.pad) {
        (Some(_), _) => "LlavaOnevisionImageProcessor",
        (None, Some(_)) => "LlavaImageProcessor",
        (None, None) => "CLIPImageProcessor",
    };
    let mut config = json!({
        "image_processor_type": class,
        "processor_class": processor_class,
        "do_convert_rgb": true,
        "do_resize": images.resize.is_some(),
        "do_pad": images.pad.is_some(),
        "resample": images.filter.number(),
        "do_center_crop": images.crop.is_some(),
        "do_rescale": true,
        "rescale_factor": decimal(images.rescale),
        "do_normalize": true,
        "image_mean": images.mean.map(decimal),
        "image_std": images.std.map(decimal),
    });
    match images.resize {
        None => {}
        Some(Resize::ShortestEdge(side)) => config["size"] = json!({ "shortest_edge": side }),
        Some(Resize::Exact { width, height }) => {
            config["size"] = json!({ "height": height, "width": width });
        }
        Some(Resize::Budget(PixelBudget { least, most, .. })) => {
            config["size"] = json!({ "shortest_edge": least, "longest_edge": most });
        }
    }
    if let Some((width, height)) = images.crop {
        config["crop_size"] = json!({ "height": height, "width": width });
    }
    if let Some(resolutions) = images.tiles.as_ref().and_then(|layout| layout.resolutions()) {
        config[GRID_PINPOINTS] = pinpoints_json(resolutions);
    }
    config
}

/// The shortest decimal that reads back as the same f32, rather than its expansion to f64.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().expect("a finite f32 prints as a number")
}
