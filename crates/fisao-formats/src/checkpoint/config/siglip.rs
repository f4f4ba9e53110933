//! SigLIP's configuration; its vision part is LLaVA's too.

use std::path::Path;

use fisao_models::siglip::{SiglipConfig, SiglipTextConfig};
use serde::Deserialize;

use super::vision::RawVision;
use super::{activation, divisible, expect_type, missing, positive};
use crate::FormatError;

#[derive(Deserialize)]
pub(super) struct RawSiglip {
    text_config: Option<RawText>,
    vision_config: Option<RawVision>,
}

impl RawSiglip {
    pub(super) fn resolve(self, path: &Path) -> Result<SiglipConfig, FormatError> {
        let text = self.text_config.ok_or_else(|| missing(path, "text_config"))?;
        let vision = self.vision_config.ok_or_else(|| missing(path, "vision_config"))?;
        Ok(SiglipConfig { text: text.resolve(path)?, vision: vision.resolve_siglip(path)? })
    }
}

/// Defaults are those of transformers' `SiglipTextConfig`, which are the base model's.
#[derive(Deserialize)]
struct RawText {
    model_type: Option<String>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    projection_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    max_position_embeddings: Option<usize>,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    pad_token_id: Option<u32>,
}

impl RawText {
    fn resolve(self, path: &Path) -> Result<SiglipTextConfig, FormatError> {
        let kind = self.model_type.as_deref();
        expect_type(path, "text_config.model_type", kind, "siglip_text_model")?;
        let hidden_size = positive(path, "text_config.hidden_size", self.hidden_size, 768)?;
        let heads =
            positive(path, "text_config.num_attention_heads", self.num_attention_heads, 12)?;
        divisible(path, "text_config.hidden_size", hidden_size, heads)?;
        let length = self.max_position_embeddings;
        let act = self.hidden_act.as_deref().unwrap_or("gelu_pytorch_tanh");
        Ok(SiglipTextConfig {
            vocab_size: positive(path, "text_config.vocab_size", self.vocab_size, 32000)?,
            hidden_size,
            projection_size: positive(
                path,
                "text_config.projection_size",
                self.projection_size,
                hidden_size,
            )?,
            intermediate_size: positive(
                path,
                "text_config.intermediate_size",
                self.intermediate_size,
                3072,
            )?,
            num_hidden_layers: self.num_hidden_layers.unwrap_or(12),
            num_attention_heads: heads,
            max_position_embeddings: positive(
                path,
                "text_config.max_position_embeddings",
                length,
                64,
            )?,
            layer_norm_eps: self.layer_norm_eps.unwrap_or(1e-6),
            hidden_act: activation(path, "text_config.hidden_act", act)?,
            pad_token_id: self.pad_token_id.unwrap_or(1),
        })
    }
}
