//! What the head reads at image positions, against a plain pass over the prompt and against transformers
//! (`fixtures/decoder_reading/generate.py`).

use burn::tensor::activation::log_softmax;
use fisao_models::attention::Mask;
use fisao_models::llama::{Pass, Positions};
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::vision_language::{ImageFeatures, VisionLanguageModel};
use fisao_testkit::compare::assert_close;
use fisao_testkit::tiny;
use fisao_testkit::tolerance::F32_FORWARD;
use serde_json::Value;

use crate::fixture;
use crate::{qwen_vl, transformers};

/// Absolute tolerance of log-probabilities in f32.
const TOLERANCE: f64 = 1e-5;

#[test]
fn image_readings_equal_plain_forward_at_image_positions() {
    let model = tiny::tiny_llava(5);
    let features = model.image_features(tiny::pixels(2, 6)).unwrap();
    let tokens = [4, 9, 30];
    for image in 0..2 {
        let prompt = tiny::prompt(&[7, 12, 5]);
        let example = Example { prompt: &prompt, image, response: &[8, 2] };
        let found = model.read_images(&[example], &features, &tokens, 1);
        let rows = vec![prompt.clone()];
        let x = model.embed(&rows, &[image], &features);
        let positions = Positions::Single((0..prompt.len()).collect());
        let mask = Mask::causal();
        let pass = Pass { batch: 1, positions: &positions, mask: &mask, wanted: None, deep: &[] };
        let states = model.language_model().forward(x, &pass, None);
        let all = floats(&log_softmax(model.language_model().logits(states), 1));
        let vocabulary = model.language_model().config().vocab_size;
        for (at, &token) in tokens.iter().enumerate() {
            let expected = (0..prompt.len())
                .filter(|&position| prompt[position] == model.tokens().image)
                .map(|position| f64::from(all[position * vocabulary + token as usize]))
                .fold(f64::NEG_INFINITY, f64::max);
            assert!((found[0][at] - expected).abs() < TOLERANCE, "{} {expected}", found[0][at]);
        }
    }
}

#[test]
fn image_readings_ignore_the_batch_and_text_after_the_image() {
    let model = tiny::tiny_llava(5);
    let features = model.image_features(tiny::pixels(3, 6)).unwrap();
    let tokens = [4, 9, 30];
    let prompts = [tiny::prompt(&[7]), tiny::prompt(&[7, 12, 5, 9]), tiny::prompt(&[])];
    let example =
        |at: usize| Example { prompt: &prompts[at], image: 2 - at, response: &[8, 2][..at.min(1)] };
    let together = model.read_images(&[example(0), example(1), example(2)], &features, &tokens, 2);
    let other = tiny::prompt(&[3, 3]);
    for (at, together) in together.iter().enumerate() {
        let alone = model.read_images(&[example(at)], &features, &tokens, 2);
        let asked_otherwise = Example { prompt: &other, ..example(at) };
        let asked_otherwise = model.read_images(&[asked_otherwise], &features, &tokens, 2);
        for column in 0..tokens.len() {
            assert!((together[column] - alone[0][column]).abs() < TOLERANCE);
            assert!((together[column] - asked_otherwise[0][column]).abs() < TOLERANCE);
        }
    }
    assert!((together[0][0] - together[1][0]).abs() > 1e-4, "images differ: {together:?}");
}

#[test]
fn image_readings_do_not_decrease_with_more_layers() {
    let model = tiny::tiny_llava(5);
    let features = model.image_features(tiny::pixels(1, 6)).unwrap();
    let prompt = tiny::prompt(&[7]);
    let example = Example { prompt: &prompt, image: 0, response: &[] };
    let all: Vec<u32> = (0..32).collect();
    let read = |depth| model.read_images(std::slice::from_ref(&example), &features, &all, depth);
    let (last, both) = (read(1).remove(0), read(2).remove(0));
    assert!(last.iter().zip(&both).all(|(last, both)| last <= both));
    assert!(last.iter().zip(&both).any(|(last, both)| last < both));
}

/// Holds what one model reads in images against a fixture, for each number of layers.
fn assert_reading(
    name: &str,
    model: &VisionLanguageModel,
    (prompts, features): (&[Vec<u32>], &ImageFeatures),
    expected: &[Value],
) {
    let document = fixture::json("decoder_reading/expected.json");
    let tokens = fixture::ids(&document["tokens"]);
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let probabilities = |row: &[f32]| row.iter().map(|x| x.exp()).collect::<Vec<_>>();
    for depth in [1, 2] {
        let peaks = model.peak_log_probabilities(&prompts, features, depth);
        assert_eq!(peaks.len(), expected.len());
        for (at, (case, peaks)) in expected.iter().zip(&peaks).enumerate() {
            let case = &case[depth.to_string()];
            let what = format!("{name}, image {at}, {depth} layers");
            let wanted = fixture::numbers(&case["peaks"]);
            assert_close(&what, &probabilities(peaks), &wanted, F32_FORWARD);
            let one = &features.split()[at];
            let places = model.position_log_probabilities(prompts[at], one, &tokens, depth);
            for (places, wanted) in places.iter().zip(case["places"].as_array().unwrap()) {
                let places: Vec<f32> = places.iter().map(|x| x.exp() as f32).collect();
                assert_close(&what, &places, &fixture::numbers(wanted), F32_FORWARD);
            }
        }
    }
}

#[test]
fn vocabulary_readings_match_transformers() {
    let document = fixture::json("decoder_reading/expected.json");
    let (model, case) = transformers::llava(transformers::LLAVA);
    let side = transformers::image_size(&model);
    let features = model.image_features(transformers::pixels(&case, 1, side)).unwrap();
    let prompts = [fixture::ids(&case["prompt"])];
    let expected = [document["llava"].clone()];
    assert_reading("llava", &model, (&prompts, &features), &expected);
    // Images of several sizes in one batch; positions in three axes, and features added behind two layers.
    for name in qwen_vl::FAMILIES {
        let (model, cases) = qwen_vl::family(name);
        let prompts = qwen_vl::prompts(&model, &cases);
        let features = qwen_vl::features(&model, &cases);
        let expected = document[name].as_array().unwrap();
        assert_reading(name, &model, (&prompts, &features), expected);
    }
}

#[test]
fn peaks_are_the_readings_of_every_token() {
    let model = tiny::tiny_llava(5);
    let features = model.image_features(tiny::pixels(2, 6)).unwrap();
    let prompts = [tiny::prompt(&[7]), tiny::prompt(&[7, 12, 5, 9])];
    let slices: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let peaks = model.peak_log_probabilities(&slices, &features, 2);
    let all: Vec<u32> = (0..model.language_model().config().vocab_size as u32).collect();
    for (image, prompt) in prompts.iter().enumerate() {
        let example = Example { prompt, image, response: &[] };
        let found = model.read_images(&[example], &features, &all, 2).remove(0);
        for (peak, found) in peaks[image].iter().zip(found) {
            assert!((f64::from(*peak) - found).abs() < TOLERANCE, "{peak} {found}");
        }
    }
}
