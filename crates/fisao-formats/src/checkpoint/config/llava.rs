//! LLaVA's and LLaVA-OneVision's configuration.

use std::path::Path;

use fisao_models::image::Resolution;
use fisao_models::llava::{FeatureSelect, LlavaConfig, TilingConfig};
use fisao_models::vision::VisionConfig;
use serde::Deserialize;
use serde_json::Value;

use super::llama::{RawLlama, TokenIds};
use super::vision::RawVision;
use super::{activation, missing, unsupported};
use crate::FormatError;
use crate::processor::{GRID_PINPOINTS, PinpointsError, read_pinpoints};

#[derive(Deserialize)]
pub(super) struct RawLlava {
    text_config: Option<RawLlama>,
    vision_config: Option<RawVision>,
    #[serde(alias = "image_token_id")]
    image_token_index: Option<u32>,
    vision_feature_layer: Option<Value>,
    vision_feature_select_strategy: Option<String>,
    #[serde(default = "gelu")]
    projector_hidden_act: String,
    #[serde(default = "yes")]
    multimodal_projector_bias: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Option<TokenIds>,
    pad_token_id: Option<u32>,
    tie_word_embeddings: Option<bool>,
    /// LLaVA-OneVision's only, as what follows.
    image_grid_pinpoints: Option<Value>,
    vision_aspect_ratio: Option<String>,
}

/// What transformers' configuration class has for fields that are absent.
struct Defaults {
    vision_feature_layer: i64,
    vision_feature_select_strategy: &'static str,
    image_token_id: Option<u32>,
}

/// `LlavaConfig`.
const LLAVA: Defaults = Defaults {
    vision_feature_layer: -2,
    vision_feature_select_strategy: "default",
    image_token_id: None,
};

/// `LlavaOnevisionConfig`.
const ONEVISION: Defaults = Defaults {
    vision_feature_layer: -1,
    vision_feature_select_strategy: "full",
    image_token_id: Some(151_646),
};

impl RawLlava {
    pub(super) fn resolve(self, path: &Path) -> Result<LlavaConfig, FormatError> {
        let tied = self.tie_word_embeddings;
        self.resolve_with(path, &LLAVA, tied)
    }

    pub(super) fn resolve_onevision(mut self, path: &Path) -> Result<LlavaConfig, FormatError> {
        let (pinpoints, ratio) =
            (self.image_grid_pinpoints.take(), self.vision_aspect_ratio.take());
        // Its own default does not overrule what the decoder says.
        let tied = self.tie_word_embeddings.filter(|&tied| tied);
        let mut config = self.resolve_with(path, &ONEVISION, tied)?;
        if config.tile_tokens() != config.vision.patches() {
            let field = "vision_feature_select_strategy";
            let found = config.vision_feature_select_strategy;
            return Err(unsupported(path, field, &found, "what leaves one token for each patch"));
        }
        let resolutions = resolutions(path, pinpoints.as_ref(), &config.vision)?;
        let max_tiles = max_tiles(path, ratio.as_deref().unwrap_or("anyres_max_9"))?;
        config.tiling = Some(TilingConfig { resolutions, max_tiles });
        Ok(config)
    }

    fn resolve_with(
        self,
        path: &Path,
        defaults: &Defaults,
        tied: Option<bool>,
    ) -> Result<LlavaConfig, FormatError> {
        let text = self.text_config.ok_or_else(|| missing(path, "text_config"))?;
        let vision = self.vision_config.ok_or_else(|| missing(path, "vision_config"))?;
        let image_token_id = self.image_token_index.or(defaults.image_token_id);
        let image_token_id = image_token_id.ok_or_else(|| missing(path, "image_token_index"))?;
        let layer = self.vision_feature_layer.unwrap_or(defaults.vision_feature_layer.into());
        let strategy = self.vision_feature_select_strategy;
        let strategy = strategy.as_deref().unwrap_or(defaults.vision_feature_select_strategy);
        if !self.multimodal_projector_bias {
            return Err(unsupported(path, "multimodal_projector_bias", &false, "true"));
        }
        let ends = text.eos_token_id.as_ref().or(self.eos_token_id.as_ref());
        let ends = ends.map(TokenIds::to_vec).unwrap_or_default();
        let eos_token_id = ends.first().copied().unwrap_or(2);
        let pad_token_id = self.pad_token_id.or(text.pad_token_id);
        Ok(LlavaConfig {
            bos_token_id: text.bos_token_id.or(self.bos_token_id).unwrap_or(1),
            eos_token_id,
            stop_token_ids: ends.into_iter().skip(1).collect(),
            // Padding is masked everywhere, so any id of the vocabulary serves where none is named.
            pad_token_id: pad_token_id.unwrap_or(eos_token_id),
            text: text.resolve(path, tied)?,
            vision_feature_layer: feature_layer(path, &layer, vision.num_hidden_layers())?,
            vision: vision.resolve_either(path)?,
            image_token_id,
            vision_feature_select_strategy: feature_select(path, strategy)?,
            projector_hidden_act: activation(
                path,
                "projector_hidden_act",
                &self.projector_hidden_act,
            )?,
            tiling: None,
        })
    }
}

fn feature_layer(path: &Path, value: &Value, layers: usize) -> Result<i64, FormatError> {
    let field = "vision_feature_layer";
    let Some(layer) = value.as_i64() else {
        return Err(unsupported(path, field, value, "the index of one layer"));
    };
    let layers = i64::try_from(layers).unwrap_or(i64::MAX);
    if (-layers - 1..=layers).contains(&layer) {
        Ok(layer)
    } else {
        Err(unsupported(path, field, &layer, "a layer that the vision tower has"))
    }
}

fn feature_select(path: &Path, strategy: &str) -> Result<FeatureSelect, FormatError> {
    match strategy {
        "default" => Ok(FeatureSelect::Default),
        "full" => Ok(FeatureSelect::Full),
        other => {
            let field = "vision_feature_select_strategy";
            Err(unsupported(path, field, &other, "\"default\" or \"full\""))
        }
    }
}

/// The sizes that pictures may be brought to, all of them whole tiles.
fn resolutions(
    path: &Path,
    pinpoints: Option<&Value>,
    vision: &VisionConfig,
) -> Result<Vec<Resolution>, FormatError> {
    let side = vision.image_size as u32;
    read_pinpoints(pinpoints, (side, side)).map_err(|PinpointsError { found, supported }| {
        FormatError::UnsupportedField {
            path: path.to_owned(),
            field: GRID_PINPOINTS.to_owned(),
            found,
            supported,
        }
    })
}

/// The number at the end of `anyres_max_9`.
fn max_tiles(path: &Path, ratio: &str) -> Result<usize, FormatError> {
    let number = ratio.strip_prefix("anyres_max_").and_then(|number| number.parse().ok());
    match number {
        Some(tiles) if tiles > 0 => Ok(tiles),
        _ => Err(unsupported(path, "vision_aspect_ratio", &ratio, "anyres_max_N")),
    }
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn yes() -> bool {
    true
}
