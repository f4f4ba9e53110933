//! The decoder's configuration, Llama's or Qwen2's, inside LLaVA's.

use std::path::Path;

use fisao_models::llama::{DecoderFamily, LlamaConfig};
use serde::Deserialize;
use serde_json::Value;

use super::{positive, unsupported};
use crate::FormatError;

/// `eos_token_id` may list several tokens.
#[derive(Deserialize)]
#[serde(untagged)]
pub(in crate::checkpoint) enum TokenIds {
    One(u32),
    Several(Vec<u32>),
}

impl TokenIds {
    pub(in crate::checkpoint) fn to_vec(&self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![*id],
            Self::Several(ids) => ids.clone(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct RawLlama {
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
    #[serde(default)]
    use_sliding_window: bool,
    pub(super) bos_token_id: Option<u32>,
    pub(super) eos_token_id: Option<TokenIds>,
    pub(super) pad_token_id: Option<u32>,
}

/// What transformers' configuration class has for fields that are absent.
struct Defaults {
    family: DecoderFamily,
    vocab_size: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
}

/// `LlamaConfig`, which is Llama 1's 7B.
const LLAMA: Defaults = Defaults {
    family: DecoderFamily::Llama,
    vocab_size: 32000,
    intermediate_size: 11008,
    max_position_embeddings: 2048,
};

/// `Qwen2Config`.
const QWEN2: Defaults = Defaults {
    family: DecoderFamily::Qwen2,
    vocab_size: 151_936,
    intermediate_size: 22016,
    max_position_embeddings: 32768,
};

#[derive(Deserialize)]
struct RawRope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

impl RawLlama {
    pub(super) fn resolve(
        self,
        path: &Path,
        tied_above: Option<bool>,
    ) -> Result<LlamaConfig, FormatError> {
        let defaults = match self.model_type.as_deref() {
            None | Some("llama") => LLAMA,
            Some("qwen2") => QWEN2,
            Some(other) => {
                let field = "text_config.model_type";
                return Err(unsupported(path, field, &other, "llama or qwen2"));
            }
        };
        self.refuse_unsupported(path)?;
        let rope = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        let hidden_size = positive(path, "text_config.hidden_size", self.hidden_size, 4096)?;
        let heads =
            positive(path, "text_config.num_attention_heads", self.num_attention_heads, 32)?;
        let key_value_heads =
            positive(path, "text_config.num_key_value_heads", self.num_key_value_heads, heads)?;
        if heads % key_value_heads != 0 {
            let field = "text_config.num_key_value_heads";
            return Err(unsupported(path, field, &key_value_heads, "a divisor of the heads"));
        }
        let vocabulary = defaults.vocab_size;
        Ok(LlamaConfig {
            family: defaults.family,
            vocab_size: positive(path, "text_config.vocab_size", self.vocab_size, vocabulary)?,
            hidden_size,
            intermediate_size: positive(
                path,
                "text_config.intermediate_size",
                self.intermediate_size,
                defaults.intermediate_size,
            )?,
            num_hidden_layers: self.num_hidden_layers.unwrap_or(32),
            num_attention_heads: heads,
            num_key_value_heads: key_value_heads,
            head_dim: positive(path, "text_config.head_dim", self.head_dim, hidden_size / heads)?,
            max_position_embeddings: self
                .max_position_embeddings
                .unwrap_or(defaults.max_position_embeddings),
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: rope.or(self.rope_theta).unwrap_or(10000.0),
            tie_word_embeddings: self.tie_word_embeddings.or(tied_above).unwrap_or(false),
        })
    }
    /// Refuses what would make the decoder compute something else.
    fn refuse_unsupported(&self, path: &Path) -> Result<(), FormatError> {
        if let Some(act) = self.hidden_act.as_ref().filter(|act| *act != "silu") {
            return Err(unsupported(path, "text_config.hidden_act", act, "\"silu\""));
        }
        for (field, bias) in [
            ("text_config.attention_bias", self.attention_bias),
            ("text_config.mlp_bias", self.mlp_bias),
            ("text_config.use_sliding_window", self.use_sliding_window),
        ] {
            if bias {
                return Err(unsupported(path, field, &true, "false"));
            }
        }
        if let Some(scaling) = self.rope_scaling.as_ref().filter(|scaling| !scaling.is_null()) {
            let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
            if kind.and_then(Value::as_str) != Some("default") {
                return Err(unsupported(path, "text_config.rope_scaling", scaling, "null"));
            }
        }
        let kind = self.rope_parameters.as_ref().and_then(|rope| rope.rope_type.as_ref());
        if let Some(kind) = kind.filter(|kind| *kind != "default") {
            let field = "text_config.rope_parameters.rope_type";
            return Err(unsupported(path, field, kind, "\"default\""));
        }
        Ok(())
    }
}
