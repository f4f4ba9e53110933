//! The decoder's configuration, Llama's, Qwen2's or Mistral's, inside that of a whole model.

use fisao_models::llama::{DecoderFamily, LlamaConfig, RopeScaling};

use super::{EPSILON, HEADS, LAYERS, TOKENS, WIDTH, whole};
use crate::FormatError;
use crate::fields::{Fields, Real, Whole};

/// Width of one head; rotary positions turn its numbers in pairs.
const HEAD: Whole = Whole { least: 2, most: 1 << 13, said: "an even number from 2 to 8192" };
/// Base of the rotary frequencies. Below 1, positions would turn by more than a radian and ever more.
const THETA: Real = Real { least: 1.0, most: 1e30, said: "a number from 1 to 1e30" };

/// Factor on the lengths of sequences.
const FACTOR: Real = Real { least: 1.0, most: 1e6, said: "a number from 1 to 1e6" };
/// Periods of a frequency within a context.
const PERIODS: Real = Real { least: 0.0, most: 1e6, said: "a number from 0 to 1e6" };

/// What transformers' configuration class has for fields that are absent.
struct Defaults {
    family: DecoderFamily,
    vocab_size: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    /// As many as heads where there is none.
    key_value_heads: Option<usize>,
    sliding_window: Option<usize>,
}

/// `LlamaConfig`, which is Llama 1's 7B.
const LLAMA: Defaults = Defaults {
    family: DecoderFamily::Llama,
    vocab_size: 32000,
    intermediate_size: 11008,
    max_position_embeddings: 2048,
    key_value_heads: None,
    sliding_window: None,
};

/// `Qwen2Config`.
const QWEN2: Defaults = Defaults {
    family: DecoderFamily::Qwen2,
    vocab_size: 151_936,
    intermediate_size: 22016,
    max_position_embeddings: 32768,
    key_value_heads: None,
    sliding_window: None,
};

/// `MistralConfig`, which is Mistral 7B v0.1.
const MISTRAL: Defaults = Defaults {
    family: DecoderFamily::Mistral,
    vocab_size: 32000,
    intermediate_size: 14336,
    max_position_embeddings: 131_072,
    key_value_heads: Some(8),
    sliding_window: Some(4096),
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
        Some("mistral") => MISTRAL,
        Some(_) => return Err(text.refused("model_type", "llama, mistral or qwen2")),
    };
    refuse_unsupported(text)?;
    let hidden_size = whole(text, "hidden_size", WIDTH, 4096)?;
    let heads = whole(text, "num_attention_heads", HEADS, 32)?;
    let default = defaults.key_value_heads.filter(|_| !text.is_null("num_key_value_heads"));
    let key_value_heads = whole(text, "num_key_value_heads", HEADS, default.unwrap_or(heads))?;
    if !heads.is_multiple_of(key_value_heads) {
        let found = key_value_heads.to_string();
        let supported = "a divisor of num_attention_heads";
        return Err(text.refused_as("num_key_value_heads", found, supported));
    }
    let max_position_embeddings =
        whole(text, "max_position_embeddings", TOKENS, defaults.max_position_embeddings)?;
    Ok(LlamaConfig {
        family: defaults.family,
        vocab_size: whole(text, "vocab_size", TOKENS, defaults.vocab_size)?,
        hidden_size,
        intermediate_size: whole(text, "intermediate_size", WIDTH, defaults.intermediate_size)?,
        num_hidden_layers: whole(text, "num_hidden_layers", LAYERS, 32)?,
        num_attention_heads: heads,
        num_key_value_heads: key_value_heads,
        head_dim: head_dim(text, hidden_size, heads)?,
        rms_norm_eps: text.real("rms_norm_eps", EPSILON)?.unwrap_or(epsilon),
        rope_theta: rope_theta(text)?,
        rope_scaling: rope_scaling(text, max_position_embeddings)?,
        sliding_window: sliding_window(text, &defaults)?,
        max_position_embeddings,
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
    Ok(())
}

/// The window that Mistral's attention is limited to: that of its class where the file is silent, none where it says null. Other
/// decoders have none.
fn sliding_window(text: &Fields<'_>, defaults: &Defaults) -> Result<Option<usize>, FormatError> {
    if defaults.sliding_window.is_none() || text.is_null("sliding_window") {
        return Ok(None);
    }
    Ok(text.whole("sliding_window", TOKENS)?.or(defaults.sliding_window))
}

/// The object that says how rotary frequencies are scaled: of its own up to transformers 4, with all that is said of them since.
fn rope_scaling(text: &Fields<'_>, positions: usize) -> Result<RopeScaling, FormatError> {
    let old = text.object("rope_scaling", "text_config.rope_scaling.")?;
    let Some(given) = old.or(text.object("rope_parameters", "text_config.rope_parameters.")?)
    else {
        return Ok(RopeScaling::Default);
    };
    // The second is the name of old.
    let key = if given.get("rope_type").is_some() { "rope_type" } else { "type" };
    let needed = |key: &str, range| given.real(key, range)?.ok_or_else(|| given.missing(key));
    match given.text(key)?.unwrap_or("default") {
        "default" => Ok(RopeScaling::Default),
        "linear" => Ok(RopeScaling::Linear { factor: needed("factor", FACTOR)? }),
        "dynamic" => Ok(RopeScaling::Dynamic { factor: needed("factor", FACTOR)? }),
        "llama3" => {
            let low_freq_factor = needed("low_freq_factor", PERIODS)?;
            let high_freq_factor = needed("high_freq_factor", PERIODS)?;
            if high_freq_factor <= low_freq_factor {
                return Err(given.refused("high_freq_factor", "a number above low_freq_factor"));
            }
            Ok(RopeScaling::Llama3 {
                factor: needed("factor", FACTOR)?,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: whole(
                    &given,
                    "original_max_position_embeddings",
                    TOKENS,
                    positions,
                )?,
            })
        }
        _ => Err(given.refused(key, "default, linear, dynamic or llama3")),
    }
}
