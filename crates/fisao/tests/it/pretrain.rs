//! `fisao pretrain`, cut very short.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use burn::tensor::TensorData;
use fisao_formats::weights::{StoredDtype, write_safetensors};

use crate::fixture::Workplace;

const ARGUMENTS: [&str; 12] = [
    "pretrain",
    "--no-measure",
    "--output",
    "models",
    "--set",
    "clip-steps=2",
    "--set",
    "clip-batch=2",
    "--set",
    "caption-steps=2",
    "--set",
    "caption-batch=2",
];

#[test]
fn pretrained_models_are_usable_and_not_trained_twice() {
    let place = Workplace::furnished();
    place.succeed(&ARGUMENTS);
    let weights = |model: &str| {
        let file = place.path(&format!("models/{model}/model.safetensors"));
        fs::metadata(file).unwrap().modified().unwrap()
    };
    let made = (weights("clip"), weights("llava"));
    assert!(!place.path("models/state-clip").exists());

    place.succeed(&ARGUMENTS);
    assert_eq!((weights("clip"), weights("llava")), made);
    let error = place.refuse(&["pretrain", "--output", "models"]);
    assert!(error.contains("models was started with another recipe"), "{error}");

    let caption = ["--model", "models/llava", "--image", "pictures", "--max-new-tokens", "3"];
    let text = place.succeed(&[&["caption"][..], &caption].concat());
    assert_eq!(text.lines().count(), 3);
    let score = ["--verifier", "models/clip", "--image", "pictures/a.png", "--text", "dog"];
    assert!(place.succeed(&[&["score"][..], &score].concat()).contains("dog"));
}

/// Token ids index the embeddings: with others, going on would quietly train something else.
#[test]
fn stage_is_not_resumed_with_another_tokenizer() {
    let place = Workplace::new();
    place.succeed(&ARGUMENTS);
    fs::remove_file(place.path("models/clip/config.json")).unwrap();
    let step = TensorData::from([1.0_f32]);
    let state = place.path("models/state-clip.safetensors");
    write_safetensors(&state, [("step", &step)], StoredDtype::F32).unwrap();
    let file = place.path("models/clip/tokenizer.json");
    let changed = fs::read_to_string(&file).unwrap().replace("\"Lowercase\"", "\"NFKC\"");
    fs::write(&file, changed).unwrap();
    let error = place.refuse(&ARGUMENTS);
    assert!(error.contains("the saved state was made with another tokenizer"), "{error}");
}

/// The rest of a training goes on from every bit of what was saved.
#[cfg(unix)]
#[test]
fn saved_state_with_a_flipped_bit_is_rejected_by_path() {
    let place = Workplace::new();
    let longer =
        [&ARGUMENTS[..4], &["--set", "clip-steps=100000", "--set", "clip-batch=2"]].concat();
    let mut child = place.start(&longer);
    let started = Instant::now();
    // It listens for Ctrl-C before it writes the tokenizer.
    while !place.path("models/clip/tokenizer.json").exists() {
        assert!(started.elapsed() < Duration::from_mins(2), "no progress");
        sleep(Duration::from_millis(5));
    }
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let folder = fs::read_dir(place.path("models/state-clip")).unwrap().next().unwrap().unwrap();
    let file = folder.path().join("state.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    let error = place.refuse(&longer);
    let name = folder.file_name().into_string().unwrap();
    let said = format!(
        "error: models/state-clip/{name}/state.safetensors is damaged: its bytes are not those that were saved\n\
         hint: delete models/state-clip to begin this stage again\n"
    );
    assert!(error.ends_with(&said), "{error}");
}

/// One update at a vanishing rate leaves the weights it began with, rounded.
#[test]
fn hard_pretraining_starts_from_the_clear_models() {
    let place = Workplace::new();
    let rates = ["clip", "clip-matrix", "caption", "caption-matrix"];
    let settings = rates.map(|name| format!("{name}-learning-rate=1e-9"));
    let mut arguments = [&ARGUMENTS[..], &["--world", "hard"]].concat();
    for setting in &settings {
        arguments.extend(["--set", setting]);
    }
    place.succeed(&arguments);
    let recipe = fs::read_to_string(place.path("models/recipe.toml")).unwrap();
    assert!(recipe.starts_with("world = \"hard\"\n"), "{recipe}");
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let embedded = [("clip", "fisao-demo-clip/clear"), ("llava", "fisao-demo-llava/model")];
    for (model, folder) in embedded {
        let read = |file| fs::read(crates.join(folder).join(file)).unwrap();
        let made = |file| fs::read(place.path(&format!("models/{model}/{file}"))).unwrap();
        assert!(made("tokenizer.json") == read("tokenizer.json"), "{model}");
        assert!(made("model.safetensors") == read("model.safetensors"), "{model}");
    }
    let clear = &arguments[..ARGUMENTS.len()];
    let error = place.refuse(clear);
    assert!(error.contains("models was started with another recipe"), "{error}");
}
