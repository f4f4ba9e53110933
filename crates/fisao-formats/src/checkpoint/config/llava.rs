//! LLaVA's configuration.

use std::path::Path;

use fisao_models::llava::{FeatureSelect, LlavaConfig};
use serde::Deserialize;
use serde_json::Value;

use super::llama::{RawLlama, TokenIds};
use super::vision::RawVision;
use super::{activation, missing, unsupported};
use crate::FormatError;

#[derive(Deserialize)]
pub(super) struct RawLlava {
    text_config: Option<RawLlama>,
    vision_config: Option<RawVision>,
    #[serde(alias = "image_token_id")]
    image_token_index: Option<u32>,
    #[serde(default = "penultimate")]
    vision_feature_layer: Value,
    #[serde(default = "default_strategy")]
    vision_feature_select_strategy: String,
    #[serde(default = "gelu")]
    projector_hidden_act: String,
    #[serde(default = "yes")]
    multimodal_projector_bias: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Option<TokenIds>,
    pad_token_id: Option<u32>,
    tie_word_embeddings: Option<bool>,
}

impl RawLlava {
    pub(super) fn resolve(self, path: &Path) -> Result<LlavaConfig, FormatError> {
        let text = self.text_config.ok_or_else(|| missing(path, "text_config"))?;
        let vision = self.vision_config.ok_or_else(|| missing(path, "vision_config"))?;
        let image_token_id =
            self.image_token_index.ok_or_else(|| missing(path, "image_token_index"))?;
        let Some(vision_feature_layer) = self.vision_feature_layer.as_i64() else {
            return Err(unsupported(
                path,
                "vision_feature_layer",
                &self.vision_feature_layer,
                "the index of one layer",
            ));
        };
        let layers = i64::try_from(vision.num_hidden_layers()).unwrap_or(i64::MAX);
        if !(-layers - 1..=layers).contains(&vision_feature_layer) {
            return Err(unsupported(
                path,
                "vision_feature_layer",
                &vision_feature_layer,
                "a layer that the vision tower has",
            ));
        }
        let vision_feature_select_strategy = match self.vision_feature_select_strategy.as_str() {
            "default" => FeatureSelect::Default,
            "full" => FeatureSelect::Full,
            other => {
                let field = "vision_feature_select_strategy";
                return Err(unsupported(path, field, &other, "\"default\" or \"full\""));
            }
        };
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
            text: text.resolve(path, self.tie_word_embeddings)?,
            vision: vision.resolve_either(path)?,
            image_token_id,
            vision_feature_layer,
            vision_feature_select_strategy,
            projector_hidden_act: activation(
                path,
                "projector_hidden_act",
                &self.projector_hidden_act,
            )?,
        })
    }
}

fn penultimate() -> Value {
    Value::from(-2)
}

fn default_strategy() -> String {
    "default".to_owned()
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn yes() -> bool {
    true
}
