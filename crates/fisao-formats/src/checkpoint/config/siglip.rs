//! SigLIP's configuration; its vision part is LLaVA's too.

use fisao_models::siglip::{SiglipConfig, SiglipTextConfig};

use super::clip::padding;
use super::{
    EPSILON, LAYERS, TOKENS, WIDTH, activation, expect_type, vision, whole, width_and_heads,
};
use crate::FormatError;
use crate::fields::Fields;

pub(super) fn resolve(top: &Fields<'_>) -> Result<SiglipConfig, FormatError> {
    let text = top.needed_object("text_config", "text_config.")?;
    let vision = top.needed_object("vision_config", "vision_config.")?;
    Ok(SiglipConfig { text: resolve_text(&text)?, vision: vision::resolve_siglip(&vision)? })
}

/// Defaults are those of transformers' `SiglipTextConfig`, which are the base model's.
fn resolve_text(text: &Fields<'_>) -> Result<SiglipTextConfig, FormatError> {
    expect_type(text, "siglip_text_model")?;
    let (hidden_size, num_attention_heads) = width_and_heads(text, (768, 12))?;
    let vocab_size = whole(text, "vocab_size", TOKENS, 32000)?;
    Ok(SiglipTextConfig {
        vocab_size,
        hidden_size,
        projection_size: whole(text, "projection_size", WIDTH, hidden_size)?,
        intermediate_size: whole(text, "intermediate_size", WIDTH, 3072)?,
        num_hidden_layers: whole(text, "num_hidden_layers", LAYERS, 12)?,
        num_attention_heads,
        max_position_embeddings: whole(text, "max_position_embeddings", TOKENS, 64)?,
        layer_norm_eps: text.real("layer_norm_eps", EPSILON)?.unwrap_or(1e-6),
        hidden_act: activation(text, "hidden_act", "gelu_pytorch_tanh")?,
        pad_token_id: padding(text, vocab_size, 1)?,
    })
}
