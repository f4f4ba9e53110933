//! What CHAIR numbers depend on: the protocol of a report, lists of images, and comparisons with other reports.

use serde_json::{Value, json};

use crate::fixture::Workplace;

/// Two models' captions of three images, and what is in them.
fn write_files(place: &Workplace) {
    let rows = |rows: &[Value]| rows.iter().map(|row| row.to_string() + "\n").collect::<String>();
    place.write(
        "short.jsonl",
        rows(&[
            json!({ "image_id": 1, "caption": "A dog.", "tokens": 3, "finish_reason": "stop", "prompt": "Say." }),
            json!({ "image_id": 2, "caption": "A car.", "tokens": 3, "finish_reason": "stop", "prompt": "Say." }),
            json!({ "image_id": 3, "caption": "A cat and a car and", "tokens": 7, "finish_reason": "length", "prompt": "Say." }),
        ]),
    );
    place.write(
        "long.jsonl",
        rows(&[
            json!({ "image_id": 1, "caption": "A dog. There is a cat as well." }),
            json!({ "image_id": 2, "caption": "A car. A dog sits in it." }),
            json!({ "image_id": 3, "caption": "A cat." }),
        ]),
    );
    place.write("objects.json", json!({ "1": ["dog"], "2": ["car"], "3": ["cat"] }).to_string());
}

fn chair<'a>(captions: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let files = ["eval", "chair", "--captions", captions, "--annotations", "objects.json"];
    [&files[..], more].concat()
}

fn report(place: &Workplace, captions: &str, more: &[&str]) -> Value {
    let text = place.succeed(&chair(captions, &[&["--format", "json"], more].concat()));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn report_carries_the_protocol_of_its_captions() {
    let place = Workplace::new();
    write_files(&place);
    let found = report(&place, "short.jsonl", &[]);
    let protocol = &found["protocol"];
    assert_eq!(protocol["rules"], "strict");
    assert_eq!(protocol["vocabulary"], "coco");
    assert_eq!(protocol["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&protocol["images"], &protocol["captions"]), (&json!(3), &json!(3)));
    // sha256 of "1\n2\n3\n" and of "1\tdog\n2\tcar\n3\tcat\n".
    let ids = "14c5e74c4b96ccef41cd94db73a9ec3348038ac094feca4fd897cecffa07cdae";
    assert_eq!(protocol["image_ids_sha256"], ids);
    let truth = "bada52647812f31b5162855364619b811afa1a0a44e4484a9d4c8b260a0d1931";
    assert_eq!(protocol["ground_truth_sha256"], truth);
    assert_eq!(protocol["prompt"], "Say.");
    assert_eq!(protocol["tokens"]["max"], 7);
    assert_eq!(protocol["cut_off"], 1);
    assert_eq!(protocol["words"]["max"], 6);
    for unknown in ["image_list", "model", "model_digest", "adapter", "temperature", "seed"] {
        assert_eq!(protocol.get(unknown), Some(&Value::Null), "{unknown}");
    }
    let silent = &report(&place, "long.jsonl", &[])["protocol"];
    assert_eq!((&silent["prompt"], &silent["tokens"]), (&Value::Null, &Value::Null));
    // Precision 3/4, recall 1.
    let f1 = found["f1"].as_f64().unwrap();
    assert!((f1 - 6.0 / 7.0).abs() < 1e-12, "{f1}");
    let several = place.succeed(&[
        "eval",
        "chair",
        "--captions",
        "short.jsonl",
        "long.jsonl",
        "--annotations",
        "objects.json",
        "--format",
        "json",
    ]);
    let several: Value = serde_json::from_str(&several).unwrap();
    assert_eq!(several["files"][0]["protocol"], *protocol);
    assert_eq!(several["files"][1]["protocol"], *silent);
}

#[test]
fn ids_restrict_a_report_to_their_images_and_name_missing_ones() {
    let place = Workplace::new();
    write_files(&place);
    place.write("two.txt", "000000000001\n3\n");
    let found = report(&place, "short.jsonl", &["--ids", "two.txt"]);
    assert_eq!((&found["captions"], &found["mentions"]), (&json!(2), &json!(3)));
    assert_eq!(found["protocol"]["image_list"], "two");
    assert_eq!(found["protocol"]["tokens"]["mean"], 5.0);
    place.write("more.json", "[1, 7, 8]");
    let error = place.refuse(&chair("short.jsonl", &["--ids", "more.json"]));
    assert!(error.contains("2 of the 3 images of more have no caption, first '7'"), "{error}");
    assert!(error.contains("hint: caption the missing images too"), "{error}");
    let error = place.refuse(&chair("short.jsonl", &["--ids", "chair-500"]));
    assert!(error.contains("500 of the 500 images of chair-500 have no caption"), "{error}");
    let error = place.refuse(&chair("short.jsonl", &["--ids", "chair-5000"]));
    assert!(error.contains("there is no file chair-5000"), "{error}");
    let error = place.refuse(&[
        "eval",
        "chair",
        "--images",
        ".",
        "--output",
        "run",
        "--annotations",
        "objects.json",
        "--ids",
        "more.json",
    ]);
    assert!(error.contains("2 of the 3 images of more have no ground truth, first '7'"), "{error}");
}

#[test]
fn check_says_why_two_numbers_differ() {
    let place = Workplace::new();
    write_files(&place);
    place.write("same.json", report(&place, "short.jsonl", &[]).to_string());
    let checked = &report(&place, "short.jsonl", &["--check", "same.json"])["check"][0];
    assert_eq!(checked["comparable"], true);
    let fields = checked["fields"].as_array().unwrap();
    assert!(fields.iter().all(|field| field["agreement"] == "same"), "{fields:?}");
    let text = place.succeed(&chair("long.jsonl", &["--check", "same.json"]));
    assert!(text.contains("words differs: captions of another mean length"), "{text}");
    assert!(text.contains("prompt is not known: perhaps another prompt"), "{text}");
    assert!(text.contains("the two measure the same"), "{text}");

    let other = report(&place, "short.jsonl", &["--rules", "reference"]);
    place.write("other.json", other.to_string());
    let output = place.run(&chair("short.jsonl", &["--check", "other.json"]));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("rules differs: other rules find other mentions"), "{text}");
    assert!(text.contains("their numbers cannot be compared"), "{text}");

    place.write("neither.json", "{\"accuracy\": 1}");
    let error = place.refuse(&chair("short.jsonl", &["--check", "neither.json"]));
    assert!(error.contains("neither.json is no report of CHAIR"), "{error}");
    let error = place.refuse(&chair("short.jsonl", &["--check", "same.json", "--format", "csv"]));
    assert!(error.contains("more than one table"), "{error}");
}

#[test]
fn results_of_lmms_eval_cannot_be_compared_and_lack_a_protocol() {
    let place = Workplace::new();
    write_files(&place);
    let results = json!({
        "results": { "coco_cap_chair": {
            "coco_cap_chair_i,none": 25.0, "coco_cap_chair_s,none": 30.0, "coco_cap_recall,none": 100.0
        } },
        "configs": { "coco_cap_chair": { "generation_kwargs": { "max_new_tokens": 2048 } } },
        "n-samples": { "coco_cap_chair": { "original": 3, "effective": 3 } },
    });
    place.write("results.json", results.to_string());
    let output = place.run(&chair("short.jsonl", &["--check", "results.json"]));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{text}");
    for expected in [
        "chair_i %            25.00         25.00         +0.00",
        "scorer differs: another program counts other words as objects",
        "image_ids_sha256 is not known: perhaps other images",
        "the other report has no protocol",
        "WordNet's lemmas",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn diff_of_a_list_of_images_leaves_out_all_others_and_requires_both_models_captions() {
    let place = Workplace::new();
    write_files(&place);
    place.write("two.txt", "1\n3\n");
    place.write("more.json", "[1, 7]");
    let diff = |ids| {
        let files = ["eval", "diff", "short.jsonl", "long.jsonl", "--annotations", "objects.json"];
        [&files[..], &["--resamples", "200", "--format", "json", "--ids", ids]].concat()
    };
    let found: Value = serde_json::from_str(&place.succeed(&diff("two.txt"))).unwrap();
    assert_eq!(found["images"], 2);
    // Each model hallucinates in one of the two.
    assert_eq!(
        (&found["chair_s"]["first"], &found["chair_s"]["second"]),
        (&json!(0.5), &json!(0.5))
    );
    let error = place.refuse(&diff("more.json"));
    assert!(error.contains("1 of the 2 images of more have no caption, first '7'"), "{error}");
}

#[test]
fn diff_compares_captions_at_equal_length() {
    let place = Workplace::new();
    write_files(&place);
    let text = place.succeed(&[
        "eval",
        "diff",
        "short.jsonl",
        "long.jsonl",
        "--annotations",
        "objects.json",
        "--format",
        "json",
        "--resamples",
        "200",
    ]);
    let found: Value = serde_json::from_str(&text).unwrap();
    let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_f64).unwrap();
    assert!((number("/chair_s/difference") - 1.0 / 3.0).abs() < 1e-12);
    let equal = "/at_equal_length";
    // Cut to two words or one sentence, neither model hallucinates: only "and a car and" was wrong.
    for unit in ["truncated_words", "truncated_sentences"] {
        assert!(number(&format!("{equal}/{unit}/chair_s/second")).abs() < 1e-12, "{unit}");
    }
    assert!(number(&format!("{equal}/truncated_words/mean_length/difference")).abs() < 1e-12);
    assert!(number(&format!("{equal}/truncated_words/chair_s/first")).abs() < 1e-12);
    assert!(
        (number(&format!("{equal}/truncated_sentences/chair_s/first")) - 1.0 / 3.0).abs() < 1e-12
    );
    // Differences in CHAIR_S of 1, 1 and −1 with 6, 5 and −4 more words: least squares by hand.
    let slope = number(&format!("{equal}/regression/chair_s/slope"));
    let mean = 7.0 / 3.0;
    let expected = (15.0 - 7.0 / 3.0) / (77.0 - 49.0 / 3.0);
    assert!((slope - expected).abs() < 1e-12, "{slope}");
    let adjusted = number(&format!("{equal}/regression/chair_s/adjusted"));
    assert!((adjusted - (1.0 / 3.0 - expected * mean)).abs() < 1e-12, "{adjusted}");
    let table = place.succeed(&[
        "eval",
        "diff",
        "short.jsonl",
        "long.jsonl",
        "--annotations",
        "objects.json",
    ]);
    assert!(table.contains("chair_i (equal words)"), "{table}");
    assert!(table.contains("chair_s: difference at equal length by regression"), "{table}");
}
