use std::io::{BufReader, Read};

use fisao_eval::captions::{read_caption_rows, read_references};

#[test]
fn captions_are_read_from_json_lists_and_json_lines() {
    let list =
        r#"[{"image_id": 42, "caption": "a dog", "id": 2}, {"image": "x.png", "caption": ""}]"#;
    let lines =
        "{\"image_id\":42,\"caption\":\"a dog\"}\n\n{\"image\":\"x.png\",\"caption\":\"\"}\n";
    let rows = read_caption_rows(list.as_bytes()).unwrap();
    assert_eq!(rows, read_caption_rows(lines.as_bytes()).unwrap());
    assert_eq!((rows[0].image_id.as_str(), rows[1].caption.as_str()), ("42", ""));
}

#[test]
fn invalid_captions_are_reported_by_line_or_entry() {
    let said = |text: &str| read_caption_rows(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(
        said("{\"image_id\":1,\"caption\":\"a\"}\n{\"image_id\":\"1\",\"caption\":\"b\"}"),
        "line 2: image '1' has a caption already; give one caption for each image"
    );
    assert_eq!(
        said("[{\"caption\":\"a\"}]"),
        "entry 1: names no image; add \"image_id\" (or \"image\")"
    );
    let none = "image '1' has no caption, or null; write \"\" if it is empty, or remove the row";
    assert_eq!(said("{\"image_id\":1}"), format!("line 1: {none}"));
    assert_eq!(said("[{\"image_id\":1.0,\"caption\":null}]"), format!("entry 1: {none}"));
}

#[test]
fn references_are_read_from_coco_json_and_from_rows() {
    let coco = r#"{"info": {"year": 2014}, "images": [{"id": 1, "file_name": "a.jpg"}], "licenses": [],
        "annotations": [{"image_id": 1, "id": 7, "caption": "a dog"}, {"image_id": 2, "id": 8, "caption": "a cat"},
                        {"image_id": 1, "id": 9, "caption": "the dog"}], "type": "captions"}"#;
    let lines = "\u{feff}{\"image_id\":1,\"captions\":[\"a dog\",\"the dog\"]}\n\n{\"image\":2,\"caption\":\"a cat\"}\n";
    let list = r#"[{"captions": ["a dog"], "image_id": 1}, {"image_id": 2, "captions": ["a cat"]},
                   {"image_id": 1, "captions": ["the dog"]}]"#;
    for text in [coco, lines, list] {
        let references = read_references(text.as_bytes()).unwrap();
        let images = references.images();
        assert_eq!(images.len(), 2, "{text}");
        assert_eq!(images[0], ("1".to_owned(), vec!["a dog".to_owned(), "the dog".to_owned()]));
        assert_eq!(images[1], ("2".to_owned(), vec!["a cat".to_owned()]));
        assert!(references.index().find("000000000001.jpg").is_some());
    }
    assert!(read_references(&b" \n"[..]).unwrap().images().is_empty());
}

#[test]
fn invalid_references_are_reported_by_line_and_column() {
    let said = |text: &str| read_references(text.as_bytes()).unwrap_err().to_string();
    let first = said("{\"image_id\":1,\"captions\":[\"a\"]}\n{\"image_id\":2}\n");
    assert!(first.starts_with("this object holds no captions at line 2"), "{first}");
    assert!(said("{\"captions\":[\"a\"]}").starts_with("this object names no image at line 1"));
    let broken = said("{\"annotations\":[{\"image_id\":1,\"caption\":3}]}");
    assert!(
        broken.starts_with("invalid type: integer `3`, expected a string at line 1"),
        "{broken}"
    );
    assert!(said("{\"annotations\":[{\"image_id\":1").starts_with("EOF while parsing"));
    assert!(said("[{\"image_id\":1,\"captions\":[]}] 2").starts_with("trailing characters"));
    assert!(said("no JSON").starts_with("expected ident at line 1"));
}

/// One annotation, over and over, without ever being in memory as a whole.
struct Annotations {
    left: usize,
    pending: Vec<u8>,
}

impl Read for Annotations {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.pending.is_empty() && self.left > 0 {
            self.left -= 1;
            let row = format!(r#"{{"image_id": {}, "caption": "a dog"}}"#, self.left % 10);
            let end = if self.left == 0 { "]}" } else { "," };
            self.pending = format!("{row}{end}").into_bytes();
        }
        let count = self.pending.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.pending[..count]);
        self.pending.drain(..count);
        Ok(count)
    }
}

#[test]
fn coco_annotations_are_read_as_a_stream() {
    let annotations = Annotations { left: 20_000, pending: b"{\"annotations\": [".to_vec() };
    let references = read_references(BufReader::with_capacity(64, annotations)).unwrap();
    assert_eq!(references.images().len(), 10);
    assert!(references.images().iter().all(|(_, captions)| captions.len() == 2_000));
}
