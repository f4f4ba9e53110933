//! `fisao verify`.

use serde_json::{Value, json};

use crate::bad_align::write_calibration;
use crate::fixture::Workplace;

const ARGUMENTS: [&str; 9] = [
    "verify",
    "--captions",
    "captions.jsonl",
    "--images",
    "pictures",
    "--verifier",
    "clip",
    "--vocabulary",
    "words.txt",
];

fn workplace() -> Workplace {
    let place = Workplace::furnished();
    // A category and its synonyms a line, as CHAIR's list has them.
    place.write("words.txt", "dog, puppy\ncar\ncat\n");
    let captions = [
        json!({ "image_id": "a", "caption": "Ein Café: a puppy and no cat." }),
        json!({ "image_id": "b.png", "caption": "Two cars." }),
        json!({ "image": "a.png", "caption": "Nothing at all." }),
    ];
    place.write("captions.jsonl", captions.map(|row| row.to_string()).join("\n"));
    place
}

fn verdicts(place: &Workplace, more: &[&str]) -> Vec<Value> {
    let text = place.succeed(&[&ARGUMENTS[..], &["--format", "json"], more].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whoever read the verdicts has seen enough; the page is still wanted.
#[cfg(unix)]
#[test]
fn html_page_is_written_even_if_stdout_is_closed() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    let place = workplace();
    write_calibration(&place);
    let caption = json!({ "image_id": "a", "caption": "A dog, a car and a cat." }).to_string();
    place.write("captions.jsonl", vec![caption; 3000].join("\n"));
    for (more, code) in [(["--fail-above", "1"], 0), (["--fail-above", "0"], 3)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fisao"))
            .args(ARGUMENTS)
            .args(["--calibration", "calibration.json", "--html", "page.html"])
            .args(more)
            .current_dir(place.path("."))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("A dog"), "{line}");
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let page = std::fs::read_to_string(place.path("page.html")).unwrap();
        assert!(page.contains("3000 captions"), "the page is about all of them");
        std::fs::remove_file(place.path("page.html")).unwrap();
    }
}

#[test]
fn mentions_are_found_and_scored_against_their_images() {
    let place = workplace();
    let found = verdicts(&place, &[]);
    assert_eq!(found.len(), 3);
    let puppy = &found[0]["mentions"][0];
    assert_eq!(
        (&puppy["start"], &puppy["end"], &puppy["category"], &puppy["form"]),
        (&json!(12), &json!(17), &json!("dog"), &json!("puppy"))
    );
    assert_eq!(found[0]["mentions"][1]["negated"], true);
    assert_eq!(found[1]["mentions"][0]["form"], "car");
    assert_eq!(found[2]["mentions"], json!([]));
    assert_eq!((&puppy.get("p_hallucinated"), &found[0]["hallucinated"]), (&None, &Value::Null));

    // The same score as `fisao score` gives.
    let text = place.succeed(&[
        "score",
        "--verifier",
        "clip",
        "--image",
        "pictures/a.png",
        "--text",
        "puppy",
        "--format",
        "json",
    ]);
    let scored: Value = serde_json::from_str(&text).unwrap();
    let (one, other) = (&puppy["score"], &scored["scores"][0]["score"]);
    assert!((one.as_f64().unwrap() - other.as_f64().unwrap()).abs() < 1e-6, "{one} {other}");
}

#[test]
fn calibrated_verdicts_and_fail_above_set_the_exit_code() {
    let place = workplace();
    write_calibration(&place);
    let calibrated = ["--calibration", "calibration.json"];
    let all = [&calibrated[..], &["--threshold", "0"]].concat();
    let found = verdicts(&place, &all);
    assert_eq!((&found[0]["hallucinated"], &found[1]["hallucinated"]), (&json!(1), &json!(1)));
    let p = found[0]["mentions"][0]["p_hallucinated"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&p));
    assert_eq!(found[0]["mentions"][1].get("p_hallucinated"), None, "a denied word is not judged");

    let output = place.run(&[&ARGUMENTS[..], &all, &["--fail-above", "0.9"]].concat());
    assert_eq!(output.status.code(), Some(3));
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("a: Ein Café: a puppy and no cat.\n  not there: puppy (p "), "{text}");
    assert!(
        errors.contains("2 of 2 mentions count as hallucinated, more than the fraction of 0.9"),
        "{errors}"
    );
    assert!(errors.contains("1 mentions are negated and not scored"), "{errors}");
    let none = [&ARGUMENTS[..], &calibrated, &["--threshold", "1", "--fail-above", "0"]].concat();
    assert_eq!(place.run(&none).status.code(), Some(0));
}

#[test]
fn unverifiable_captions_are_reported() {
    let place = workplace();
    place.write("captions.jsonl", json!({ "image_id": "z", "caption": "A dog." }).to_string());
    let error = place.refuse(&ARGUMENTS);
    assert!(error.contains("pictures has no image z"), "{error}");
    place.write("captions.jsonl", "");
    assert!(place.refuse(&ARGUMENTS).contains("captions.jsonl holds no caption"));
    let error = place.refuse(&[&ARGUMENTS[..], &["--fail-above", "0.1"]].concat());
    assert!(error.contains("--calibration"), "{error}");
}

#[test]
fn coco_vocabulary_is_built_in() {
    let place = workplace();
    let captions =
        json!({ "image_id": "a", "caption": "A hot dog and a baby blanket by the bikes." });
    place.write("captions.jsonl", captions.to_string());
    let arguments = [&ARGUMENTS[..8], &["coco", "--format", "jsonl"]].concat();
    let found: Value = serde_json::from_str(&place.succeed(&arguments)).unwrap();
    let names: Vec<&str> = found["mentions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["category"].as_str().unwrap())
        .collect();
    // "baby" alone would name a person.
    assert_eq!(names, ["hot dog", "bicycle"]);
}

#[test]
fn vocabularies_are_plain_text_lists_or_built_in() {
    let place = workplace();
    let captions =
        json!({ "image_id": "a", "caption": "Two kittens, a sofa and an umbrella stand." });
    place.write("captions.jsonl", captions.to_string());
    let categories = |vocabulary: &str| -> Vec<String> {
        let arguments = [&ARGUMENTS[..8], &[vocabulary, "--format", "jsonl"]].concat();
        let found: Value = serde_json::from_str(&place.succeed(&arguments)).unwrap();
        let mentions = found["mentions"].as_array().unwrap().iter();
        mentions.map(|mention| mention["category"].as_str().unwrap().to_owned()).collect()
    };
    place.write(
        "list.txt",
        "# pets\ncat,kitten\n\numbrella\ncouch, sofa\n[neutral]\numbrella stand\n",
    );
    assert_eq!(categories("list.txt"), ["cat", "couch"]);
    assert!(categories("everyday").starts_with(&["cat".to_owned(), "couch".to_owned()]));

    // CHAIR reads the same lists.
    place.write("truth.json", r#"{"image_id": "a", "objects": []}"#);
    let chair = ["eval", "chair", "--captions", "captions.jsonl", "--ground-truth", "truth.json"];
    let more = ["--vocabulary", "list.txt", "--per-image", "--format", "json"];
    let counted = place.succeed(&[&chair[..], &more].concat());
    assert!(counted.contains(r#""couch""#) && !counted.contains(r#""umbrella""#), "{counted}");

    let refuse = |list: &str| {
        place.write("list.txt", list);
        place.refuse(&[&ARGUMENTS[..8], &["list.txt"]].concat())
    };
    assert!(refuse("").contains("the object vocabulary is empty"));
    assert!(refuse("cat\n, kitten\n").contains("line 2 begins with a comma"));
    assert!(refuse("cat, pet\ndog, pet\n").contains("'pet' names both 'cat' and 'dog'"));
    assert!(refuse("cat\n!!!\n").contains("'!!!', which holds no word"));
}

#[test]
fn invalid_row_is_reported_once_with_one_location() {
    let place = workplace();
    let rows =
        ["{\"image_id\": \"a\", \"caption\": \"x\"}", "{\"image_id\": [], \"caption\": \"x\"}"];
    place.write("captions.jsonl", rows.join("\n"));
    insta::assert_snapshot!(place.refuse(&ARGUMENTS), @r#"
    error: captions.jsonl cannot be read as captions
      because: line 2, column 15: invalid type: sequence, expected an id: a text or a whole number; expected {"image_id": …, "caption": "…"}
    "#);
    // An image where an id was expected does not fill the screen.
    let image = "A".repeat(280_000);
    for row in [
        json!({ "image_id": image, "caption": "x" }),
        json!({ "image_id": "a", "caption": [image] }),
        json!({ "image_id": { "b": image }, "caption": "x" }),
    ] {
        place.write("captions.jsonl", row.to_string());
        let error = place.refuse(&ARGUMENTS);
        assert!(error.len() < 1000, "{} bytes: {}", error.len(), &error[..300]);
    }
}
