//! Checkpoints that cannot be used.

use std::fs;

use burn::tensor::TensorData;
use fisao_formats::checkpoint::named_tensors;
use fisao_formats::weights::{StoredDtype, write_safetensors};
use fisao_testkit::tiny;

use crate::fixture::Workplace;

fn caption_with(place: &Workplace, model: &str) -> String {
    place.refuse(&["caption", "--model", model, "--image", "pictures", "--max-new-tokens", "4"])
}

/// Writes the weights of the small model again, changed.
fn rewrite(place: &Workplace, change: impl FnOnce(&mut Vec<(String, TensorData)>)) {
    let mut tensors = named_tensors(&tiny::tiny_llava(1));
    change(&mut tensors);
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(&place.path("llava/model.safetensors"), tensors, StoredDtype::F32).unwrap();
}

#[test]
fn missing_model_folder_or_configuration_is_reported() {
    let place = Workplace::furnished();
    insta::assert_snapshot!(caption_with(&place, "nowhere"), @"error: no checkpoint folder at nowhere");
    let error = caption_with(&place, "pictures");
    assert!(error.contains("no model configuration (config.json) at pictures/config.json"));
    assert!(error.contains("hint: a checkpoint is a folder in Hugging Face layout"), "{error}");
}

#[test]
fn truncated_weights_are_reported_as_truncated() {
    let place = Workplace::furnished();
    place.truncate("llava/model.safetensors", 9_000);
    let error = caption_with(&place, "llava");
    assert!(error.starts_with("error: llava/model.safetensors is truncated: "), "{error}");
    assert!(error.contains("the file has 9000"), "{error}");
    assert!(error.contains("hint: the download or copy was truncated: fetch the file again"));
}

#[test]
fn missing_tensor_is_reported_by_name() {
    let place = Workplace::furnished();
    let name = "multi_modal_projector.linear_1.weight";
    rewrite(&place, |tensors| tensors.retain(|(tensor, _)| tensor != name));
    let error = caption_with(&place, "llava");
    assert!(error.contains(&format!("has no tensor `{name}`")), "{error}");
    assert!(error.contains("hint: config.json and the weights must come from the same model"));
}

#[test]
fn misshapen_tensor_is_reported_with_both_shapes() {
    let place = Workplace::furnished();
    let name = "language_model.lm_head.weight";
    rewrite(&place, |tensors| {
        let tensor = tensors.iter_mut().find(|(tensor, _)| tensor == name).unwrap();
        tensor.1 = TensorData::zeros::<f32, _>([31, 16]);
    });
    let error = caption_with(&place, "llava");
    let expected = format!(
        "llava/model.safetensors: tensor `{name}` has shape [31, 16], but the configuration needs \
         [32, 16]"
    );
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn models_of_the_wrong_kind_are_rejected() {
    let place = Workplace::furnished();
    insta::assert_snapshot!(caption_with(&place, "clip"), @r"
    error: clip is a `clip` checkpoint, but a `llava` checkpoint is needed here
    hint: a captioning model is a vision-language checkpoint such as `llava`, a verifier a `clip` or `siglip` checkpoint: the former holds no text tower, so give the model that its vision tower was taken from
    ");
    let error =
        place.refuse(&["score", "--verifier", "llava", "--image", "pictures", "--text", "dog"]);
    assert!(error.contains(
        "llava is a `llava` checkpoint, but a `clip`, a `siglip` or a `blip-2` checkpoint is needed"
    ));
}

#[test]
fn image_processing_of_another_model_is_refused() {
    let place = Workplace::furnished();
    let file = place.path("llava/preprocessor_config.json");
    let changed = fs::read_to_string(&file).unwrap().replace(": 8", ": 12");
    fs::write(&file, changed).unwrap();
    insta::assert_snapshot!(caption_with(&place, "llava"), @r"
    error: llava: images are prepared as 12×12 pixels, but the vision tower takes 8×8
    hint: preprocessor_config.json and config.json must come from the same model
    ");
}

#[test]
fn more_new_tokens_than_model_positions_are_rejected() {
    let place = Workplace::furnished();
    let error = place.refuse(&["caption", "--model", "llava", "--image", "pictures"]);
    assert!(error.contains("96 new tokens do not fit"), "{error}");
    assert!(error.contains("of the model's 64 positions"), "{error}");
}

#[test]
fn prompt_with_two_image_placeholders_is_rejected() {
    let place = Workplace::furnished();
    let prompt = "<image> and <image>";
    let error = place.refuse(&[
        "caption",
        "--model",
        "llava",
        "--image",
        "pictures",
        "--max-new-tokens",
        "4",
        "--prompt",
        prompt,
    ]);
    assert!(error.contains("the prompt holds 2 image placeholders"), "{error}");
}

#[test]
fn bf16_activations_without_bf16_weights_are_rejected() {
    let place = Workplace::furnished();
    let caption = ["caption", "--model", "llava", "--image", "pictures", "--max-new-tokens", "4"];
    insta::assert_snapshot!(
        place.refuse(&[&caption[..], &["--activation-dtype", "bf16"]].concat()),
        @r"
    error: --activation-dtype bf16 changes nothing: llava has no weight held in bf16
    hint: add --dtype bf16, or leave it out
    "
    );
    let error =
        place.refuse(&["align", "--demo", "--dry-run", "--set", "align.activation-dtype=bf16"]);
    assert!(error.contains("no weight of the model is held in bf16"), "{error}");
}

#[test]
fn bf16_activations_are_accepted_with_bf16_weights() {
    let place = Workplace::furnished();
    let caption = ["caption", "--model", "llava", "--image", "pictures", "--max-new-tokens", "4"];
    let rounded = ["--dtype", "bf16", "--activation-dtype", "bf16"];
    let text = place.succeed(&[&caption[..], &rounded].concat());
    assert!(!text.is_empty(), "it says something");
}
