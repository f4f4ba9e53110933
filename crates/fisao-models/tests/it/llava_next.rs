//! Tiles, Mistral decoders and rotary scaling against transformers' LLaVA-NeXT (`fixtures/tiny_llava_next/generate.py`).

use std::sync::Arc;

use burn::tensor::Device;
use fisao_models::generation::{Prompt, Sampling};
use fisao_models::image::{BestResolution, ImageProcessor, PixelValues, Resize};
use fisao_models::parameters::{Parameters, collect_all_gradients, collect_gradients, floats};
use fisao_models::sequences::Example;
use fisao_models::vision_language::llava::LlavaConfig;
use fisao_models::vision_language::{
    FamilyConfig as _, ImageBatch, ImageFeatures, VisionLanguageModel,
};
use fisao_testkit::compare::assert_close;
use fisao_testkit::tolerance::{F32_ELEMENTWISE, F32_FORWARD};
use serde_json::Value;

use crate::fixture::{self, StoredWeights};

/// Settings of decoders with the same weights, each with what transformers makes of the pictures.
const DECODERS: [&str; 6] =
    ["llama", "llama_linear", "llama_dynamic", "llama_llama3", "mistral", "mistral_window"];

/// The fixture with the model that has one of the decoders.
struct Expected {
    model: VisionLanguageModel,
    config: LlavaConfig,
    pictures: Vec<Value>,
    cases: Vec<Value>,
}

impl Expected {
    fn of(decoder: &str) -> Self {
        let mut document = fixture::json("tiny_llava_next/expected.json");
        let mut own = document["decoders"][decoder].take();
        let config: LlavaConfig = serde_json::from_value(own["config"].take()).expect("a LLaVA");
        let mut weights = StoredWeights::open("tiny_llava_next/llava_next.safetensors");
        let model = VisionLanguageModel::load(config.clone(), &mut weights, &Device::flex())
            .expect("a complete checkpoint");
        let unread = weights.unread();
        // The tower's norm behind its last layer, which is not run.
        assert!(unread.iter().all(|name| name.contains("post_layernorm")), "left over: {unread:?}");
        let list = |value: &Value| value.as_array().expect("a list").clone();
        Self { model, config, pictures: list(&document["pictures"]), cases: list(&own["cases"]) }
    }

    fn prepared(&self, picture: &Value) -> PixelValues {
        let side = self.config.vision.image_size as u32;
        let resolutions = self.config.tiling.as_ref().expect("tiles").resolutions.clone();
        let processor = ImageProcessor {
            resize: Some(Resize::Exact { width: side, height: side }),
            crop: None,
            tiles: Some(Arc::new(BestResolution { resolutions })),
            ..ImageProcessor::clip(side)
        };
        self.config.check_processor(&processor).expect("it is the model's own");
        processor.process(&fixture::image(&picture["picture"]))
    }

    fn features(&self, pictures: &[Value]) -> ImageFeatures {
        let images: Vec<_> = pictures.iter().map(|picture| self.prepared(picture)).collect();
        self.model.image_features(ImageBatch::new(&images, &self.model.device())).unwrap()
    }
}

#[test]
fn pixels_are_those_of_transformers() {
    let expected = Expected::of("llama");
    for picture in &expected.pictures {
        let found = expected.prepared(picture);
        let what = format!("{:?}", found.original_size);
        let pixels = fixture::floats_from_hexadecimal(&picture["pixels"]);
        assert_close(&what, &found.values, &pixels, F32_ELEMENTWISE);
    }
}

#[test]
fn image_tokens_are_those_of_transformers() {
    let expected = Expected::of("llama");
    for picture in &expected.pictures {
        let found = expected.features(std::slice::from_ref(picture));
        let features = fixture::floats_from_hexadecimal(&picture["features"]);
        assert_close("image tokens", &floats(found.tokens()), &features, F32_FORWARD);
    }
}

#[test]
fn prompts_have_as_many_placeholders_as_in_transformers() {
    let expected = Expected::of("llama");
    for picture in &expected.pictures {
        let size = expected.prepared(picture).original_size;
        let expanded = expected.config.expand_image_token(&[1, 5, 9, 31, 12, 3, 17, 8], size);
        let prompt = fixture::ids(&picture["prompt"]);
        assert_eq!(expanded.expect("one placeholder"), prompt, "{size:?}");
    }
}

#[test]
fn logits_of_every_decoder_are_those_of_transformers() {
    for decoder in DECODERS {
        let expected = Expected::of(decoder);
        for (picture, case) in expected.pictures.iter().zip(&expected.cases) {
            let prompt = fixture::ids(&picture["prompt"]);
            let (before, after) = prompt.split_at(prompt.len() - 3);
            let response = [after, &[0]].concat();
            let example = Example { prompt: before, image: 0, response: &response };
            let features = expected.features(std::slice::from_ref(picture));
            let states = expected.model.response_states(&[example], &features);
            let logits = floats(&expected.model.language_model().logits(states.hidden));
            assert_close(decoder, &logits, &fixture::numbers(&case["logits"]), F32_FORWARD);
        }
    }
}

/// The images take different numbers of tokens, so their prompts are padded, which a sliding window has to reckon with.
#[test]
fn images_of_different_sizes_are_described_together_as_in_transformers() {
    for decoder in DECODERS {
        let expected = Expected::of(decoder);
        let prompt = |(image, picture): (usize, &Value)| Prompt {
            ids: fixture::ids(&picture["prompt"]),
            image,
            stream: 0,
        };
        let prompts: Vec<_> = expected.pictures.iter().enumerate().map(prompt).collect();
        let sampling = Sampling { max_new_tokens: 10, temperature: 0.0, seed: 0 };
        let features = expected.features(&expected.pictures);
        let responses =
            expected.model.generate(&prompts, &features, 1, &sampling).expect("responses");
        for (case, response) in expected.cases.iter().zip(responses) {
            let tokens = fixture::ids(&case["greedy"]["tokens"]);
            assert_eq!(response.tokens, tokens, "{decoder}");
            let logprobs = fixture::numbers(&case["greedy"]["logprobs"]);
            assert_close("log-probabilities", &response.logprobs, &logprobs, F32_FORWARD);
        }
    }
}

/// Responses of several lengths behind each prompt, read once and read with every response.
#[test]
fn a_window_reaches_from_responses_into_their_shared_prompt() {
    let expected = Expected::of("mistral_window");
    let prompts: Vec<_> =
        expected.pictures.iter().map(|picture| fixture::ids(&picture["prompt"])).collect();
    let responses: [&[u32]; 2] = [&[19, 19, 16, 17, 4, 16], &[6, 2]];
    let examples: Vec<_> = prompts
        .iter()
        .enumerate()
        .flat_map(|(image, prompt)| responses.map(|response| Example { prompt, image, response }))
        .collect();
    let features = expected.features(&expected.pictures);
    let together = expected.model.response_states(&examples, &features);
    let alone = examples
        .chunks(1)
        .flat_map(|example| floats(&expected.model.response_states(example, &features).hidden));
    assert_close("states", &floats(&together.hidden), &alone.collect::<Vec<_>>(), F32_FORWARD);
}

/// Gradients with layers recomputed in the backward pass, and without.
#[test]
fn a_window_is_trained_through_with_gradient_checkpointing() {
    let Expected { mut model, pictures, .. } = Expected::of("mistral_window");
    let frozen = model.clone();
    let trained =
        ["language_model.model.layers.0.self_attn.q_proj", "language_model.model.layers.1."];
    let count = model.train_where(&|name| trained.iter().any(|part| name.starts_with(part)));
    let expected = Expected::of("mistral_window");
    let features = expected.features(&pictures[3..]);
    let prompt = fixture::ids(&pictures[3]["prompt"]);
    let mut gradients = Vec::new();
    for recomputed in [None, Some(&frozen)] {
        let example = Example { prompt: &prompt, image: 0, response: &[19, 16, 2] };
        let (scores, pass) =
            model.training_scores(recomputed, &[example], &features, 1.0).expect("no card");
        let loss = scores.log_probs.mean().neg();
        let parts = model.backward(pass, &loss).expect("no card");
        gradients.push(collect_all_gradients(&mut model, &parts).expect("nothing is cut off"));
        assert_eq!(gradients[gradients.len() - 1].len(), count);
    }
    for (name, plain) in &gradients[0] {
        assert!(plain.iter().any(|&value| value != 0.0), "{name} is not reached");
        assert_close(name, &gradients[1][name], plain, F32_FORWARD);
    }
}

#[test]
fn the_end_of_a_row_and_the_projector_are_trained_through_the_tiles() {
    let Expected { mut model, pictures, .. } = Expected::of("llama");
    let trained = ["image_newline", "multi_modal_projector."];
    let count = model.train_where(&|name| trained.iter().any(|part| name.starts_with(part)));
    assert_eq!(count, 5);
    let prompt = fixture::ids(&pictures[1]["prompt"]);
    let example = Example { prompt: &prompt, image: 0, response: &[4, 7, 2] };
    let image = Expected::of("llama").prepared(&pictures[1]);
    let features = model.image_features(ImageBatch::new([&image], &model.device())).unwrap();
    let states = model.response_states(&[example], &features);
    let loss = model.log_probabilities(&states, 1.0).0.mean().neg();
    let gradients = collect_gradients(&mut model, &loss.backward()).expect("nothing is cut off");
    assert_eq!(gradients.len(), count);
    for (name, gradient) in gradients {
        assert!(gradient.iter().any(|&value| value != 0.0), "{name} is not reached");
    }
}
