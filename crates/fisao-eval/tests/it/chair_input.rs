use fisao_eval::chair::{read_captions, read_ground_truth};

#[test]
fn lists_and_lines_read_alike() {
    let list = r#"[{"image_id": 42, "caption": "a dog", "length": 2},
                   {"image": "x.png", "caption": "é"}]"#;
    let lines = "\u{feff}{\"image_id\":42,\"caption\":\"a dog\"}\r\n\n{\"image\":\"x.png\",\"caption\":\"é\"}\n";
    let rows = read_captions(list).unwrap();
    assert_eq!(rows, read_captions(lines).unwrap());
    assert_eq!((rows[0].image_id.as_str(), rows[1].image_id.as_str()), ("42", "x.png"));
    assert_eq!(rows[1].caption, "é");
    assert!(read_captions(" \n").unwrap().is_empty());
}

#[test]
fn ground_truth_reads_lists_of_objects() {
    let truth = read_ground_truth(
        "{\"image_id\":\"a\",\"objects\":[\"dog\",\"cat\",\"dog\"]}\n{\"image_id\":\"b\",\"objects\":[]}",
    )
    .unwrap();
    assert_eq!(truth["a"].len(), 2);
    assert!(truth["b"].is_empty());
}

#[test]
fn broken_rows_are_named_by_their_place() {
    let message = |text: &str| read_captions(text).unwrap_err().to_string();
    let line = message("{\"image_id\":1,\"caption\":\"x\"}\n{\"image_id\":1}");
    assert!(line.starts_with("line 2: missing field `caption`"), "{line}");
    let entry = message("[{\"image_id\":1,\"caption\":\"x\"}, 3]");
    assert!(entry.starts_with("entry 2: "), "{entry}");
    assert!(message("[{\"image_id\":1,").starts_with("not a JSON list"));
    assert_eq!(
        message("{\"caption\":\"x\"}"),
        "line 1 names no image; add \"image_id\" (or \"image\")"
    );
    let twice =
        read_ground_truth("[{\"image\":\"a\",\"objects\":[]},{\"image\":\"a\",\"objects\":[]}]");
    assert!(twice.unwrap_err().to_string().contains("'a' has ground truth twice"));
}
