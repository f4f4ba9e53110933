//! JSON lines: what goes in comes out, and wrong lines are named.

use std::fs;

use fisao_formats::FormatError;
use fisao_formats::documents::{read_json, read_toml, write_json, write_toml};
use fisao_formats::json_lines::{CaptionRecord, PromptRecord, read_json_lines, write_json_lines};
use serde::{Deserialize, Serialize};
use tempfile::tempdir;

use crate::message;

#[test]
fn captions_round_trip_through_json_lines() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("deep/captions.jsonl");
    let captions = [("a.jpg", "A dog.\nNext to a \"cat\"."), ("b.jpg", "Zwei Hunde, 叫.")]
        .map(|(id, text)| CaptionRecord { image_id: id.to_owned(), caption: text.to_owned() });
    write_json_lines(&path, &captions).expect("writable");
    let text = fs::read_to_string(&path).expect("it was written just now");
    assert_eq!(text.lines().count(), 2);
    assert!(text.starts_with(r#"{"image_id":"a.jpg","caption":"A dog.\nNext"#), "{text}");
    let read: Vec<CaptionRecord> = read_json_lines("captions", &path).expect("whole lines");
    assert_eq!(read, captions);
}

#[test]
fn invalid_line_numbers_start_at_one_and_count_blank_lines() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("prompts.jsonl");
    let good = r#"{"image":"a.jpg","prompt":"What is it?"}"#;
    let read = || -> Result<Vec<PromptRecord>, FormatError> { read_json_lines("prompts", &path) };
    for (bad, reason) in [
        (&b"{\"image\":"[..], "EOF"),
        (b"{\"image\":\"b.jpg\"}", "missing field `prompt`"),
        (b"\xff\xfe", "UTF-8"),
    ] {
        let mut bytes = format!("{good}\n\n").into_bytes();
        bytes.extend_from_slice(bad);
        fs::write(&path, bytes).expect("writable");
        let said = message(read(), &folder);
        assert!(said.starts_with("DIR/prompts.jsonl, line 3: ") && said.contains(reason), "{said}");
    }
    fs::remove_file(&path).expect("it is there");
    assert_eq!(message(read(), &folder), "no prompts at DIR/prompts.jsonl");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    rate: f64,
}

#[test]
fn document_errors_name_the_file_and_the_unknown_key() {
    let folder = tempdir().expect("a temporary folder");
    let (json, toml) = (folder.path().join("s.json"), folder.path().join("s.toml"));
    write_json(&json, &Settings { rate: 0.5 }).expect("writable");
    write_toml(&toml, &Settings { rate: 0.25 }).expect("writable");
    assert_eq!(read_json::<Settings>("settings", &json).expect("whole"), Settings { rate: 0.5 });
    assert_eq!(read_toml::<Settings>("settings", &toml).expect("whole"), Settings { rate: 0.25 });
    fs::write(&toml, "rate = 1.0\nspeed = 2\n").expect("writable");
    let said = message(read_toml::<Settings>("settings file", &toml), &folder);
    assert!(said.starts_with("DIR/s.toml is not a valid settings file: "), "{said}");
    assert!(said.contains("unknown field `speed`") && said.contains("line 2"), "{said}");
}

#[test]
fn long_lines_are_rejected() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("prompts.jsonl");
    let line = format!("{{\"image\":\"a.png\",\"prompt\":\"{}\"}}", "x".repeat(1 << 19));
    fs::write(&path, line).expect("writable");
    let error = read_json_lines::<PromptRecord>("prompts", &path).expect_err("too long");
    assert!(error.to_string().contains("at most 524288 are read"), "{error}");
}
