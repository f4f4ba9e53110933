//! Whole checkpoints: written and read back, in every layout, and with parts missing.

use std::fs;
use std::path::Path;

use burn::tensor::{Device, TensorData};
use fisao_formats::checkpoint::{
    Checkpoint, ModelConfig, clip_config_json, llava_config_json, named_tensors, write_checkpoint,
    write_clip, write_clip_processing, write_llava, write_llava_processing,
};
use fisao_formats::digest::{sha256_file, sha256_tensors};
use fisao_formats::weights::{LoadDtype, StoredDtype};
use fisao_models::image::ImageProcessor;
use fisao_models::text::Tokenizer;
use tempfile::{TempDir, tempdir};

use crate::{message, tiny};

fn digest(tensors: &[(String, TensorData)]) -> String {
    sha256_tensors(tensors.iter().map(|(name, data)| (name.as_str(), data)))
}

/// Writes a LLaVA with its keys changed by `rename`.
fn write_renamed(folder: &Path, rename: impl Fn(&str) -> String) {
    let config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
    let tensors = tiny::llava_tensors(3)
        .into_iter()
        .map(|(name, data)| (rename(&name), data))
        .collect::<Vec<_>>();
    write_checkpoint(folder, &config, &tensors, StoredDtype::F32).expect("a writable folder");
}

#[test]
fn llava_round_trips_through_a_checkpoint() {
    let folder = tempdir().expect("a temporary folder");
    let model = tiny::llava(3);
    write_llava(folder.path(), &model, StoredDtype::F32).expect("a writable folder");
    let checkpoint = Checkpoint::open(folder.path()).expect("it was written just now");
    assert_eq!(
        tiny::as_llava(checkpoint.vision_language_config().expect("a model")),
        &tiny::llava_config()
    );
    let loaded =
        checkpoint.load_vision_language(LoadDtype::F32, &Device::flex()).expect("whole weights");
    assert_eq!(loaded.unused, Vec::<String>::new());
    assert_eq!(digest(&named_tensors(&loaded.model)), digest(&named_tensors(&model)));
    assert_ne!(digest(&named_tensors(&model)), digest(&tiny::llava_tensors(4)));
}

#[test]
fn clip_round_trips_through_a_checkpoint() {
    let folder = tempdir().expect("a temporary folder");
    let model = tiny::clip(5);
    write_clip(folder.path(), &model, StoredDtype::F32).expect("a writable folder");
    let checkpoint = Checkpoint::open(folder.path()).expect("it was written just now");
    assert_eq!(checkpoint.config(), &ModelConfig::Clip(tiny::clip_config()));
    let loaded = checkpoint.load_clip(LoadDtype::F32, &Device::flex()).expect("whole weights");
    assert_eq!(loaded.unused, Vec::<String>::new());
    assert_eq!(digest(&named_tensors(&loaded.model)), digest(&named_tensors(&model)));
}

#[test]
fn writing_twice_gives_the_same_bytes() {
    let folder = tempdir().expect("a temporary folder");
    let weights = folder.path().join("model.safetensors");
    write_clip(folder.path(), &tiny::clip(5), StoredDtype::F16).expect("a writable folder");
    let first = sha256_file(&weights).expect("the file is there");
    write_clip(folder.path(), &tiny::clip(5), StoredDtype::F16).expect("a writable folder");
    assert_eq!(sha256_file(&weights).expect("the file is there"), first);
    let names = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(names, 2, "config.json and model.safetensors, no temporary file");
}

#[test]
fn every_layout_of_llava_loads_the_same_weights() {
    type Rename = fn(&str) -> String;
    let in_memory: Rename = |name| {
        name.replace("language_model.model.", "model.language_model.")
            .replace("language_model.lm_head.", "lm_head.")
            .replace("vision_tower.", "model.vision_tower.")
            .replace("multi_modal_projector.", "model.multi_modal_projector.")
    };
    let flat_tower: Rename = |name| name.replace("vision_tower.vision_model.", "vision_tower.");
    let flat_in_memory: Rename = |name| {
        name.replace("language_model.model.", "model.language_model.")
            .replace("language_model.lm_head.", "lm_head.")
            .replace("vision_tower.vision_model.", "model.vision_tower.")
            .replace("multi_modal_projector.", "model.multi_modal_projector.")
    };
    let original: Rename = |name| {
        name.replace("language_model.model.", "model.")
            .replace("language_model.lm_head.", "lm_head.")
            .replace("vision_tower.", "model.vision_tower.vision_tower.")
            .replace("multi_modal_projector.linear_1", "model.mm_projector.0")
            .replace("multi_modal_projector.linear_2", "model.mm_projector.2")
    };
    let expected = digest(&tiny::llava_tensors(3));
    for rename in [in_memory, flat_tower, flat_in_memory, original] {
        let folder = tempdir().expect("a temporary folder");
        write_renamed(folder.path(), rename);
        let checkpoint = Checkpoint::open(folder.path()).expect("it was written just now");
        let loaded = checkpoint.load_vision_language(LoadDtype::F32, &Device::flex());
        let loaded = loaded.expect("whole weights");
        assert_eq!(loaded.unused, Vec::<String>::new());
        assert_eq!(digest(&named_tensors(&loaded.model)), expected);
    }
}

#[test]
fn embeddings_tied_at_either_level_need_no_output_matrix() {
    let config = |top: bool, text: bool| {
        let mut config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
        config["tie_word_embeddings"] = top.into();
        config["text_config"]["tie_word_embeddings"] = text.into();
        config
    };
    let mut tensors = tiny::llava_tensors(3);
    let whole = digest(&tensors);
    let load = |config, tensors: &[_]| {
        let folder = tempdir().expect("a temporary folder");
        write_checkpoint(folder.path(), &config, tensors, StoredDtype::F32).expect("writable");
        let checkpoint = Checkpoint::open(folder.path()).expect("the configuration is whole");
        checkpoint.load_vision_language(LoadDtype::F32, &Device::flex()).expect("whole weights")
    };
    // An output matrix that is stored is used, whatever the configuration says.
    let loaded = load(config(true, false), &tensors);
    assert_eq!((digest(&named_tensors(&loaded.model)), loaded.unused), (whole, Vec::new()));
    tensors.retain(|(name, _)| !name.contains("lm_head"));
    for (top, text) in [(true, false), (false, true), (true, true)] {
        let loaded = load(config(top, text), &tensors);
        assert_eq!(digest(&named_tensors(&loaded.model)), digest(&tensors));
        assert!(tiny::as_llava(loaded.model.config()).text.tie_word_embeddings);
    }
}

#[test]
fn packed_matrices_are_reported_as_quantised() {
    for (ending, by) in [("qweight", "GPTQ or AWQ"), ("weight_packed", "compressed-tensors")] {
        let folder = tempdir().expect("a temporary folder");
        let config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
        let tensors = tiny::llava_tensors(3).into_iter().map(|(name, data)| {
            let packed = name.contains("_proj.weight") && name.contains("language_model");
            (
                if packed {
                    name.replace("_proj.weight", &format!("_proj.{ending}"))
                } else {
                    name
                },
                data,
            )
        });
        let tensors = tensors.collect::<Vec<_>>();
        write_checkpoint(folder.path(), &config, &tensors, StoredDtype::F32).expect("writable");
        let checkpoint = Checkpoint::open(folder.path()).expect("the configuration is whole");
        let said =
            message(checkpoint.load_vision_language(LoadDtype::F32, &Device::flex()), &folder);
        assert!(said.contains(&format!("describes weights that are quantised by {by}")), "{said}");
    }
}

#[test]
fn file_shortened_while_open_is_reported() {
    let folder = tempdir().expect("a temporary folder");
    write_llava(folder.path(), &tiny::llava(3), StoredDtype::F32).expect("a writable folder");
    let checkpoint = Checkpoint::open(folder.path()).expect("it was written just now");
    let weights = checkpoint.weights(LoadDtype::AsStored).expect("whole weights");
    let file = fs::OpenOptions::new().write(true).open(folder.path().join("model.safetensors"));
    let file = file.expect("it was written just now");
    let length = file.metadata().expect("it is open").len();
    file.set_len(5000).expect("writable");
    let said = message(weights.check_finite(&mut |_| {}), &folder);
    assert_eq!(
        said,
        format!(
            "DIR/model.safetensors was shortened from {length} to 5000 bytes while it was in use"
        )
    );
}

#[test]
fn missing_tensor_is_reported_with_its_file() {
    let folder = tempdir().expect("a temporary folder");
    let config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
    let mut tensors = tiny::llava_tensors(3);
    tensors.retain(|(name, _)| !name.contains("layers.1.mlp.up_proj"));
    write_checkpoint(folder.path(), &config, &tensors, StoredDtype::F32).expect("writable");
    let checkpoint = Checkpoint::open(folder.path()).expect("the configuration is whole");
    assert_eq!(
        message(checkpoint.load_vision_language(LoadDtype::F32, &Device::flex()), &folder),
        "DIR/model.safetensors has no tensor `language_model.model.layers.1.mlp.up_proj.weight`"
    );
}

#[test]
fn misshapen_tensor_is_reported_by_its_name_in_the_file() {
    let folder = tempdir().expect("a temporary folder");
    let mut config = llava_config_json(&tiny::llava_config(), StoredDtype::F32);
    write_renamed(folder.path(), |name| {
        name.replace("vision_tower.vision_model.", "vision_tower.")
    });
    config["vision_config"]["intermediate_size"] = 20.into();
    fs::write(folder.path().join("config.json"), config.to_string()).expect("writable");
    let checkpoint = Checkpoint::open(folder.path()).expect("the configuration is whole");
    assert_eq!(
        message(checkpoint.load_vision_language(LoadDtype::F32, &Device::flex()), &folder),
        "DIR/model.safetensors: tensor `vision_tower.encoder.layers.0.mlp.fc1.weight` has shape \
         [16, 8], but the configuration needs [20, 8]"
    );
}

#[test]
fn a_checkpoint_of_the_wrong_kind_is_refused() {
    let folder = tempdir().expect("a temporary folder");
    write_clip(folder.path(), &tiny::clip(5), StoredDtype::F32).expect("a writable folder");
    let checkpoint = Checkpoint::open(folder.path()).expect("it was written just now");
    assert_eq!(
        message(checkpoint.load_vision_language(LoadDtype::F32, &Device::flex()), &folder),
        "DIR is a `clip` checkpoint, but a `llava` checkpoint is needed here"
    );
}

#[test]
fn missing_folders_and_files_are_reported_by_path() {
    let folder = tempdir().expect("a temporary folder");
    let open = |path: &Path| Checkpoint::open(path);
    assert_eq!(
        message(open(&folder.path().join("nowhere")), &folder),
        "no checkpoint folder at DIR/nowhere"
    );
    let error = open(folder.path());
    assert!(error.as_ref().is_err_and(|error| error.hint().is_some()));
    assert_eq!(message(error, &folder), "no model configuration (config.json) at DIR/config.json");
    let config = clip_config_json(&tiny::clip_config(), StoredDtype::F32);
    fs::write(folder.path().join("config.json"), config.to_string()).expect("writable");
    let checkpoint = open(folder.path()).expect("the configuration is whole");
    assert_eq!(
        message(checkpoint.load_clip(LoadDtype::F32, &Device::flex()), &folder),
        "no weights file at DIR/model.safetensors"
    );
    assert_eq!(
        message(checkpoint.tokenizer(), &folder),
        "no tokenizer (tokenizer.json) at DIR/tokenizer.json"
    );
    assert_eq!(
        message(checkpoint.image_processor(), &folder),
        "no image processor configuration at DIR/preprocessor_config.json"
    );
}

fn with_processing() -> TempDir {
    let folder = tempdir().expect("a temporary folder");
    write_llava(folder.path(), &tiny::llava(3), StoredDtype::F32).expect("a writable folder");
    write_llava_processing(
        folder.path(),
        &tiny::llava_config(),
        &tiny::tokenizer(),
        &tiny::special_tokens(),
        &ImageProcessor::clip(28),
    )
    .expect("a writable folder");
    folder
}

#[test]
fn tokenizer_and_processor_round_trip_through_a_checkpoint() {
    let folder = with_processing();
    let checkpoint = Checkpoint::open(folder.path()).expect("it was written just now");
    let tokenizer = checkpoint.tokenizer().expect("it was written just now");
    let text = "the dog and the cat";
    assert_eq!(
        tokenizer.encode(text, true).expect("known words"),
        tiny::tokenizer().encode(text, true).expect("known words")
    );
    assert_eq!(
        checkpoint.image_processor().expect("it was written just now"),
        ImageProcessor::clip(28)
    );

    let clip = tempdir().expect("a temporary folder");
    let images = ImageProcessor::clip(28);
    write_clip(clip.path(), &tiny::clip(1), StoredDtype::F16).expect("a writable folder");
    write_clip_processing(clip.path(), 16, &tokenizer, &tiny::special_tokens(), &images)
        .expect("a writable folder");
    let checkpoint = Checkpoint::open(clip.path()).expect("it was written just now");
    assert_eq!(checkpoint.image_processor().expect("it was written just now"), images);
}

#[test]
fn unusable_tokenizer_is_reported_by_path() {
    let folder = with_processing();
    fs::write(folder.path().join("tokenizer.json"), r#"{"version":"1.0"}"#).expect("writable");
    let checkpoint = Checkpoint::open(folder.path()).expect("the configuration is whole");
    let said = message(checkpoint.tokenizer(), &folder);
    assert!(said.starts_with("DIR/tokenizer.json is not a usable tokenizer: "), "{said}");
}

#[test]
fn digests_are_sha_256() {
    // NIST's example for "abc".
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("abc");
    fs::write(&path, "abc").expect("writable");
    assert_eq!(
        sha256_file(&path).expect("the file is there"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}
