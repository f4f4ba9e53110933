//! CLIP's configuration; its vision part is LLaVA's too.

use std::path::Path;

use fisao_models::clip::{ClipConfig, ClipTextConfig, ClipVisionConfig};
use serde::Deserialize;

use super::{activation, divisible, expect_type, missing, positive, unsupported};
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
            vision: vision.resolve(path)?,
            projection_dim: positive(path, "projection_dim", self.projection_dim, 512)?,
            logit_scale_init_value: self.logit_scale_init_value.unwrap_or(2.6592),
        })
    }
}

/// Defaults are those of transformers' `CLIPVisionConfig`, which are ViT-B/32's.
#[derive(Deserialize)]
pub(super) struct RawVision {
    model_type: Option<String>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_channels: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
}

impl RawVision {
    /// Number of layers.
    pub(super) fn num_hidden_layers(&self) -> usize {
        self.num_hidden_layers.unwrap_or(12)
    }

    pub(super) fn resolve(self, path: &Path) -> Result<ClipVisionConfig, FormatError> {
        let kind = self.model_type.as_deref();
        expect_type(path, "vision_config.model_type", kind, "clip_vision_model")?;
        if let Some(channels) = self.num_channels.filter(|&channels| channels != 3) {
            return Err(unsupported(path, "vision_config.num_channels", &channels, "3"));
        }
        let hidden_size = positive(path, "vision_config.hidden_size", self.hidden_size, 768)?;
        let heads =
            positive(path, "vision_config.num_attention_heads", self.num_attention_heads, 12)?;
        divisible(path, "vision_config.hidden_size", hidden_size, heads)?;
        let image_size = positive(path, "vision_config.image_size", self.image_size, 224)?;
        let patch_size = positive(path, "vision_config.patch_size", self.patch_size, 32)?;
        Ok(ClipVisionConfig {
            hidden_size,
            intermediate_size: self.intermediate_size.unwrap_or(3072),
            num_hidden_layers: self.num_hidden_layers(),
            num_attention_heads: heads,
            image_size,
            patch_size,
            layer_norm_eps: self.layer_norm_eps.unwrap_or(1e-5),
            hidden_act: activation(
                path,
                "vision_config.hidden_act",
                self.hidden_act.as_deref().unwrap_or("quick_gelu"),
            )?,
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
            intermediate_size: self.intermediate_size.unwrap_or(2048),
            num_hidden_layers: self.num_hidden_layers.unwrap_or(12),
            num_attention_heads: heads,
            max_position_embeddings: self.max_position_embeddings.unwrap_or(77),
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
