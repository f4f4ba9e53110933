//! `fisao eval captions` and `fisao eval diff`.

use serde_json::{Value, json};

use crate::fixture::Workplace;

fn write_files(place: &Workplace) {
    place.write(
        "references.jsonl",
        "{\"image_id\": 1, \"captions\": [\"A dog runs on the grass.\", \"The dog is running.\"]}\n\
         {\"image_id\": 2, \"captions\": [\"Two cars on a street\", \"Cars drive down the road\"]}\n",
    );
    place.write(
        "good.jsonl",
        "{\"image_id\": 1, \"caption\": \"A dog runs on the grass.\"}\n\
         {\"image_id\": \"COCO_val2014_000000000002.jpg\", \"caption\": \"Two cars on the road\"}\n",
    );
    place.write(
        "bad.jsonl",
        "{\"image_id\": 1, \"caption\": \"A cat sleeps\"}\n{\"image_id\": 2, \"caption\": \"\"}\n",
    );
    place.write("objects.json", json!({ "1": ["dog"], "2": ["car"] }).to_string());
}

#[test]
fn captions_are_scored_against_references() {
    let place = Workplace::new();
    write_files(&place);
    let arguments = [
        "eval",
        "captions",
        "--captions",
        "good.jsonl",
        "--references",
        "references.jsonl",
        "--format",
    ];
    let text = place.succeed(&[&arguments[..], &["json"]].concat());
    let report: Value = serde_json::from_str(&text).unwrap();
    for metric in ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "meteor"] {
        assert!(report[metric].as_f64().unwrap() > 0.4, "{metric}: {report}");
    }
    assert_eq!(report["images"], 2);
    let csv = place.succeed(&[&arguments[..], &["csv"]].concat());
    let columns = "captions of,BLEU-1,BLEU-1 95 % from,BLEU-1 95 % to,BLEU-2,";
    assert!(csv.starts_with(columns), "{csv}");
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((rows.len(), rows[1][0]), (2, "good"));
    let numbers: Vec<f64> = rows[1][1..4].iter().map(|cell| cell.parse().unwrap()).collect();
    assert!(numbers[1] <= numbers[0] && numbers[0] <= numbers[2], "{numbers:?}");
}

#[test]
fn files_of_several_seeds_are_averaged() {
    let place = Workplace::new();
    write_files(&place);
    let text = place.succeed(&[
        "eval",
        "chair",
        "--captions",
        "good.jsonl",
        "bad.jsonl",
        "--ground-truth",
        "objects.json",
        "--format",
        "json",
    ]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["mean"]["chair_s"]["mean"], 0.25);
    assert_eq!(report["mean"]["chair_s"]["runs"], 2);
    assert_eq!(report["files"][1]["chair_i"], 1.0);
    assert_eq!(report["files"][1]["name"], "bad");
}

#[test]
fn diff_compares_two_models_image_by_image() {
    let place = Workplace::new();
    write_files(&place);
    let compare = |truth: &[&str]| -> Value {
        let arguments =
            [&["eval", "diff", "bad.jsonl", "good.jsonl", "--format", "json"], truth].concat();
        serde_json::from_str(&place.succeed(&arguments)).unwrap()
    };
    let objects = compare(&["--ground-truth", "objects.json"]);
    assert_eq!(objects["chair_s"]["difference"], -0.5);
    assert_eq!((&objects["recall"]["higher"], &objects["images"]), (&json!(2), &json!(2)));
    let likeness = compare(&["--references", "references.jsonl"]);
    assert!(likeness["bleu_4"]["difference"].as_f64().unwrap() > 0.3);
    assert_eq!(likeness["cider"]["lower"], 0);
}

#[test]
fn a_comparison_as_csv_has_one_number_per_cell() {
    let place = Workplace::new();
    write_files(&place);
    let files = ["eval", "diff", "bad.jsonl", "good.jsonl"];
    let csv = place
        .succeed(&[&files[..], &["--ground-truth", "objects.json", "--format", "csv"]].concat());
    let mut rows = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let columns = "number,bad,good,difference,95 % from,95 % to,higher,lower,equal,sign test p";
    assert_eq!(rows.next().unwrap().join(","), columns);
    for row in rows {
        assert_eq!(row.len(), 10, "{row:?}");
        assert!(row[1..].iter().all(|cell| cell.parse::<f64>().is_ok()), "{row:?}");
    }
}

#[test]
fn captions_of_unknown_images_are_rejected_or_skipped() {
    let place = Workplace::new();
    write_files(&place);
    place.write(
        "more.jsonl",
        "{\"image_id\": 1, \"caption\": \"A dog\"}\n{\"image_id\": 9, \"caption\": \"A dog\"}\n",
    );
    let arguments = ["eval", "chair", "--captions", "more.jsonl", "--ground-truth", "objects.json"];
    let error = place.refuse(&arguments);
    assert!(
        error.contains("1 of 2 captions describe images without ground truth, first '9'"),
        "{error}"
    );
    let output = place.run(&[&arguments[..], &["--skip-unknown-images"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("1 captions of images without ground truth"), "{errors}");
}

#[test]
fn images_are_matched_across_different_id_formats() {
    let place = Workplace::new();
    let row = |id: &str, text: &str| json!({ "image_id": id, "caption": text }).to_string();
    place.write("llava-1.5.jsonl", [row("1", "a dog"), row("2", "a cat")].join("\n"));
    place.write("llava-1.6.jsonl", [row("000000000001", "a cat"), row("2", "a dog")].join("\n"));
    place.write("objects.json", json!({ "1": ["dog"], "2": ["dog"] }).to_string());
    let text = place.succeed(&[
        "eval",
        "chair",
        "--captions",
        "llava-1.5.jsonl",
        "llava-1.6.jsonl",
        "--ground-truth",
        "objects.json",
        "--format",
        "json",
    ]);
    let report: Value = serde_json::from_str(&text).unwrap();
    // One of the files is right about each image, so that no choice of images changes the mean.
    assert_eq!(report["intervals"]["chair_s"], json!({ "low": 0.5, "high": 0.5 }));
    assert_eq!(report["files"][1]["name"], "llava-1.6");
}

#[test]
fn output_option_without_effect_is_rejected() {
    let place = Workplace::new();
    write_files(&place);
    let error = place.refuse(&[
        "eval",
        "captions",
        "--captions",
        "good.jsonl",
        "--references",
        "references.jsonl",
        "--output",
        "run",
    ]);
    assert!(error.contains("cannot be used with"), "{error}");
}
