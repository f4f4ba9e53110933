//! Against transformers itself, on small random checkpoints that transformers wrote.
//!
//! Runs when `FISAO_TINY_CHECKPOINTS` names a folder with `llava/`, `clip/`, `image.png`,
//! `expected.safetensors` and `expected.json`, as the checkpoint generator of `fixtures/` makes it.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use fisao_formats::checkpoint::{
    SpecialTokens, write_clip, write_clip_processing, write_llava, write_llava_processing,
};
use fisao_formats::documents::write_json;
use fisao_formats::images::open_image;
use fisao_formats::weights::MappedFile;
use fisao_formats::{Adapter, Checkpoint, LoadDtype, StoredDtype};
use fisao_models::generation::{Generated, Prompt, Sampling};
use fisao_models::llava::Llava;
use fisao_models::lora::LoraConfig;
use fisao_models::text::Tokenizer;
use serde_json::{Value, json};

const VARIABLE: &str = "FISAO_TINY_CHECKPOINTS";
/// Pixels of the normalised image, cosines and log-probabilities, in f32.
const PIXELS: f32 = 1e-4;
const COSINES: f32 = 1e-4;
const LOGPROBS: f32 = 1e-3;

#[expect(clippy::print_stderr, reason = "a test that does not run has to say so")]
fn folder(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(VARIABLE).map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: {test} ({VARIABLE} is not set)");
    }
    folder
}

fn expected(folder: &Path, name: &str) -> Vec<f32> {
    let file = MappedFile::open(&folder.join("expected.safetensors")).expect("expected tensors");
    let tensor = file.tensor(name).expect("the generator writes it");
    let data = tensor.to_f32(tensor.shape()).expect("floats");
    data.try_to_vec().expect("f32")
}

fn expected_json(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("expected.json")).expect("expected.json");
    serde_json::from_str(&text).expect("JSON")
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: off by {worst}, allowed {tolerance}");
}

fn pixels(folder: &Path, checkpoint: &Checkpoint) -> Vec<f32> {
    let image = open_image(&folder.join("image.png")).expect("the generator's image");
    checkpoint.image_processor().expect("a processor").process(&image).0
}

/// What the model says about the generator's image, greedily.
fn greedy(folder: &Path, checkpoint: &Checkpoint, model: &Llava) -> Generated {
    let config = model.config();
    let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
    let expected = expected_json(folder);
    let prompt = expected["prompt"].as_str().expect("text");
    let ids = tokenizer.encode(prompt, true).expect("any text");
    let ids = config.expand_image_token(&ids).expect("one placeholder");
    let side = config.vision.image_size;
    let pixels = TensorData::new(pixels(folder, checkpoint), [1, 3, side, side]);
    let features = model.image_features(Tensor::<4>::from_data(pixels, &model.device()));
    let sampling = Sampling { max_new_tokens: 12, temperature: 0.0, seed: 0 };
    let prompt = Prompt { ids, image: 0, stream: 0 };
    model.generate(&[prompt], &features, 1, &sampling).remove(0)
}

#[test]
fn llava_sees_and_says_what_it_says_in_transformers() {
    let Some(folder) = folder("llava_sees_and_says_what_it_says_in_transformers") else { return };
    let expected_json = expected_json(&folder);
    let checkpoint = Checkpoint::open(&folder.join("llava")).expect("a llava checkpoint");
    let device = Device::flex();
    let loaded = checkpoint.load_llava(LoadDtype::F32, &device).expect("whole weights");
    assert_eq!(loaded.unused, Vec::<String>::new());

    let pixels = pixels(&folder, &checkpoint);
    assert_close(&pixels, &expected(&folder, "pixel_values"), PIXELS, "pixels");

    let said = greedy(&folder, &checkpoint, &loaded.model);
    let tokens = said.tokens.iter().map(|&id| Value::from(id)).collect::<Vec<_>>();
    assert_eq!(Value::Array(tokens), expected_json["new_tokens"]);
    assert_close(&said.logprobs, &expected(&folder, "new_logprobs"), LOGPROBS, "logprobs");
    let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
    let text = tokenizer.decode(said.text_tokens()).expect("known ids").text;
    assert_eq!(Some(text.as_str()), expected_json["generated"].as_str());
}

#[test]
fn clip_measures_the_cosines_it_measures_in_transformers() {
    let Some(folder) = folder("clip_measures_the_cosines_it_measures_in_transformers") else {
        return;
    };
    let checkpoint = Checkpoint::open(&folder.join("clip")).expect("a clip checkpoint");
    let device = Device::flex();
    let loaded = checkpoint.load_clip(LoadDtype::F32, &device).expect("whole weights");
    assert_eq!(loaded.unused, Vec::<String>::new());
    let side = loaded.model.config().vision.image_size;
    let pixels = TensorData::new(pixels(&folder, &checkpoint), [1, 3, side, side]);
    let image = loaded.model.embed_images(Tensor::from_data(pixels, &device));

    let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
    let texts = expected_json(&folder);
    let texts = texts["texts"].as_array().expect("a list").iter();
    let ids = texts.map(|text| tokenizer.encode(text.as_str().expect("text"), true));
    let ids = ids.collect::<Result<Vec<_>, _>>().expect("any text");
    let text = loaded.model.embed_text(&ids);
    let cosines = image.matmul(text.transpose()).into_data().try_to_vec::<f32>().expect("f32");
    assert_close(&cosines, &expected(&folder, "cosines"), COSINES, "cosines");
}

/// Writes the same models back with this crate, and an adapter, into `rewritten/` beside them, for
/// transformers and PEFT to load; here they are only loaded again.
#[test]
fn checkpoints_are_written_back_for_transformers() {
    let Some(folder) = folder("checkpoints_are_written_back_for_transformers") else { return };
    let device = Device::flex();
    let checkpoint = Checkpoint::open(&folder.join("llava")).expect("a llava checkpoint");
    let mut model = checkpoint.load_llava(LoadDtype::F32, &device).expect("whole weights").model;
    let (tokenizer, images) = (checkpoint.tokenizer(), checkpoint.image_processor());
    let (tokenizer, images) = (tokenizer.expect("a tokenizer"), images.expect("a processor"));
    let special = SpecialTokens {
        bos: "<s>".to_owned(),
        eos: "</s>".to_owned(),
        pad: "<unk>".to_owned(),
        unk: "<unk>".to_owned(),
    };
    let target = folder.join("rewritten/llava");
    write_llava_processing(&target, model.config(), &tokenizer, &special, &images)
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
    let adapter = Adapter::of(&model, config, Some(target.display().to_string()));
    adapter.write(&folder.join("rewritten/adapter")).expect("writable");
    let said = greedy(&folder, &checkpoint, &model);
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
