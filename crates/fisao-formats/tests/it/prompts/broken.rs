//! Prompt sets that are wrong.

use std::fs;

use fisao_formats::prompts::PromptSet;
use tempfile::tempdir;

use super::{fixture, open};
use crate::message;

fn refused(content: &[u8]) -> String {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("prompts");
    fs::write(&path, content).expect("writable");
    message(PromptSet::open(&path, None, "Describe it."), &folder)
}

#[test]
fn unreadable_prompt_files_are_reported() {
    assert_eq!(refused(b""), "DIR/prompts is empty");
    assert_eq!(refused(b"\xEF\xBB\xBF \n"), "DIR/prompts is empty");
    assert_eq!(refused(b"[ ]"), "DIR/prompts has no rows");
    let other = "DIR/prompts is not a prompt file: it is neither JSON nor Parquet";
    assert_eq!(refused(b"image,prompt\na.png,?\n"), other);
    assert_eq!(refused(b"\xFF\xFE{\0"), other);
    let packed = "DIR/prompts is packed, and rows of a packed file cannot be read one by one";
    assert_eq!(refused(b"\x1F\x8B\x08\0"), packed);
    assert_eq!(refused(b"\x28\xB5\x2F\xFD"), packed);
    let folder = tempdir().expect("a temporary folder");
    let absent = PromptSet::open(&folder.path().join("x.jsonl"), None, "");
    assert_eq!(message(absent, &folder), "no prompt file at DIR/x.jsonl");
    let empty = PromptSet::open(folder.path(), None, "");
    assert!(message(empty, &folder).starts_with("no images in DIR"));
}

#[test]
fn invalid_rows_are_reported_with_the_reason() {
    let good = r#"{"image": "a.png"}"#;
    for (bad, reason) in [
        (
            "{\"image\": ",
            "EOF while parsing a value; give one object per line, or one list of objects",
        ),
        ("{\"image\": \"a\"} x", "trailing characters (column 16)"),
        ("[1]", "invalid type: sequence, expected an object with an image and a prompt (column 0)"),
        (r#"{"image": 5}"#, "`image` is a number; give a file's name, or a list of one"),
        (r#"{"image": {"url": "x"}}"#, "`image` is an object without `bytes` and `path`"),
        (
            r#"{"image": "https://x.org/a.png"}"#,
            "`image` is an address (https://x.org/a.png), and nothing is downloaded; fetch the images \
             and give the names of the files",
        ),
        (
            r#"{"image": "file:///data/a.png"}"#,
            "`image` is a URL of a file here; use its path, /data/a.png",
        ),
        (r#"{"image": "data:image/png,x"}"#, "`image` is a data URL, but not of base64"),
        (
            r#"{"image": "a", "prompt": 5}"#,
            "`prompt` is a number; give text, or a list of turns with `role` and `content`",
        ),
        (r#"{"image": "a", "prompt": ["x"]}"#, "a turn of `prompt` does not say whose (`role`)"),
        (
            r#"{"image": "a", "messages": [{"role": "user", "content": 1}]}"#,
            "the `content` of a turn of `messages` is a number; give text, or a list of parts",
        ),
        (
            r#"{"image": "a", "messages": [{"role": "user", "content": [{"type": "text"}]}]}"#,
            "a part of type \"text\" in `messages` has no `text`",
        ),
        (r#"{"image": "a", "prompts": []}"#, "`prompts` is an empty list"),
        (r#"{"image": "a", "prompts": [1]}"#, "`prompts` is not a list of texts"),
        (r#"{"image": "a", "prompts": "x"}"#, "`prompts` is text; give a list of texts"),
        (r#"{"image": "a", "chosen": "x"}"#, "there is `chosen`, but no `rejected`"),
        (r#"{"image": "a", "rejected": "x"}"#, "there is `rejected`, but no `chosen`"),
        (
            r#"{"image": "a", "prompt": "?", "chosen": [], "rejected": "x"}"#,
            "`chosen` has no turn of the assistant",
        ),
        (
            r#"{"image": "a", "chosen": "x", "rejected": "y", "prompt": [{"role": "user"}, {"role": "user"}]}"#,
            "`chosen` and `rejected` answer the last of 2 turns of the user; only prompts of one turn \
             are read, so leave this row out",
        ),
    ] {
        let lines = format!("{good}\n\n{bad}\n");
        assert_eq!(refused(lines.as_bytes()), format!("DIR/prompts, line 3: {reason}"));
        if !reason.contains("column") && !reason.contains("EOF") {
            let list = format!("[{good},\n{bad}]");
            assert_eq!(refused(list.as_bytes()), format!("DIR/prompts, entry 2: {reason}"));
        }
    }
    let said = refused(b"{\"image\": \"a\"}\n{\"image\": \"\xE9\"}");
    let expected = "DIR/prompts, line 2: not UTF-8 from its byte 12 on; convert the file to UTF-8";
    assert_eq!(said, expected);
    assert_eq!(refused(b"[{}, {}"), "DIR/prompts, entry 2: it is truncated");
}

#[test]
fn error_for_prompts_without_images_lists_their_fields() {
    let lines = b"{\"picture\": \"a.png\", \"prompt\": \"?\"}\n{\"label\": 1}\n";
    let said = refused(lines);
    assert_eq!(said, "DIR/prompts names no images: its fields are `label`, `picture`, `prompt`");
    let said = refused(b"{\"image\": null}\n{\"images\": [\"a\", \"b\"]}");
    assert_eq!(said, "DIR/prompts has no row with one image: 1 have none, and 1 several");
}

fn refused_fixture(name: &str) -> String {
    let error = PromptSet::open(&fixture(name), None, "").expect_err("it is wrong");
    error.to_string().replace(&fixture("").display().to_string(), "")
}

#[test]
fn unusable_parquet_files_are_reported() {
    assert_eq!(refused_fixture("no_rows.parquet"), "no_rows.parquet has no rows");
    let expected = "no_images.parquet names no images: its fields are `picture`, `prompt`";
    assert_eq!(refused_fixture("no_images.parquet"), expected);
    assert_eq!(
        refused_fixture("wrong_prompt.parquet"),
        "wrong_prompt.parquet, row 1: `prompt` is a number; give text, or a list of turns with `role` \
         and `content`"
    );
    assert_eq!(
        refused_fixture("several_prompts.parquet"),
        "several_prompts.parquet, row 1: `prompts` has several texts, which only JSON may have; write a \
         row for each of them"
    );
    assert_eq!(
        refused_fixture("brotli.parquet"),
        "brotli.parquet is not a valid Parquet file: it is packed with BROTLI, which is not read; write \
         it anew with compression=\"snappy\" or \"zstd\""
    );
}

#[test]
fn truncated_prompt_files_are_errors() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("cut");
    let list = br#"[{"image": "a.png", "prompt": "[\"]"}, {"image": "b.png"}]"#;
    for length in 0..list.len() {
        fs::write(&path, &list[..length]).expect("writable");
        PromptSet::open(&path, None, "").expect_err("it is cut");
    }
    for name in ["preferences_snappy.parquet", "conversations_zstd.parquet"] {
        let whole = fs::read(fixture(name)).expect("readable");
        for length in (0..whole.len()).step_by(41).chain([whole.len() - 1]) {
            fs::write(&path, &whole[..length]).expect("writable");
            PromptSet::open(&path, None, "").expect_err("it is cut");
        }
    }
}

#[test]
fn damaged_parquet_files_give_rows_or_errors() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("damaged");
    for name in ["snappy", "zstd", "v2", "gzip", "plain"] {
        let kind = if name == "snappy" { "preferences" } else { "conversations" };
        let whole = fs::read(fixture(&format!("{kind}_{name}.parquet"))).expect("readable");
        // One byte becomes another one, differently each time.
        for at in (4..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] = damaged[at].wrapping_mul(31).wrapping_add(at as u8 | 1);
            fs::write(&path, &damaged).expect("writable");
            let Ok(set) = PromptSet::open(&path, None, "") else { continue };
            for index in 0..set.len().min(20) {
                let _ = set.row(index);
            }
            let _ = set.split(0.5, 1, &|_| {});
            let _ = set.check_images(&|_| {});
        }
    }
}

#[test]
fn prompt_file_changed_since_opening_is_an_error() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("rows.jsonl");
    let write = |text: &str| fs::write(&path, text).expect("writable");
    write("{\"image\": \"a.png\"}\n{\"image\": \"b.png\"}\n");
    let set = open(&path);
    for changed in
        ["", "{\"image\": \"a.png\"}\n{\"image\": \"c.png\"}\n", "\n{\"image\": \"b.png\"}"]
    {
        write(changed);
        let said = message(set.row(1), &folder);
        assert_eq!(said, "DIR/rows.jsonl has changed since it was opened");
    }
}
