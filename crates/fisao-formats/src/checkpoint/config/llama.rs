//! The decoder's configuration, Llama's, Qwen2's, Qwen3's or Mistral's, inside that of a whole model.

use fisao_models::llama::{DecoderFamily, LlamaConfig, PositionScheme, RopeScaling};
use serde::Deserialize as _;

use super::{EPSILON, HEADS, LAYERS, THETA, TOKENS, WIDTH, whole};
use crate::FormatError;
use crate::fields::{Fields, Real, Whole};

/// Width of one head; rotary positions turn its numbers in pairs.
const HEAD: Whole = Whole { least: 2, most: 1 << 13, said: "an even number from 2 to 8192" };

/// Factor on the lengths of sequences.
const FACTOR: Real = Real { least: 1.0, most: 1e6, said: "a number from 1 to 1e6" };
/// Periods of a frequency within a context.
const PERIODS: Real = Real { least: 0.0, most: 1e6, said: "a number from 0 to 1e6" };

/// What transformers' configuration class has for fields that are absent.
struct Defaults {
    family: DecoderFamily,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    layers: usize,
    heads: usize,
    /// Those of queries where nothing is said.
    key_value_heads: Option<usize>,
    /// The width shared out among the heads where nothing is said.
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    sliding_window: Option<usize>,
    rms_norm_eps: f64,
    rope_theta: f64,
    /// Whether positions are multimodal.
    multimodal: bool,
}

/// `LlamaConfig`, which is Llama 1's 7B.
const LLAMA: Defaults = Defaults {
    family: DecoderFamily::Llama,
    vocab_size: 32000,
    hidden_size: 4096,
    intermediate_size: 11008,
    layers: 32,
    heads: 32,
    key_value_heads: None,
    head_dim: None,
    max_position_embeddings: 2048,
    sliding_window: None,
    rms_norm_eps: 1e-6,
    rope_theta: 10000.0,
    multimodal: false,
};

/// `Qwen2Config`.
const QWEN2: Defaults = Defaults {
    family: DecoderFamily::Qwen2,
    vocab_size: 151_936,
    intermediate_size: 22016,
    max_position_embeddings: 32768,
    ..LLAMA
};

/// `MistralConfig`, which is Mistral 7B v0.1.
const MISTRAL: Defaults = Defaults {
    family: DecoderFamily::Mistral,
    intermediate_size: 14336,
    max_position_embeddings: 131_072,
    key_value_heads: Some(8),
    sliding_window: Some(4096),
    ..LLAMA
};

/// `Qwen2_5_VLTextConfig`.
const QWEN2_5_VL: Defaults = Defaults {
    family: DecoderFamily::Qwen2,
    vocab_size: 152_064,
    hidden_size: 8192,
    intermediate_size: 29568,
    layers: 80,
    heads: 64,
    key_value_heads: Some(8),
    max_position_embeddings: 32768,
    rms_norm_eps: 1e-5,
    rope_theta: 1e6,
    multimodal: true,
    ..LLAMA
};

/// `Qwen3VLTextConfig`.
const QWEN3_VL: Defaults = Defaults {
    family: DecoderFamily::Qwen3,
    vocab_size: 151_936,
    intermediate_size: 22016,
    head_dim: Some(128),
    max_position_embeddings: 128_000,
    rope_theta: 500_000.0,
    multimodal: true,
    ..LLAMA
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
    resolve_by(text, tied_above, &Defaults { rms_norm_eps: epsilon, ..defaults })
}

/// A decoder with multimodal rotary positions, of Qwen2.5-VL or, with `Qwen3`, of Qwen3-VL.
pub(super) fn resolve_multimodal(
    text: &Fields<'_>,
    tied_above: bool,
    family: DecoderFamily,
) -> Result<LlamaConfig, FormatError> {
    let newer = family == DecoderFamily::Qwen3;
    let (defaults, kinds, sections) = if newer {
        (&QWEN3_VL, ["qwen3_vl", "qwen3_vl_text"], [24, 20, 20])
    } else {
        (&QWEN2_5_VL, ["qwen2_5_vl", "qwen2_5_vl_text"], [16, 24, 24])
    };
    if text.text("model_type")?.is_some_and(|kind| !kinds.contains(&kind)) {
        return Err(text.refused("model_type", "the decoder of the model around it"));
    }
    let config = resolve_by(text, tied_above, defaults)?;
    let mut found = None;
    for (key, place) in ROTARY {
        let Some(part) = text.object(key, place)? else { continue };
        if part.flag("mrope_interleaved")?.is_some_and(|interleaved| interleaved != newer) {
            return Err(part.refused("mrope_interleaved", "what the family has"));
        }
        if found.is_none()
            && let Some(list) = part.get("mrope_section")
        {
            let list = <[usize; 3]>::deserialize(list).ok();
            let fits = |list: &[usize; 3]| {
                let sum = list.iter().try_fold(0_usize, |sum, &pairs| sum.checked_add(pairs));
                sum == Some(config.head_dim / 2)
            };
            let supported = "three numbers that add up to half of head_dim";
            let list = list.filter(fits).ok_or_else(|| part.refused("mrope_section", supported))?;
            found = Some(list);
        }
    }
    let sections = found.unwrap_or(sections);
    if sections.iter().sum::<usize>() != config.head_dim / 2 {
        return Err(text.missing("rope_parameters.mrope_section"));
    }
    let positions = PositionScheme::Multimodal { sections, interleaved: newer };
    Ok(LlamaConfig { positions, ..config })
}

/// Where rotary positions are described, today and before.
const ROTARY: [(&str, &str); 2] = [
    ("rope_parameters", "text_config.rope_parameters."),
    ("rope_scaling", "text_config.rope_scaling."),
];

fn resolve_by(
    text: &Fields<'_>,
    tied_above: bool,
    defaults: &Defaults,
) -> Result<LlamaConfig, FormatError> {
    refuse_unsupported(text)?;
    let hidden_size = whole(text, "hidden_size", WIDTH, defaults.hidden_size)?;
    let heads = whole(text, "num_attention_heads", HEADS, defaults.heads)?;
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
        num_hidden_layers: whole(text, "num_hidden_layers", LAYERS, defaults.layers)?,
        num_attention_heads: heads,
        num_key_value_heads: key_value_heads,
        head_dim: head_dim(text, hidden_size, heads, defaults)?,
        rms_norm_eps: text.real("rms_norm_eps", EPSILON)?.unwrap_or(defaults.rms_norm_eps),
        rope_theta: rope_theta(text)?.unwrap_or(defaults.rope_theta),
        rope_scaling: rope_scaling(text, max_position_embeddings, defaults.multimodal)?,
        sliding_window: sliding_window(text, defaults)?,
        max_position_embeddings,
        positions: PositionScheme::Sequential,
        tie_word_embeddings: text.flag("tie_word_embeddings")?.unwrap_or(false) || tied_above,
    })
}

/// What the file says, or the width shared out among the heads.
fn head_dim(
    text: &Fields<'_>,
    hidden_size: usize,
    heads: usize,
    defaults: &Defaults,
) -> Result<usize, FormatError> {
    if let Some(width) = text.whole("head_dim", HEAD)?.or(defaults.head_dim) {
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
fn rope_theta(text: &Fields<'_>) -> Result<Option<f64>, FormatError> {
    let parameters = text.object("rope_parameters", "text_config.rope_parameters.")?;
    let own = parameters.map(|parameters| parameters.real("rope_theta", THETA)).transpose()?;
    let beside = text.real("rope_theta", THETA)?;
    Ok(own.flatten().or(beside))
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
fn rope_scaling(
    text: &Fields<'_>,
    positions: usize,
    multimodal: bool,
) -> Result<RopeScaling, FormatError> {
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
        // Multimodal positions, which scale nothing.
        "mrope" if multimodal => Ok(RopeScaling::Default),
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
        _ if multimodal => Err(given.refused(key, "default, mrope, linear, dynamic or llama3")),
        _ => Err(given.refused(key, "default, linear, dynamic or llama3")),
    }
}
