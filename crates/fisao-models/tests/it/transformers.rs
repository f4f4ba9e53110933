//! Small random models against transformers (`fixtures/tiny_llava/generate.py`,
//! `fixtures/tiny_interleave/generate.py`).

use burn::tensor::{Device, Tensor};
use fisao_models::clip::{Clip, ClipConfig};
use fisao_models::generation::{Prompt, Sampling};
use fisao_models::parameters::{floats, from_floats};
use fisao_models::sequences::Example;
use fisao_models::siglip::{Siglip, SiglipConfig};
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::vision_language::llava::LlavaConfig;
use fisao_testkit::compare::assert_close;
use fisao_testkit::tolerance::F32_FORWARD;
use serde_json::Value;

use crate::fixture::{self, StoredWeights};

pub(crate) fn pixels(case: &Value, count: usize, side: usize) -> Tensor<4> {
    let values = fixture::floats_from_hexadecimal(&case["pixels"]);
    from_floats(values, [count, 3, side, side], &Device::flex())
}

/// CLIP's tower and Llama's decoder.
pub(crate) const LLAVA: &str = "tiny_llava";
/// SigLIP's tower and Qwen2's decoder.
const INTERLEAVE: &str = "tiny_interleave";

pub(crate) fn llava(name: &str) -> (VisionLanguageModel, Value) {
    let case = fixture::json(&format!("{name}/expected.json"))["llava"].take();
    let config: LlavaConfig =
        serde_json::from_value(case["config"].clone()).expect("a LLaVA configuration");
    let mut weights = StoredWeights::open(&format!("{name}/llava.safetensors"));
    let model = VisionLanguageModel::load(config, &mut weights, &Device::flex())
        .expect("a complete checkpoint");
    assert!(weights.unread().is_empty(), "left over: {:?}", weights.unread());
    (model, case)
}

fn clip(eos_token_id: Option<u32>) -> (Clip, Value) {
    let case = fixture::json("tiny_llava/expected.json")["clip"].take();
    let mut config: ClipConfig =
        serde_json::from_value(case["config"].clone()).expect("a CLIP configuration");
    config.text.eos_token_id = eos_token_id.unwrap_or(config.text.eos_token_id);
    let mut weights = StoredWeights::open("tiny_llava/clip.safetensors");
    let model = Clip::load(config, &mut weights, &Device::flex()).expect("a complete checkpoint");
    assert!(weights.unread().is_empty(), "left over: {:?}", weights.unread());
    (model, case)
}

/// Side of a model's images, pixels.
pub(crate) fn image_size(model: &VisionLanguageModel) -> usize {
    model.config().family().vision().expect("a tower").image_size
}

#[test]
fn image_features_match_transformers() {
    let (model, case) = llava(LLAVA);
    let features = model.image_features(pixels(&case, 1, image_size(&model))).unwrap();
    let expected = fixture::numbers(&case["image_features"]);
    assert_close("image features", &floats(features.tokens()), &expected, F32_FORWARD);
}

/// Checks the logits at the last four positions of the prompt, scored as the response to what precedes
/// them; returns the states there.
fn assert_logits(name: &str) -> (Tensor<2>, Value) {
    let (model, case) = llava(name);
    let features = model.image_features(pixels(&case, 1, image_size(&model))).unwrap();
    let prompt = fixture::ids(&case["prompt"]);
    // Four predictions start at the fourth position from the end; what they predict is of no account.
    let (before, after) = prompt.split_at(prompt.len() - 3);
    let response = [after, &[0]].concat();
    let example = Example { prompt: before, image: 0, response: &response };
    let states = model.response_states(&[example], &features);
    let logits = floats(&model.language_model().logits(states.hidden.clone()));
    assert_close("logits", &logits, &fixture::numbers(&case["logits"]), F32_FORWARD);
    (states.hidden, case)
}

#[test]
fn hidden_states_and_logits_match_transformers() {
    let (states, case) = assert_logits(LLAVA);
    let hidden = floats(&states.narrow(0, 3, 1));
    let expected = fixture::numbers(&case["last_hidden_state"]);
    assert_close("last hidden state", &hidden, &expected, F32_FORWARD);
}

fn assert_greedy(name: &str) {
    let (model, case) = llava(name);
    let features = model.image_features(pixels(&case, 1, image_size(&model))).unwrap();
    let prompt = Prompt { ids: fixture::ids(&case["prompt"]), image: 0, stream: 0 };
    let expected = fixture::ids(&case["greedy"]["tokens"]);
    let sampling = Sampling { max_new_tokens: expected.len(), temperature: 0.0, seed: 0 };
    let responses = model.generate(&[prompt], &features, 1, &sampling).expect("responses");
    assert_eq!(responses[0].tokens, expected);
    let expected = fixture::numbers(&case["greedy"]["logprobs"]);
    assert_close("log-probabilities", &responses[0].logprobs, &expected, F32_FORWARD);
}

#[test]
fn greedy_decoding_matches_transformers() {
    assert_greedy(LLAVA);
}

#[test]
fn siglip_tower_with_qwen2_decoder_matches_transformers() {
    assert_greedy(INTERLEAVE);
    assert_logits(INTERLEAVE);
}

#[test]
fn siglip_cosines_match_transformers() {
    let case = fixture::json("tiny_interleave/expected.json")["siglip"].take();
    let config: SiglipConfig =
        serde_json::from_value(case["config"].clone()).expect("a SigLIP configuration");
    let mut weights = StoredWeights::open("tiny_interleave/siglip.safetensors");
    let model = Siglip::load(config, &mut weights, &Device::flex()).expect("a complete checkpoint");
    assert!(weights.unread().is_empty(), "left over: {:?}", weights.unread());
    let texts: Vec<Vec<u32>> =
        case["texts"].as_array().expect("a list").iter().map(fixture::ids).collect();
    let pixels = pixels(&case, 2, model.config().vision.image_size);
    let images = model.embed_images(pixels.clone()).unwrap();
    let cosines = images.clone().matmul(model.embed_text(&texts).transpose());
    assert_close("cosines", &floats(&cosines), &fixture::numbers(&case["cosines"]), F32_FORWARD);
    let (whole, patches) = model.embed_patches(model.vision().encode(pixels).unwrap()).unwrap();
    assert_close("images beside their patches", &floats(&whole), &floats(&images), F32_FORWARD);
    assert_eq!(patches.dims()[1], model.config().vision.patches());
}

fn assert_cosines(eos_token_id: Option<u32>, expected: &str) {
    let (model, case) = clip(eos_token_id);
    let texts: Vec<Vec<u32>> =
        case["texts"].as_array().expect("a list").iter().map(fixture::ids).collect();
    let images = model.embed_images(pixels(&case, 2, model.config().vision.image_size)).unwrap();
    let cosines = images.matmul(model.embed_text(&texts).transpose());
    assert_close("cosines", &floats(&cosines), &fixture::numbers(&case[expected]), F32_FORWARD);
    let scale = fixture::numbers(&case["scale"]);
    assert_close("logit scale", &floats(&model.scale()), &scale, F32_FORWARD);
}

#[test]
fn clip_cosines_match_transformers() {
    assert_cosines(None, "cosines");
}

/// Configurations of OpenAI's own checkpoints say `eos_token_id: 2`.
#[test]
fn clip_with_the_old_end_token_pools_at_the_largest_id() {
    assert_cosines(Some(2), "cosines_by_largest_id");
}
