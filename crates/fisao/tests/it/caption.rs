//! `fisao caption`.

use serde_json::Value;

use crate::fixture::Workplace;

const ARGUMENTS: [&str; 9] = [
    "caption",
    "--model",
    "llava",
    "--image",
    "pictures",
    "--max-new-tokens",
    "6",
    "--format",
    "json",
];

fn captions(place: &Workplace, more: &[&str]) -> Vec<Value> {
    let text = place.succeed(&[&ARGUMENTS[..], more].concat());
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

#[test]
fn one_json_object_is_printed_per_image() {
    let captions = captions(&Workplace::furnished(), &[]);
    let images: Vec<_> = captions.iter().map(|caption| caption["image"].as_str()).collect();
    assert_eq!(images, [Some("pictures/a.png"), Some("pictures/b.png"), Some("pictures/c.png")]);
    for caption in &captions {
        assert_eq!(caption["prompt"], "Describe the image.");
        let tokens = caption["tokens"].as_array().unwrap();
        let stopped = caption["finish_reason"] == "stop";
        assert!(stopped || tokens.len() == 6, "{caption}");
        assert!(tokens.iter().all(|token| token["logprob"].as_f64().unwrap() <= 0.0));
        let spelled: String = tokens.iter().map(|token| token["text"].as_str().unwrap()).collect();
        assert_eq!(Value::from(spelled), caption["caption"]);
    }
}

#[test]
fn sampling_is_reproducible_by_seed() {
    let place = Workplace::furnished();
    let sample = |seed: &str| captions(&place, &["--temperature", "1", "--seed", seed]);
    assert_eq!(sample("1"), sample("1"));
    assert_ne!(sample("1"), sample("2"));
}

#[test]
fn caption_does_not_depend_on_the_other_images() {
    let place = Workplace::furnished();
    let together = captions(&place, &[]);
    let last = place.succeed(&[
        "caption",
        "--model",
        "llava",
        "--image",
        "pictures/c.png",
        "--max-new-tokens",
        "6",
        "--format",
        "json",
        "--greedy",
    ]);
    let alone: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(alone["caption"], together[2]["caption"]);
}

#[test]
fn text_format_prints_one_line_per_image() {
    let place = Workplace::furnished();
    let text = place.succeed(&ARGUMENTS[..7]);
    assert_eq!(text.lines().count(), 3);
    assert!(text.starts_with("pictures/a.png: "), "{text}");
}

#[test]
fn built_in_model_is_used_with_a_note_if_none_is_given() {
    let place = Workplace::furnished();
    let output = place.run(&["caption", "--image", "pictures/a.png", "--max-new-tokens", "4"]);
    let note = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{note}");
    assert!(note.contains("using the built-in synthetic dataset's small model"), "{note}");
}

#[test]
fn written_captions_can_be_read_by_verify_and_chair() {
    let place = Workplace::furnished();
    let written = place.succeed(&ARGUMENTS);
    // And as earlier versions wrote them.
    let former = written.replace("\"caption\":", "\"text\":").replace("\"image_id\":", "\"name\":");
    assert_ne!(former, written);
    for captions in [written, former] {
        place.write("captions.jsonl", captions);
        let verify = ["verify", "--captions", "captions.jsonl", "--images", "pictures"];
        let found =
            place.succeed(&[&verify[..], &["--verifier", "clip", "--format", "jsonl"]].concat());
        assert_eq!(found.lines().count(), 3);
        let objects = |name: &str| format!(r#"{{"image_id": "{name}", "objects": ["dog"]}}"#);
        let rows = ["a.png", "b.png", "c.png"].map(objects).join("\n");
        place.write("objects.jsonl", rows);
        let chair = ["eval", "chair", "--captions", "captions.jsonl"];
        let more = ["--ground-truth", "objects.jsonl", "--format", "json"];
        let report: Value =
            serde_json::from_str(&place.succeed(&[&chair[..], &more].concat())).unwrap();
        assert_eq!(report["captions"], 3, "{report}");
    }
}
