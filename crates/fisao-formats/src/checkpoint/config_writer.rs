//! `config.json` as transformers writes it, readable by versions 4 and 5 alike: the field names of
//! version 4, which 5 still reads, with everything spelled out that either leaves to defaults.

use fisao_models::clip::{ClipConfig, ClipTextConfig};
use fisao_models::llama::{DecoderFamily, LlamaConfig, RopeScaling};
use fisao_models::vision::{VisionConfig, VisionFamily};
use fisao_models::vision_language::FamilyConfig as _;
use fisao_models::vision_language::llava::{FeatureSelect, LlavaConfig, TilingConfig};
use serde_json::{Value, json};

use crate::processor::{GRID_PINPOINTS, pinpoints_json};
use crate::weights::StoredDtype;

/// The `config.json` of a LLaVA checkpoint.
pub fn llava_config_json(config: &LlavaConfig, dtype: StoredDtype) -> Value {
    let strategy = match config.vision_feature_select_strategy {
        FeatureSelect::Default => "default",
        FeatureSelect::Full => "full",
    };
    let mut text = llama(&config.text);
    text["bos_token_id"] = config.tokens.bos.into();
    text["eos_token_id"] = end_tokens(config);
    text["pad_token_id"] = config.tokens.pad.into();
    text["torch_dtype"] = dtype.torch_name().into();
    let mut written = json!({
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": config.tokens.image,
        "vision_feature_layer": config.vision_feature_layer,
        "vision_feature_select_strategy": strategy,
        "projector_hidden_act": config.projector_hidden_act,
        "multimodal_projector_bias": true,
        "pad_token_id": config.tokens.pad,
        "tie_word_embeddings": config.text.tie_word_embeddings,
        "torch_dtype": dtype.torch_name(),
        "text_config": text,
        "vision_config": vision(&config.vision),
    });
    match &config.tiling {
        None => written["image_seq_length"] = config.tile_tokens().into(),
        Some(TilingConfig { resolutions, max_tiles }) => {
            let class = match max_tiles {
                None => "LlavaNextForConditionalGeneration",
                Some(tiles) => {
                    written["vision_aspect_ratio"] = format!("anyres_max_{tiles}").into();
                    "LlavaOnevisionForConditionalGeneration"
                }
            };
            written["architectures"] = json!([class]);
            written["model_type"] = config.model_type().into();
            written[GRID_PINPOINTS] = pinpoints_json(resolutions);
        }
    }
    written
}

/// The `config.json` of a CLIP checkpoint.
pub fn clip_config_json(config: &ClipConfig, dtype: StoredDtype) -> Value {
    let mut text = clip_text(&config.text);
    text["projection_dim"] = config.projection_dim.into();
    let mut vision = vision(&config.vision);
    vision["projection_dim"] = config.projection_dim.into();
    json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.projection_dim,
        "logit_scale_init_value": config.logit_scale_init_value,
        "initializer_factor": 1.0,
        "torch_dtype": dtype.torch_name(),
        "text_config": text,
        "vision_config": vision,
    })
}

/// The `generation_config.json` of a LLaVA checkpoint.
pub(super) fn generation_config_json(config: &LlavaConfig) -> Value {
    json!({
        "bos_token_id": config.tokens.bos,
        "eos_token_id": end_tokens(config),
        "pad_token_id": config.tokens.pad,
    })
}

/// One id, or a list where several end a response.
fn end_tokens(config: &LlavaConfig) -> Value {
    if config.tokens.stop.is_empty() {
        return config.tokens.eos.into();
    }
    let ids = std::iter::once(&config.tokens.eos).chain(&config.tokens.stop);
    ids.copied().collect()
}

fn llama(config: &LlamaConfig) -> Value {
    let class = match config.family {
        DecoderFamily::Llama => "LlamaForCausalLM",
        DecoderFamily::Qwen2 => "Qwen2ForCausalLM",
        DecoderFamily::Mistral => "MistralForCausalLM",
        DecoderFamily::Qwen3 => "Qwen3ForCausalLM",
    };
    let scaling = match config.rope_scaling {
        RopeScaling::Default => Value::Null,
        scaling => json!(scaling),
    };
    let mut written = json!({
        "model_type": config.family.name(),
        "architectures": [class],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_cache": true,
    });
    if config.family == DecoderFamily::Mistral {
        // Absent, it would be that of the class.
        written["sliding_window"] = json!(config.sliding_window);
    }
    written
}

fn vision(config: &VisionConfig) -> Value {
    let kind = match config.family {
        VisionFamily::Clip => "clip_vision_model",
        VisionFamily::Siglip => "siglip_vision_model",
        VisionFamily::Eva => "instructblip_vision_model",
    };
    json!({
        "model_type": kind,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_channels": 3,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": config.hidden_act,
        "attention_dropout": 0.0,
    })
}

fn clip_text(config: &ClipTextConfig) -> Value {
    json!({
        "model_type": "clip_text_model",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "max_position_embeddings": config.max_position_embeddings,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": config.hidden_act,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "attention_dropout": 0.0,
    })
}
