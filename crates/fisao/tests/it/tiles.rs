//! Models that look at images in tiles, so that they take different numbers of tokens.

use std::fs;

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::bad_align::write_calibration;
use crate::fixture::Workplace;

/// LLaVA-OneVision and LLaVA-NeXT.
const MODELS: [&str; 2] = ["onevision", "next"];

/// Models, and images that are wide, tall, square and tiny.
fn furnished() -> Workplace {
    let place = Workplace::furnished();
    place.write_tiled();
    for (name, width, height) in [("d.png", 61, 20), ("e.png", 9, 50), ("f.png", 2, 2)] {
        let picture = RgbImage::from_fn(width, height, |x, y| {
            Rgb([x as u8 * 4, y as u8 * 5, (x * y % 251) as u8])
        });
        picture.save(place.path("pictures").join(name)).unwrap();
    }
    place
}

fn captions(place: &Workplace, model: &str, images: &str) -> Vec<Value> {
    let text = place.succeed(&[
        "caption",
        "--model",
        model,
        "--image",
        images,
        "--greedy",
        "--max-new-tokens",
        "6",
        "--format",
        "json",
    ]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn captions_of_tiled_images_do_not_depend_on_the_batch() {
    let place = furnished();
    let logprob = |caption: &Value, at: usize| caption["tokens"][at]["logprob"].as_f64().unwrap();
    for model in MODELS {
        let together = captions(&place, model, "pictures");
        assert_eq!(together.len(), 6);
        for caption in &together {
            let alone = captions(&place, model, caption["image"].as_str().unwrap()).remove(0);
            assert_eq!(alone["caption"], caption["caption"]);
            assert!((logprob(&alone, 0) - logprob(caption, 0)).abs() < 1e-4);
        }
        let distinct: std::collections::BTreeSet<String> =
            together.iter().map(|caption| format!("{:.5}", logprob(caption, 0))).collect();
        assert_eq!(distinct.len(), 6, "every picture is seen");
    }
}

#[test]
fn new_token_limit_follows_from_the_longest_prompt() {
    let place = furnished();
    let refused = |model: &str, picture: &str| {
        place.refuse(&["caption", "--model", model, "--image", picture, "--max-new-tokens", "60"])
    };
    // 9 words, 4 tokens of the whole, and either 4 rows without width or 2 of 4, each with its end.
    insta::assert_snapshot!(refused("onevision", "pictures/e.png"), @r"
    error: 60 new tokens do not fit: the prompt with its image takes 17 of the model's 64 positions
    hint: ask for at most --max-new-tokens 47, or shorten the prompt
    ");
    insta::assert_snapshot!(refused("onevision", "pictures"), @r"
    error: 60 new tokens do not fit: the prompt with its image takes 23 of the model's 64 positions
    hint: ask for at most --max-new-tokens 41, or shorten the prompt
    ");
    // Where there are too many tokens, one thins them out to 2 rows of 2, and the other keeps its 4 rows of 4.
    RgbImage::new(50, 50).save(place.path("square.png")).unwrap();
    insta::assert_snapshot!(refused("onevision", "square.png"), @r"
    error: 60 new tokens do not fit: the prompt with its image takes 19 of the model's 64 positions
    hint: ask for at most --max-new-tokens 45, or shorten the prompt
    ");
    insta::assert_snapshot!(refused("next", "square.png"), @r"
    error: 60 new tokens do not fit: the prompt with its image takes 33 of the model's 64 positions
    hint: ask for at most --max-new-tokens 31, or shorten the prompt
    ");
}

#[test]
fn inspect_describes_a_tiled_model() {
    let place = furnished();
    let text = place.succeed(&["inspect", "onevision"]);
    assert!(text.contains("llava_onevision"), "{text}");
    assert!(text.contains("4 image tokens of layer -2 and those of up to 2 tiles"), "{text}");
    let text = place.succeed(&["inspect", "next"]);
    assert!(text.contains("llava_next"), "{text}");
    assert!(text.contains("4 image tokens of layer -2 and those of up to 4 tiles"), "{text}");
}

#[test]
fn processor_with_other_tiles_is_rejected() {
    let place = furnished();
    let refused = |model: &str, pinpoints: Value| {
        let file = place.path(model).join("preprocessor_config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config["image_grid_pinpoints"] = pinpoints;
        fs::write(&file, config.to_string()).unwrap();
        place.refuse(&["caption", "--model", model, "--image", "pictures"])
    };
    insta::assert_snapshot!(refused("onevision", serde_json::json!([[8, 16]])), @r"
    error: onevision: images are cut into other tiles than the model looks at: `image_grid_pinpoints` of preprocessor_config.json are not those of config.json
    hint: preprocessor_config.json and config.json must come from the same model
    ");
    insta::assert_snapshot!(refused("next", serde_json::json!([[8, 16]])), @r"
    error: next: images are cut into other tiles than the model looks at: `image_grid_pinpoints` of preprocessor_config.json are not those of config.json
    hint: preprocessor_config.json and config.json must come from the same model
    ");
    // The class's own, which are for tiles of 336 pixels.
    insta::assert_snapshot!(refused("next", Value::Null), @"error: next/preprocessor_config.json: `image_grid_pinpoints` is [336, 672] by default, but only a size of up to 1024 tiles and 16777216 pixels is supported");
}

#[test]
fn a_processor_of_another_class_is_refused() {
    let place = furnished();
    fs::copy(
        place.path("llava/preprocessor_config.json"),
        place.path("next/preprocessor_config.json"),
    )
    .unwrap();
    let error = place.refuse(&["caption", "--model", "next", "--image", "pictures"]);
    insta::assert_snapshot!(error, @r"
    error: next: images are prepared whole, but the model looks at tiles of them too: preprocessor_config.json has no `image_grid_pinpoints`
    hint: preprocessor_config.json and config.json must come from the same model
    ");
}

#[test]
fn they_are_aligned() {
    for model in MODELS {
        is_aligned(model);
    }
}

fn is_aligned(model: &str) {
    let place = furnished();
    write_calibration(&place);
    place.succeed(&[
        "align",
        "--model",
        model,
        "--verifier",
        "clip",
        "--calibration",
        "calibration.json",
        "--images",
        "pictures",
        "--output",
        "run",
        "--set",
        "max-new-tokens=8",
        "--set",
        "align.iterations=2",
    ]);
    let metrics = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let metrics: Vec<Value> =
        metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(metrics.len(), 2);
    for metric in metrics {
        let gap = metric["sampler_gap"].as_f64().unwrap();
        assert!(gap < 1e-4, "sampler and trainer disagree: {gap}");
    }
    assert!(place.path("run/adapter/adapter_model.safetensors").exists());
}
