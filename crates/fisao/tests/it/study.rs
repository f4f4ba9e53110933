//! `fisao study verifier`, on a few scenes of the built-in synthetic dataset and on a folder of images.

use std::fs;

use serde_json::Value;

use crate::fixture::Workplace;

const STUDY: [&str; 10] = [
    "study",
    "verifier",
    "--seeds",
    "1",
    "--calibration",
    "64",
    "--count",
    "48",
    "--output",
    "study",
];

#[test]
fn study_writes_json_tables_and_plots() {
    let place = Workplace::new();
    let printed = place.succeed(&STUDY);
    assert!(printed.contains("AUC of detecting hallucinated mentions"), "{printed}");
    let study: Value =
        serde_json::from_slice(&fs::read(place.path("study/study.json")).unwrap()).unwrap();
    let number = |path: &str| {
        study.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {path}"))
    };
    for path in ["/auc/plain", "/auc/default", "/auc/probe", "/auc/all_signals"] {
        assert!(number(path) > 0.9, "{path}: {}", number(path));
    }
    assert!(number("/spearman/token") > number("/spearman/sentence"));
    assert!(number("/label_free/mu_correct_error") < 1.0);
    assert!(number("/label_free/mu_hallucinated_error") < 1.0);
    assert!((0.0..1.0).contains(&number("/cost/fraction_of_rollout")));
    assert!((0.0..1.0).contains(&number("/cost/fraction_of_iteration")));
    let seed = &study["seeds"][0];
    assert_eq!(seed["captions"], 48);
    assert_eq!(seed["correlations"].as_array().unwrap().len(), 4);
    assert!(number("/brier/encoder_and_decoder") < 0.1);
    assert_eq!(seed["signals"]["each"].as_array().unwrap().len(), 10);
    let combined = seed["signals"]["combined"].as_array().unwrap();
    let all = combined.last().unwrap();
    assert_eq!(all["combination"]["signals"].as_array().unwrap().len(), 10);
    // The decoder alone knows something, and what it knows is not what the encoder knows.
    let decoder = combined.iter().find(|found| found["name"] == "decoder").unwrap();
    let auc = decoder["detection"]["auc"].as_f64().unwrap();
    assert!(auc > 0.6 && auc < number("/auc/plain"), "{auc}");
    let defaults = seed["variants"].as_array().unwrap().iter();
    assert_eq!(defaults.filter(|variant| variant["default"] == true).count(), 1);

    let markdown = fs::read_to_string(place.path("study/study.md")).unwrap();
    assert!(markdown.contains("; 1 seed, 48 captions"), "{markdown}");
    assert!(markdown.contains("| supervised probe |"), "{markdown}");
    assert!(markdown.contains("| combined: all |"), "{markdown}");
    let page = fs::read_to_string(place.path("study/study.html")).unwrap();
    assert!(page.contains(" · 1 seed</p>"), "{page}");
    assert!(!page.contains("{{"), "every place of the template is filled");
    assert!(page.matches("<svg").count() >= 6);
}

#[test]
fn invalid_studies_are_rejected_with_the_reason() {
    let place = Workplace::furnished();
    let few = ["study", "verifier", "--output", "study", "--images", "pictures"];
    let error = place.refuse(&few);
    assert!(error.contains("--annotations"), "{error}");
    let rows = ["a", "b", "c"].map(|id| format!("{{\"image_id\": \"{id}\", \"objects\": []}}"));
    place.write("annotations.jsonl", rows.join("\n"));
    let error = place.refuse(&[&few[..], &["--annotations", "annotations.jsonl"]].concat());
    assert!(error.contains("3 images leave none to test after 512 to calibrate on"), "{error}");
    assert!(error.contains("--calibration 1"), "{error}");
    let error = place.refuse(&["study", "verifier", "--output", "study", "--seeds", "0"]);
    assert!(error.contains("--seeds") && error.contains("1..=10000"), "{error}");
}
