//! LLaVA's configuration and its Llama decoder's.

use std::path::Path;

use fisao_models::llama::LlamaConfig;
use fisao_models::llava::{FeatureSelect, LlavaConfig};
use serde::Deserialize;
use serde_json::Value;

use super::clip::RawVision;
use super::{activation, expect_type, missing, positive, unsupported};
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

/// `eos_token_id` may list several tokens; the first is the model's own.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(u32),
    Several(Vec<u32>),
}

impl TokenIds {
    fn first(&self) -> Option<u32> {
        match self {
            Self::One(id) => Some(*id),
            Self::Several(ids) => ids.first().copied(),
        }
    }
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
        let eos = |ids: &Option<TokenIds>| ids.as_ref().and_then(TokenIds::first);
        let eos_token_id = eos(&text.eos_token_id).or_else(|| eos(&self.eos_token_id)).unwrap_or(2);
        let pad_token_id = self.pad_token_id.or(text.pad_token_id);
        Ok(LlavaConfig {
            bos_token_id: text.bos_token_id.or(self.bos_token_id).unwrap_or(1),
            eos_token_id,
            // Padding is masked everywhere, so any id of the vocabulary serves where none is named.
            pad_token_id: pad_token_id.unwrap_or(eos_token_id),
            text: text.resolve(path, self.tie_word_embeddings)?,
            vision: vision.resolve(path)?,
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

/// Defaults are those of transformers' `LlamaConfig`, which are Llama 1's 7B.
#[derive(Deserialize)]
struct RawLlama {
    model_type: Option<String>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<RawRope>,
    rope_scaling: Option<Value>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    tie_word_embeddings: Option<bool>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<TokenIds>,
    pad_token_id: Option<u32>,
}

#[derive(Deserialize)]
struct RawRope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

impl RawLlama {
    fn resolve(self, path: &Path, tied_above: Option<bool>) -> Result<LlamaConfig, FormatError> {
        expect_type(path, "text_config.model_type", self.model_type.as_deref(), "llama")?;
        if let Some(act) = self.hidden_act.filter(|act| act != "silu") {
            return Err(unsupported(path, "text_config.hidden_act", &act, "\"silu\""));
        }
        for (field, bias) in [
            ("text_config.attention_bias", self.attention_bias),
            ("text_config.mlp_bias", self.mlp_bias),
        ] {
            if bias {
                return Err(unsupported(path, field, &true, "false"));
            }
        }
        if let Some(scaling) = self.rope_scaling.filter(|scaling| !scaling.is_null()) {
            let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
            if kind.and_then(Value::as_str) != Some("default") {
                return Err(unsupported(path, "text_config.rope_scaling", &scaling, "null"));
            }
        }
        let rope = self.rope_parameters.unwrap_or(RawRope { rope_theta: None, rope_type: None });
        if let Some(kind) = rope.rope_type.filter(|kind| kind != "default") {
            let field = "text_config.rope_parameters.rope_type";
            return Err(unsupported(path, field, &kind, "\"default\""));
        }
        let hidden_size = positive(path, "text_config.hidden_size", self.hidden_size, 4096)?;
        let heads =
            positive(path, "text_config.num_attention_heads", self.num_attention_heads, 32)?;
        let key_value_heads =
            positive(path, "text_config.num_key_value_heads", self.num_key_value_heads, heads)?;
        if heads % key_value_heads != 0 {
            let field = "text_config.num_key_value_heads";
            return Err(unsupported(path, field, &key_value_heads, "a divisor of the heads"));
        }
        Ok(LlamaConfig {
            vocab_size: positive(path, "text_config.vocab_size", self.vocab_size, 32000)?,
            hidden_size,
            intermediate_size: positive(
                path,
                "text_config.intermediate_size",
                self.intermediate_size,
                11008,
            )?,
            num_hidden_layers: self.num_hidden_layers.unwrap_or(32),
            num_attention_heads: heads,
            num_key_value_heads: key_value_heads,
            head_dim: positive(path, "text_config.head_dim", self.head_dim, hidden_size / heads)?,
            max_position_embeddings: self.max_position_embeddings.unwrap_or(2048),
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: rope.rope_theta.or(self.rope_theta).unwrap_or(10000.0),
            tie_word_embeddings: self.tie_word_embeddings.or(tied_above).unwrap_or(false),
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
