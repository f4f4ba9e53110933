//! Image tokens, logits and answers against transformers' Qwen2.5-VL and Qwen3-VL (`fixtures/tiny_qwen_vl/generate.py`).

use burn::tensor::Device;
use fisao_models::generation::{Prompt, Sampling};
use fisao_models::image::PixelValues;
use fisao_models::lora::LoraConfig;
use fisao_models::parameters::{GradientMap, Parameters, collect_gradients, floats};
use fisao_models::sequences::Example;
use fisao_models::vision_language::qwen_vl::QwenVlConfig;
use fisao_models::vision_language::{ImageBatch, ImageFeatures, VisionLanguageModel};
use fisao_models::weights::WeightSource;
use fisao_testkit::compare::assert_close;
use fisao_testkit::tolerance::F32_FORWARD;
use serde_json::Value;

use crate::fixture::{self, StoredWeights};

pub(crate) const FAMILIES: [&str; 2] = ["qwen2_5_vl", "qwen3_vl"];

/// A family's model and cases.
pub(crate) fn family(name: &str) -> (VisionLanguageModel, Vec<Value>) {
    let mut weights = StoredWeights::open(&format!("tiny_qwen_vl/{name}.safetensors"));
    let family = family_from(name, &mut weights);
    assert!(weights.unread().is_empty(), "left over: {:?}", weights.unread());
    family
}

/// The case in which one prompt shows images of several others.
fn several(name: &str) -> Value {
    fixture::json("tiny_qwen_vl/expected.json")["families"][name]["several"].take()
}

/// The same with weights that are made of the stored ones.
pub(crate) fn family_from(
    name: &str,
    weights: &mut dyn WeightSource,
) -> (VisionLanguageModel, Vec<Value>) {
    let mut document = fixture::json("tiny_qwen_vl/expected.json");
    let family = &mut document["families"][name];
    let config: QwenVlConfig = serde_json::from_value(family["config"].take()).expect("a Qwen-VL");
    let model = VisionLanguageModel::load(config, weights, &Device::flex());
    let model = model.expect("a complete checkpoint");
    (model, family["cases"].as_array().expect("a list").clone())
}

fn pixels(case: &Value) -> PixelValues {
    let size = fixture::ids(&case["size"]);
    let size = (size[0], size[1]);
    let values = fixture::floats_from_hexadecimal(&case["pixels"]);
    PixelValues { values, tile_size: size, original_size: size }
}

/// All images at once, which differ in size.
pub(crate) fn features(model: &VisionLanguageModel, cases: &[Value]) -> ImageFeatures {
    let pixels: Vec<PixelValues> = cases.iter().map(pixels).collect();
    model.image_features(ImageBatch::new(&pixels, &model.device())).unwrap()
}

pub(crate) fn prompts(model: &VisionLanguageModel, cases: &[Value]) -> Vec<Vec<u32>> {
    let family = model.config().family();
    let prompt = |case: &Value| {
        let [before, after] = ["before", "after"].map(|part| fixture::ids(&case[part]));
        let ids = [&before[..], &[model.tokens().image], &after].concat();
        family.expand_image_token(&ids, pixels(case).original_size).expect("one placeholder")
    };
    cases.iter().map(prompt).collect()
}

#[test]
fn image_and_deep_features_match_transformers() {
    for name in FAMILIES {
        let (model, cases) = family(name);
        let found = features(&model, &cases).split();
        for (case, found) in cases.iter().zip(&found) {
            let expected = fixture::numbers(&case["image_tokens"]);
            assert_close("image tokens", &floats(found.tokens()), &expected, F32_FORWARD);
            assert_eq!(found.grids(0)[0].map(|x| x as u32).to_vec(), fixture::ids(&case["grid"]));
            let deep = case["deep"].as_array().expect("a list");
            assert_eq!(found.deep().len(), deep.len(), "{name}");
            for (found, expected) in found.deep().iter().zip(deep) {
                let expected = fixture::numbers(expected);
                assert_close("deep features", &floats(found), &expected, F32_FORWARD);
            }
        }
    }
}

#[test]
fn logits_match_transformers_in_one_batch() {
    for name in FAMILIES {
        let (model, cases) = family(name);
        let (features, prompts) = (features(&model, &cases), prompts(&model, &cases));
        let parts: Vec<_> =
            prompts.iter().map(|prompt| prompt.split_at(prompt.len() - 1)).collect();
        let responses: Vec<_> = parts.iter().map(|(_, last)| [last, &[0][..]].concat()).collect();
        let examples = parts.iter().zip(&responses).enumerate();
        let examples: Vec<_> = examples
            .map(|(image, ((prompt, _), response))| Example { prompt, image, response })
            .collect();
        let states = model.response_states(&examples, &features);
        let logits = floats(&model.language_model().logits(states.hidden));
        let expected: Vec<f32> =
            cases.iter().flat_map(|case| fixture::numbers(&case["logits"])).collect();
        assert_close(name, &logits, &expected, F32_FORWARD);
    }
}

#[test]
fn greedy_answers_match_transformers_in_one_batch() {
    let sampling = Sampling { max_new_tokens: 8, temperature: 0.0, seed: 0 };
    for name in FAMILIES {
        let (model, cases) = family(name);
        let prompts = prompts(&model, &cases).into_iter().enumerate();
        let prompts: Vec<_> =
            prompts.map(|(image, ids)| Prompt { ids, image, stream: 0 }).collect();
        let responses =
            model.generate(&prompts, &features(&model, &cases), 1, &sampling).expect("responses");
        for (case, response) in cases.iter().zip(responses) {
            assert_eq!(response.tokens, fixture::ids(&case["greedy"]["tokens"]), "{name}");
            let expected = fixture::numbers(&case["greedy"]["logprobs"]);
            assert_close(name, &response.logprobs, &expected, F32_FORWARD);
        }
    }
}

#[test]
fn prompts_that_show_several_images_are_answered_as_in_transformers() {
    let sampling = Sampling { max_new_tokens: 8, temperature: 0.0, seed: 0 };
    for name in FAMILIES {
        let (model, cases) = family(name);
        let several = several(name);
        let shown = fixture::ids(&several["shown"]);
        let shown: Vec<Value> = shown.iter().map(|&at| cases[at as usize].clone()).collect();
        let texts = several["texts"].as_array().expect("a list").iter().map(fixture::ids);
        let ids = texts.collect::<Vec<_>>().join(&model.tokens().image);
        let sizes: Vec<_> = shown.iter().map(|case| pixels(case).original_size).collect();
        let ids = model.config().family().expand_image_tokens(&ids, &sizes);
        let together = Prompt { ids: ids.expect("two placeholders"), image: 0, stream: 0 };
        // Beside a prompt that shows one image.
        let alone = Prompt { image: 1, ..prompt_of(&model, &cases[1]) };
        let images = [&shown[..], &cases[1..2]].concat();
        let features = features(&model, &images).shown_together(&[2, 1]);
        let responses = model.generate(&[together, alone], &features, 1, &sampling);
        for (case, response) in [&several, &cases[1]].into_iter().zip(responses.expect("responses"))
        {
            assert_eq!(response.tokens, fixture::ids(&case["greedy"]["tokens"]), "{name}");
            let expected = fixture::numbers(&case["greedy"]["logprobs"]);
            assert_close(name, &response.logprobs, &expected, F32_FORWARD);
        }
    }
}

/// A case's prompt.
fn prompt_of(model: &VisionLanguageModel, case: &Value) -> Prompt {
    let ids = prompts(model, std::slice::from_ref(case)).swap_remove(0);
    Prompt { ids, image: 0, stream: 0 }
}

/// Of two responses to the first prompt and one to the second, so many `together`.
fn states_of(model: &VisionLanguageModel, cases: &[Value], together: usize) -> Vec<f32> {
    let (features, prompts) = (features(model, cases), prompts(model, cases));
    let responses = [(0, vec![4, 7, 2]), (0, vec![9, 2]), (1, vec![3, 31, 31, 2])];
    let examples = responses.each_ref().map(|(image, response)| Example {
        prompt: &prompts[*image],
        image: *image,
        response,
    });
    let parts = examples.chunks(together);
    parts.flat_map(|part| floats(&model.response_states(part, &features).hidden)).collect()
}

#[test]
fn prompts_read_once_give_the_states_of_prompts_read_each_time() {
    for name in FAMILIES {
        let (model, cases) = family(name);
        let each = states_of(&model, &cases, 1);
        assert_close(name, &states_of(&model, &cases, 3), &each, F32_FORWARD);
    }
}

/// Gradients of a fresh adapter, with and without gradient checkpointing.
fn gradients(model: &VisionLanguageModel, cases: &[Value], checkpointed: bool) -> GradientMap {
    let mut frozen = model.clone();
    frozen.add_lora(&LoraConfig::default(), 3).expect("known layers");
    frozen.visit_lora_mut(&mut |name, mut parameter| {
        if name.ends_with("lora_B.weight") {
            let values = (0..parameter.values().len()).map(|at| (at as f32).sin() * 0.1);
            parameter.set_values(values.collect());
        }
    });
    let mut training = frozen.clone();
    training.visit_lora_mut(&mut |_, mut parameter| parameter.train());
    let (features, prompts) = (features(model, cases), prompts(model, cases));
    let responses = [vec![4, 7, 2], vec![9, 2], vec![3, 14, 5, 2]];
    let examples: Vec<_> = prompts
        .iter()
        .zip(&responses)
        .enumerate()
        .map(|(image, (prompt, response))| Example { prompt, image, response })
        .collect();
    let recomputed = checkpointed.then_some(&frozen);
    let (scores, pass) =
        training.training_scores(recomputed, &examples, &features, 1.0).expect("no card");
    let loss = scores.log_probs.mean().neg();
    let mut found = GradientMap::new();
    let all = training.backward(pass, &loss).expect("no card");
    training.visit_lora_mut(&mut |name, parameter| {
        let gradient = all.iter().find_map(|gradients| parameter.gradient(gradients));
        found.insert(name.to_owned(), gradient.unwrap_or_else(|| panic!("{name} has none")));
    });
    found
}

#[test]
fn recomputed_layers_give_the_gradients_of_kept_ones() {
    for name in FAMILIES {
        let (model, cases) = family(name);
        let kept = gradients(&model, &cases, false);
        let recomputed = gradients(&model, &cases, true);
        assert!(kept.values().flatten().any(|gradient| gradient.abs() > 1e-3), "{name}");
        for (tensor, expected) in &kept {
            assert_close(tensor, &recomputed[tensor], expected, F32_FORWARD);
        }
    }
}

#[test]
fn gradients_reach_tower_and_mergers() {
    for name in FAMILIES {
        let (mut model, cases) = family(name);
        let count = model.train_where(&|name| !name.starts_with("language_model."));
        let (features, prompts) = (features(&model, &cases), prompts(&model, &cases));
        let example = Example { prompt: &prompts[1], image: 1, response: &[4, 7, 2] };
        let states = model.response_states(&[example], &features);
        let loss = model.log_probabilities(&states, 1.0).0.mean().neg();
        let gradients = collect_gradients(&mut model, &loss.backward()).expect("all are reached");
        assert_eq!(gradients.len(), count, "{name}");
    }
}
