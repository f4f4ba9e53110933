//! The image tower's configuration, CLIP's or SigLIP's, inside that of a whole model.

use std::path::Path;

use fisao_models::vision::{VisionConfig, VisionFamily};
use serde::Deserialize;

use super::{activation, divisible, expect_type, positive, unsupported};
use crate::FormatError;

const CLIP: &str = "clip_vision_model";
const SIGLIP: &str = "siglip_vision_model";

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

/// What transformers' configuration class has for fields that are absent.
struct Defaults {
    family: VisionFamily,
    patch_size: usize,
    layer_norm_eps: f64,
    hidden_act: &'static str,
}

/// `CLIPVisionConfig`, which is ViT-B/32.
const CLIP_DEFAULTS: Defaults = Defaults {
    family: VisionFamily::Clip,
    patch_size: 32,
    layer_norm_eps: 1e-5,
    hidden_act: "quick_gelu",
};

/// `SiglipVisionConfig`, which is the base model with patches of 16.
const SIGLIP_DEFAULTS: Defaults = Defaults {
    family: VisionFamily::Siglip,
    patch_size: 16,
    layer_norm_eps: 1e-6,
    hidden_act: "gelu_pytorch_tanh",
};

impl RawVision {
    /// Number of layers.
    pub(super) fn num_hidden_layers(&self) -> usize {
        self.num_hidden_layers.unwrap_or(12)
    }

    /// The tower of a CLIP model.
    pub(super) fn resolve_clip(self, path: &Path) -> Result<VisionConfig, FormatError> {
        expect_type(path, "vision_config.model_type", self.model_type.as_deref(), CLIP)?;
        self.resolve(path, &CLIP_DEFAULTS)
    }

    /// The tower of a SigLIP model.
    pub(super) fn resolve_siglip(self, path: &Path) -> Result<VisionConfig, FormatError> {
        expect_type(path, "vision_config.model_type", self.model_type.as_deref(), SIGLIP)?;
        self.resolve(path, &SIGLIP_DEFAULTS)
    }

    /// The tower of a model that may have either; `model_type` says which.
    pub(super) fn resolve_either(self, path: &Path) -> Result<VisionConfig, FormatError> {
        match self.model_type.as_deref() {
            None | Some(CLIP) => self.resolve(path, &CLIP_DEFAULTS),
            Some(SIGLIP) => self.resolve(path, &SIGLIP_DEFAULTS),
            Some(other) => {
                let field = "vision_config.model_type";
                Err(unsupported(path, field, &other, "clip_vision_model or siglip_vision_model"))
            }
        }
    }

    fn resolve(self, path: &Path, defaults: &Defaults) -> Result<VisionConfig, FormatError> {
        if let Some(channels) = self.num_channels.filter(|&channels| channels != 3) {
            return Err(unsupported(path, "vision_config.num_channels", &channels, "3"));
        }
        let hidden_size = positive(path, "vision_config.hidden_size", self.hidden_size, 768)?;
        let heads =
            positive(path, "vision_config.num_attention_heads", self.num_attention_heads, 12)?;
        divisible(path, "vision_config.hidden_size", hidden_size, heads)?;
        let image_size = positive(path, "vision_config.image_size", self.image_size, 224)?;
        let patch_size =
            positive(path, "vision_config.patch_size", self.patch_size, defaults.patch_size)?;
        if patch_size > image_size {
            let field = "vision_config.patch_size";
            return Err(unsupported(path, field, &patch_size, "a size up to image_size"));
        }
        Ok(VisionConfig {
            family: defaults.family,
            hidden_size,
            intermediate_size: positive(
                path,
                "vision_config.intermediate_size",
                self.intermediate_size,
                3072,
            )?,
            num_hidden_layers: self.num_hidden_layers(),
            num_attention_heads: heads,
            image_size,
            patch_size,
            layer_norm_eps: self.layer_norm_eps.unwrap_or(defaults.layer_norm_eps),
            hidden_act: activation(
                path,
                "vision_config.hidden_act",
                self.hidden_act.as_deref().unwrap_or(defaults.hidden_act),
            )?,
        })
    }
}
