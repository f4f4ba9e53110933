//! Against transformers itself, on small random checkpoints that transformers wrote.
//!
//! Runs when `FISAO_TINY_CHECKPOINTS` names a folder with `llava/`, `clip/` or `siglip/`, `image.png`,
//! `expected.safetensors` and `expected.json`, or a folder of such folders, as
//! `fixtures/parity/generate.py` makes them.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fisao_formats::adapter::Adapter;
use fisao_formats::checkpoint::{
    Checkpoint, ModelConfig, SpecialTokens, write_clip, write_clip_processing, write_llava,
    write_llava_processing,
};
use fisao_formats::documents::write_json;
use fisao_formats::images::open_image;
use fisao_formats::merge::{Merge, MergeOptions};
use fisao_formats::weights::{LoadDtype, MappedFile, StoredDtype};
use fisao_models::generation::{Generated, Prompt, Sampling};
use fisao_models::image::PixelValues;
use fisao_models::lora::LoraConfig;
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::text::Tokenizer;
use fisao_models::vision_language::{ImageBatch, ImageFeatures, VisionLanguageModel};
use fisao_testkit::skipped::report_skipped;
use serde_json::{Value, json};

use crate::peft::last_logits;
use crate::tiny;

const VARIABLE: &str = "FISAO_TINY_CHECKPOINTS";

/// How far results may be from transformers'.
struct Tolerance {
    /// Pixels of the normalised image, absolute.
    pixels: f32,
    /// Log-probabilities, absolute.
    logprobs: f32,
    /// Cosines, absolute.
    cosines: f32,
}

const F32: Tolerance = Tolerance { pixels: 1e-4, logprobs: 1e-3, cosines: 1e-4 };
/// transformers computes in the type of the weights, and pixels are rounded to it before they are
/// written down; we compute in f32 whatever the weights are stored in.
const HALF: Tolerance = Tolerance { pixels: 8e-3, logprobs: 3e-2, cosines: 5e-3 };
/// Logits where transformers computes in f32 too, relative to the largest.
const LOGITS: f32 = 2e-4;

/// The folders of single cases, with what may be off in them.
fn cases(test: &str) -> Vec<(PathBuf, Tolerance)> {
    let Some(root) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        report_skipped(test, &format!("{VARIABLE} is not set"));
        return Vec::new();
    };
    let mut folders = vec![root.clone()];
    if !root.join("expected.json").exists() {
        let entries = fs::read_dir(&root).expect("a folder of cases");
        folders = entries.map(|entry| entry.expect("a readable folder").path()).collect();
        folders.retain(|folder| folder.join("expected.json").exists());
        folders.sort();
    }
    assert!(!folders.is_empty(), "{} holds no case", root.display());
    folders
        .into_iter()
        .map(|folder| {
            let checkpoint = Checkpoint::open(&folder.join("llava")).expect("a llava checkpoint");
            let weights = checkpoint.weights(LoadDtype::AsStored).expect("weights");
            let exact = weights.inventory().iter().all(|(_, dtype, _)| dtype == "F32");
            (folder, if exact { F32 } else { HALF })
        })
        .collect()
}

pub(crate) fn expected(folder: &Path, name: &str) -> Vec<f32> {
    tensor(folder, "expected.safetensors", name)
}

fn tensor(folder: &Path, file: &str, name: &str) -> Vec<f32> {
    let file = MappedFile::open(&folder.join(file)).expect("expected tensors");
    let tensor = file.tensor(name).expect("the generator writes it");
    let data = tensor.to_f32(tensor.shape()).expect("floats");
    data.try_to_vec().expect("f32")
}

pub(crate) fn expected_json(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("expected.json")).expect("expected.json");
    serde_json::from_str(&text).expect("JSON")
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("a list of ids")
}

/// Largest difference.
pub(crate) fn furthest(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Prints how far off it is, so that a run shows more than that it passed.
#[expect(clippy::print_stderr, reason = "figures for the log")]
fn assert_close(folder: &Path, found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    let case = folder.file_name().expect("a named folder").display();
    assert_eq!(found.len(), expected.len(), "{case}: {what}");
    let worst = furthest(found, expected);
    eprintln!("{case}: {what} off by {worst:.1e}");
    assert!(worst <= tolerance, "{case}: {what} off by {worst}, allowed {tolerance}");
}

fn pixels(folder: &Path, checkpoint: &Checkpoint) -> PixelValues {
    let image = open_image(&folder.join("image.png")).expect("the generator's image");
    checkpoint.image_processor().expect("a processor").process(&image)
}

fn prompt(folder: &Path, checkpoint: &Checkpoint) -> Vec<u32> {
    let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
    let expected = expected_json(folder);
    let prompt = expected["prompt"].as_str().expect("text");
    let ids = tokenizer.encode(prompt, true).expect("any text");
    let config = checkpoint.vision_language_config().expect("a model").family();
    let size = pixels(folder, checkpoint).original_size;
    config.expand_image_token(&ids, size).expect("one placeholder")
}

/// Image tokens of the generator's image.
fn features(folder: &Path, checkpoint: &Checkpoint, model: &VisionLanguageModel) -> ImageFeatures {
    model.image_features(ImageBatch::new([&pixels(folder, checkpoint)], &model.device())).unwrap()
}

/// What the model says about the generator's image, greedily.
fn greedy(folder: &Path, checkpoint: &Checkpoint, model: &VisionLanguageModel) -> Generated {
    let features = features(folder, checkpoint, model);
    let sampling = Sampling { max_new_tokens: 12, temperature: 0.0, seed: 0 };
    let prompt = Prompt { ids: prompt(folder, checkpoint), image: 0, stream: 0 };
    model.generate(&[prompt], &features, 1, &sampling).expect("responses").remove(0)
}

/// Logits at every position of the prompt, and log-probabilities of what transformers said.
fn scored(
    folder: &Path,
    checkpoint: &Checkpoint,
    model: &VisionLanguageModel,
) -> (Vec<f32>, Vec<f32>) {
    let features = features(folder, checkpoint, model);
    let prompt = prompt(folder, checkpoint);
    let (first, rest) = prompt.split_at(1);
    // What the last position predicts is of no account to its logits.
    let rest = [rest, &[0]].concat();
    let example = Example { prompt: first, image: 0, response: &rest };
    let states = model.response_states(&[example], &features);
    let logits = floats(&model.language_model().logits(states.hidden));
    let said = ids(&expected_json(folder)["new_tokens"]);
    let example = Example { prompt: &prompt, image: 0, response: &said };
    let states = model.response_states(&[example], &features);
    let (logprobs, _) = model.log_probabilities(&states, 1.0);
    (logits, floats(&logprobs))
}

#[test]
fn llava_pixels_logits_and_tokens_match_transformers() {
    for (folder, tolerance) in cases("llava_pixels_logits_and_tokens_match_transformers") {
        let checkpoint = Checkpoint::open(&folder.join("llava")).expect("a llava checkpoint");
        let device = Device::flex();
        let loaded =
            checkpoint.load_vision_language(LoadDtype::AsStored, &device).expect("whole weights");
        assert_eq!(loaded.unused, Vec::<String>::new(), "{}", folder.display());

        let found = pixels(&folder, &checkpoint).values;
        let wanted = expected(&folder, "pixel_values");
        assert_close(&folder, &found, &wanted, tolerance.pixels, "pixels");

        let (logits, logprobs) = scored(&folder, &checkpoint, &loaded.model);
        let file = "expected-f32.safetensors";
        let wanted = tensor(&folder, file, "logits");
        let largest = wanted.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert_close(&folder, &logits, &wanted, LOGITS * largest, "logits");
        let wanted = tensor(&folder, file, "new_logprobs");
        assert_close(&folder, &logprobs, &wanted, F32.logprobs, "log-probabilities in f32");
        // Rounding its activations may carry transformers itself further from its own f32 results than
        // that; we cannot be nearer to it than it is to them.
        let exact = wanted;
        let wanted = expected(&folder, "new_logprobs");
        let allowed = tolerance.logprobs.max(furthest(&exact, &wanted) + F32.logprobs);
        assert_close(&folder, &logprobs, &wanted, allowed, "log-probabilities");

        // With 16 bits the first of two nearly equal tokens may be the other one.
        if tolerance.logprobs <= F32.logprobs {
            let said = greedy(&folder, &checkpoint, &loaded.model);
            let expected = expected_json(&folder);
            assert_eq!(said.tokens, ids(&expected["new_tokens"]), "{}", folder.display());
            assert_close(&folder, &said.logprobs, &wanted, tolerance.logprobs, "decoding");
            let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
            let text = tokenizer.decode(said.text_tokens()).expect("known ids").text;
            assert_eq!(Some(text.as_str()), expected["generated"].as_str());
        }
    }
}

/// Writes what `fixtures/peft_adapter/check_ours.py` compares: our logits with the adapter, and a
/// checkpoint with the adapter folded in.
fn write_expected_and_merged(
    folder: &Path,
    checkpoint: &Checkpoint,
    adapter: Adapter,
    adapted: &VisionLanguageModel,
) {
    let prompt = expected_json(folder)["prompt"].as_str().expect("text").to_owned();
    let ids = checkpoint.tokenizer().expect("a tokenizer").encode(&prompt, true);
    let PixelValues { values: pixels, original_size, .. } = pixels(folder, checkpoint);
    let ids = adapted.config().family().expand_image_token(&ids.expect("any text"), original_size);
    let ids = ids.expect("a placeholder");
    let logits = last_logits(adapted, pixels.clone(), &ids);
    let expected = json!({ "prompt": ids, "pixels": pixels, "logits": logits });
    write_json(&folder.join("rewritten/expected.json"), &expected).expect("writable");

    let merged = folder.join("rewritten/merged");
    if merged.exists() {
        std::fs::remove_dir_all(&merged).expect("an earlier run's");
    }
    let merge = Merge::new(checkpoint, adapter, Path::new("adapter"), &MergeOptions::default());
    let written = merge.expect("it fits").write(&merged, &mut |_| ControlFlow::Continue(()));
    written.expect("writable");
    let checkpoint = Checkpoint::open(&merged).expect("it was written just now");
    let model = checkpoint
        .load_vision_language(LoadDtype::F32, &Device::flex())
        .expect("whole weights")
        .model;
    assert_close(folder, &last_logits(&model, pixels, &ids), &logits, F32.logprobs, "merged");
}

#[test]
fn verifier_cosines_match_transformers() {
    for (folder, tolerance) in cases("verifier_cosines_match_transformers") {
        let siglip = folder.join("siglip/tokenizer.json").exists();
        let name = if siglip { "siglip" } else { "clip" };
        let checkpoint = Checkpoint::open(&folder.join(name)).expect("a verifier's checkpoint");
        let device = Device::flex();
        let loaded = checkpoint.load_contrastive(LoadDtype::AsStored, &device);
        let loaded = loaded.expect("whole weights");
        assert_eq!(loaded.unused, Vec::<String>::new());
        assert_eq!(siglip, matches!(checkpoint.config(), ModelConfig::Siglip(_)));
        let images = ImageBatch::new([&pixels(&folder, &checkpoint)], &device);
        let image = loaded.model.embed_images(images.whole()).unwrap();

        let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
        let texts = expected_json(&folder);
        let texts = texts["texts"].as_array().expect("a list").iter();
        let ids = texts.map(|text| tokenizer.encode(text.as_str().expect("text"), true));
        let ids = ids.collect::<Result<Vec<_>, _>>().expect("any text");
        let cosines = floats(&image.matmul(loaded.model.embed_text(&ids).unwrap().transpose()));
        let wanted = expected(&folder, "cosines");
        assert_close(&folder, &cosines, &wanted, tolerance.cosines, "cosines");
    }
}

/// Writes the same models back with this crate, and an adapter, into `rewritten/` beside them, for
/// transformers and PEFT to load; here they are only loaded again.
#[test]
fn checkpoints_rewritten_for_transformers_load_again() {
    let cases = cases("checkpoints_rewritten_for_transformers_load_again");
    let Some((folder, _)) = cases.iter().rfind(|(folder, _)| folder.join("clip").exists()) else {
        return;
    };
    let device = Device::flex();
    let checkpoint = Checkpoint::open(&folder.join("llava")).expect("a llava checkpoint");
    let mut model =
        checkpoint.load_vision_language(LoadDtype::F32, &device).expect("whole weights").model;
    let (tokenizer, images) = (checkpoint.tokenizer(), checkpoint.image_processor());
    let (tokenizer, images) = (tokenizer.expect("a tokenizer"), images.expect("a processor"));
    let special = SpecialTokens {
        bos: "<s>".to_owned(),
        eos: "</s>".to_owned(),
        pad: "<unk>".to_owned(),
        unk: "<unk>".to_owned(),
    };
    let target = folder.join("rewritten/llava");
    write_llava_processing(&target, tiny::as_llava(model.config()), &tokenizer, &special, &images)
        .expect("writable");
    write_llava(&target, &model, StoredDtype::F32).expect("writable");
    let again = Checkpoint::open(&target).expect("it was written just now");
    assert_eq!(again.config(), checkpoint.config());

    let config = LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() };
    model.add_lora(&config, 1).expect("a valid configuration");
    model.visit_lora_mut(&mut |name, mut parameter| {
        let count = parameter.shape().iter().product::<usize>();
        if name.ends_with("lora_B.weight") {
            parameter.set_values((0..count).map(|i| 0.3 * (i as f32).sin()).collect());
        }
    });
    let adapter = Adapter::of(&model, &config, Some(&target.display().to_string()));
    adapter.write(&folder.join("rewritten/adapter")).expect("writable");
    write_expected_and_merged(folder, &again, adapter, &model);
    let said = greedy(folder, &checkpoint, &model);
    write_json(
        &folder.join("rewritten/adapter.json"),
        &json!({ "tokens": said.tokens, "logprobs": said.logprobs }),
    )
    .expect("writable");

    let checkpoint = Checkpoint::open(&folder.join("clip")).expect("a clip checkpoint");
    let model = checkpoint.load_clip(LoadDtype::F32, &device).expect("whole weights").model;
    let (tokenizer, images) = (checkpoint.tokenizer(), checkpoint.image_processor());
    let (tokenizer, images) = (tokenizer.expect("a tokenizer"), images.expect("a processor"));
    let end = "<|endoftext|>".to_owned();
    let bos = "<|startoftext|>".to_owned();
    let special = SpecialTokens { bos, eos: end.clone(), pad: end.clone(), unk: end };
    let target = folder.join("rewritten/clip");
    let longest = model.config().text.max_position_embeddings;
    write_clip_processing(&target, longest, &tokenizer, &special, &images).expect("writable");
    write_clip(&target, &model, StoredDtype::F32).expect("writable");
    let again = Checkpoint::open(&target).expect("it was written just now");
    assert_eq!(again.config(), checkpoint.config());
}
