use fisao_eval::chair::{
    GroundTruthReader, InputError, ObjectVocabulary, Rules, read_captions, read_ground_truth,
    read_synonyms,
};

#[test]
fn captions_are_read_alike_from_json_lists_and_json_lines() {
    let list = r#"[{"image_id": 42, "caption": "a dog", "length": 2},
                   {"image": "x.png", "caption": "é"}]"#;
    let lines = "\u{feff}{\"image_id\":42,\"caption\":\"a dog\"}\r\n\n{\"image\":\"x.png\",\"caption\":\"é\"}\n";
    let rows = read_captions(list.as_bytes()).unwrap();
    assert_eq!(rows, read_captions(lines.as_bytes()).unwrap());
    assert_eq!((rows[0].image_id.as_str(), rows[1].image_id.as_str()), ("42", "x.png"));
    assert_eq!(rows[1].caption, "é");
    assert!(read_captions(&b" \n"[..]).unwrap().is_empty());
}

#[test]
fn ground_truth_is_read_from_lists_of_objects() {
    let truth = read_ground_truth(
        &b"{\"image_id\":\"a\",\"objects\":[\"dog\",\"cat\",\"dog\"]}\n{\"image_id\":\"b\",\"objects\":[]}"[..],
    )
    .unwrap();
    assert_eq!(truth["a"].len(), 2);
    assert!(truth["b"].is_empty());
}

#[test]
fn ids_written_as_floats_by_pandas_are_read() {
    let captions = read_captions(&b"{\"image_id\":391895.0,\"caption\":\"x\"}"[..]).unwrap();
    assert_eq!(captions[0].image_id, "391895");
    let truth = read_ground_truth(&b"{\"image_id\":391895.0,\"objects\":[\"dog\"]}"[..]).unwrap();
    assert_eq!(truth.keys().collect::<Vec<_>>(), ["391895"]);
    let coco = r#"{"images": [{"id": 391895.0}], "categories": [{"id": 18.0, "name": "dog"}],
        "annotations": [{"image_id": 391895.0, "category_id": 18.0}]}"#;
    let vocabulary = ObjectVocabulary::coco();
    let mut reader = GroundTruthReader::new(&vocabulary, Rules::Strict);
    reader.read(coco.as_bytes()).unwrap();
    let (truth, _) = reader.finish();
    assert!(truth["391895"].contains("dog"), "{truth:?}");
}

#[test]
fn invalid_rows_are_reported_by_line_or_entry() {
    let message = |text: &str| read_captions(text.as_bytes()).unwrap_err().to_string();
    let none = "image '1' has no caption, or null; write \"\" if it is empty, or remove the row";
    let line = message("{\"image_id\":1,\"caption\":\"x\"}\n{\"image_id\":1}");
    assert_eq!(line, format!("line 2: {none}"));
    assert_eq!(message("{\"image_id\":1.0,\"caption\":null}"), format!("line 1: {none}"));
    let line = message("{\"image_id\":1,\"caption\":\"x\"}\n{\"image_id\":1.5,\"caption\":\"x\"}");
    assert!(line.starts_with("line 2, column 15: 1.5 is not a whole number; expected"), "{line}");
    let line = message("{\"image_id\":[1],\"caption\":\"x\"}");
    assert!(line.contains("expected an id: a text or a whole number"), "{line}");
    let entry = message("[{\"image_id\":1,\"caption\":\"x\"}, 3]");
    assert!(entry.starts_with("entry 2: "), "{entry}");
    assert!(message("[{\"image_id\":1,").starts_with("not a JSON list"));
    assert_eq!(
        message("{\"caption\":\"x\"}"),
        "line 1: names no image; add \"image_id\" (or \"image\")"
    );
    let twice = read_ground_truth(
        &b"[{\"image\":\"a\",\"objects\":[]},{\"image\":\"a\",\"objects\":[]}]"[..],
    );
    assert!(twice.unwrap_err().to_string().contains("'a' has ground truth twice"));
}

fn vocabulary() -> ObjectVocabulary {
    read_synonyms(&b"person, man\ndog, puppy\ncat\nairplane, aeroplane"[..]).unwrap()
}

const CATEGORIES: &str = r#""categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"},
    {"id": 5, "name": "aeroplane"}, {"id": 90, "name": "unicorn"}]"#;
const IMAGES: &str = r#""images": [{"id": 7, "file_name": "7.jpg"}, {"id": 9}]"#;
const INSTANCES: &str = r#""annotations": [
    {"id": 1, "image_id": 7, "category_id": 18, "segmentation": [[1, 2.5]], "bbox": [1, 2, 3, 4]},
    {"id": 2, "image_id": 7, "category_id": 18, "segmentation": {"counts": [1], "size": [2, 2]}},
    {"id": 3, "image_id": 8, "category_id": 5}, {"id": 4, "image_id": 8, "category_id": 90}]"#;

/// Categories may come before or after the annotations that name them by number.
#[test]
fn coco_instances_and_captions_are_merged_into_ground_truth() {
    let vocabulary = vocabulary();
    for order in [[CATEGORIES, INSTANCES, IMAGES], [IMAGES, INSTANCES, CATEGORIES]] {
        let instances = format!("\u{feff}{{\"info\": {{\"year\": 2014}}, {}}}", order.join(", "));
        let captions = br#"{"annotations": [{"image_id": 7, "id": 1, "caption": "A man, two CATS"},
            {"image_id": 10, "id": 2, "caption": "nothing"}], "licenses": []}"#;
        let mut reader = GroundTruthReader::new(&vocabulary, Rules::Reference);
        reader.read(instances.as_bytes()).unwrap();
        reader.read(&captions[..]).unwrap();
        let (truth, summary) = reader.finish();
        let objects = |id: &str| truth[id].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(objects("7"), ["cat", "dog", "person"]);
        assert_eq!(objects("8"), ["airplane"]);
        assert!(objects("9").is_empty() && objects("10").is_empty());
        assert_eq!((summary.images, summary.instances, summary.captions), (4, 4, 2));
        assert_eq!(
            summary.unknown_categories.into_iter().collect::<Vec<_>>(),
            [("unicorn".to_owned(), 1)]
        );
    }
}

#[test]
fn ground_truth_is_read_from_maps_and_tables() {
    let map = read_ground_truth(&br#"{"7": ["dog", "cat"], "9": []}"#[..]).unwrap();
    let table = br#"{"objects": ["cat", "dog"], "images": {"7": [1, 0], "9": []}}"#;
    assert_eq!(map, read_ground_truth(&table[..]).unwrap());
    let rows = b"{\"objects\": [\"dog\", \"cat\"], \"image\": \"7\", \"images\": 3}\n\n{\"image_id\":9,\"objects\":[],\"tags\":[\"a\"]}";
    assert_eq!(map, read_ground_truth(&rows[..]).unwrap());
}

#[test]
fn invalid_ground_truth_is_reported_by_line() {
    let said = |text: &str| read_ground_truth(text.as_bytes()).unwrap_err().to_string();
    let row = "{\"image_id\":1,\"objects\":[]}\n";
    for (text, place, reason) in [
        (format!("{row}{{\"image_id\":2}}"), "line 2, column 14", "image '2' has no list"),
        (format!("{row}\n{{\"objects\":[]}}"), "line 3, column 14", "a row names no image"),
        (format!("{row}x"), "line 2, column 1", "expected value"),
        // Not a row on each line, so that the parser of whole documents reads it.
        (
            "{\n\"image_id\":1,\n\"objects\":[]\n} x".to_owned(),
            "line 4, column 3",
            "expected value",
        ),
    ] {
        let error = said(&text);
        assert!(error.starts_with(&format!("{place}: {reason}")), "{error}");
    }
    assert!(said("{\"a\": 1}").contains("an object without images"));
    assert!(said("{\"objects\": [\"a\"], \"images\": {\"7\": [1]}}").contains("holds object 1"));
    assert!(said("{\"annotations\": []}").contains("together with an object vocabulary"));
    assert!(said(&row.repeat(2)).contains("'1' has ground truth twice"));
    let vocabulary = vocabulary();
    let mut reader = GroundTruthReader::new(&vocabulary, Rules::Strict);
    let error = reader.read(format!("{{{INSTANCES}}}").as_bytes()).unwrap_err();
    assert!(matches!(error, InputError::UnknownCategoryId { .. }), "{error}");
}

/// Datasets in COCO's format that are not COCO call their files what they like.
#[test]
fn images_are_found_by_file_name_in_the_annotations() {
    let text = r#"{"images": [{"id": 0, "file_name": "a/dog on a sofa.jpg"},
                              {"id": 7, "file_name": "000000000007.jpg"}],
                   "annotations": [{"image_id": 0, "category_id": 1}, {"image_id": 7, "category_id": 2}],
                   "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]}"#;
    let vocabulary = ObjectVocabulary::coco();
    let mut reader = GroundTruthReader::new(&vocabulary, Rules::Strict);
    reader.read(text.as_bytes()).unwrap();
    let (truth, _) = reader.finish();
    assert_eq!(truth.file_of("0"), "a/dog on a sofa.jpg");
    assert_eq!(truth.file_of("7"), "7", "COCO's own names are ids");
    let index = truth.index();
    let ids: Vec<&String> = truth.keys().collect();
    let found = |name: &str| index.find(name).map(|(position, _)| ids[position].as_str());
    for name in ["0", "a/dog on a sofa.jpg", "dog on a sofa.jpg", "dog on a sofa.png"] {
        assert_eq!(found(name), Some("0"), "{name}");
    }
    assert_eq!(found("COCO_val2014_000000000007.jpg"), Some("7"));
    assert_eq!(found("cat.jpg"), None);
}
