//! `config.json` as transformers writes it, resolved into the models' own configurations.
//!
//! transformers stores only what differs from its defaults in some releases and everything in
//! others, and has renamed fields: `rope_theta` became `rope_parameters.rope_theta`,
//! `image_token_index` became `image_token_id`. The raw structures below take all spellings; what is
//! absent gets the default of transformers' own configuration class.

mod clip;
mod llama;
mod llava;
mod siglip;
mod vision;

use std::path::Path;

use fisao_models::activation::Activation;
use fisao_models::llava::LlavaConfig;
use serde::Deserialize;
use serde_json::Value;

use super::ModelConfig;
use crate::FormatError;
use crate::documents::read_json;

const WHAT: &str = "model configuration (config.json)";
/// No model is that large in any direction; products of two such numbers still fit.
const LARGEST: usize = 1 << 26;
const SUPPORTED: &str = "llava, llava_onevision, clip, siglip";

/// Reads and resolves a `config.json`.
pub(super) fn read(path: &Path) -> Result<ModelConfig, FormatError> {
    #[derive(Deserialize)]
    struct Kind {
        model_type: Option<String>,
    }
    let value: Value = read_json(WHAT, path)?;
    let kind: Kind = parse(path, value.clone())?;
    match kind.model_type.as_deref() {
        Some("llava") => {
            parse::<llava::RawLlava>(path, value)?.resolve(path).map(ModelConfig::Llava)
        }
        Some("llava_onevision") => {
            let raw = parse::<llava::RawLlava>(path, value)?;
            raw.resolve_onevision(path).map(ModelConfig::Llava)
        }
        Some("clip") => parse::<clip::RawClip>(path, value)?.resolve(path).map(ModelConfig::Clip),
        Some("siglip") => {
            parse::<siglip::RawSiglip>(path, value)?.resolve(path).map(ModelConfig::Siglip)
        }
        Some(other) => Err(FormatError::UnknownModelType {
            path: path.to_owned(),
            found: other.to_owned(),
            supported: SUPPORTED,
        }),
        None => Err(missing(path, "model_type")),
    }
}

/// Takes the tokens that end a response from `generation_config.json`, which overrules the model's
/// configuration where both name some.
pub(super) fn read_end_tokens(path: &Path, config: &mut LlavaConfig) -> Result<(), FormatError> {
    #[derive(Deserialize)]
    struct Generation {
        eos_token_id: Option<llama::TokenIds>,
    }
    if !path.exists() {
        return Ok(());
    }
    let generation: Generation = read_json("generation configuration", path)?;
    if let Some(ends) = generation.eos_token_id.map(|ids| ids.to_vec())
        && let Some((&first, others)) = ends.split_first()
    {
        config.eos_token_id = first;
        config.stop_token_ids = others.to_vec();
    }
    Ok(())
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
    let file: Value = read_json("generation configuration", path)?;
    let set = |name: &str| file.get(name).filter(|value| !value.is_null());
    let numbers = UNHEEDED.iter().filter_map(|&(name, neutral)| {
        let value = set(name)?;
        (value.as_f64() != Some(neutral)).then_some((name, value))
    });
    let some = |value: &&Value| value.as_array().is_none_or(|list| !list.is_empty());
    let others = UNHEEDED_IF_SET.iter().filter_map(|&name| Some((name, set(name).filter(some)?)));
    Ok(numbers.chain(others).map(|(name, value)| format!("{name} = {value}")).collect())
}

fn parse<'de, T: Deserialize<'de>>(path: &Path, value: Value) -> Result<T, FormatError> {
    T::deserialize(value).map_err(|error| FormatError::Malformed {
        what: WHAT,
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn missing(path: &Path, field: &'static str) -> FormatError {
    FormatError::MissingField { path: path.to_owned(), field }
}

fn unsupported(
    path: &Path,
    field: &str,
    found: &dyn std::fmt::Debug,
    supported: &'static str,
) -> FormatError {
    let found = format!("{found:?}");
    FormatError::UnsupportedField { path: path.into(), field: field.into(), found, supported }
}

fn expect_type(
    path: &Path,
    field: &str,
    found: Option<&str>,
    supported: &'static str,
) -> Result<(), FormatError> {
    match found {
        Some(found) if found != supported => Err(unsupported(path, field, &found, supported)),
        _ => Ok(()),
    }
}

fn positive(
    path: &Path,
    field: &str,
    value: Option<usize>,
    default: usize,
) -> Result<usize, FormatError> {
    match value.unwrap_or(default) {
        0 => Err(unsupported(path, field, &0, "a number above 0")),
        value if value > LARGEST => {
            Err(unsupported(path, field, &value, "a number up to 67108864"))
        }
        value => Ok(value),
    }
}

fn divisible(path: &Path, field: &str, value: usize, by: usize) -> Result<(), FormatError> {
    if value.is_multiple_of(by) {
        Ok(())
    } else {
        Err(unsupported(path, field, &value, "a multiple of the attention heads"))
    }
}

fn activation(path: &Path, field: &str, name: &str) -> Result<Activation, FormatError> {
    Activation::deserialize(Value::from(name))
        .map_err(|_| unsupported(path, field, &name, "quick_gelu, gelu, gelu_pytorch_tanh or silu"))
}
