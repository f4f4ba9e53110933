//! `config.json` as transformers writes it, resolved into the models' own configurations.
//!
//! transformers stores only what differs from its defaults in some releases and everything in
//! others, and has renamed fields: `rope_theta` became `rope_parameters.rope_theta`,
//! `image_token_index` became `image_token_id`. All spellings are read; what is absent gets the default of
//! transformers' own configuration class. Every number has bounds, so that what is built from a configuration
//! is a model, however large, and never a panic.

mod blip2;
mod clip;
mod instructblip;
mod llama;
pub(super) mod llava;
mod quantised;
mod qwen_vl;
mod siglip;
mod smolvlm;
mod vision;

use std::path::Path;

use fisao_models::activation::Activation;
use serde::Deserialize;
use serde_json::Value;

use super::companion_files::CompanionFiles;
use super::family_format::FamilyFormat;
use super::{CONFIG_FILE, ModelConfig};
use crate::FormatError;
use crate::documents::read_settings;
use crate::fields::{Fields, Real, Whole};

const WHAT: &str = "model configuration (config.json)";
pub(super) const GENERATION: &str = "generation configuration";

/// The vision-language families that are read.
pub(super) const FAMILIES: &[FamilyFormat] =
    &[llava::FORMAT, instructblip::FORMAT, smolvlm::FORMAT, qwen_vl::FORMAT];

/// A width; products of three of them, and of the layers, still fit.
const WIDTH: Whole = Whole { least: 1, most: 1 << 20, said: "a whole number from 1 to 1048576" };
/// Attention heads.
const HEADS: Whole = Whole { least: 1, most: 1 << 12, said: "a whole number from 1 to 4096" };
const LAYERS: Whole = Whole { least: 1, most: 1 << 10, said: "a whole number from 1 to 1024" };
/// Tokens of a vocabulary, or positions.
const TOKENS: Whole = Whole { least: 1, most: 1 << 26, said: "a whole number from 1 to 67108864" };
/// Sides of the input of an image tower and of its patches, pixels.
const PIXELS: Whole = Whole { least: 1, most: 1 << 13, said: "a whole number from 1 to 8192" };
/// Base of the rotary frequencies. Below 1, positions would turn by more than a radian and ever more.
const THETA: Real = Real { least: 1.0, most: 1e30, said: "a number from 1 to 1e30" };
/// ε of a norm. Below, a vector of zeros would be divided by zero.
const EPSILON: Real = Real { least: 1e-30, most: 1.0, said: "a number from 1e-30 to 1" };

/// Reads and resolves the `config.json` of a folder, with what its companion files say (tokens that begin and end a response).
pub(super) fn read(folder: &Path) -> Result<ModelConfig, FormatError> {
    let path = folder.join(CONFIG_FILE);
    let value = read_settings(WHAT, &path)?;
    resolve(&path, &value, &CompanionFiles::of(folder))
}

/// The same from what the file holds.
fn resolve(
    path: &Path,
    value: &Value,
    beside: &CompanionFiles<'_>,
) -> Result<ModelConfig, FormatError> {
    let top = Fields::of_file(WHAT, path, value)?;
    let kind = top.text("model_type")?;
    llava::refuse_original(&top, kind)?;
    let Some(kind) = kind else { return Err(top.missing("model_type")) };
    let family = FAMILIES.iter().find_map(|family| family.reader(kind));
    if family.is_none() && !CONTRASTIVE.contains(&kind) {
        return Err(FormatError::UnknownModelType {
            path: path.to_owned(),
            found: crate::fields::shortened(kind),
            supported: supported(),
        });
    }
    quantised::refuse(&top)?;
    match (family, kind) {
        (Some(read), _) => read(&top, beside).map(ModelConfig::VisionLanguage),
        (None, BLIP2) => blip2::resolve(&top).map(ModelConfig::Blip2),
        (None, "clip") => clip::resolve(&top).map(ModelConfig::Clip),
        (None, _) => siglip::resolve(&top).map(ModelConfig::Siglip),
    }
}

/// Types of models that can be verifiers.
const CONTRASTIVE: [&str; 3] = [BLIP2, "clip", "siglip"];
const BLIP2: &str = "blip-2";

/// Every `model_type` that is read.
fn supported() -> String {
    let families = FAMILIES.iter().flat_map(|family| family.model_types).map(|(name, _)| *name);
    families.chain(CONTRASTIVE).collect::<Vec<_>>().join(", ")
}

/// Settings of `generation_config.json` that change what transformers writes even greedily, and that are not followed here,
/// each with the value that changes nothing.
const UNHEEDED: [(&str, f64); 8] = [
    ("repetition_penalty", 1.0),
    ("encoder_repetition_penalty", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("guidance_scale", 1.0),
    ("num_beams", 1.0),
];
/// Those for which only their absence changes nothing.
const UNHEEDED_IF_SET: [&str; 6] = [
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "sequence_bias",
];

/// The settings of `generation_config.json` that responses will not follow, as `name = value`.
pub(super) fn unheeded_generation(path: &Path) -> Result<Vec<String>, FormatError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let value = read_settings(GENERATION, path)?;
    let file = Fields::of_file(GENERATION, path, &value)?;
    let numbers = UNHEEDED.iter().filter_map(|&(name, neutral)| {
        let value = file.get(name)?;
        (value.as_f64() != Some(neutral)).then_some((name, value))
    });
    let some = |value: &&Value| value.as_array().is_none_or(|list| !list.is_empty());
    let others =
        UNHEEDED_IF_SET.iter().filter_map(|&name| Some((name, file.get(name).filter(some)?)));
    let set = numbers.chain(others);
    Ok(set.map(|(name, value)| format!("{name} = {}", crate::fields::shown(value))).collect())
}

fn expect_type(part: &Fields<'_>, supported: &'static str) -> Result<(), FormatError> {
    match part.text("model_type")? {
        Some(found) if found != supported => Err(part.refused("model_type", supported)),
        _ => Ok(()),
    }
}

fn whole(part: &Fields<'_>, key: &str, range: Whole, default: usize) -> Result<usize, FormatError> {
    Ok(part.whole(key, range)?.unwrap_or(default))
}

/// Width and heads of an encoder; the width is shared out among the heads.
fn width_and_heads(
    part: &Fields<'_>,
    (width, heads): (usize, usize),
) -> Result<(usize, usize), FormatError> {
    let width = whole(part, "hidden_size", WIDTH, width)?;
    let heads = whole(part, "num_attention_heads", HEADS, heads)?;
    if width.is_multiple_of(heads) {
        return Ok((width, heads));
    }
    Err(part.refused_as("hidden_size", width.to_string(), "a multiple of num_attention_heads"))
}

fn activation(
    part: &Fields<'_>,
    key: &str,
    default: &'static str,
) -> Result<Activation, FormatError> {
    let name = part.text(key)?.unwrap_or(default);
    Activation::deserialize(Value::from(name))
        .map_err(|_| part.refused(key, "quick_gelu, gelu, gelu_pytorch_tanh or silu"))
}
