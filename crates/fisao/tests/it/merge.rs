//! `fisao merge`, and adapters on other commands.

use std::fs;

use fisao_formats::adapter::Adapter;
use fisao_models::lora::LoraConfig;
use fisao_testkit::tiny;
use serde_json::{Value, json};

use crate::fixture::Workplace;

const MERGE: [&str; 7] =
    ["merge", "--model", "llava", "--adapter", "adapter", "--output", "merged"];

/// A folder with models, images and an adapter of the model.
pub(crate) fn with_adapter() -> Workplace {
    let place = Workplace::furnished();
    let mut model = tiny::tiny_llava(1);
    let config = LoraConfig { rank: 2, alpha: 8.0, ..LoraConfig::default() };
    model.add_lora(&config, 5).unwrap();
    model.visit_lora_mut(&mut |name, mut parameter| {
        if name.ends_with("lora_B.weight") {
            let count = parameter.shape().iter().product::<usize>();
            parameter.set_values((0..count).map(|at| (at as f32).sin()).collect());
        }
    });
    Adapter::of(&model, &config, Some("llava")).write(&place.path("adapter")).unwrap();
    place
}

/// The same adapter as PEFT would have made it of bare names: on the tower as well.
fn on_the_tower(place: &Workplace) {
    let mut adapter = Adapter::read(&place.path("adapter")).unwrap();
    for name in ["q_proj", "v_proj", "k_proj"] {
        for layer in 0..3 {
            let path = format!("encoder.layers.{layer}.self_attn.{name}");
            let mut update =
                adapter.updates["language_model.model.layers.0.self_attn.o_proj"].clone();
            update.path = format!("model.vision_tower.{path}");
            let [rank, width] = [2, 12];
            let floats = |at: usize| (at as f32 + 1.0).cos();
            let data = |shape| {
                let values = (0..rank * width).map(floats).collect::<Vec<f32>>();
                burn::tensor::TensorData::new(values, shape)
            };
            (update.a, update.b) = (data([rank, width]), data([width, rank]));
            adapter.updates.insert(format!("vision_tower.vision_model.{path}"), update);
        }
    }
    let names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    adapter.config["target_modules"] = json!(names);
    adapter.write(&place.path("adapter")).unwrap();
}

fn captions(place: &Workplace, more: &[&str]) -> Vec<Value> {
    let arguments = ["caption", "--image", "pictures", "--max-new-tokens", "6", "--format", "json"];
    let text = place.succeed(&[&arguments[..], more].concat());
    let tokens = |line: &str| serde_json::from_str::<Value>(line).unwrap()["tokens"].take();
    let ids = |tokens: Value| {
        tokens.as_array().unwrap().iter().map(|token| token["id"].clone()).collect()
    };
    text.lines().map(|line| Value::Array(ids(tokens(line)))).collect()
}

#[test]
fn merged_model_captions_equal_those_with_the_adapter() {
    let place = with_adapter();
    insta::assert_snapshot!(place.succeed(&MERGE), @"merged: 14 linear layers changed, 80 tensors written (model.safetensors, 38.69 kB)");
    let adapted = captions(&place, &["--model", "llava", "--adapter", "adapter"]);
    assert_eq!(captions(&place, &["--model", "merged"]), adapted);
    assert_ne!(captions(&place, &["--model", "llava"]), adapted);
}

#[test]
fn merge_json_output_lists_the_written_files() {
    let place = with_adapter();
    let more = ["--format", "json", "--dtype", "bf16", "--max-shard-size", "10KB"];
    let text = place.succeed(&[&MERGE[..], &more].concat());
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((told["output"].as_str(), told["layers"].as_u64()), (Some("merged"), Some(14)));
    let files = told["files"].as_array().unwrap();
    assert!(files.len() > 1);
    assert!(files.iter().all(|file| place.path("merged").join(file.as_str().unwrap()).exists()));
    assert!(place.path("merged/model.safetensors.index.json").exists());
    // Half of f32's.
    let whole = fs::metadata(place.path("llava/model.safetensors")).unwrap().len();
    assert!(told["bytes"].as_u64().unwrap() < whole / 2);
}

#[test]
fn adapter_on_the_vision_tower_needs_allow_vision_adapter() {
    let place = with_adapter();
    let before = captions(&place, &["--model", "llava", "--adapter", "adapter"]);
    on_the_tower(&place);
    insta::assert_snapshot!(place.refuse(&MERGE), @r#"
    error: adapter/adapter_model.safetensors would change the vision tower, which is the verifier's own: `base_model.model.model.vision_tower.encoder.layers.0.self_attn.k_proj.lora_A.weight`, `base_model.model.model.vision_tower.encoder.layers.0.self_attn.k_proj.lora_B.weight`, `base_model.model.model.vision_tower.encoder.layers.0.self_attn.q_proj.lora_A.weight`, `base_model.model.model.vision_tower.encoder.layers.0.self_attn.q_proj.lora_B.weight` and 14 more
    hint: names such as "q_proj" in target_modules are names of the vision tower's linear layers too, and PEFT adapts whatever matches. Either give --allow-vision-adapter, and the adapter is applied to the model's tower as PEFT applies it, while the verifier stays as it is; or train it on the language model only, with target_modules=".*language_model.*\.(q_proj|v_proj)"
    "#);
    let refused = ["caption", "--model", "llava", "--adapter", "adapter", "--image", "pictures"];
    let error = place.refuse(&refused);
    assert!(error.contains("would change the vision tower"), "{error}");

    let with = ["--model", "llava", "--adapter", "adapter", "--allow-vision-adapter"];
    let adapted = captions(&place, &with);
    assert_ne!(adapted, before, "the tower's part is applied");
    let merged: Value = serde_json::from_str(
        &place.succeed(&[&MERGE[..], &["--allow-vision-adapter", "--format", "json"]].concat()),
    )
    .unwrap();
    assert_eq!(merged["layers"], 14 + 9);
    assert_eq!(captions(&place, &["--model", "merged"]), adapted);
}

#[test]
fn invalid_merges_are_rejected() {
    let place = with_adapter();
    let with = |more: &[&str]| place.refuse(&[&MERGE[..], more].concat());
    assert!(with(&["--max-shard-size", "5 bananas"]).contains("a whole number with a unit"));
    assert!(with(&["--dtype", "int8"]).contains("possible values: f32, f16, bf16"));
    let elsewhere = ["merge", "--model", "llava", "--adapter", "pictures", "--output", "merged"];
    insta::assert_snapshot!(place.refuse(&elsewhere), @"error: no adapter configuration (adapter_config.json) at pictures/adapter_config.json");
    let clip = ["merge", "--model", "clip", "--adapter", "adapter", "--output", "merged"];
    assert!(place.refuse(&clip).contains("a `llava` checkpoint is needed"));
    let onto = ["merge", "--model", "llava", "--adapter", "adapter", "--output", "llava"];
    assert!(place.refuse(&onto).contains("llava is not empty"));
    let alone = ["caption", "--model", "llava", "--image", "pictures", "--allow-vision-adapter"];
    assert!(place.refuse(&alone).contains("--adapter <FOLDER|ID>"));
}
