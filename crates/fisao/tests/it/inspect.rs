//! `fisao inspect`: what is told of sound folders, and of damaged ones.

use std::fs;
use std::path::PathBuf;

use fisao_formats::adapter::Adapter;
use fisao_models::lora::LoraConfig;
use fisao_testkit::tiny;
use serde_json::Value;

use crate::fixture::Workplace;

fn json(place: &Workplace, folder: &str) -> Value {
    let text = place.succeed(&["inspect", folder, "--format", "json"]);
    serde_json::from_str(&text).unwrap()
}

/// Whether it can be used for a command, and why not.
fn use_for<'a>(found: &'a Value, command: &str) -> (bool, Option<&'a str>) {
    let uses = found["uses"].as_array().unwrap();
    let usage = uses.iter().find(|usage| usage["command"] == command).unwrap();
    (usage["ready"].as_bool().unwrap(), usage["note"].as_str())
}

#[test]
fn models_are_described() {
    let place = Workplace::furnished();
    insta::assert_snapshot!(place.succeed(&["inspect", "llava"]));
    insta::assert_snapshot!(place.succeed(&["inspect", "clip", "--check"]));
    let llava = json(&place, "llava");
    let parts = llava["parts"].as_array().unwrap().iter();
    let sum: u64 = parts.map(|part| part["parameters"].as_u64().unwrap()).sum();
    assert_eq!(llava["parameters"], sum);
    assert_eq!(use_for(&llava, "caption"), (true, None));
    assert!(use_for(&llava, "score").0, "by its own decoder");
}

#[test]
fn adapters_are_described() {
    let place = Workplace::furnished();
    let mut model = tiny::tiny_llava(1);
    let config = LoraConfig { rank: 2, ..LoraConfig::default() };
    model.add_lora(&config, 5).unwrap();
    Adapter::of(&model, &config, Some("llava")).write(&place.path("adapter")).unwrap();
    insta::assert_snapshot!(place.succeed(&["inspect", "adapter"]));
}

#[test]
fn missing_files_are_reported_per_use() {
    let place = Workplace::furnished();
    fs::remove_file(place.path("llava/tokenizer.json")).unwrap();
    let found = json(&place, "llava");
    let (ready, note) = use_for(&found, "caption");
    assert!(!ready && note.unwrap().contains("tokenizer.json"), "{note:?}");
    assert!(use_for(&found, "merge").0, "merging needs no tokenizer");

    let config = fs::read_to_string(place.path("llava/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let mut config = config;
    config["text_config"]["num_hidden_layers"] = 3.into();
    place.write("llava/config.json", config.to_string());
    let found = json(&place, "llava");
    let (ready, note) = use_for(&found, "merge");
    assert!(!ready && note.unwrap().contains("layers.2"), "{note:?}");
}

#[test]
fn nan_weight_is_found_with_check() {
    let place = Workplace::furnished();
    let file = place.path("clip/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    place.succeed(&["inspect", "clip"]);
    let error = place.refuse(&["inspect", "clip", "--check"]);
    assert!(error.contains("clip/model.safetensors: 1 values of tensor `"), "{error}");
}

/// Every file of the corpus in the place of sound weights: exit code 1 and a sentence, at no more memory
/// than the file is long.
#[test]
fn damaged_weights_are_refused() {
    let corpus: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "..", "..", "fixtures", "corrupt_checkpoints"]
            .iter()
            .collect();
    let place = Workplace::furnished();
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            fs::copy(&path, place.path("clip/model.safetensors")).unwrap();
            let error = place.refuse(&["inspect", "clip"]);
            assert!(error.starts_with("error: clip/model.safetensors"), "{error}");
            count += 1;
        }
    }
    assert!(count > 25, "{count} files");
}

#[test]
fn absurd_sizes_in_a_configuration_are_refused() {
    let place = Workplace::furnished();
    let config = fs::read_to_string(place.path("llava/config.json")).unwrap();
    let fields = [
        "/text_config/hidden_size",
        "/text_config/num_attention_heads",
        "/text_config/head_dim",
        "/text_config/vocab_size",
        "/text_config/intermediate_size",
        "/text_config/num_hidden_layers",
        "/vision_config/hidden_size",
        "/vision_config/image_size",
        "/vision_config/num_hidden_layers",
        "/vision_config/intermediate_size",
    ];
    for field in fields {
        for size in [1_u64 << 20, 1 << 26, 1 << 40, u64::MAX] {
            let mut changed: Value = serde_json::from_str(&config).unwrap();
            *changed.pointer_mut(field).unwrap() = size.into();
            place.write("llava/config.json", changed.to_string());
            let arguments = ["caption", "--model", "llava", "--image", "pictures"];
            let error = place.refuse(&arguments);
            assert!(error.starts_with("error: llava"), "{field} {size}: {error}");
        }
    }
}
