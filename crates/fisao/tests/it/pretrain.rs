//! `fisao pretrain`, cut very short.

use std::fs;

use crate::fixture::Workplace;

const ARGUMENTS: [&str; 11] = [
    "pretrain",
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
fn its_models_can_be_used_and_are_not_made_twice() {
    let place = Workplace::furnished();
    place.succeed(&ARGUMENTS);
    let weights = |model: &str| {
        let file = place.path(&format!("models/{model}/model.safetensors"));
        fs::metadata(file).unwrap().modified().unwrap()
    };
    let made = (weights("clip"), weights("llava"));
    assert!(!place.path("models/state-clip.safetensors").exists());

    place.succeed(&ARGUMENTS);
    assert_eq!((weights("clip"), weights("llava")), made);
    let error = place.refuse(&["pretrain", "--output", "models"]);
    assert!(error.contains("models was begun with another recipe"), "{error}");

    let caption = ["--model", "models/llava", "--image", "pictures", "--max-new-tokens", "3"];
    let text = place.succeed(&[&["caption"][..], &caption].concat());
    assert_eq!(text.lines().count(), 3);
    let score = ["--verifier", "models/clip", "--image", "pictures/a.png", "--text", "dog"];
    assert!(place.succeed(&[&["score"][..], &score].concat()).contains("dog"));
}
