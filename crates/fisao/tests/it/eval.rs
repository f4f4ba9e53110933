//! `fisao eval chair`.

use serde_json::{Value, json};

use crate::fixture::Workplace;

fn write_files(place: &Workplace) {
    // Three mentions, one of them false; two of three objects present are named.
    place.write(
        "captions.jsonl",
        "{\"image_id\": 1, \"caption\": \"A dog and a car.\"}\n\
         {\"image_id\": 2, \"caption\": \"Two puppies.\"}\n",
    );
    place.write(
        "objects.json",
        r#"[{"image_id": 1, "objects": ["dog", "cat"]}, {"image_id": 2, "objects": ["dog"]}]"#,
    );
    place.write("words.json", r#"{"dog": ["puppy"], "cat": [], "car": []}"#);
}

const FILES: [&str; 8] = [
    "eval",
    "chair",
    "--captions",
    "captions.jsonl",
    "--ground-truth",
    "objects.json",
    "--vocabulary",
    "words.json",
];

#[test]
fn chair_scores_a_caption_file() {
    let place = Workplace::new();
    write_files(&place);
    let text = place.succeed(&[&FILES[..], &["--format", "json"]].concat());
    let report: Value = serde_json::from_str(&text).unwrap();
    let close = |key: &str, value: f64| (report[key].as_f64().unwrap() - value).abs() < 1e-12;
    assert!(close("chair_i", 1.0 / 3.0) && close("chair_s", 0.5) && close("recall", 2.0 / 3.0));
    assert_eq!(report["captions"], 2);
    assert_eq!(report.get("per_image"), None);
    assert!(close("mean_length", 3.5), "a file does not tell tokens, so words are counted");
    assert_eq!(report["mean_length_unit"], "words");
    let all = [&FILES[..], &["--format", "json", "--per-image"]].concat();
    let report: Value = serde_json::from_str(&place.succeed(&all)).unwrap();
    assert_eq!(report["per_image"][0]["missed"], json!(["cat"]));
    let text = place.succeed(&FILES);
    let (table, note) = text.trim_end().rsplit_once('\n').unwrap();
    insta::assert_snapshot!(table, @r"
    captions of      CHAIR_S %   CHAIR_I %      recall %          F1 %      words  captions  mentions  hallucinated
    captions              50.0        33.3          66.7          66.7        3.5         2         3             1
    95 % interval  0.0 … 100.0  0.0 … 50.0  50.0 … 100.0  50.0 … 100.0  2.0 … 5.0
    ");
    assert!(note.starts_with("rules strict, vocabulary "), "{note}");
}

#[test]
fn stray_spaces_in_synonyms_matter_to_reference_rules_only() {
    let place = Workplace::new();
    place.write("synonyms.txt", "cake,  cheesecake, cupcake\nmotorcycle,  motor bike, moped\n");
    place.write(
        "captions.jsonl",
        "{\"image_id\": 1, \"caption\": \"A cheesecake, a cupcake, a motor bike and a moped.\"}\n",
    );
    place.write("objects.json", r#"[{"image_id": 1, "objects": ["cake"]}]"#);
    let mentions = |rules: &str| {
        let (list, json) = (["--vocabulary", "synonyms.txt"], ["--format", "json"]);
        let text = place.succeed(&[&FILES[..6], &list, &json, &["--rules", rules]].concat());
        serde_json::from_str::<Value>(&text).unwrap()["mentions"].clone()
    };
    assert_eq!((mentions("reference"), mentions("strict")), (json!(2), json!(4)));
}

#[test]
fn invalid_line_and_missing_ground_truth_are_reported() {
    let place = Workplace::new();
    write_files(&place);
    place.write("captions.jsonl", "{\"image_id\": 1, \"caption\": \"x\"}\n{\"image_id\": 2}\n");
    let error = place.refuse(&FILES);
    assert!(error.contains("captions.jsonl"), "{error}");
    assert!(error.contains("because: line 2: image '2' has no caption, or null"), "{error}");
    write_files(&place);
    place.write("objects.json", r#"[{"image_id": 1, "objects": ["dog", "cat"]}]"#);
    let error = place.refuse(&FILES);
    assert!(
        error.contains("1 of 2 captions describe images without ground truth, first '2'"),
        "{error}"
    );
}

#[test]
fn chair_scores_a_model_on_the_synthetic_dataset() {
    let place = Workplace::furnished();
    let text = place.succeed(&[
        "eval",
        "chair",
        "--world",
        "test",
        "--count",
        "3",
        "--model",
        "llava",
        "--format",
        "json",
        "--per-image",
        "--max-new-tokens",
        "5",
    ]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["captions"], 3);
    assert_eq!(report["per_image"][0]["image_id"], "test-000000");
    let length = report["mean_length"].as_f64().unwrap();
    assert!((0.0..=5.0).contains(&length), "{length}");
    let protocol = &report["protocol"];
    assert_eq!(protocol["tokens"]["mean"], report["mean_length"]);
    assert!(protocol["tokens"]["max"].as_u64().unwrap() <= 5);
    assert!(protocol["cut_off"].as_u64().unwrap() <= 3);
    assert_eq!((&protocol["temperature"], &protocol["max_new_tokens"]), (&json!(0.0), &json!(5)));
    assert_eq!((&protocol["vocabulary"], &protocol["dtype"]), (&json!("world"), &json!("auto")));
    assert!(protocol["prompt"].as_str().is_some_and(|prompt| !prompt.is_empty()), "{protocol}");
    assert!(
        protocol["model_digest"].as_str().is_some_and(|digest| digest.len() > 20),
        "{protocol}"
    );
    assert_eq!(protocol["adapter"], Value::Null);
}
