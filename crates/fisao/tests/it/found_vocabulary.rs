//! `--vocabulary auto`: lists of objects that captions give.

use std::fs;

use fisao_scenes::{Split, World};
use serde_json::{Value, json};

use crate::fixture::Workplace;

#[test]
fn lists_that_are_found_hold_the_scenes_objects_and_little_else() {
    let place = Workplace::new();
    let study = ["study", "vocabulary", "--seeds", "1", "--count", "320", "--output", "study"];
    let printed = place.succeed(&study);
    assert!(printed.contains("categories found %"), "{printed}");
    let study: Value =
        serde_json::from_slice(&fs::read(place.path("study/vocabulary.json")).unwrap()).unwrap();
    let found = study["found"].as_array().unwrap();
    assert_eq!(found.len(), 2);
    for list in found {
        let number = |name: &str| list[name].as_f64().unwrap();
        assert!(number("categories") >= 0.9 * number("of"), "{list}");
        let others = list["others"].as_array().unwrap().len() as f64;
        assert!(others <= 0.05 * number("names"), "{list}");
        let kinds: Vec<&str> = list["kinds"]
            .as_array()
            .unwrap()
            .iter()
            .map(|kind| kind["of"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["attribute", "count", "position"]);
    }
    for name in ["vocabulary.html", "clear-0.txt", "hard-0.txt"] {
        assert!(place.path("study").join(name).exists(), "{name}");
    }
}

/// Scenes with captions of what is in them.
fn captioned_scenes(count: u64) -> Workplace {
    let place = Workplace::new();
    let world = World::new();
    fs::create_dir(place.path("scenes")).unwrap();
    let captions: Vec<String> = (0..count)
        .map(|index| {
            let scene = world.scene(Split::Test, 0, index);
            let id = format!("{index:03}.png");
            world.render(&scene).save(place.path("scenes").join(&id)).unwrap();
            let objects: Vec<&str> = scene.categories().into_iter().collect();
            let caption = format!("A photo of a busy street. There is a {}.", objects.join(", a "));
            json!({ "image_id": id, "caption": caption }).to_string()
        })
        .collect();
    place.write("captions.jsonl", captions.join("\n"));
    place
}

#[test]
fn verify_finds_words_in_captions_of_any_origin() {
    let place = captioned_scenes(96);
    let verify =
        ["verify", "--captions", "captions.jsonl", "--images", "scenes", "--format", "json"];
    let auto = ["--vocabulary", "auto", "--found-vocabulary", "list.txt"];
    let printed = place.succeed(&[&verify[..], &auto].concat());
    let list = fs::read_to_string(place.path("list.txt")).unwrap();
    assert!(list.lines().any(|line| line.starts_with("person ")), "{list}");
    assert!(!list.contains("image-drop +"), "there is no decoder: {list}");
    // The list is one that can be named.
    let again = place.succeed(&[&verify[..], &["--vocabulary", "list.txt"]].concat());
    assert_eq!(printed, again);

    // Nothing can be found where a calibration has its own list, in one caption, or without captions.
    place.write("calibration.json", "{}");
    let refused = |arguments: &[&str]| {
        place.refuse(&[&verify[..], &["--vocabulary", "auto"], arguments].concat())
    };
    place.write("one.jsonl", json!({ "image_id": "000.png", "caption": "A dog." }).to_string());
    let few = ["verify", "--captions", "one.jsonl", "--images", "scenes", "--vocabulary", "auto"];
    let said = place.refuse(&few);
    assert!(said.contains("found no object in 1 captions"), "{said}");
    assert!(said.contains("--vocabulary everyday"), "{said}");
    let said = place.refuse(&[
        "score",
        "--image",
        "scenes/000.png",
        "--caption",
        "A dog.",
        "--vocabulary",
        "auto",
    ]);
    assert!(said.contains("finds objects in captions, and there are none here"), "{said}");
    let said = refused(&["--calibration", "calibration.json"]);
    assert!(!said.is_empty());
}

#[test]
fn calibrations_on_found_lists_go_with_them() {
    let place = captioned_scenes(64);
    let calibrate =
        ["calibrate", "--images", "scenes", "--temperature", "1", "--max-new-tokens", "64"];
    let output = ["--vocabulary", "auto", "--output", "calibration.json"];
    place.succeed(&[&calibrate[..], &output].concat());
    let verify = ["verify", "--captions", "captions.jsonl", "--images", "scenes"];
    let calibrated = [&verify[..], &["--calibration", "calibration.json"]].concat();
    let list = ["--vocabulary", "calibration.vocabulary.txt"];
    place.succeed(&[&calibrated[..], &list].concat());
    let said = place.refuse(&[&calibrated[..], &["--vocabulary", "auto"]].concat());
    assert!(said.contains("another list than the calibration was made with"), "{said}");
}
