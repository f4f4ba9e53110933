//! `fisao eval detection`.

use std::fs;

use serde_json::{Value, json};

use crate::bad_align::write_calibration;
use crate::fixture::Workplace;

/// Labels of three captions, in the layout of `HalLoc` and as spans of one's own.
fn write_labels(place: &Workplace) {
    let labels = [
        json!({ "image_id": "a", "hallucinated_text": "Ein Café: a puppy and no cat.",
                "annotations": { "object": [{ "obj": { "name": "puppy", "char_index": "12:17" } }], "scene": [] } }),
        json!({ "image": "b.png", "text": "Two cars on a red rug.", "spans": [[4, 8, "object"], [14, 17, "attribute"]] }),
        json!({ "image": "a.png", "text": "Nothing at all.", "spans": [] }),
    ];
    place.write("labels.jsonl", labels.map(|row| row.to_string()).join("\n"));
}

const DETECTION: [&str; 4] = ["eval", "detection", "--labels", "labels.jsonl"];

fn report(place: &Workplace, more: &[&str]) -> Value {
    let text = place.succeed(&[&DETECTION[..], &["--format", "json"], more].concat());
    serde_json::from_str(&text).unwrap()
}

#[test]
fn verifier_is_scored_the_same_in_one_step_and_in_two() {
    let place = Workplace::furnished();
    place.write("words.txt", "dog, puppy\ncar\ncat\n");
    write_labels(&place);
    write_calibration(&place);
    let captions = [
        json!({ "image_id": "a", "caption": "Ein Café: a puppy and no cat." }),
        json!({ "image_id": "b.png", "caption": "Two cars on a red rug." }),
        json!({ "image_id": "a.png", "caption": "Nothing at all." }),
    ];
    place.write("captions.jsonl", captions.map(|row| row.to_string()).join("\n"));
    let verifier = ["--images", "pictures", "--verifier", "clip", "--vocabulary", "words.txt"];
    for calibration in [&["--calibration", "calibration.json"][..], &[]] {
        let verifier = [&verifier[..], calibration].concat();
        let verdicts = place.succeed(
            &[&["verify", "--captions", "captions.jsonl", "--format", "json"], &verifier[..]]
                .concat(),
        );
        place.write("verdicts.jsonl", verdicts);
        let in_two = report(&place, &["--predictions", "verdicts.jsonl"]);
        assert_eq!(report(&place, &verifier), in_two);
        let scores = if calibration.is_empty() { "negated_score" } else { "probability" };
        assert_eq!(in_two["orientation"], scores);
        // "puppy" and "cars" are judged, "red" is not a name of an object, and "cat" is denied.
        assert_eq!(
            (&in_two["hallucinated"], &in_two["hallucinated_without_opinion"]),
            (&json!(3), &json!(1))
        );
        assert_eq!(in_two["token_measures"]["roc_auc_with_opinion"]["value"], Value::Null);
        let f1 = &in_two["token_measures"]["f1"];
        assert_eq!(f1["value"].is_null(), calibration.is_empty(), "{f1}");
    }
}

#[test]
fn detector_is_scored_by_its_spans() {
    let place = Workplace::new();
    write_labels(&place);
    let predictions = [
        json!({ "image": "a", "text": "Ein Café: a puppy and no cat.", "spans": [
            { "start": 12, "end": 17, "score": 0.9, "hallucinated": true },
            { "start": 25, "end": 28, "score": 0.2, "hallucinated": false } ] }),
        json!({ "image": "b", "text": "Two cars on a red rug.", "spans": [
            { "start": 0, "end": 8, "score": 0.7, "hallucinated": true } ] }),
        json!({ "image": "a.png", "text": "Nothing at all.", "spans": [] }),
    ];
    place.write("found.jsonl", predictions.map(|row| row.to_string()).join("\n"));
    let arguments = ["--predictions", "found.jsonl"];
    let found = report(&place, &arguments);
    let value = |group: &str, name: &str| found[group][name]["value"].as_f64().unwrap();
    assert_eq!(
        (value("token_measures", "recall"), value("token_measures", "precision")),
        (2.0 / 3.0, 2.0 / 3.0)
    );
    assert_eq!(
        (value("span_measures", "exact_f1"), value("span_measures", "overlap_precision")),
        (0.4, 1.0)
    );
    assert_eq!(found["types"][2]["name"], "relationship");
    assert_eq!(
        found["types"][2]["measures"]["recall"]["undefined"],
        "nothing is labelled as hallucinated"
    );
    assert_eq!(found["per_text"], json!([]));
    assert_eq!(
        report(&place, &["--predictions", "found.jsonl", "--per-image"])["per_text"][0]["found"],
        1
    );

    let all = [&DETECTION[..], &arguments].concat();
    let text = place.succeed(&[&all[..], &["--html", "page.html"]].concat());
    assert!(
        text.contains("3 texts of 3 images, joined by image and text: 16 words, 3 hallucinated"),
        "{text}"
    );
    assert!(text.contains("ROC AUC") && text.contains("overlap F1 %"), "{text}");
    assert!(text.contains("nothing is labelled as hallucinated: relationship: recall"), "{text}");
    let page = fs::read_to_string(place.path("page.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("found"), "the page has the curve");
    let csv = place.succeed(&[&all[..], &["--format", "csv"]].concat());
    assert!(csv.starts_with("of,number,value,95 % from,95 % to\nwords,ROC AUC,"), "{csv}");
    assert!(csv.lines().all(|line| line.replace('"', "").split(',').count() >= 5), "{csv}");
    let markdown =
        place.succeed(&[&all[..], &["--format", "markdown", "--threshold", "0.8"]].concat());
    assert!(markdown.contains("| words | recall % | 33.3 |"), "{markdown}");
}

#[test]
fn offsets_labels_and_tokens_are_chosen() {
    let place = Workplace::new();
    let label = json!({ "answer": "Ein Café: zwei", "text": "Was?", "spans": [[11, 15, "Maybe"], [0, 3, "Right"]],
                        "tokens": ["Ein", "Café", ":", "zwei"] });
    place.write("labels.jsonl", label.to_string());
    place.write("found.jsonl", json!({ "text": "Ein Café: zwei", "spans": [[0, 9]] }).to_string());
    let all = ["--predictions", "found.jsonl", "--offsets", "bytes", "--text-field", "answer"];
    let found = report(&place, &all);
    assert_eq!((&found["tokens"], &found["hallucinated"]), (&json!(3), &json!(2)));
    let found = report(&place, &[&all[..], &["--clean-labels", "right"]].concat());
    assert_eq!((&found["hallucinated"], &found["ignored"]), (&json!(1), &json!(0)));
    let found = report(
        &place,
        &[&all[..], &["--ignored-labels", "right", "maybe", "--tokens", "labels"]].concat(),
    );
    assert_eq!(
        (&found["tokens"], &found["hallucinated"], &found["ignored"]),
        (&json!(2), &json!(0), &json!(2))
    );
}

#[test]
fn labels_and_predictions_that_do_not_fit_are_refused_or_counted() {
    let place = Workplace::new();
    write_labels(&place);
    let rows = [
        json!({ "image": "a", "text": "Ein Café: a puppy and no cat.", "spans": [[12, 17]] }),
        json!({ "image": "b", "text": "Two cars.", "spans": [] }),
        json!({ "image": "c", "text": "Two cars.", "spans": [] }),
        json!({ "image": "a", "text": "Nothing at all.", "spans": [[0, 99]] }),
    ];
    place.write("found.jsonl", rows.map(|row| row.to_string()).join("\n"));
    let all = [&DETECTION[..], &["--predictions", "found.jsonl"]].concat();
    let error = place.refuse(&all);
    assert!(error.contains("found.jsonl cannot be read as predictions"), "{error}");
    assert!(error.contains("line 4: span 0 to 99 is outside the text of 15 characters"), "{error}");
    let all = [&all[..], &["--skip-broken"]].concat();
    let error = place.refuse(&all);
    assert!(error.contains("2 labelled texts have no prediction, 1 predictions are of images or ids without labels, 1 of other texts"), "{error}");
    let output = place.run(&[&all[..], &["--skip-unmatched", "--format", "json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains(
            "found.jsonl: 1 texts with a span outside the text are left out, first line 4"
        ),
        "{errors}"
    );
    assert!(
        errors.contains("found: 2 labelled texts without a prediction are left out"),
        "{errors}"
    );
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&found["texts"], &found["skipped_predictions"]),
        (&json!(1), &json!({ "outside_text": 1 }))
    );
    assert_eq!(
        found["unmatched"],
        json!({ "without_prediction": 2, "unknown": 1, "other_text": 1 })
    );
}

#[test]
fn detection_needs_predictions_or_images_and_not_both() {
    let place = Workplace::new();
    write_labels(&place);
    let error = place.refuse(&DETECTION);
    assert!(error.contains("--predictions <FILE>") && error.contains("--images <DIR>"), "{error}");
    let error = place
        .refuse(&[&DETECTION[..], &["--predictions", "x.jsonl", "--verifier", "clip"]].concat());
    assert!(error.contains("cannot be used with"), "{error}");
    place.write("labels.jsonl", "");
    place.write("found.jsonl", "");
    let error = place.refuse(&[&DETECTION[..], &["--predictions", "found.jsonl"]].concat());
    assert!(error.contains("there is no labelled text to compare with"), "{error}");
    place.write("labels.jsonl", json!({ "text": "A dog", "spans": [] }).to_string());
    let error = place.refuse(&[&DETECTION[..], &["--images", "."]].concat());
    assert!(error.contains("a labelled text names no image"), "{error}");
    let error = place.refuse(
        &[&DETECTION[..], &["--predictions", "found.jsonl", "--threshold", "nan"]].concat(),
    );
    assert!(error.contains("--threshold is not a finite number"), "{error}");
}

#[test]
fn scores_that_rise_with_presence_are_warned_of() {
    let place = Workplace::new();
    place.write("labels.jsonl", json!({ "text": "a dog a cat", "spans": [[2, 5]] }).to_string());
    let spans =
        json!([{ "start": 2, "end": 5, "score": 0.1 }, { "start": 8, "end": 11, "score": 0.9 }]);
    place.write("found.jsonl", json!({ "text": "a dog a cat", "spans": spans }).to_string());
    let output = place.run(&[&DETECTION[..], &["--predictions", "found.jsonl"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("hallucinated words score below others"), "{errors}");
    assert!(errors.contains("a higher score means more likely hallucinated"), "{errors}");
}
