//! Models small enough to build in a test, in every layout a checkpoint can have.

use burn::tensor::{Device, TensorData};
use fisao_formats::checkpoint::{SpecialTokens, named_tensors};
use fisao_formats::tokenizer::HfTokenizer;
use fisao_models::activation::Activation;
use fisao_models::clip::{Clip, ClipConfig, ClipTextConfig};
use fisao_models::llama::{DecoderFamily, LlamaConfig, PositionScheme, RopeScaling};
use fisao_models::vision::{VisionConfig, VisionFamily};
use fisao_models::vision_language::TokenIds;
use fisao_models::vision_language::llava::{FeatureSelect, LlavaConfig};
use fisao_models::vision_language::{VisionLanguageConfig, VisionLanguageModel};
use fisao_models::weights::RandomWeights;
use serde_json::{Value, json};

pub(crate) fn vision() -> VisionConfig {
    VisionConfig {
        family: VisionFamily::Clip,
        hidden_size: 8,
        intermediate_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 28,
        patch_size: 14,
        layer_norm_eps: 1e-5,
        hidden_act: Activation::QuickGelu,
    }
}

pub(crate) fn llava_config() -> LlavaConfig {
    LlavaConfig {
        tiling: None,
        text: LlamaConfig {
            family: DecoderFamily::Llama,
            vocab_size: 24,
            hidden_size: 8,
            intermediate_size: 12,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 4,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-6,
            rope_theta: 10000.0,
            rope_scaling: RopeScaling::Default,
            sliding_window: None,
            positions: PositionScheme::Sequential,
            tie_word_embeddings: false,
        },
        vision: vision(),
        tokens: TokenIds { image: 20, bos: 1, eos: 2, stop: Vec::new(), pad: 0 },
        vision_feature_layer: -2,
        vision_feature_select_strategy: FeatureSelect::Default,
        projector_hidden_act: Activation::Gelu,
    }
}

pub(crate) fn clip_config() -> ClipConfig {
    ClipConfig {
        text: ClipTextConfig {
            vocab_size: 24,
            hidden_size: 8,
            intermediate_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            max_position_embeddings: 16,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::QuickGelu,
            bos_token_id: 1,
            eos_token_id: 2,
            pad_token_id: 0,
        },
        vision: vision(),
        projection_dim: 6,
        logit_scale_init_value: 2.6592,
    }
}

pub(crate) fn llava(seed: u64) -> VisionLanguageModel {
    VisionLanguageModel::load(llava_config(), &mut RandomWeights::new(seed), &Device::flex())
        .expect("random weights fit every shape")
}

pub(crate) fn clip(seed: u64) -> Clip {
    Clip::load(clip_config(), &mut RandomWeights::new(seed), &Device::flex())
        .expect("random weights fit every shape")
}

pub(crate) fn llava_tensors(seed: u64) -> Vec<(String, TensorData)> {
    named_tensors(&llava(seed))
}

/// A word-level tokenizer of the models' 24 ids.
pub(crate) fn tokenizer() -> HfTokenizer {
    let words = [
        "<unk>",
        "<s>",
        "</s>",
        "a",
        "the",
        "dog",
        "cat",
        "and",
        "on",
        "bench",
        ".",
        ",",
        "red",
        "two",
        "dogs",
        "is",
        "USER:",
        "ASSISTANT:",
        "Describe",
        "image",
    ];
    let vocab = words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), Value::from(id)));
    let added = |id: usize, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true })
    };
    let spec = json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 },
        "padding": null,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>"), added(20, "<image>")],
        "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } },
                       { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } },
                     { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [1], "tokens": ["<s>"] } } },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": Value::Object(vocab.collect()), "unk_token": "<unk>" },
    });
    HfTokenizer::from_json(&spec.to_string()).expect("a valid tokenizer.json")
}

pub(crate) fn special_tokens() -> SpecialTokens {
    SpecialTokens {
        bos: "<s>".to_owned(),
        eos: "</s>".to_owned(),
        pad: "<unk>".to_owned(),
        unk: "<unk>".to_owned(),
    }
}

/// The configuration of a LLaVA.
pub(crate) fn as_llava(config: &VisionLanguageConfig) -> &LlavaConfig {
    match config {
        VisionLanguageConfig::Llava(config) => config,
        other => panic!("not a LLaVA: {other:?}"),
    }
}
