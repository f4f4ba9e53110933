//! `config.json` in the spellings of both transformers generations, and what is refused in it.

use std::fs;

use fisao_formats::FormatError;
use fisao_formats::checkpoint::{Checkpoint, ModelConfig, clip_config_json, llava_config_json};
use fisao_formats::weights::StoredDtype;
use fisao_models::activation::Activation;
use fisao_models::image::Resolution;
use fisao_models::llama::{DecoderFamily, RopeScaling};
use fisao_models::vision::VisionFamily;
use fisao_models::vision_language::FamilyConfig;
use fisao_models::vision_language::llava::{FeatureSelect, LlavaConfig};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::{message, tiny};

fn open(folder: &TempDir, config: &Value) -> Result<Checkpoint, FormatError> {
    fs::write(folder.path().join("config.json"), config.to_string()).expect("writable");
    Checkpoint::open(folder.path())
}

/// The message for the tiny LLaVA's configuration after `change`.
fn refused(change: impl FnOnce(&mut Value)) -> String {
    let folder = tempdir().expect("a temporary folder");
    let mut config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
    change(&mut config);
    message(open(&folder, &config), &folder)
}

#[test]
fn published_llava_1_5_config_gets_llama_defaults() {
    // llava-hf/llava-1.5-7b-hf's own fields: sizes of the decoder are absent.
    let config = json!({
        "architectures": ["LlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_token_index": 32000,
        "model_type": "llava",
        "pad_token_id": 32001,
        "projector_hidden_act": "gelu",
        "text_config": {
            "_name_or_path": "lmsys/vicuna-7b-v1.5",
            "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": 4096,
            "model_type": "llama",
            "rms_norm_eps": 1e-5,
            "torch_dtype": "float16",
            "vocab_size": 32064
        },
        "tie_word_embeddings": false,
        "torch_dtype": "float16",
        "vision_config": {
            "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096,
            "model_type": "clip_vision_model", "num_attention_heads": 16,
            "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
            "vocab_size": 32000
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "vocab_size": 32064
    });
    let folder = tempdir().expect("a temporary folder");
    let checkpoint = open(&folder, &config).expect("a published configuration");
    let llava = tiny::as_llava(checkpoint.vision_language_config().expect("a model"));
    // Vicuna-7B is Llama-7B, CLIP is ViT-L/14 at 336 px.
    assert_eq!(
        (llava.text.hidden_size, llava.text.intermediate_size, llava.text.num_hidden_layers),
        (4096, 11008, 32)
    );
    assert_eq!((llava.text.num_attention_heads, llava.text.num_key_value_heads), (32, 32));
    assert_eq!((llava.text.head_dim, llava.text.max_position_embeddings), (128, 4096));
    assert_eq!((llava.text.rope_theta, llava.text.rms_norm_eps), (10000.0, 1e-5));
    assert_eq!(llava.tile_tokens(), 576);
    assert_eq!(llava.vision.hidden_act, Activation::QuickGelu);
    assert_eq!((llava.vision.layer_norm_eps, llava.tokens.image), (1e-5, 32000));
    assert_eq!((llava.tokens.bos, llava.tokens.eos, llava.tokens.pad), (1, 2, 32001));
}

#[test]
fn fields_renamed_by_transformers_5_are_read() {
    let mut config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
    let fields = config.as_object_mut().expect("an object");
    fields.remove("image_token_index");
    fields.remove("torch_dtype");
    fields.insert("image_token_id".to_owned(), json!(21));
    fields.insert("dtype".to_owned(), json!("bfloat16"));
    fields["vision_feature_select_strategy"] = json!("full");
    let text = fields["text_config"].as_object_mut().expect("an object");
    text.remove("rope_theta");
    text.remove("rope_scaling");
    text.insert(
        "rope_parameters".to_owned(),
        json!({ "rope_theta": 500_000.0, "rope_type": "default" }),
    );
    text["eos_token_id"] = json!([7, 8]);
    let folder = tempdir().expect("a temporary folder");
    let checkpoint = open(&folder, &config).expect("a version 5 configuration");
    let llava = tiny::as_llava(checkpoint.vision_language_config().expect("a model"));
    assert_eq!((llava.tokens.image, llava.tokens.eos), (21, 7));
    assert_eq!(llava.vision_feature_select_strategy, FeatureSelect::Full);
    assert!((llava.text.rope_theta - 500_000.0).abs() < f64::EPSILON);
}

#[test]
fn published_clip_config_gets_clip_defaults() {
    let config = json!({
        "model_type": "clip", "projection_dim": 768,
        "text_config": { "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12 },
        "vision_config": { "hidden_size": 1024, "intermediate_size": 4096, "image_size": 336,
                           "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14 }
    });
    let folder = tempdir().expect("a temporary folder");
    let checkpoint = open(&folder, &config).expect("a published configuration");
    let clip = checkpoint.clip_config().expect("a clip");
    assert_eq!((clip.text.vocab_size, clip.text.max_position_embeddings), (49408, 77));
    assert_eq!((clip.text.num_hidden_layers, clip.projection_dim), (12, 768));
    assert_eq!((clip.text.bos_token_id, clip.text.eos_token_id), (49406, 49407));
    assert!((clip.logit_scale_init_value - 2.6592).abs() < 1e-12);
}

#[test]
fn published_siglip_config_gets_siglip_defaults() {
    let config = json!({
        "model_type": "siglip", "text_config": { "model_type": "siglip_text_model" },
        "vision_config": { "hidden_size": 1152, "image_size": 384, "intermediate_size": 4304,
                           "model_type": "siglip_vision_model", "num_attention_heads": 16,
                           "num_hidden_layers": 27, "patch_size": 14 }
    });
    let folder = tempdir().expect("a temporary folder");
    let checkpoint = open(&folder, &config).expect("a published configuration");
    let ModelConfig::Siglip(siglip) = checkpoint.config() else { panic!("it is a siglip") };
    assert_eq!((siglip.text.vocab_size, siglip.text.max_position_embeddings), (32000, 64));
    assert_eq!((siglip.text.projection_size, siglip.text.pad_token_id), (768, 1));
    assert_eq!(siglip.text.hidden_act, Activation::GeluTanh);
    assert_eq!((siglip.vision.positions(), siglip.vision.layer_norm_eps), (729, 1e-6));
}

#[test]
fn qwen2_decoders_with_siglip_towers_are_read() {
    let config = json!({
        "model_type": "llava", "image_token_index": 151_646, "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full", "projector_hidden_act": "gelu",
        "text_config": { "model_type": "qwen2", "hidden_size": 1024, "intermediate_size": 2816,
                         "num_attention_heads": 16, "num_hidden_layers": 24,
                         "num_key_value_heads": 16, "rope_theta": 1_000_000.0,
                         "sliding_window": 32768, "use_sliding_window": false,
                         "tie_word_embeddings": true, "vocab_size": 152_000 },
        "vision_config": { "hidden_size": 1152, "image_size": 384, "intermediate_size": 4304,
                           "model_type": "siglip_vision_model", "num_attention_heads": 16,
                           "num_hidden_layers": 26, "patch_size": 14, "vision_use_head": false }
    });
    let folder = tempdir().expect("a temporary folder");
    let generation = json!({ "eos_token_id": [151_645, 151_643] });
    fs::write(folder.path().join("generation_config.json"), generation.to_string())
        .expect("writable");
    let checkpoint = open(&folder, &config).expect("a published configuration");
    let llava = tiny::as_llava(checkpoint.vision_language_config().expect("a model"));
    assert_eq!(llava.text.family, DecoderFamily::Qwen2);
    assert_eq!((llava.text.head_dim, llava.text.max_position_embeddings), (64, 32768));
    assert!(llava.text.tie_word_embeddings);
    assert_eq!(llava.vision.family, VisionFamily::Siglip);
    assert_eq!(llava.tile_tokens(), 729);
    // What generation stops at is said in a file of its own.
    assert_eq!((llava.tokens.eos, &*llava.tokens.stop), (151_645, &[151_643][..]));
    assert_eq!(checkpoint.unheeded_generation().expect("readable"), [""; 0]);
    let generation = json!({
        "eos_token_id": 2, "temperature": 0.7, "repetition_penalty": 1.1, "no_repeat_ngram_size": 0,
        "num_beams": 1, "min_length": 0, "bad_words_ids": null, "suppress_tokens": [5]
    });
    fs::write(folder.path().join("generation_config.json"), generation.to_string())
        .expect("writable");
    assert_eq!(
        checkpoint.unheeded_generation().expect("readable"),
        ["repetition_penalty = 1.1", "suppress_tokens = [5]"]
    );
}

/// LLaVA-OneVision's smallest, as it is published but for two pinpoints instead of 36.
fn onevision() -> Value {
    json!({
        "model_type": "llava_onevision", "image_token_index": 151_646, "video_token_index": 151_647,
        "image_grid_pinpoints": [[384, 768], [768, 384]], "projector_hidden_act": "gelu",
        "tie_word_embeddings": false, "vision_aspect_ratio": "anyres_max_9",
        "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
        "text_config": { "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
                         "num_attention_heads": 14, "num_hidden_layers": 24,
                         "num_key_value_heads": 2, "rope_theta": 1_000_000.0,
                         "tie_word_embeddings": true, "vocab_size": 152_000 },
        "vision_config": { "hidden_size": 1152, "image_size": 384, "intermediate_size": 4304,
                           "model_type": "siglip_vision_model", "num_attention_heads": 16,
                           "num_hidden_layers": 26, "patch_size": 14, "vision_use_head": false }
    })
}

/// A folder with the file that names the tokens at which it stops.
fn with_generation() -> TempDir {
    let folder = tempdir().expect("a temporary folder");
    let generation = json!({ "eos_token_id": [151_645, 151_643] }).to_string();
    fs::write(folder.path().join("generation_config.json"), generation).expect("writable");
    folder
}

#[test]
fn onevision_config_is_read_with_its_tiling() {
    let folder = with_generation();
    let checkpoint = open(&folder, &onevision()).expect("a published configuration");
    assert_eq!(checkpoint.config().model_type(), "llava_onevision");
    let llava = tiny::as_llava(checkpoint.vision_language_config().expect("a model")).clone();
    assert!(llava.text.tie_word_embeddings);
    let tiling = llava.tiling.as_ref().expect("tiles");
    let sizes = [Resolution { height: 384, width: 768 }, Resolution { height: 768, width: 384 }];
    assert_eq!((&*tiling.resolutions, tiling.max_tiles), (&sizes[..], Some(9)));
    assert_eq!(
        (llava.tile_tokens(), FamilyConfig::image_tokens(&llava, (800, 400))),
        (729, 729 + 27 * 55)
    );

    // Everything but the sizes of the parts has a default.
    let mut config = onevision();
    let fields = config.as_object_mut().expect("an object");
    for field in [
        "image_token_index",
        "vision_aspect_ratio",
        "vision_feature_layer",
        "vision_feature_select_strategy",
        "projector_hidden_act",
        "tie_word_embeddings",
    ] {
        fields.remove(field);
    }
    let checkpoint = open(&folder, &config).expect("defaults");
    assert_eq!(tiny::as_llava(checkpoint.vision_language_config().expect("a model")), &llava);
    fields_of(&mut config).remove("image_grid_pinpoints");
    let checkpoint = open(&folder, &config).expect("defaults");
    let tiling = tiny::as_llava(checkpoint.vision_language_config().expect("a model"))
        .tiling
        .clone()
        .expect("tiles");
    assert_eq!(tiling.resolutions.len(), 36);

    // Written by us, it reads back.
    let written = llava_config_json(&llava, StoredDtype::Bf16);
    let again = open(&folder, &written).expect("written by us");
    assert_eq!(tiny::as_llava(again.vision_language_config().expect("a model")), &llava);
}

fn fields_of(config: &mut Value) -> &mut serde_json::Map<String, Value> {
    config.as_object_mut().expect("an object")
}

#[test]
fn onevision_with_unsupported_tiling_is_rejected() {
    let refused = |field: &str, value: Value| {
        let folder = with_generation();
        let mut config = onevision();
        config[field] = value;
        message(open(&folder, &config), &folder)
    };
    assert_eq!(
        refused("image_grid_pinpoints", json!([[384, 384], [384, 500]])),
        "DIR/config.json: `image_grid_pinpoints` is [384, 500], but only a multiple of the tile's \
         size is supported"
    );
    for (value, said) in [
        (json!([]), "a list of at least one"),
        (json!("large"), "a list of [height, width]"),
        (json!([[384]]), "a list of [height, width]"),
        (json!([[384, 0]]), "a multiple of the tile's size"),
        (json!([[38_400, 38_400]]), "up to 1024 tiles"),
    ] {
        let message = refused("image_grid_pinpoints", value);
        assert!(message.contains("`image_grid_pinpoints` is ") && message.contains(said));
    }
    for value in ["anyres", "anyres_max_0", "anyres_max_", "pad"] {
        let message = refused("vision_aspect_ratio", json!(value));
        assert!(message.contains("only anyres_max_N, N from 1 to 1024, is supported"), "{message}");
    }
    let message = refused("vision_feature_select_strategy", json!("default"));
    assert!(message.contains("one token for each patch"), "{message}");
}

/// LLaVA-NeXT with a Mistral decoder, as it is published.
fn next() -> Value {
    json!({
        "architectures": ["LlavaNextForConditionalGeneration"], "ignore_index": -100,
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "image_seq_length": 576, "image_token_index": 32000, "model_type": "llava_next",
        "projector_hidden_act": "gelu", "tie_word_embeddings": false, "torch_dtype": "float16",
        "text_config": {
            "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2",
            "architectures": ["MistralForCausalLM"], "intermediate_size": 14336,
            "max_position_embeddings": 32768, "model_type": "mistral", "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0, "sliding_window": null,
            "torch_dtype": "bfloat16", "vocab_size": 32064
        },
        "use_image_newline_parameter": true,
        "vision_config": {
            "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096,
            "model_type": "clip_vision_model", "num_attention_heads": 16,
            "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768, "vocab_size": 32000
        },
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064
    })
}

fn llava_of(config: &Value) -> LlavaConfig {
    let folder = tempdir().expect("a temporary folder");
    let checkpoint = open(&folder, config).expect("a configuration");
    tiny::as_llava(checkpoint.vision_language_config().expect("a model")).clone()
}

#[test]
fn llava_next_is_read_with_its_tiles_and_decoder() {
    let llava = llava_of(&next());
    assert_eq!(llava.model_type(), "llava_next");
    let text = &llava.text;
    assert_eq!((text.family, text.sliding_window), (DecoderFamily::Mistral, None));
    assert_eq!((text.num_attention_heads, text.num_key_value_heads), (32, 8));
    assert_eq!((text.rope_theta, text.rms_norm_eps), (1_000_000.0, 1e-5));
    assert_eq!((llava.tokens.image, llava.tokens.eos, llava.tokens.bos), (32000, 2, 1));
    assert_eq!((llava.tile_tokens(), llava.vision_feature_layer), (576, -2));
    assert_eq!(llava.image_tokens((640, 480)), 2340);
    assert_eq!(
        llava.image_description(),
        "576 image tokens of layer -2 and those of up to 4 tiles"
    );

    // Everything but the sizes of the parts has a default.
    let mut config = next();
    for field in [
        "image_grid_pinpoints",
        "image_token_index",
        "projector_hidden_act",
        "tie_word_embeddings",
        "vision_feature_layer",
        "vision_feature_select_strategy",
    ] {
        fields_of(&mut config).remove(field);
    }
    assert_eq!(llava_of(&config), llava);
    // Written by us, it reads back.
    assert_eq!(llava_of(&llava_config_json(&llava, StoredDtype::Bf16)), llava);
}

#[test]
fn llava_next_with_other_tiles_is_refused() {
    let refused = |field: &str, value: Value| {
        let folder = tempdir().expect("a temporary folder");
        let mut config = next();
        config[field] = value;
        message(open(&folder, &config), &folder)
    };
    assert_eq!(
        refused("image_grid_pinpoints", json!([[336, 672], [336, 700]])),
        "DIR/config.json: `image_grid_pinpoints` is [336, 700], but only a multiple of the tile's \
         size is supported"
    );
    let message = refused("image_grid_pinpoints", json!([]));
    assert!(message.contains("a list of at least one [height, width]"), "{message}");
    let message = refused("vision_feature_select_strategy", json!("full"));
    assert!(message.contains("one token for each patch"), "{message}");
    // Without the parts it is not taken for a checkpoint of the original repository.
    let message = refused("text_config", Value::Null);
    assert_eq!(message, "DIR/config.json has no field `text_config`");
}

#[test]
fn mistral_has_defaults_of_its_own() {
    let mut config = next();
    let text = fields_of(&mut config["text_config"]);
    for field in
        ["intermediate_size", "max_position_embeddings", "num_key_value_heads", "sliding_window"]
    {
        text.remove(field).expect("a field");
    }
    let text = llava_of(&config).text;
    assert_eq!((text.intermediate_size, text.max_position_embeddings), (14336, 131_072));
    assert_eq!((text.num_key_value_heads, text.sliding_window), (8, Some(4096)));
    assert_eq!(llava_of(&llava_config_json(&llava_of(&config), StoredDtype::F32)).text, text);
    // A null says something else than nothing.
    config["text_config"]["num_key_value_heads"] = Value::Null;
    config["text_config"]["sliding_window"] = json!(16);
    let text = llava_of(&config).text;
    assert_eq!((text.num_key_value_heads, text.sliding_window), (32, Some(16)));
    // Llama has no window, whatever is said.
    config["text_config"]["model_type"] = json!("llama");
    assert_eq!(llava_of(&config).text.sliding_window, None);
}

#[test]
fn rotary_scaling_is_read_in_both_spellings() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let blended = json!({ "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 8192 });
    let cases = [
        ("default", json!({}), RopeScaling::Default),
        ("linear", json!({ "factor": 4 }), RopeScaling::Linear { factor: 4.0 }),
        ("dynamic", json!({ "factor": 2.5 }), RopeScaling::Dynamic { factor: 2.5 }),
        ("llama3", blended, llama3),
    ];
    for (kind, fields, expected) in cases {
        for (object, key) in [
            ("rope_scaling", "type"),
            ("rope_scaling", "rope_type"),
            ("rope_parameters", "rope_type"),
        ] {
            let mut config = next();
            let mut scaling = fields.clone();
            scaling[key] = kind.into();
            config["text_config"][object] = scaling;
            let llava = llava_of(&config);
            assert_eq!(llava.text.rope_scaling, expected, "{kind} by {object}.{key}");
            assert!((llava.text.rope_theta - 1e6).abs() < f64::EPSILON);
            assert_eq!(llava_of(&llava_config_json(&llava, StoredDtype::F32)), llava);
        }
    }
    // The original context is the context where it is not said.
    let mut config = next();
    config["text_config"]["rope_parameters"] = json!({ "rope_type": "llama3", "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 5e5 });
    let text = llava_of(&config).text;
    assert!(
        matches!(
            text.rope_scaling,
            RopeScaling::Llama3 { original_max_position_embeddings: 32768, .. }
        ),
        "{text:?}"
    );
}

#[test]
fn rotary_scaling_without_its_numbers_is_refused() {
    let refused = |scaling: Value| refused(|c| c["text_config"]["rope_parameters"] = scaling);
    let missing = [
        (json!({ "rope_type": "linear" }), "factor"),
        (json!({ "rope_type": "dynamic", "factor": null }), "factor"),
        (json!({ "rope_type": "llama3", "factor": 8.0 }), "low_freq_factor"),
    ];
    for (scaling, field) in missing {
        let expected =
            format!("DIR/config.json has no field `text_config.rope_parameters.{field}`");
        assert_eq!(refused(scaling), expected);
    }
    let wrong = [
        (json!({ "rope_type": "yarn" }), "rope_type"),
        (json!({ "rope_type": 3 }), "rope_type"),
        (json!({ "rope_type": "linear", "factor": 0.5 }), "factor"),
        (json!({ "rope_type": "linear", "factor": "2" }), "factor"),
        (
            json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
                    "high_freq_factor": 4.0 }),
            "high_freq_factor",
        ),
        (
            json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0, "original_max_position_embeddings": 0 }),
            "original_max_position_embeddings",
        ),
    ];
    for (scaling, field) in wrong {
        let said = refused(scaling);
        let expected = format!("DIR/config.json: `text_config.rope_parameters.{field}` is ");
        assert!(said.starts_with(&expected) && said.ends_with(" is supported"), "{said}");
    }
}

#[test]
fn unknown_model_type_error_lists_the_supported_ones() {
    assert_eq!(
        refused(|config| config["model_type"] = json!("qwen2_vl")),
        "DIR/config.json describes a model of type `qwen2_vl`, which is not supported \
         (supported: llava, llava_next, llava_onevision, instructblip, smolvlm, qwen2_5_vl, qwen3_vl, blip-2, clip, siglip)"
    );
    assert_eq!(refused(|config| *config = json!({})), "DIR/config.json has no field `model_type`");
}

#[test]
fn missing_required_fields_are_reported_by_name() {
    for field in ["text_config", "vision_config", "image_token_index"] {
        let said = refused(|config| {
            config.as_object_mut().expect("an object").remove(field);
        });
        assert_eq!(said, format!("DIR/config.json has no field `{field}`"));
    }
    let folder = tempdir().expect("a temporary folder");
    let mut config = clip_config_json(&tiny::clip_config(), StoredDtype::F32);
    config.as_object_mut().expect("an object").remove("text_config");
    assert_eq!(
        message(open(&folder, &config), &folder),
        "DIR/config.json has no field `text_config`"
    );
}

#[test]
fn unsupported_architecture_settings_are_rejected() {
    let cases: [(&str, Value, &str); 15] = [
        ("/text_config/model_type", json!("gemma"), "text_config.model_type"),
        ("/vision_config/patch_size", json!(29), "vision_config.patch_size"),
        ("/text_config/hidden_act", json!("gelu"), "text_config.hidden_act"),
        ("/text_config/attention_bias", json!(true), "text_config.attention_bias"),
        ("/text_config/mlp_bias", json!(true), "text_config.mlp_bias"),
        ("/text_config/rope_scaling", json!({ "type": "yarn", "factor": 2 }), "rope_scaling.type"),
        ("/text_config/num_key_value_heads", json!(3), "text_config.num_key_value_heads"),
        ("/text_config/num_attention_heads", json!(0), "text_config.num_attention_heads"),
        ("/vision_config/model_type", json!("dinov2"), "vision_config.model_type"),
        ("/vision_config/hidden_act", json!("relu"), "vision_config.hidden_act"),
        ("/vision_config/patch_size", json!(0), "vision_config.patch_size"),
        ("/vision_feature_layer", json!([-2, -5]), "vision_feature_layer"),
        ("/vision_feature_layer", json!(-9), "vision_feature_layer"),
        ("/vision_feature_select_strategy", json!("cls"), "vision_feature_select_strategy"),
        ("/multimodal_projector_bias", json!(false), "multimodal_projector_bias"),
    ];
    for (pointer, value, field) in cases {
        let said = refused(|config| *config.pointer_mut(pointer).expect("a field") = value);
        assert!(said.contains(field) && said.contains("is supported"), "{pointer}: {said}");
    }
}

/// What a whole number may not be.
fn no_whole_numbers() -> Vec<Value> {
    vec![
        json!(0),
        json!(-1),
        json!(1.5),
        json!("8"),
        json!([8]),
        json!(true),
        json!(1_u64 << 60),
        json!(u64::MAX),
    ]
}

/// Every setting that is read, by what is no value of it: the same kind of message for all of them, at the time of reading.
#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn invalid_model_settings_are_rejected_by_key() {
    let sizes = |part: &'static str,
                 keys: &[&'static str]|
     -> Vec<(&'static str, &'static str, Vec<Value>)> {
        keys.iter().map(|&key| (part, key, no_whole_numbers())).collect()
    };
    let widths = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"];
    let epsilons =
        vec![json!(0), json!(-1e-6), json!(1e300), json!(1e-300), json!("1e-6"), json!([])];
    let ids = vec![json!(24), json!(4_294_967_296_u64), json!(-2), json!(0.5), json!("2")];
    let image = ["image_size", "patch_size"];
    let mut llava = [
        sizes("text_config", &widths),
        sizes(
            "text_config",
            &["vocab_size", "num_key_value_heads", "head_dim", "max_position_embeddings"],
        ),
        sizes("vision_config", &widths),
        sizes("vision_config", &image),
    ]
    .concat();
    llava.extend([
        ("text_config", "head_dim", vec![json!(3), json!(8194)]),
        ("text_config", "num_key_value_heads", vec![json!(4)]),
        (
            "text_config",
            "rope_theta",
            vec![json!(0), json!(-1.0), json!(0.5), json!(1e300), json!("x")],
        ),
        ("text_config", "rms_norm_eps", epsilons.clone()),
        ("text_config", "bos_token_id", ids.clone()),
        ("text_config", "eos_token_id", [ids.clone(), vec![json!([2, 24]), json!([[2]])]].concat()),
        ("text_config", "pad_token_id", ids.clone()),
        ("text_config", "tie_word_embeddings", vec![json!(1), json!("yes")]),
        ("text_config", "model_type", vec![json!(3), json!("gemma")]),
        ("vision_config", "layer_norm_eps", epsilons.clone()),
        ("vision_config", "num_channels", vec![json!(1), json!("3")]),
        ("vision_config", "hidden_size", vec![json!(9)]),
        ("", "image_token_index", ids.clone()),
        ("", "pad_token_id", ids.clone()),
        (
            "",
            "vision_feature_layer",
            vec![json!([-2, -1]), json!([]), json!(9), json!(-2.5), json!(i64::MIN)],
        ),
        ("", "projector_hidden_act", vec![json!(1), json!("relu")]),
        ("", "multimodal_projector_bias", vec![json!(false), json!("no")]),
        ("", "text_config", vec![json!([]), json!("llama")]),
    ]);
    let mut clip = [sizes("text_config", &widths), sizes("vision_config", &widths)].concat();
    clip.extend(sizes("text_config", &["vocab_size", "max_position_embeddings"]));
    clip.extend(sizes("vision_config", &image));
    clip.extend(sizes("", &["projection_dim"]));
    clip.extend([
        ("text_config", "layer_norm_eps", epsilons.clone()),
        ("text_config", "bos_token_id", ids.clone()),
        ("text_config", "eos_token_id", ids.clone()),
        ("text_config", "pad_token_id", ids.clone()),
        ("text_config", "hidden_act", vec![json!({}), json!("swish")]),
        ("", "logit_scale_init_value", vec![json!(100), json!("x")]),
    ]);
    let mut siglip = [sizes("text_config", &widths), sizes("vision_config", &widths)].concat();
    siglip.extend(sizes(
        "text_config",
        &["vocab_size", "projection_size", "max_position_embeddings"],
    ));
    siglip.extend([
        ("text_config", "pad_token_id", ids),
        ("text_config", "layer_norm_eps", epsilons),
    ]);
    let whole_siglip = json!({
        "model_type": "siglip",
        "text_config": { "model_type": "siglip_text_model", "vocab_size": 24 },
        "vision_config": { "model_type": "siglip_vision_model" },
    });
    let families = [
        (llava_config_json(&tiny::llava_config(), StoredDtype::F32), llava),
        (clip_config_json(&tiny::clip_config(), StoredDtype::F32), clip),
        (whole_siglip, siglip),
    ];
    let folder = tempdir().expect("a temporary folder");
    for (config, cases) in families {
        open(&folder, &config).expect("the configuration itself is sound");
        for (part, key, values) in cases {
            for value in values {
                let mut config = config.clone();
                let fields = if part.is_empty() { &mut config } else { &mut config[part] };
                fields[key] = value.clone();
                let said = message(open(&folder, &config), &folder);
                let place = if part.is_empty() { key.to_owned() } else { format!("{part}.{key}") };
                // Another key may be the one that is at fault, where two have to fit each other.
                assert!(
                    said.starts_with("DIR/config.json: `") && said.ends_with(" is supported"),
                    "{place} = {value}: {said}"
                );
                assert!(
                    said.contains(&place) || said.contains("_heads"),
                    "{place} = {value}: {said}"
                );
                assert!(!said.contains("Number(") && said.len() < 300, "{said}");
            }
        }
    }
}

#[test]
fn oversized_configuration_file_is_rejected() {
    let folder = tempdir().expect("a temporary folder");
    let mut config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
    config["id2label"] = json!(vec![0; 400_000]);
    let said = message(open(&folder, &config), &folder);
    assert!(said.contains("bytes long, and at most 524288 are read"), "{said}");
    config["id2label"] = json!(vec![0; 100_000]);
    open(&folder, &config).expect("long, and still settings");
}

#[test]
fn non_finite_setting_is_reported_by_key() {
    let folder = tempdir().expect("a temporary folder");
    let config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
    let config = serde_json::to_string_pretty(&config).expect("JSON");
    for word in ["NaN", "Infinity", "-Infinity"] {
        let changed = config.replace("\"rope_theta\": 10000.0", &format!("\"rope_theta\": {word}"));
        fs::write(folder.path().join("config.json"), changed).expect("writable");
        let said = message(Checkpoint::open(folder.path()), &folder);
        let expected = format!("`rope_theta` is {word}, which is not a number in JSON (line ");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn token_id_minus_one_means_none() {
    let folder = tempdir().expect("a temporary folder");
    let mut config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
    config["pad_token_id"] = json!(-1);
    config["text_config"]["pad_token_id"] = json!(-1);
    config["text_config"]["eos_token_id"] = json!(-1);
    config["eos_token_id"] = json!([-1, 3, 4]);
    let checkpoint = open(&folder, &config).expect("it is read elsewhere");
    let llava = tiny::as_llava(checkpoint.vision_language_config().expect("a model"));
    assert_eq!((llava.tokens.pad, llava.tokens.eos, &*llava.tokens.stop), (3, 3, &[4][..]));

    let generation = json!({ "eos_token_id": -1, "pad_token_id": -1 });
    let file = folder.path().join("generation_config.json");
    fs::write(&file, generation.to_string()).expect("writable");
    let checkpoint = open(&folder, &config).expect("it is read elsewhere");
    assert_eq!(tiny::as_llava(checkpoint.vision_language_config().expect("a model")).tokens.eos, 3);
    for wrong in [json!({ "eos_token_id": 99 }), json!({ "eos_token_id": [2, "x"] }), json!([1])] {
        fs::write(&file, wrong.to_string()).expect("writable");
        let said = message(open(&folder, &config), &folder);
        assert!(
            said.starts_with("DIR/generation_config.json") && !said.contains("untagged"),
            "{said}"
        );
    }
}

/// Llama's configuration class has a default for the end of a response, and Qwen2's has none.
#[test]
fn qwen2_without_eos_token_id_uses_the_tokenizers_eos_token() {
    let mut config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
    config["text_config"].as_object_mut().expect("an object").remove("eos_token_id");
    let ends = |folder: &TempDir, config: &Value| {
        open(folder, config).map(|checkpoint| {
            let llava = tiny::as_llava(checkpoint.vision_language_config().expect("a model"));
            (llava.tokens.eos, llava.tokens.stop.clone())
        })
    };
    let folder = tempdir().expect("a temporary folder");
    assert_eq!(ends(&folder, &config).expect("Llama's default"), (2, vec![]));
    config["text_config"]["model_type"] = json!("qwen2");
    assert_eq!(
        message(ends(&folder, &config), &folder),
        "DIR does not say where a response ends: neither config.json nor generation_config.json has `eos_token_id`, for which \
         a qwen2 decoder has no default, and tokenizer_config.json names no `eos_token` either"
    );
    let write = |name: &str, content: Value| {
        fs::write(folder.path().join(name), content.to_string()).expect("writable");
    };
    write("tokenizer_config.json", json!({ "eos_token": { "content": "<|im_end|>" } }));
    let model = |vocab: Value| json!({ "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" } });
    write("tokenizer.json", model(json!({ "<unk>": 0, "<|im_end|>": 5 })));
    assert_eq!(ends(&folder, &config).expect("the tokenizer's"), (5, vec![]));
    for (vocab, said) in [
        (json!({ "<unk>": 0 }), "is <|im_end|>, which tokenizer.json does not have"),
        (json!({ "<unk>": 0, "<|im_end|>": 900 }), "is <|im_end|>, whose id 900 is not below"),
    ] {
        write("tokenizer.json", model(vocab));
        let told = message(ends(&folder, &config), &folder);
        assert!(told.contains(said), "{told}");
    }
    fs::remove_file(folder.path().join("tokenizer.json")).expect("it is there");
    write("generation_config.json", json!({ "eos_token_id": [4, 3] }));
    assert_eq!(ends(&folder, &config).expect("generation's"), (4, vec![3]));
}

#[test]
fn both_image_token_keys_are_accepted_if_equal() {
    let folder = tempdir().expect("a temporary folder");
    let mut config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
    config["image_token_id"] = json!(20);
    let checkpoint = open(&folder, &config).expect("they agree");
    assert_eq!(
        tiny::as_llava(checkpoint.vision_language_config().expect("a model")).tokens.image,
        20
    );
    config["image_token_id"] = json!(21);
    assert_eq!(
        message(open(&folder, &config), &folder),
        "DIR/config.json: `image_token_id` is 21, while `image_token_index` is 20, but only the same \
         id under both names is supported"
    );
}

#[test]
fn feature_layer_may_be_a_list_of_one() {
    let folder = tempdir().expect("a temporary folder");
    let mut config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
    config["vision_feature_layer"] = json!([-2]);
    let checkpoint = open(&folder, &config).expect("one layer");
    assert_eq!(
        tiny::as_llava(checkpoint.vision_language_config().expect("a model")).vision_feature_layer,
        -2
    );
    config["vision_feature_layer"] = json!([-2, -5]);
    assert_eq!(
        message(open(&folder, &config), &folder),
        "DIR/config.json: `vision_feature_layer` is [-2,-5], but only the index of one layer is \
         supported"
    );
}

#[test]
fn embeddings_are_tied_if_set_at_either_level() {
    let folder = tempdir().expect("a temporary folder");
    for (top, text, tied) in [
        (json!(true), json!(false), true),
        (json!(false), json!(true), true),
        (json!(true), json!(null), true),
        (json!(null), json!(true), true),
        (json!(false), json!(false), false),
        (json!(null), json!(null), false),
    ] {
        let mut config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
        config["tie_word_embeddings"] = top;
        config["text_config"]["tie_word_embeddings"] = text;
        let checkpoint = open(&folder, &config).expect("a sound configuration");
        assert_eq!(
            tiny::as_llava(checkpoint.vision_language_config().expect("a model"))
                .text
                .tie_word_embeddings,
            tied
        );
    }
}

/// Message and hint about a configuration.
fn refusal(config: &Value) -> String {
    let folder = tempdir().expect("a temporary folder");
    let error = open(&folder, config).expect_err("this configuration has to be refused");
    let text = format!("{error}\nhint: {}", error.hint().expect("a hint"));
    text.replace(&folder.path().display().to_string(), "DIR")
}

#[test]
fn quantised_checkpoints_are_rejected_with_their_method() {
    let settings = [
        (json!({ "quant_method": "bitsandbytes", "load_in_4bit": true }), "bitsandbytes to 4 bits"),
        (json!({ "quant_method": "bitsandbytes", "load_in_8bit": true }), "bitsandbytes to 8 bits"),
        (json!({ "quant_method": "gptq", "bits": 4, "group_size": 128 }), "GPTQ to 4 bits"),
        (json!({ "quant_method": "awq", "bits": 4 }), "AWQ to 4 bits"),
        (json!({ "quant_method": "fp8", "activation_scheme": "dynamic" }), "FP8"),
        (
            json!({ "quant_method": "compressed-tensors", "config_groups": { "group_0": { "weights": { "num_bits": 8 } } } }),
            "compressed-tensors to 8 bits",
        ),
        (json!({}), "a method that is not named"),
    ];
    for (settings, by) in settings {
        for place in ["", "/text_config"] {
            let mut config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
            config.pointer_mut(place).expect("an object")["quantization_config"] = settings.clone();
            let said = refusal(&config);
            let expected =
                format!("DIR/config.json describes weights that are quantised by {by}, but only");
            assert!(
                said.starts_with(&expected) && said.contains("\nhint: take the checkpoint"),
                "{said}"
            );
        }
    }
    let folder = tempdir().expect("a temporary folder");
    let mut config = clip_config_json(&tiny::clip_config(), StoredDtype::F32);
    config["quantization_config"] = Value::Null;
    open(&folder, &config).expect("it is not quantised");
}

#[test]
fn original_llava_checkpoint_hint_names_its_conversion() {
    let config = json!({
        "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava", "hidden_size": 5120,
        "mm_hidden_size": 1024, "mm_vision_tower": "openai/clip-vit-large-patch14-336"
    });
    let said = refusal(&config);
    assert!(said.starts_with("DIR/config.json is the configuration of the original LLaVA repository (LlavaLlamaForCausalLM)"), "{said}");
    assert!(said.contains("llava-hf/llava-1.5-13b-hf"), "{said}");
    for kind in ["llava_llama", "llava_qwen"] {
        let said = refusal(&json!({ "model_type": kind, "hidden_size": 4096 }));
        assert!(said.contains("llava-hf/llava-1.5-7b-hf"), "{said}");
    }
    // LLaVA 1.6, whose images are in tiles.
    for (class, width, conversion) in [
        ("LlavaMistralForCausalLM", 4096, "llava-v1.6-mistral-7b-hf"),
        ("LlavaLlamaForCausalLM", 4096, "llava-v1.6-vicuna-7b-hf"),
        ("LlavaLlamaForCausalLM", 5120, "llava-v1.6-vicuna-13b-hf"),
        ("LlavaLlamaForCausalLM", 7168, "llava-v1.6-34b-hf"),
    ] {
        let said = refusal(&json!({
            "architectures": [class], "model_type": "llava", "hidden_size": width,
            "image_aspect_ratio": "anyres", "mm_vision_tower": "openai/clip-vit-large-patch14-336"
        }));
        assert!(said.contains(conversion), "{said}");
    }
}

#[test]
fn invalid_json_and_wrong_types_are_reported() {
    let folder = tempdir().expect("a temporary folder");
    fs::write(folder.path().join("config.json"), "{\n \"model_type\": ").expect("writable");
    let said = message(Checkpoint::open(folder.path()), &folder);
    assert!(said.starts_with("DIR/config.json is not a valid model configuration"), "{said}");
    assert!(said.contains("line 2"), "{said}");
    let said = refused(|config| config["text_config"]["hidden_size"] = json!("wide"));
    assert!(
        said.contains("`text_config.hidden_size` is \"wide\", but only a whole number"),
        "{said}"
    );
}
