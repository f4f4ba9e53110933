//! Adapters that PEFT wrote, against what PEFT computes with them (`fixtures/peft_adapter/generate.py`).

use std::path::{Path, PathBuf};

use crate::tiny;

use burn::tensor::{Device, Tensor, TensorData};
use fisao_formats::FormatError;
use fisao_formats::adapter::{Adapter, VisionAdapter};
use fisao_formats::checkpoint::LLAVA_LAYOUT;
use fisao_formats::weights::{LoadDtype, SafetensorsSource};
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::vision_language::llava::LlavaConfig;
use fisao_testkit::compare::assert_close;
use serde_json::Value;

/// Cases whose targets are names of the vision tower's linear layers as well.
const ON_THE_TOWER: [&str; 2] = ["list", "all_linear"];
pub(crate) const CASES: [&str; 5] = ["list", "patterns", "projector", "layers", "all_linear"];
/// Logits, relative to max(1, |expected|).
pub(crate) const LOGITS: f32 = 2e-4;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub(crate) fn json(name: &str) -> Value {
    let text = std::fs::read_to_string(fixtures().join(name)).expect("a committed file");
    serde_json::from_str(&text).expect("the generator writes JSON")
}

pub(crate) fn folder(case: &str) -> PathBuf {
    fixtures().join("peft_adapter").join(case)
}

/// The model that the adapters are for.
pub(crate) fn base_model() -> VisionLanguageModel {
    let config = json("tiny_llava/expected.json")["llava"]["config"].take();
    let config: LlavaConfig = serde_json::from_value(config).expect("a configuration");
    let path = fixtures().join("tiny_llava/llava.safetensors");
    let mut weights = SafetensorsSource::open_file(&path, LLAVA_LAYOUT, LoadDtype::F32)
        .expect("the generator writes safetensors");
    VisionLanguageModel::load(config, &mut weights, &Device::flex()).expect("a complete checkpoint")
}

fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().expect("a number") as f32],
    }
}

/// The logits of the last four positions of the fixtures' prompt.
pub(crate) fn logits(model: &VisionLanguageModel) -> Vec<f32> {
    let case = json("tiny_llava/expected.json")["llava"].take();
    let digits = case["pixels"].as_str().expect("hexadecimal digits");
    let pixels = (0..digits.len() / 8).map(|at| {
        let word = u32::from_str_radix(&digits[8 * at..8 * at + 8], 16).expect("digits");
        f32::from_bits(word.swap_bytes())
    });
    let ids: Vec<u32> = serde_json::from_value(case["prompt"].clone()).expect("ids");
    last_logits(model, pixels.collect(), &ids)
}

/// The logits of a prompt's last four positions.
pub(crate) fn last_logits(model: &VisionLanguageModel, pixels: Vec<f32>, ids: &[u32]) -> Vec<f32> {
    let side = tiny::as_llava(model.config()).vision.image_size;
    let pixels = TensorData::new(pixels, [1, 3, side, side]);
    let features = model.image_features(Tensor::from_data(pixels, &model.device())).unwrap();
    // Four predictions start at the fourth position from the end; what they predict is of no account.
    let (prompt, rest) = ids.split_at(ids.len() - 3);
    let response = [rest, &[0]].concat();
    let example = Example { prompt, image: 0, response: &response };
    let states = model.response_states(&[example], &features);
    floats(&model.language_model().logits(states.hidden))
}

pub(crate) fn expected_logits(case: &str) -> Vec<f32> {
    numbers(&json("peft_adapter/expected.json")["cases"][case]["logits"])
}

fn read(case: &str) -> Adapter {
    Adapter::read(&folder(case)).expect("PEFT wrote it")
}

fn applied(case: &str) -> VisionLanguageModel {
    let mut model = base_model();
    read(case).apply(&mut model, &folder(case), VisionAdapter::Apply).expect("it fits");
    model
}

#[test]
fn logits_with_adapter_match_peft() {
    for case in CASES {
        assert_close(case, &logits(&applied(case)), &expected_logits(case), LOGITS);
    }
}

#[test]
fn scale_of_every_linear_layer_matches_peft() {
    for case in CASES {
        let expected = json("peft_adapter/expected.json")["cases"][case]["scales"].take();
        let expected = expected.as_object().expect("a map for each adapted module");
        let updates = read(case).updates;
        assert_eq!(updates.len(), expected.len(), "{case}");
        for update in updates.values() {
            let scale = expected[&update.path].as_f64().expect("a number");
            assert!((update.scale - scale).abs() < 1e-12, "{case}, {}", update.path);
        }
    }
}

#[test]
fn merged_weights_give_the_adapters_logits() {
    for case in CASES {
        let mut model = applied(case);
        let adapted = logits(&model);
        model.merge_lora();
        assert_close(case, &logits(&model), &adapted, LOGITS);
        assert_eq!(logits(&model.without_lora()), logits(&model), "{case}: nothing is left of it");
    }
}

#[test]
fn disabled_adapter_leaves_logits_bitwise_unchanged() {
    let base = logits(&base_model());
    for case in CASES {
        assert_eq!(logits(&applied(case).without_lora()), base, "{case}");
    }
}

#[test]
fn adapters_on_the_vision_tower_need_permission() {
    for case in CASES {
        let mut model = base_model();
        let result = read(case).apply(&mut model, &folder(case), VisionAdapter::Refuse);
        if ON_THE_TOWER.contains(&case) {
            let error = result.expect_err("the verifier must not move");
            assert!(matches!(error, FormatError::AdapterTouchesVision { .. }), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("--allow-vision-adapter")));
            assert_eq!(logits(&model), logits(&base_model()), "{case}");
        } else {
            result.expect("it is on the language model's side");
        }
    }
}

/// With a pattern's order turned round, the first match is another one.
#[test]
fn first_matching_alpha_pattern_applies() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut adapter = read("patterns");
    let patterns = adapter.config["alpha_pattern"].as_object().expect("a map").clone();
    adapter.config["alpha_pattern"] =
        patterns.into_iter().rev().collect::<serde_json::Map<_, _>>().into();
    adapter.write(folder.path()).expect("a writable folder");
    let read = Adapter::read(folder.path()).expect("it was written just now");
    let name = "language_model.model.layers.0.self_attn.q_proj";
    let (before, after) = (adapter.updates[name].scale, read.updates[name].scale);
    // Alpha 5.5 of layers.0 and 2 of q_proj, both over √2.
    assert!((before - 5.5 / 2f64.sqrt()).abs() < 1e-12, "{before}");
    assert!((after - 2f64.sqrt()).abs() < 1e-12, "{after}");
}

/// PEFT saves the output matrix beside its update, and puts it in the place of the model's.
#[test]
fn output_matrix_in_the_adapter_file_replaces_the_models() {
    let head = "language_model.lm_head";
    let mut adapter = read("projector");
    let base = adapter.updates[head].base.clone().expect("PEFT saved it");
    let weight = |model: &mut VisionLanguageModel| {
        let mut found = Vec::new();
        model.visit_linears_mut(&mut |name, map| {
            if name == head {
                found = floats(&map.weight);
            }
        });
        found
    };
    let own = weight(&mut base_model());
    assert_eq!(base.try_to_vec::<f32>().expect("f32"), own, "it is the model's own here");

    let moved = own.iter().map(|value| value + 0.5).collect::<Vec<_>>();
    let data = TensorData::new(moved.clone(), base.shape().to_vec());
    adapter.updates.get_mut(head).expect("it is there").base = Some(data);
    let mut model = base_model();
    adapter.apply(&mut model, &folder("projector"), VisionAdapter::Refuse).expect("it fits");
    assert_eq!(weight(&mut model), moved);
    assert_eq!(weight(&mut model.without_lora()), moved);

    let place = tempfile::tempdir().expect("a temporary folder");
    adapter.write(place.path()).expect("a writable folder");
    assert_eq!(Adapter::read(place.path()).expect("it was written just now"), adapter);
}
