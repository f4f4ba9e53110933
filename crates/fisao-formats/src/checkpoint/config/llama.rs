//! The decoder's configuration, Llama's or Qwen2's, inside LLaVA's.

use fisao_models::llama::{DecoderFamily, LlamaConfig};
use serde_json::Value;

use super::{EPSILON, HEADS, LAYERS, TOKENS, WIDTH, whole};
use crate::FormatError;
use crate::fields::{Fields, Real, Whole};

/// Width of one head; rotary positions turn its numbers in pairs.
const HEAD: Whole = Whole { least: 2, most: 1 << 13, said: "an even number from 2 to 8192" };
/// Base of the rotary frequencies. Below 1, positions would turn by more than a radian and ever more.
const THETA: Real = Real { least: 1.0, most: 1e30, said: "a number from 1 to 1e30" };

/// What transformers' configuration class has for fields that are absent.
struct Defaults {
    family: DecoderFamily,
    vocab_size: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
}

/// `LlamaConfig`, which is Llama 1's 7B.
const LLAMA: Defaults = Defaults {
    family: DecoderFamily::Llama,
    vocab_size: 32000,
    intermediate_size: 11008,
    max_position_embeddings: 2048,
};

/// `Qwen2Config`.
const QWEN2: Defaults = Defaults {
    family: DecoderFamily::Qwen2,
    vocab_size: 151_936,
    intermediate_size: 22016,
    max_position_embeddings: 32768,
};

/// Reads the decoder; `tied_above` is whether the configuration around it ties its embeddings. Either level's word
/// is enough, as it is to transformers 5.
pub(super) fn resolve(text: &Fields<'_>, tied_above: bool) -> Result<LlamaConfig, FormatError> {
    resolve_with_epsilon(text, tied_above, 1e-6)
}

/// The same in a family whose decoders have another ε by default.
pub(super) fn resolve_with_epsilon(
    text: &Fields<'_>,
    tied_above: bool,
    epsilon: f64,
) -> Result<LlamaConfig, FormatError> {
    let defaults = match text.text("model_type")? {
        None | Some("llama") => LLAMA,
        Some("qwen2") => QWEN2,
        Some(_) => return Err(text.refused("model_type", "llama or qwen2")),
    };
    refuse_unsupported(text)?;
    let hidden_size = whole(text, "hidden_size", WIDTH, 4096)?;
    let heads = whole(text, "num_attention_heads", HEADS, 32)?;
    let key_value_heads = whole(text, "num_key_value_heads", HEADS, heads)?;
    if !heads.is_multiple_of(key_value_heads) {
        let found = key_value_heads.to_string();
        let supported = "a divisor of num_attention_heads";
        return Err(text.refused_as("num_key_value_heads", found, supported));
    }
    Ok(LlamaConfig {
        family: defaults.family,
        vocab_size: whole(text, "vocab_size", TOKENS, defaults.vocab_size)?,
        hidden_size,
        intermediate_size: whole(text, "intermediate_size", WIDTH, defaults.intermediate_size)?,
        num_hidden_layers: whole(text, "num_hidden_layers", LAYERS, 32)?,
        num_attention_heads: heads,
        num_key_value_heads: key_value_heads,
        head_dim: head_dim(text, hidden_size, heads)?,
        max_position_embeddings: whole(
            text,
            "max_position_embeddings",
            TOKENS,
            defaults.max_position_embeddings,
        )?,
        rms_norm_eps: text.real("rms_norm_eps", EPSILON)?.unwrap_or(epsilon),
        rope_theta: rope_theta(text)?,
        tie_word_embeddings: text.flag("tie_word_embeddings")?.unwrap_or(false) || tied_above,
    })
}

/// What the file says, or the width shared out among the heads.
fn head_dim(text: &Fields<'_>, hidden_size: usize, heads: usize) -> Result<usize, FormatError> {
    if let Some(width) = text.whole("head_dim", HEAD)? {
        if !width.is_multiple_of(2) {
            return Err(text.refused("head_dim", HEAD.said));
        }
        if width * heads > WIDTH.most {
            return Err(text.refused("head_dim", "a width that all heads together keep to 1048576"));
        }
        return Ok(width);
    }
    let width = hidden_size / heads;
    if !hidden_size.is_multiple_of(heads) || !width.is_multiple_of(2) || width == 0 {
        let supported = "an even multiple of num_attention_heads, or head_dim beside it,";
        return Err(text.refused_as("hidden_size", hidden_size.to_string(), supported));
    }
    Ok(width)
}

/// Said beside the other settings up to transformers 4, and in an object of its own since.
fn rope_theta(text: &Fields<'_>) -> Result<f64, FormatError> {
    let parameters = text.object("rope_parameters", "text_config.rope_parameters.")?;
    let own = parameters.map(|parameters| parameters.real("rope_theta", THETA)).transpose()?;
    let beside = text.real("rope_theta", THETA)?;
    Ok(own.flatten().or(beside).unwrap_or(10000.0))
}

/// Refuses what would make the decoder compute something else.
fn refuse_unsupported(text: &Fields<'_>) -> Result<(), FormatError> {
    if text.text("hidden_act")?.is_some_and(|act| act != "silu") {
        return Err(text.refused("hidden_act", "\"silu\""));
    }
    for key in ["attention_bias", "mlp_bias", "use_sliding_window"] {
        if text.flag(key)? == Some(true) {
            return Err(text.refused(key, "false"));
        }
    }
    if let Some(scaling) = text.get("rope_scaling") {
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        if kind.and_then(Value::as_str) != Some("default") {
            return Err(text.refused("rope_scaling", "null"));
        }
    }
    let parameters = text.object("rope_parameters", "text_config.rope_parameters.")?;
    if let Some(parameters) = parameters
        && parameters.text("rope_type")?.is_some_and(|kind| kind != "default")
    {
        return Err(parameters.refused("rope_type", "\"default\""));
    }
    Ok(())
}
