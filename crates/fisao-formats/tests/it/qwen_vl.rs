//! Qwen2.5-VL's and Qwen3-VL's configurations as published, and what is refused in them.

use std::fs;

use fisao_formats::FormatError;
use fisao_formats::chat_template::ChatTemplate;
use fisao_formats::checkpoint::Checkpoint;
use fisao_models::image::{PixelBudget, Resize};
use fisao_models::llama::{DecoderFamily, PositionScheme};
use fisao_models::vision_language::FamilyConfig as _;
use fisao_models::vision_language::VisionLanguageConfig;
use fisao_models::vision_language::qwen_vl::{QwenGeneration, QwenVlConfig};
use serde_json::{Map, Value, json};
use tempfile::{TempDir, tempdir};

use crate::message;

/// Qwen/Qwen2.5-VL-3B-Instruct's first release, where the decoder's settings stand beside the others.
fn older() -> [Value; 2] {
    let config = json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "attention_dropout": 0.0,
        "bos_token_id": 151_643, "eos_token_id": 151_645, "vision_start_token_id": 151_652,
        "vision_end_token_id": 151_653, "vision_token_id": 151_654, "image_token_id": 151_655,
        "video_token_id": 151_656, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 11008, "max_position_embeddings": 128_000, "max_window_layers": 70,
        "model_type": "qwen2_5_vl", "num_attention_heads": 16, "num_hidden_layers": 36,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0,
        "sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "use_cache": true, "use_sliding_window": false,
        "vision_config": {
            "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420,
            "num_heads": 16, "in_chans": 3, "out_hidden_size": 2048, "patch_size": 14,
            "spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
            "temporal_patch_size": 2
        },
        "rope_scaling": { "type": "mrope", "mrope_section": [16, 24, 24] }, "vocab_size": 151_936
    });
    let processor = json!({
        "min_pixels": 3136, "max_pixels": 12_845_056, "patch_size": 14, "temporal_patch_size": 2,
        "merge_size": 2, "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
        "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
        "image_processor_type": "Qwen2_5_VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"
    });
    [config, processor]
}

/// Qwen/Qwen3-VL-4B-Instruct.
fn newer() -> [Value; 2] {
    let config = json!({
        "architectures": ["Qwen3VLForConditionalGeneration"], "image_token_id": 151_655,
        "model_type": "qwen3_vl", "tie_word_embeddings": true, "video_token_id": 151_656,
        "text_config": {
            "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151_643,
            "dtype": "bfloat16", "eos_token_id": 151_645, "head_dim": 128, "hidden_act": "silu",
            "hidden_size": 2560, "intermediate_size": 9728, "max_position_embeddings": 262_144,
            "model_type": "qwen3_vl_text", "num_attention_heads": 32, "num_hidden_layers": 36,
            "num_key_value_heads": 8, "rms_norm_eps": 1e-6,
            "rope_scaling": {
                "mrope_interleaved": true, "mrope_section": [24, 20, 20], "rope_type": "default"
            },
            "rope_theta": 5_000_000, "tie_word_embeddings": true, "vocab_size": 151_936
        },
        "vision_config": {
            "deepstack_visual_indexes": [5, 11, 17], "depth": 24,
            "hidden_act": "gelu_pytorch_tanh", "hidden_size": 1024, "in_channels": 3,
            "intermediate_size": 4096, "model_type": "qwen3_vl", "num_heads": 16,
            "num_position_embeddings": 2304, "out_hidden_size": 2560, "patch_size": 16,
            "spatial_merge_size": 2, "temporal_patch_size": 2
        }
    });
    let processor = json!({
        "size": { "longest_edge": 16_777_216, "shortest_edge": 65_536 }, "patch_size": 16,
        "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5], "processor_class": "Qwen3VLProcessor",
        "image_processor_type": "Qwen2VLImageProcessorFast"
    });
    [config, processor]
}

fn open(folder: &TempDir, [config, processor]: &[Value; 2]) -> Result<Checkpoint, FormatError> {
    for (name, value) in [("config.json", config), ("preprocessor_config.json", processor)] {
        fs::write(folder.path().join(name), value.to_string()).expect("writable");
    }
    Checkpoint::open(folder.path())
}

fn read(files: &[Value; 2]) -> (QwenVlConfig, Option<Resize>) {
    let folder = tempdir().expect("a temporary folder");
    let checkpoint = open(&folder, files).expect("a published configuration");
    let VisionLanguageConfig::QwenVl(config) =
        checkpoint.vision_language_config().expect("a model").clone()
    else {
        panic!("another family")
    };
    let processor = checkpoint.image_processor().expect("a published processor");
    config.check_processor(&processor).expect("the model's own");
    (config, processor.resize)
}

fn refused(files: [Value; 2], change: impl FnOnce(&mut Value)) -> String {
    let [mut config, processor] = files;
    change(&mut config);
    let folder = tempdir().expect("a temporary folder");
    message(open(&folder, &[config, processor]), &folder)
}

#[test]
fn qwen2_5_vl_is_read_as_published() {
    let (config, resize) = read(&older());
    assert_eq!(config.model_type(), "qwen2_5_vl");
    assert_eq!((config.text.family, config.text.head_dim), (DecoderFamily::Qwen2, 128));
    let positions = PositionScheme::Multimodal { sections: [16, 24, 24], interleaved: false };
    assert_eq!(config.text.positions, positions);
    assert!(config.text.tie_word_embeddings);
    let full_layers = vec![7, 15, 23, 31];
    let generation = QwenGeneration::Qwen2_5 { window_size: 112, full_layers };
    assert_eq!(config.vision.generation, generation);
    let budget = PixelBudget { factor: 28, least: 3136, most: 12_845_056 };
    assert_eq!(resize, Some(Resize::Budget(budget)));
    assert_eq!(config.image_tokens((640, 480)), 23 * 17);
}

#[test]
fn qwen3_vl_is_read_as_published() {
    let (config, resize) = read(&newer());
    assert_eq!(config.model_type(), "qwen3_vl");
    assert_eq!((config.text.family, config.text.head_dim), (DecoderFamily::Qwen3, 128));
    let positions = PositionScheme::Multimodal { sections: [24, 20, 20], interleaved: true };
    assert_eq!(config.text.positions, positions);
    assert!((config.text.rope_theta - 5e6).abs() < 1.0);
    let QwenGeneration::Qwen3 { position_side, deep_layers, .. } = &config.vision.generation else {
        panic!("another generation")
    };
    assert_eq!((*position_side, deep_layers.as_slice()), (48, &[5, 11, 17][..]));
    let budget = PixelBudget { factor: 32, least: 65_536, most: 16_777_216 };
    assert_eq!(resize, Some(Resize::Budget(budget)));
    assert_eq!(config.image_tokens((640, 480)), 20 * 15);
    assert_eq!((config.tokens.eos, config.tokens.bos), (151_645, 151_643));
}

#[test]
fn what_the_families_do_not_have_is_refused() {
    let told = refused(newer(), |config| config["text_config"]["attention_bias"] = json!(true));
    assert!(told.contains("text_config.attention_bias"), "{told}");
    let told = refused(newer(), |config| {
        config["text_config"]["rope_scaling"]["mrope_section"] = json!([24, 20, 21]);
    });
    assert!(told.contains("mrope_section") && told.contains("half of head_dim"), "{told}");
    let told = refused(newer(), |config| {
        config["text_config"]["rope_scaling"]["rope_type"] = json!("yarn");
    });
    assert!(told.contains("rope_scaling"), "{told}");
    let told = refused(newer(), |config| {
        config["vision_config"]["deepstack_visual_indexes"] = json!([5, 24]);
    });
    assert!(told.contains("vision_config.deepstack_visual_indexes"), "{told}");
    let told = refused(newer(), |config| config["vision_config"]["hidden_size"] = json!(1025));
    assert!(told.contains("vision_config.hidden_size"), "{told}");
    let told = refused(newer(), |config| config["vision_config"]["out_hidden_size"] = json!(9));
    assert!(told.contains("vision_config.out_hidden_size"), "{told}");
    let told = refused(older(), |config| config["use_sliding_window"] = json!(true));
    assert!(told.contains("use_sliding_window"), "{told}");
    let told = refused(older(), |config| config["vision_config"]["window_size"] = json!(27));
    assert!(told.contains("vision_config.window_size"), "{told}");
}

#[test]
fn processor_of_other_patches_is_not_the_models() {
    let [config, mut processor] = newer();
    processor["patch_size"] = json!(14);
    let folder = tempdir().expect("a temporary folder");
    let checkpoint = open(&folder, &[config, processor]).expect("each is read");
    let processor = checkpoint.image_processor().expect("a processor");
    let config = checkpoint.vision_language_config().expect("a model").family();
    let told = config.check_processor(&processor).expect_err("other squares").to_string();
    assert!(told.contains("squares of 32 pixels"), "{told}");
}

/// The control flow of Qwen2.5-VL's own template.
#[test]
fn templates_that_count_images_are_rendered() {
    let source = "{% set image_count = namespace(value=0) %}{% for message in messages %}{% if loop.first and \
                  message['role'] != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}<|im_start|>\
                  {{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in \
                  message['content'] %}{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}{% set \
                  image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}\
                  <|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}\
                  {% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let template = ChatTemplate::new(source.to_owned(), "chat_template.jinja".into(), Map::new());
    let prompt = template.instruction("What is it?", "<|image_pad|>").expect("a template");
    let expected = "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>\
                    <|vision_end|>What is it?<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(prompt, expected);
}
