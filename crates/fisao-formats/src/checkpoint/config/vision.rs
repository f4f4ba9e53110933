//! The image tower's configuration, CLIP's or SigLIP's, inside that of a whole model.

use fisao_models::vision::{VisionConfig, VisionFamily};

use super::{EPSILON, LAYERS, PIXELS, WIDTH, activation, expect_type, whole, width_and_heads};
use crate::FormatError;
use crate::fields::Fields;

const CLIP: &str = "clip_vision_model";
const SIGLIP: &str = "siglip_vision_model";

/// What transformers' configuration class has for fields that are absent.
pub(super) struct Defaults {
    pub(super) family: VisionFamily,
    pub(super) width: usize,
    pub(super) intermediate_size: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) patch_size: usize,
    pub(super) layer_norm_eps: f64,
    pub(super) hidden_act: &'static str,
}

/// `CLIPVisionConfig`, which is ViT-B/32.
const CLIP_DEFAULTS: Defaults = Defaults {
    family: VisionFamily::Clip,
    width: 768,
    intermediate_size: 3072,
    layers: 12,
    heads: 12,
    patch_size: 32,
    layer_norm_eps: 1e-5,
    hidden_act: "quick_gelu",
};

/// `SiglipVisionConfig`, which is the base model with patches of 16.
const SIGLIP_DEFAULTS: Defaults = Defaults {
    family: VisionFamily::Siglip,
    width: 768,
    intermediate_size: 3072,
    layers: 12,
    heads: 12,
    patch_size: 16,
    layer_norm_eps: 1e-6,
    hidden_act: "gelu_pytorch_tanh",
};

/// `InstructBlipVisionConfig` and `Blip2VisionConfig`, which are ViT-g.
const EVA_DEFAULTS: Defaults = Defaults {
    family: VisionFamily::Eva,
    width: 1408,
    intermediate_size: 6144,
    layers: 39,
    heads: 16,
    patch_size: 14,
    layer_norm_eps: 1e-6,
    hidden_act: "gelu",
};

/// The tower of a model of BLIP-2's kind, whose configuration is called `kind`.
pub(super) fn resolve_eva(
    vision: &Fields<'_>,
    kind: &'static str,
) -> Result<VisionConfig, FormatError> {
    expect_type(vision, kind)?;
    if vision.flag("qkv_bias")? == Some(false) {
        return Err(vision.refused("qkv_bias", "true"));
    }
    resolve(vision, &EVA_DEFAULTS)
}

/// The tower of a CLIP model.
pub(super) fn resolve_clip(vision: &Fields<'_>) -> Result<VisionConfig, FormatError> {
    expect_type(vision, CLIP)?;
    resolve(vision, &CLIP_DEFAULTS)
}

/// The tower of a SigLIP model.
pub(super) fn resolve_siglip(vision: &Fields<'_>) -> Result<VisionConfig, FormatError> {
    expect_type(vision, SIGLIP)?;
    resolve(vision, &SIGLIP_DEFAULTS)
}

/// The tower of a model that may have either; `model_type` says which.
pub(super) fn resolve_either(vision: &Fields<'_>) -> Result<VisionConfig, FormatError> {
    match vision.text("model_type")? {
        None | Some(CLIP) => resolve(vision, &CLIP_DEFAULTS),
        Some(SIGLIP) => resolve(vision, &SIGLIP_DEFAULTS),
        Some(_) => Err(vision.refused("model_type", "clip_vision_model or siglip_vision_model")),
    }
}

/// The patches need not fill the input: SigLIP's 384 pixels are 27 patches of 14 and a rest.
pub(super) fn resolve(
    vision: &Fields<'_>,
    defaults: &Defaults,
) -> Result<VisionConfig, FormatError> {
    if vision.get("num_channels").is_some_and(|channels| channels.as_u64() != Some(3)) {
        return Err(vision.refused("num_channels", "3"));
    }
    let (hidden_size, num_attention_heads) =
        width_and_heads(vision, (defaults.width, defaults.heads))?;
    let image_size = whole(vision, "image_size", PIXELS, 224)?;
    let patch_size = whole(vision, "patch_size", PIXELS, defaults.patch_size)?;
    if patch_size > image_size {
        let found = patch_size.to_string();
        return Err(vision.refused_as("patch_size", found, "a size up to image_size"));
    }
    Ok(VisionConfig {
        family: defaults.family,
        hidden_size,
        intermediate_size: whole(vision, "intermediate_size", WIDTH, defaults.intermediate_size)?,
        num_hidden_layers: whole(vision, "num_hidden_layers", LAYERS, defaults.layers)?,
        num_attention_heads,
        image_size,
        patch_size,
        layer_norm_eps: vision.real("layer_norm_eps", EPSILON)?.unwrap_or(defaults.layer_norm_eps),
        hidden_act: activation(vision, "hidden_act", defaults.hidden_act)?,
    })
}
