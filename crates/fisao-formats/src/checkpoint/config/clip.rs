//! CLIP's configuration.

use std::path::Path;

use fisao_models::clip::{ClipConfig, ClipTextConfig};
use serde::Deserialize;

use super::vision::RawVision;
use super::{activation, divisible, expect_type, missing, positive};
use crate::FormatError;

#[derive(Deserialize)]
pub(super) struct RawClip {
    text_config: Option<RawText>,
    vision_config: Option<RawVision>,
    projection_dim: Option<usize>,
    logit_scale_init_value: Option<f64>,
}

impl RawClip {
    pub(super) fn resolve(self, path: &Path) -> Result<ClipConfig, FormatError> {
        let text = self.text_config.ok_or_else(|| missing(path, "text_config"))?;
        let vision = self.vision_config.ok_or_else(|| missing(path, "vision_config"))?;
        Ok(ClipConfig {
            text: text.resolve(path)?,
            vision: vision.resolve_clip(path)?,
            projection_dim: positive(path, "projection_dim", self.projection_dim, 512)?,
            logit_scale_init_value: self.logit_scale_init_value.unwrap_or(2.6592),
        })
    }
}

/// Defaults are those of transformers' `CLIPTextConfig`, which are ViT-B/32's.
#[derive(Deserialize)]
struct RawText {
    model_type: Option<String>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    max_position_embeddings: Option<usize>,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<u32>,
    pad_token_id: Option<u32>,
}

impl RawText {
    pub(super) fn resolve(self, path: &Path) -> Result<ClipTextConfig, FormatError> {
        expect_type(path, "text_config.model_type", self.model_type.as_deref(), "clip_text_model")?;
        let hidden_size = positive(path, "text_config.hidden_size", self.hidden_size, 512)?;
        let heads = positive(path, "text_config.num_attention_heads", self.num_attention_heads, 8)?;
        divisible(path, "text_config.hidden_size", hidden_size, heads)?;
        Ok(ClipTextConfig {
            vocab_size: positive(path, "text_config.vocab_size", self.vocab_size, 49408)?,
            hidden_size,
            intermediate_size: positive(
                path,
                "text_config.intermediate_size",
                self.intermediate_size,
                2048,
            )?,
            num_hidden_layers: self.num_hidden_layers.unwrap_or(12),
            num_attention_heads: heads,
            max_position_embeddings: positive(
                path,
                "text_config.max_position_embeddings",
                self.max_position_embeddings,
                77,
            )?,
            layer_norm_eps: self.layer_norm_eps.unwrap_or(1e-5),
            hidden_act: activation(
                path,
                "text_config.hidden_act",
                self.hidden_act.as_deref().unwrap_or("quick_gelu"),
            )?,
            bos_token_id: self.bos_token_id.unwrap_or(49406),
            eos_token_id: self.eos_token_id.unwrap_or(49407),
            pad_token_id: self.pad_token_id.unwrap_or(1),
        })
    }
}
