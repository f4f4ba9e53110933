//! `fisao score`.

use serde_json::{Value, json};

use crate::fixture::Workplace;

fn scores(place: &Workplace, more: &[&str]) -> Value {
    let arguments =
        ["score", "--verifier", "clip", "--image", "pictures/a.png", "--format", "json"];
    let text = place.succeed(&[&arguments[..], more].concat());
    serde_json::from_str(&text).expect("one JSON object")
}

#[test]
fn names_and_mentions_have_the_same_score() {
    let place = Workplace::furnished();
    place.write("words.json", r#"{"dog": ["puppy"], "car": [], "cat": []}"#);
    let caption = "A dog, two Cars and no cat.";
    let more =
        ["--text", "dog", "--text", "car", "--caption", caption, "--vocabulary", "words.json"];
    let scored = scores(&place, &more);
    assert_eq!(scored["image"], "pictures/a.png");
    let cosine = |name: &Value| name["score"].as_f64().unwrap();
    let names = scored["scores"].as_array().unwrap();
    assert!(names.iter().all(|name| cosine(name).abs() <= 1.0));
    let mentions = scored["captions"][0]["mentions"].as_array().unwrap();
    let found: Vec<_> = mentions
        .iter()
        .map(|m| json!([m["text"], m["category"], m["form"], m["start"], m["end"], m["negated"]]))
        .collect();
    assert_eq!(
        Value::from(found),
        json!([
            ["dog", "dog", "dog", 2, 5, false],
            ["Cars", "car", "car", 11, 15, false],
            ["cat", "cat", "cat", 23, 26, true]
        ])
    );
    assert_eq!(names[0]["score"], mentions[0]["score"]);
    assert_eq!(names[1]["score"], mentions[1]["score"]);
}

/// Whoever reads JSON counts characters, not bytes.
#[test]
fn spans_are_given_in_characters() {
    let place = Workplace::furnished();
    place.write("words.json", json!({ "dog": ["dog"] }).to_string());
    let caption = "Im Café: a dog";
    let scored = scores(&place, &["--caption", caption, "--vocabulary", "words.json"]);
    let mention = &scored["captions"][0]["mentions"][0];
    assert_eq!((&mention["start"], &mention["end"]), (&json!(11), &json!(14)));
}

#[test]
fn template_changes_the_score_and_is_validated() {
    let place = Workplace::furnished();
    let plain = scores(&place, &["--text", "dog"]);
    let bare = scores(&place, &["--text", "dog", "--template", "{}"]);
    assert_ne!(plain["scores"][0]["score"], bare["scores"][0]["score"]);
    let error = place.refuse(&[
        "score",
        "--verifier",
        "clip",
        "--image",
        "pictures",
        "--text",
        "dog",
        "--template",
        "a",
    ]);
    assert!(error.contains("the prompt template \"a\" holds 0 places"), "{error}");
}

#[test]
fn ambiguous_vocabulary_is_rejected() {
    let place = Workplace::furnished();
    place.write("words.json", r#"{"dog": ["pet"], "cat": ["pet"]}"#);
    let error = place.refuse(&[
        "score",
        "--verifier",
        "clip",
        "--image",
        "pictures",
        "--caption",
        "a pet",
        "--vocabulary",
        "words.json",
    ]);
    assert!(error.contains("'pet' names both 'dog' and 'cat'"), "{error}");
}

#[test]
fn scored_sentences_are_printed() {
    let place = Workplace::furnished();
    let sentences = |more: &[&str]| {
        let arguments = [&["--text", "traffic light"], more].concat();
        scores(&place, &arguments)["scores"][0]["sentences"].clone()
    };
    assert_eq!(sentences(&[]), json!(["a photo of a traffic light."]));
    let two = sentences(&["--template", "{}", "--template", "the {} here"]);
    assert_eq!(two, json!(["traffic light", "the traffic light here"]));
}

#[test]
fn custom_verifier_uses_the_everyday_vocabulary() {
    let place = Workplace::furnished();
    // A toaster is no object of the built-in synthetic dataset.
    let scored = scores(&place, &["--caption", "a toaster"]);
    assert_eq!(scored["captions"][0]["mentions"][0]["category"], "toaster");
    let scored = scores(&place, &["--caption", "a toaster", "--vocabulary", "world"]);
    assert_eq!(scored["captions"][0]["mentions"], json!([]));
}

#[test]
fn built_in_models_warn_about_other_images() {
    let place = Workplace::furnished();
    let warning = |size: u32| {
        image::RgbImage::new(size, 96).save(place.path("one.png")).unwrap();
        let said = place.run(&["score", "--image", "one.png", "--text", "dog"]);
        assert!(said.status.success());
        String::from_utf8(said.stderr).unwrap().contains("means nothing")
    };
    assert!(warning(97) && !warning(96));
}
