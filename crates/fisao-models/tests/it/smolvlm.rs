//! Tiles, features and logits against transformers' SmolVLM (`fixtures/tiny_smolvlm/generate.py`).

use std::sync::Arc;

use burn::tensor::Device;
use fisao_models::generation::{Prompt, Sampling};
use fisao_models::image::{Filter, ImageProcessor, PixelValues, Resize};
use fisao_models::parameters::{Parameters, collect_gradients, floats};
use fisao_models::sequences::Example;
use fisao_models::vision_language::smolvlm::SmolVlmConfig;
use fisao_models::vision_language::{
    FamilyConfig as _, ImageBatch, ImageFeatures, VisionLanguageModel,
};
use fisao_testkit::compare::assert_close;
use fisao_testkit::tolerance::{F32_ELEMENTWISE, F32_FORWARD};
use serde_json::Value;

use crate::card::{CLOSE, image_pair};
use crate::fixture::{self, StoredWeights};

/// The model with images cut or whole, and the pictures of that kind.
fn model(splits: bool) -> (VisionLanguageModel, SmolVlmConfig, Vec<Value>) {
    let mut document = fixture::json("tiny_smolvlm/expected.json");
    let mut config: SmolVlmConfig =
        serde_json::from_value(document["config"].take()).expect("a SmolVLM");
    config.split.splits = splits;
    let mut weights = StoredWeights::open("tiny_smolvlm/smolvlm.safetensors");
    let model = VisionLanguageModel::load(config.clone(), &mut weights, &Device::flex())
        .expect("a complete checkpoint");
    assert!(weights.unread().is_empty(), "left over: {:?}", weights.unread());
    let pictures = document["pictures"].as_array().expect("a list");
    let pictures = pictures.iter().filter(|case| case["splits"] == splits).cloned().collect();
    (model, config, pictures)
}

fn prepared(config: &SmolVlmConfig, case: &Value) -> PixelValues {
    let side = config.split.tile;
    let processor = ImageProcessor {
        pad: None,
        resize: Some(Resize::Exact { width: side, height: side }),
        filter: Filter::Lanczos,
        crop: None,
        rescale: 1.0 / 255.0,
        mean: [0.5; 3],
        std: [0.5; 3],
        tiles: Some(Arc::new(config.split)),
    };
    processor.process(&fixture::image(&case["picture"]))
}

fn features(model: &VisionLanguageModel, config: &SmolVlmConfig, cases: &[Value]) -> ImageFeatures {
    let images: Vec<_> = cases.iter().map(|case| prepared(config, case)).collect();
    model.image_features(ImageBatch::new(&images, &model.device())).unwrap()
}

/// transformers has the whole image behind its tiles; here it comes first.
#[test]
fn pixels_match_transformers() {
    for splits in [true, false] {
        let (_, config, cases) = model(splits);
        for case in &cases {
            let found = prepared(&config, case);
            let expected = fixture::floats_from_hexadecimal(&case["pixels"]);
            let (tiles, whole) =
                expected.split_at(expected.len() / found.tiles() * (found.tiles() - 1));
            let expected = [whole, tiles].concat();
            let what = format!("{:?}", found.original_size);
            assert_close(&what, &found.values, &expected, F32_ELEMENTWISE);
        }
    }
}

#[test]
fn tile_tokens_in_prompts_match_transformers() {
    for splits in [true, false] {
        let (model, config, cases) = model(splits);
        for case in &cases {
            let size = prepared(&config, case).original_size;
            let expand = |ids: &[u32]| model.config().family().expand_image_token(ids, size);
            let prompt = fixture::ids(&case["prompt"]);
            let expanded = expand(&fixture::ids(&case["short"])).expect("one placeholder");
            assert_eq!(expanded, prompt, "{size:?}");
            // What is expanded already stays as it is.
            assert_eq!(expand(&prompt).expect("as many as needed"), prompt);
            expand(&prompt[..5]).expect_err("no placeholder");
        }
    }
}

#[test]
fn image_with_more_tiles_than_tile_tokens_is_rejected() {
    let (_, mut config, _) = model(true);
    config.tile_tokens.places.iter_mut().for_each(|row| row.truncate(2));
    let found = config.expand_image_token(&[1, 31, 4], (40, 11)).unwrap_err();
    assert!(found.to_string().contains("<row_1_col_3>"), "{found}");
}

#[test]
fn tiles_on_a_card_are_encoded_as_on_the_cpu() {
    for splits in [true, false] {
        let (model, config, cases) = model(splits);
        let Some([model, on_card]) = image_pair("SmolVLM", model) else { return };
        let [expected, found] =
            [&model, &on_card].map(|model| floats(features(model, &config, &cases).tokens()));
        assert_close("image tokens", &found, &expected, CLOSE);
        assert!(found != expected, "nothing was computed on the card");
    }
}

#[test]
fn logits_match_transformers() {
    for splits in [true, false] {
        let (model, config, cases) = model(splits);
        for case in &cases {
            let prompt = fixture::ids(&case["prompt"]);
            let (before, after) = prompt.split_at(prompt.len() - 3);
            let response = [after, &[0]].concat();
            let example = Example { prompt: before, image: 0, response: &response };
            let features = features(&model, &config, std::slice::from_ref(case));
            let states = model.response_states(&[example], &features);
            let logits = floats(&model.language_model().logits(states.hidden));
            assert_close("logits", &logits, &fixture::numbers(&case["logits"]), F32_FORWARD);
        }
    }
}

/// The images take different numbers of tokens, so their prompts are padded.
#[test]
fn batched_images_of_different_sizes_decode_as_in_transformers() {
    let (model, config, cases) = model(true);
    let prompt = |(image, case): (usize, &Value)| Prompt {
        ids: fixture::ids(&case["prompt"]),
        image,
        stream: 0,
    };
    let prompts: Vec<_> = cases.iter().enumerate().map(prompt).collect();
    let sampling = Sampling { max_new_tokens: 10, temperature: 0.0, seed: 0 };
    let responses = model
        .generate(&prompts, &features(&model, &config, &cases), 1, &sampling)
        .expect("responses");
    for (case, response) in cases.iter().zip(responses) {
        let expected = fixture::ids(&case["greedy"]["tokens"]);
        assert_eq!(response.tokens[..expected.len()], expected);
        let expected = fixture::numbers(&case["greedy"]["logprobs"]);
        let found = &response.logprobs[..expected.len()];
        assert_close("log-probabilities", found, &expected, F32_FORWARD);
    }
}

#[test]
fn prompt_that_shows_several_images_is_answered_as_in_transformers() {
    let (model, config, cases) = model(true);
    let case = fixture::json("tiny_smolvlm/expected.json")["several"].take();
    let shown = fixture::ids(&case["shown"]);
    let shown: Vec<Value> = shown.iter().map(|&at| cases[at as usize].clone()).collect();
    let sizes: Vec<_> = shown.iter().map(|case| prepared(&config, case).original_size).collect();
    let expanded = config.expand_image_tokens(&fixture::ids(&case["short"]), &sizes);
    let ids = expanded.expect("two placeholders");
    assert_eq!(ids, fixture::ids(&case["prompt"]));
    let features = features(&model, &config, &shown).shown_together(&[2]);
    let sampling = Sampling { max_new_tokens: 10, temperature: 0.0, seed: 0 };
    let responses = model.generate(&[Prompt { ids, image: 0, stream: 0 }], &features, 1, &sampling);
    let response = responses.expect("a response").swap_remove(0);
    let expected = fixture::ids(&case["greedy"]["tokens"]);
    assert_eq!(response.tokens[..expected.len()], expected);
    let expected = fixture::numbers(&case["greedy"]["logprobs"]);
    assert_close("log-probabilities", &response.logprobs[..expected.len()], &expected, F32_FORWARD);
}

#[test]
fn connector_receives_gradients_through_the_tiles() {
    let (mut model, config, cases) = model(true);
    let count = model.train_where(&|name| name.starts_with("connector."));
    assert_eq!(count, 1);
    let case = cases.last().expect("a list");
    let prompt = fixture::ids(&case["prompt"]);
    let example = Example { prompt: &prompt, image: 0, response: &[4, 7, 2] };
    let features = features(&model, &config, std::slice::from_ref(case));
    let states = model.response_states(&[example], &features);
    let loss = model.log_probabilities(&states, 1.0).0.mean().neg();
    let gradients = collect_gradients(&mut model, &loss.backward()).expect("nothing is cut off");
    assert_eq!(gradients.len(), count);
    for (name, gradient) in gradients {
        assert!(gradient.iter().any(|&value| value != 0.0), "{name} is not reached");
    }
}
