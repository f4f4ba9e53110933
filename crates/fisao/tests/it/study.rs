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

#[test]
fn theory_writes_checks_that_agree_and_a_page() {
    let place = Workplace::new();
    let command = ["study", "theory", "--seed", "5", "--output", "theory"];
    let printed = place.succeed(&command);
    assert!(printed.contains("feedback-reduction-by-auc"), "{printed}");
    let bytes = fs::read(place.path("theory/theory.json")).unwrap();
    let theory: Value = serde_json::from_slice(&bytes).unwrap();
    let checks = theory["checks"].as_array().unwrap();
    assert!(checks.len() >= 12, "{}", checks.len());
    for check in checks {
        let number = |key: &str| check[key].as_f64().unwrap_or_else(|| panic!("{key}: {check}"));
        let error = (number("monte_carlo") / number("closed_form") - 1.0).abs();
        assert!((number("relative_error") - error).abs() < 1e-12, "{check}");
        assert!(error <= 0.05, "{check}");
        assert!(!check["assumptions"].as_array().unwrap().is_empty(), "{check}");
    }
    assert!(theory["assumptions"].as_array().unwrap().len() >= 10);
    let measured = theory["measured"].as_array().unwrap();
    for dataset in ["clear", "hard", "hard, whole image"] {
        assert!(measured.iter().filter(|row| row["dataset"] == dataset).count() >= 4, "{dataset}");
    }
    // The model's own gradient varies less under local credit, too.
    let local = measured.iter().find(|row| row["check"] == "credit-length").unwrap();
    assert!(local["measured"].as_f64().unwrap() > 2.0, "{local}");
    let page = fs::read_to_string(place.path("theory/theory.html")).unwrap();
    assert!(!page.contains("{{"), "every place of the template is filled");
    assert_eq!(page.matches("<svg").count(), checks.len());
    place.succeed(&command);
    assert_eq!(fs::read(place.path("theory/theory.json")).unwrap(), bytes, "same seed, same bytes");
}

#[test]
fn theory_into_a_file_is_refused() {
    let place = Workplace::new();
    place.write("taken", "a file");
    let error = place.refuse(&["study", "theory", "--output", "taken"]);
    assert!(error.contains("taken"), "{error}");
}
