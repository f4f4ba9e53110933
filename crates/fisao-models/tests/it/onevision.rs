//! Images in tiles against transformers' LLaVA-OneVision (`fixtures/tiny_interleave/generate.py`).

use std::sync::Arc;

use burn::tensor::Device;
use fisao_models::generation::{Prompt, Sampling};
use fisao_models::image::{
    BestResolution, Filter, ImageProcessor, PixelValues, Resize, TileLayout,
};
use fisao_models::parameters::{Parameters, collect_gradients, floats};
use fisao_models::sequences::Example;
use fisao_models::vision_language::llava::LlavaConfig;
use fisao_models::vision_language::{
    ImageBatch, ImageFeatures, VisionLanguageConfig, VisionLanguageModel,
};
use fisao_testkit::compare::assert_close;
use fisao_testkit::tolerance::{F32_ELEMENTWISE, F32_FORWARD};
use serde_json::Value;

use crate::fixture::{self, StoredWeights};

fn model() -> (VisionLanguageModel, Vec<Value>) {
    let mut case = fixture::json("tiny_interleave/onevision.json")["llava"].take();
    let config: LlavaConfig = serde_json::from_value(case["config"].take()).expect("a LLaVA");
    let mut weights = StoredWeights::open("tiny_interleave/onevision.safetensors");
    let model = VisionLanguageModel::load(config, &mut weights, &Device::flex())
        .expect("a complete checkpoint");
    assert!(weights.unread().is_empty(), "left over: {:?}", weights.unread());
    let images = case["pictures"].as_array().expect("a list").clone();
    assert!(images.len() > 2);
    (model, images)
}

fn prepared(model: &VisionLanguageModel, case: &Value) -> PixelValues {
    let VisionLanguageConfig::Llava(config) = model.config() else { panic!("not a LLaVA") };
    let side = config.vision.image_size as u32;
    let processor = ImageProcessor {
        pad: None,
        resize: Some(Resize::Exact { width: side, height: side }),
        filter: Filter::Bicubic,
        crop: None,
        rescale: 1.0 / 255.0,
        mean: [0.5; 3],
        std: [0.5; 3],
        tiles: config.tiling.as_ref().map(|tiling| {
            let resolutions = tiling.resolutions.clone();
            Arc::new(BestResolution { resolutions }) as Arc<dyn TileLayout>
        }),
    };
    processor.process(&fixture::image(&case["picture"]))
}

fn features(model: &VisionLanguageModel, cases: &[Value]) -> ImageFeatures {
    let images: Vec<_> = cases.iter().map(|case| prepared(model, case)).collect();
    model.image_features(ImageBatch::new(&images, &model.device())).unwrap()
}

#[test]
fn tiled_pixels_match_transformers() {
    let (model, cases) = model();
    for case in &cases {
        let found = prepared(&model, case);
        let expected = fixture::floats_from_hexadecimal(&case["pixels"]);
        let what = format!("{:?}", found.original_size);
        assert_close(&what, &found.values, &expected, F32_ELEMENTWISE);
        assert_eq!(found.tiles() * 3 * 14 * 14, expected.len());
    }
}

#[test]
fn image_token_count_in_prompts_matches_transformers() {
    let (model, cases) = model();
    for case in &cases {
        let prompt = fixture::ids(&case["prompt"]);
        let mut short = prompt.clone();
        short.dedup();
        let size = prepared(&model, case).original_size;
        let expanded =
            model.config().family().expand_image_token(&short, size).expect("one placeholder");
        assert_eq!(expanded, prompt, "{size:?}");
    }
}

#[test]
fn logits_match_transformers() {
    let (model, cases) = model();
    for case in &cases {
        let prompt = fixture::ids(&case["prompt"]);
        let (before, after) = prompt.split_at(prompt.len() - 3);
        let response = [after, &[0]].concat();
        let example = Example { prompt: before, image: 0, response: &response };
        let states =
            model.response_states(&[example], &features(&model, std::slice::from_ref(case)));
        let logits = floats(&model.language_model().logits(states.hidden));
        assert_close("logits", &logits, &fixture::numbers(&case["logits"]), F32_FORWARD);
    }
}

/// The images take different numbers of tokens, so their prompts are padded.
#[test]
fn batched_images_of_different_sizes_decode_as_in_transformers() {
    let (model, cases) = model();
    let prompt = |(image, case): (usize, &Value)| Prompt {
        ids: fixture::ids(&case["prompt"]),
        image,
        stream: 0,
    };
    let prompts: Vec<_> = cases.iter().enumerate().map(prompt).collect();
    let sampling = Sampling { max_new_tokens: 10, temperature: 0.0, seed: 0 };
    let responses =
        model.generate(&prompts, &features(&model, &cases), 1, &sampling).expect("responses");
    for (case, response) in cases.iter().zip(responses) {
        let expected = fixture::ids(&case["greedy"]["tokens"]);
        assert_eq!(response.tokens[..expected.len()], expected);
        let expected = fixture::numbers(&case["greedy"]["logprobs"]);
        let found = &response.logprobs[..expected.len()];
        assert_close("log-probabilities", found, &expected, F32_FORWARD);
    }
}

#[test]
fn image_features_can_be_split_and_concatenated() {
    let (model, cases) = model();
    let all = features(&model, &cases);
    let parts = all.split();
    for (part, case) in parts.iter().zip(&cases) {
        let alone = features(&model, std::slice::from_ref(case));
        assert_eq!(part.counts(), alone.counts());
        let (part, alone) = (floats(part.tokens()), floats(alone.tokens()));
        assert_close("features", &part, &alone, F32_FORWARD);
    }
    let together = ImageFeatures::cat(parts);
    assert_eq!(together.counts(), all.counts());
    assert_eq!(floats(together.tokens()), floats(all.tokens()));
}

#[test]
fn first_tile_is_the_whole_image() {
    let (model, cases) = model();
    let images: Vec<_> = cases.iter().map(|case| prepared(&model, case)).collect();
    let whole = floats(&ImageBatch::new(&images, &model.device()).whole());
    let firsts: Vec<f32> = images.iter().flat_map(|p| &p.values[..3 * 14 * 14]).copied().collect();
    assert_eq!(whole, firsts);
}

#[test]
fn newline_and_projector_get_gradients_through_pooled_tokens() {
    let (mut model, cases) = model();
    let trained = ["image_newline", "multi_modal_projector."];
    let count = model.train_where(&|name| trained.iter().any(|part| name.starts_with(part)));
    assert_eq!(count, 5);
    let case = cases.last().expect("a list");
    let prompt = fixture::ids(&case["prompt"]);
    let response = [4, 7, 2];
    let example = Example { prompt: &prompt, image: 0, response: &response };
    let states = model.response_states(&[example], &features(&model, std::slice::from_ref(case)));
    let loss = model.log_probabilities(&states, 1.0).0.mean().neg();
    let gradients = collect_gradients(&mut model, &loss.backward()).expect("nothing is cut off");
    assert_eq!(gradients.len(), count);
    for (name, gradient) in gradients {
        assert!(gradient.iter().any(|&value| value != 0.0), "{name} is not reached");
    }
}

#[test]
#[should_panic(expected = "has 1 tiles, but the model looks at")]
fn image_with_missing_tiles_is_rejected() {
    let (model, cases) = model();
    let mut image = prepared(&model, &cases[3]);
    image.values.truncate(3 * 14 * 14);
    model.image_features(ImageBatch::new([&image], &model.device())).unwrap();
}
