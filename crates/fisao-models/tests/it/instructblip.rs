//! Image tokens, logits and answers against transformers' InstructBLIP, and scores against its BLIP-2
//! (`fixtures/tiny_instructblip/generate.py`).

use burn::tensor::{Device, Tensor, TensorData};
use fisao_models::blip2::{Blip2, Blip2Config};
use fisao_models::contrastive::ContrastiveModel;
use fisao_models::generation::{Prompt, Sampling};
use fisao_models::parameters::{Parameters, collect_gradients, floats, from_floats};
use fisao_models::sequences::Example;
use fisao_models::vision::VisionOutput;
use fisao_models::vision_language::instructblip::InstructBlipConfig;
use fisao_models::vision_language::{ImageBatch, ImageFeatures, VisionLanguageModel};
use fisao_models::weights::{Init, WeightError, WeightSource};
use fisao_testkit::compare::assert_close;
use fisao_testkit::tolerance::F32_FORWARD;
use serde_json::Value;

use crate::fixture::{self, StoredWeights};

const FIXTURE: &str = "tiny_instructblip/expected.json";

fn images() -> Vec<Value> {
    fixture::json(FIXTURE)["images"].as_array().expect("a list").clone()
}

fn model() -> VisionLanguageModel {
    let mut document = fixture::json(FIXTURE);
    let config: InstructBlipConfig =
        serde_json::from_value(document["config"].take()).expect("an InstructBLIP");
    let mut weights = StoredWeights::open("tiny_instructblip/instructblip.safetensors");
    let model = VisionLanguageModel::load(config, &mut weights, &Device::flex());
    let model = model.expect("a complete checkpoint");
    assert!(weights.unread().is_empty(), "left over: {:?}", weights.unread());
    model
}

fn pixels(image: &Value) -> Tensor<4> {
    let values = fixture::floats_from_hexadecimal(&image["pixels"]);
    from_floats(values, [1, 3, 12, 12], &Device::flex())
}

/// Every question about an image, and the image as often.
fn asked(image: &Value) -> (ImageBatch, Vec<Value>) {
    let questions = image["questions"].as_array().expect("a list").clone();
    let pixels = pixels(image).repeat_dim(0, questions.len());
    let instructions = questions.iter().map(|asked| fixture::ids(&asked["instruction"]));
    (ImageBatch::from(pixels).with_instructions(instructions.collect()), questions)
}

fn prompt(model: &VisionLanguageModel, question: &Value) -> Vec<u32> {
    let image = model.tokens().image;
    let short = [&[image], fixture::ids(&question["text"]).as_slice()].concat();
    let family = model.config().family();
    family.expand_image_token(&short, (12, 12)).expect("one placeholder")
}

#[test]
fn image_tokens_match_transformers_for_instructions_of_any_length() {
    let model = model();
    for image in images() {
        let (batch, questions) = asked(&image);
        let features = model.image_features(batch).unwrap().split();
        for (question, features) in questions.iter().zip(&features) {
            let expected = fixture::numbers(&question["image_tokens"]);
            assert_close("image tokens", &floats(features.tokens()), &expected, F32_FORWARD);
        }
        let first = floats(features[0].tokens());
        assert_ne!(first, floats(features[1].tokens()), "the instruction is not read");
    }
}

#[test]
#[should_panic(expected = "the image encoder reads the instruction, and an image has none")]
fn images_without_instruction_panic() {
    model().image_features(pixels(&images()[0])).unwrap();
}

#[test]
fn logits_match_transformers() {
    let model = model();
    for image in images() {
        let (batch, questions) = asked(&image);
        let features = model.image_features(batch).unwrap();
        for (image, question) in questions.iter().enumerate() {
            let prompt = prompt(&model, question);
            let (before, after) = prompt.split_at(prompt.len() - 1);
            let response = [after, &[0]].concat();
            let example = Example { prompt: before, image, response: &response };
            let states = model.response_states(&[example], &features);
            let logits = floats(&model.language_model().logits(states.hidden));
            let expected = fixture::numbers(&question["logits"]);
            assert_close("logits", &logits, &expected, F32_FORWARD);
        }
    }
}

#[test]
fn greedy_answers_match_transformers() {
    let model = model();
    let sampling = Sampling { max_new_tokens: 8, temperature: 0.0, seed: 0 };
    for image in images() {
        let (batch, questions) = asked(&image);
        let features = model.image_features(batch).unwrap();
        let prompts = questions.iter().enumerate().map(|(image, question)| Prompt {
            ids: prompt(&model, question),
            image,
            stream: 0,
        });
        let prompts: Vec<_> = prompts.collect();
        let responses = model.generate(&prompts, &features, 1, &sampling).expect("responses");
        for (question, response) in questions.iter().zip(responses) {
            let expected = fixture::ids(&question["greedy"]["tokens"]);
            assert_eq!(response.tokens[..expected.len()], expected);
            let expected = fixture::numbers(&question["greedy"]["logprobs"]);
            let found = &response.logprobs[..expected.len()];
            assert_close("log-probabilities", found, &expected, F32_FORWARD);
        }
    }
}

#[test]
fn gradients_reach_queries_and_qformer() {
    let mut model = model();
    let connector = ["query_tokens", "qformer.", "language_projection."];
    let count = model.train_where(&|name| connector.iter().any(|prefix| name.starts_with(prefix)));
    let image = &images()[0];
    let (batch, questions) = asked(image);
    let features: ImageFeatures = model.image_features(batch).unwrap();
    let prompt = prompt(&model, &questions[0]);
    let example = Example { prompt: &prompt, image: 0, response: &[4, 7, 2] };
    let states = model.response_states(&[example], &features);
    let loss = model.log_probabilities(&states, 1.0).0.mean().neg();
    let gradients = collect_gradients(&mut model, &loss.backward()).expect("nothing is cut off");
    assert_eq!(gradients.len(), count);
    // The last layer's positions of the instruction lead nowhere.
    let unread = ["encoder.layer.2.intermediate.", "encoder.layer.2.output."];
    for (name, gradient) in gradients {
        let read = !unread.iter().any(|part| name.contains(part));
        assert_eq!(gradient.iter().any(|&value| value != 0.0), read, "{name}");
    }
}

/// BLIP-2's own weights, and the layers of the tower from InstructBLIP's.
struct SharedTower {
    own: StoredWeights,
    policy: StoredWeights,
}

impl WeightSource for SharedTower {
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        init: Init,
    ) -> Result<TensorData, WeightError> {
        match self.own.tensor(name, shape, init) {
            Err(WeightError::Missing { .. }) => {
                self.policy.tensor(&format!("vision_tower.{name}"), shape, init)
            }
            found => found,
        }
    }
}

fn blip2() -> Blip2 {
    let mut document = fixture::json(FIXTURE);
    let config: Blip2Config =
        serde_json::from_value(document["blip2"].take()).expect("a BLIP-2 model");
    let mut weights = SharedTower {
        own: StoredWeights::open("tiny_instructblip/blip2.safetensors"),
        policy: StoredWeights::open("tiny_instructblip/instructblip.safetensors"),
    };
    Blip2::load(config, &mut weights, &Device::flex()).expect("a complete checkpoint")
}

#[test]
fn contrastive_scores_match_transformers_from_either_tower() {
    let (model, matching) = (model(), blip2());
    for image in images() {
        let own = matching.vision().encode(pixels(&image)).unwrap();
        // The states of InstructBLIP's tower, which has the same layers and another last norm.
        let (batch, _) = asked(&image);
        let (_, shared) = model.image_features_and_vision_output(batch).unwrap();
        let shared = VisionOutput { states: shared.states.narrow(0, 0, 1), depth: shared.depth };
        for output in [own, shared] {
            let embedding = floats(&matching.embed_vision_output(output).unwrap());
            for text in image["texts"].as_array().expect("a list") {
                let ids = fixture::ids(&text["ids"]);
                let text_embedding = floats(&matching.embed_text(&[ids]).unwrap());
                let cosine = |query: &[f32]| -> f32 {
                    query.iter().zip(&text_embedding).map(|(x, y)| x * y).sum()
                };
                let queries = embedding.chunks_exact(text_embedding.len());
                let best = queries.map(cosine).fold(f32::NEG_INFINITY, f32::max);
                let expected = fixture::numbers(&text["itc"]);
                assert_close("ITC", &[best], &expected, F32_FORWARD);
            }
        }
    }
}

#[test]
fn matching_logits_match_transformers_in_one_batch() {
    let model = blip2();
    for image in images() {
        let texts = image["texts"].as_array().expect("a list");
        let ids: Vec<_> = texts.iter().map(|text| fixture::ids(&text["ids"])).collect();
        let output = model.vision().encode(pixels(&image).repeat_dim(0, ids.len())).unwrap();
        let found = floats(&model.matching_logits(output, &ids).unwrap());
        let expected: Vec<f32> =
            texts.iter().flat_map(|text| fixture::numbers(&text["itm"])).collect();
        assert_close("ITM", &found, &expected, F32_FORWARD);
    }
}

#[test]
fn patch_embeddings_are_those_of_a_patch_alone() {
    let model: ContrastiveModel = blip2().into();
    let output = model.vision().encode(pixels(&images()[0])).unwrap();
    let (whole, patches) = model.embed_patches(output.clone()).unwrap();
    assert_eq!(floats(&whole), floats(&model.embed_vision_output(output).unwrap()));
    let [_, count, width] = patches.dims();
    assert_eq!((count, width), (16, model.dim() * model.image_vectors()));
    let norms = patches.reshape([count * model.image_vectors(), model.dim()]);
    for norm in floats(&norms.square().sum_dim(1)) {
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
}
