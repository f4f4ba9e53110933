//! `config.json` in the spellings of both transformers generations, and what is refused in it.

use std::fs;

use fisao_formats::checkpoint::{ModelConfig, clip_config_json, llava_config_json};
use fisao_formats::{Checkpoint, FormatError, StoredDtype};
use fisao_models::activation::Activation;
use fisao_models::image::Resolution;
use fisao_models::llama::DecoderFamily;
use fisao_models::llava::FeatureSelect;
use fisao_models::vision::VisionFamily;
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
fn llava_1_5_as_published_gets_llamas_defaults() {
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
    let llava = checkpoint.llava_config().expect("a llava");
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
    assert_eq!((llava.vision.layer_norm_eps, llava.image_token_id), (1e-5, 32000));
    assert_eq!((llava.bos_token_id, llava.eos_token_id, llava.pad_token_id), (1, 2, 32001));
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
    let llava = checkpoint.llava_config().expect("a llava");
    assert_eq!((llava.image_token_id, llava.eos_token_id), (21, 7));
    assert_eq!(llava.vision_feature_select_strategy, FeatureSelect::Full);
    assert!((llava.text.rope_theta - 500_000.0).abs() < f64::EPSILON);
}

#[test]
fn clip_as_published_gets_its_defaults() {
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
fn siglip_as_published_gets_its_defaults() {
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
    let llava = checkpoint.llava_config().expect("a llava");
    assert_eq!(llava.text.family, DecoderFamily::Qwen2);
    assert_eq!((llava.text.head_dim, llava.text.max_position_embeddings), (64, 32768));
    assert!(llava.text.tie_word_embeddings);
    assert_eq!(llava.vision.family, VisionFamily::Siglip);
    assert_eq!(llava.tile_tokens(), 729);
    // What generation stops at is said in a file of its own.
    assert_eq!((llava.eos_token_id, &*llava.stop_token_ids), (151_645, &[151_643][..]));
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

#[test]
fn onevision_is_read_with_its_tiles() {
    let folder = tempdir().expect("a temporary folder");
    let checkpoint = open(&folder, &onevision()).expect("a published configuration");
    assert_eq!(checkpoint.config().model_type(), "llava_onevision");
    let llava = checkpoint.llava_config().expect("a llava").clone();
    assert!(llava.text.tie_word_embeddings);
    let tiling = llava.tiling.as_ref().expect("tiles");
    let sizes = [Resolution { height: 384, width: 768 }, Resolution { height: 768, width: 384 }];
    assert_eq!((&*tiling.resolutions, tiling.max_tiles), (&sizes[..], 9));
    assert_eq!((llava.tile_tokens(), llava.image_tokens((800, 400))), (729, 729 + 27 * 55));

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
    assert_eq!(checkpoint.llava_config().expect("a llava"), &llava);
    fields_of(&mut config).remove("image_grid_pinpoints");
    let checkpoint = open(&folder, &config).expect("defaults");
    let tiling = checkpoint.llava_config().expect("a llava").tiling.clone().expect("tiles");
    assert_eq!(tiling.resolutions.len(), 36);

    // Written by us, it reads back.
    let written = llava_config_json(&llava, StoredDtype::Bf16);
    let again = open(&folder, &written).expect("written by us");
    assert_eq!(again.llava_config().expect("a llava"), &llava);
}

fn fields_of(config: &mut Value) -> &mut serde_json::Map<String, Value> {
    config.as_object_mut().expect("an object")
}

#[test]
fn onevision_with_other_tiles_is_refused() {
    let refused = |field: &str, value: Value| {
        let folder = tempdir().expect("a temporary folder");
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
        assert!(message.contains("only anyres_max_N is supported"), "{message}");
    }
    let message = refused("vision_feature_select_strategy", json!("default"));
    assert!(message.contains("one token for each patch"), "{message}");
}

#[test]
fn unknown_model_types_name_the_supported_ones() {
    assert_eq!(
        refused(|config| config["model_type"] = json!("qwen2_vl")),
        "DIR/config.json describes a model of type `qwen2_vl`, which is not supported \
         (supported: llava, llava_onevision, clip, siglip)"
    );
    assert_eq!(refused(|config| *config = json!({})), "DIR/config.json has no field `model_type`");
}

#[test]
fn absent_fields_without_default_are_named() {
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
fn what_would_compute_something_else_is_refused() {
    let cases: [(&str, Value, &str); 15] = [
        ("/text_config/model_type", json!("mistral"), "text_config.model_type"),
        ("/vision_config/patch_size", json!(29), "vision_config.patch_size"),
        ("/text_config/hidden_act", json!("gelu"), "text_config.hidden_act"),
        ("/text_config/attention_bias", json!(true), "text_config.attention_bias"),
        ("/text_config/mlp_bias", json!(true), "text_config.mlp_bias"),
        ("/text_config/rope_scaling", json!({ "type": "linear", "factor": 2 }), "rope_scaling"),
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

#[test]
fn files_that_are_not_json_are_named() {
    let folder = tempdir().expect("a temporary folder");
    fs::write(folder.path().join("config.json"), "{\n \"model_type\": ").expect("writable");
    let said = message(Checkpoint::open(folder.path()), &folder);
    assert!(said.starts_with("DIR/config.json is not a valid model configuration"), "{said}");
    assert!(said.contains("line 2"), "{said}");
    let said = refused(|config| config["text_config"]["hidden_size"] = json!("wide"));
    assert!(said.contains("\"wide\"") && said.contains("usize"), "{said}");
}
