//! CLIP's configuration.

use fisao_models::clip::{ClipConfig, ClipTextConfig};

use super::{
    EPSILON, LAYERS, TOKENS, WIDTH, activation, expect_type, vision, whole, width_and_heads,
};
use crate::FormatError;
use crate::fields::{Fields, Real};

/// The exponential of more would not fit the activations' type.
const LOGIT_SCALE: Real = Real { least: -40.0, most: 40.0, said: "a number from -40 to 40" };

pub(super) fn resolve(top: &Fields<'_>) -> Result<ClipConfig, FormatError> {
    let text = top.needed_object("text_config", "text_config.")?;
    let vision = top.needed_object("vision_config", "vision_config.")?;
    Ok(ClipConfig {
        text: resolve_text(&text)?,
        vision: vision::resolve_clip(&vision)?,
        projection_dim: whole(top, "projection_dim", WIDTH, 512)?,
        logit_scale_init_value: top.real("logit_scale_init_value", LOGIT_SCALE)?.unwrap_or(2.6592),
    })
}

/// Defaults are those of transformers' `CLIPTextConfig`, which are ViT-B/32's.
fn resolve_text(text: &Fields<'_>) -> Result<ClipTextConfig, FormatError> {
    expect_type(text, "clip_text_model")?;
    let (hidden_size, num_attention_heads) = width_and_heads(text, (512, 8))?;
    let vocab_size = whole(text, "vocab_size", TOKENS, 49408)?;
    Ok(ClipTextConfig {
        vocab_size,
        hidden_size,
        intermediate_size: whole(text, "intermediate_size", WIDTH, 2048)?,
        num_hidden_layers: whole(text, "num_hidden_layers", LAYERS, 12)?,
        num_attention_heads,
        max_position_embeddings: whole(text, "max_position_embeddings", TOKENS, 77)?,
        layer_norm_eps: text.real("layer_norm_eps", EPSILON)?.unwrap_or(1e-5),
        hidden_act: activation(text, "hidden_act", "quick_gelu")?,
        bos_token_id: text.token("bos_token_id", vocab_size)?.unwrap_or(49406),
        eos_token_id: text.token("eos_token_id", vocab_size)?.unwrap_or(49407),
        pad_token_id: padding(text, vocab_size, 1)?,
    })
}

/// The token that fills texts up, which has to have an embedding.
pub(super) fn padding(
    text: &Fields<'_>,
    vocabulary: usize,
    default: u32,
) -> Result<u32, FormatError> {
    let default = if vocabulary > 1 { default } else { 0 };
    Ok(text.token("pad_token_id", vocabulary)?.unwrap_or(default))
}
