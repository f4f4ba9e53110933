//! JSON lines, JSON lists and folders.

use std::fs;
use std::io::Cursor;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fisao_formats::prompts::{Answer, ImageCheck, PromptKind, PromptSet, RowImage, Skipped};
use image::{ImageFormat, RgbImage};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::tempdir;

use super::{file, open, pair, response, rows};

/// The prompt and the answer of a single row.
fn said(row: &Value) -> (String, Answer) {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("one.jsonl");
    fs::write(&path, row.to_string()).expect("writable");
    let set = open(&path);
    assert_eq!(set.len(), 1);
    let row = set.row(0).expect("a row");
    (row.prompt, row.answer)
}

#[test]
fn image_folder_gives_one_default_prompt_per_image() {
    let folder = tempdir().expect("a temporary folder");
    for name in ["b.png", "a.jpg", "notes.txt"] {
        fs::write(folder.path().join(name), "").expect("writable");
    }
    let set = open(folder.path());
    assert_eq!((set.kind(), set.len(), set.is_empty()), (PromptKind::Folder, 2, false));
    let first = set.row(0).expect("a row");
    assert_eq!((first.id.as_str(), first.prompt.as_str()), ("a.jpg", "Describe it."));
    assert_eq!(file(&first, folder.path()), "a.jpg");
    assert_eq!(first.answer, Answer::None);
    set.check_images(&|_| {}).expect("all of them are there");
    fs::remove_file(folder.path().join("b.png")).expect("it was there");
    set.check_images(&|_| {}).expect_err("one of them is gone");
}

#[test]
fn json_lines_and_json_lists_give_the_same_rows() {
    let folder = tempdir().expect("a temporary folder");
    let objects = [
        r#"{"image": "sub/a.jpg", "prompt": "What is \"it\"?", "id": 7, "other": {"x": [1]}}"#,
        r#"{"question_id": "q2", "images": ["b.jpg"], "question": "Zwei 叫 🦀 \ud83e\udd80\n"}"#,
        r#"{"image": null, "text": "no image"}"#,
        r#"{"image": ["c.jpg", "d.jpg"], "text": "two images"}"#,
        r#"{"image": "a.jpg", "prompts": ["one", "two", ""], "caption": "A dog."}"#,
        r#"{"image": "a.jpg", "prompt": null, "chosen": "good", "rejected": "bad"}"#,
    ];
    let lines = format!("\u{feff}{}", objects.join("\r\n \n"));
    let list = format!("\u{feff}\n[ {} ]\n", objects.join("\n\t,\n"));
    // The content tells, not the name.
    let paths = ["rows.json", "rows.jsonl"].map(|name| folder.path().join(name));
    fs::write(&paths[0], lines).expect("writable");
    fs::write(&paths[1], list).expect("writable");
    let kinds = [PromptKind::JsonLines, PromptKind::JsonList];
    for (path, kind) in paths.iter().zip(kinds) {
        let set = open(path);
        assert_eq!(set.kind(), kind);
        assert_eq!(set.skipped(), Skipped { without_image: 1, several_images: 1 });
        let rows = rows(&set);
        let ids = rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>();
        assert_eq!(ids, ["7", "q2", "a.jpg#1", "a.jpg#2", "a.jpg#3", "a.jpg"]);
        let prompts = rows.iter().map(|row| row.prompt.as_str()).collect::<Vec<_>>();
        let expected =
            ["What is \"it\"?", "Zwei 叫 🦀 🦀\n", "one", "two", "Describe it.", "Describe it."];
        assert_eq!(prompts, expected);
        let files = rows.iter().map(|row| file(row, folder.path())).collect::<Vec<_>>();
        assert_eq!(files, ["sub/a.jpg", "b.jpg", "a.jpg", "a.jpg", "a.jpg", "a.jpg"]);
        assert_eq!(rows[0].answer, Answer::None);
        assert_eq!(rows[3].answer, response("A dog."));
        assert_eq!(rows[5].answer, pair("good", "bad"));
        // In another order, too.
        assert_eq!(set.row(1).expect("a row"), rows[1]);
    }
}

#[test]
fn llava_instruct_is_read() {
    // The first two entries of llava_instruct_150k.json, shortened, and one of the text-only ones of
    // llava_v1_5_mix665k.json.
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("llava.json");
    let text = r#"[
  {
    "id": "000000033471",
    "image": "coco/train2017/000000033471.jpg",
    "conversations": [
      {"from": "human", "value": "<image>\nWhat are the colors of the bus in the image?"},
      {"from": "gpt", "value": "The bus in the image is white and red."},
      {"from": "human", "value": "What feature can be seen on the back of the bus?"},
      {"from": "gpt", "value": "The back of the bus features an advertisement."}
    ]
  },
  {
    "id": "000000052846",
    "image": "coco/train2017/000000052846.jpg",
    "conversations": [
      {"from": "human", "value": "Where is the cat positioned in the image?\n<image>"},
      {"from": "gpt", "value": "The cat is positioned on top of the back of the couch."}
    ]
  },
  {
    "id": "wgByO4Y_0",
    "model": "",
    "conversations": [
      {"from": "human", "value": "How do I sort a list, [3, 1, 2]?"},
      {"from": "gpt", "value": "With `sorted([3, 1, 2])`: \"[1, 2, 3]\"."}
    ]
  }
]"#;
    fs::write(&path, text).expect("writable");
    let set = PromptSet::open(&path, Some("pictures".as_ref()), "Describe it.").expect("a set");
    assert_eq!(set.skipped(), Skipped { without_image: 1, several_images: 0 });
    let rows = rows(&set);
    assert_eq!(rows[0].id, "000000033471");
    assert_eq!(rows[0].image_name, "coco/train2017/000000033471.jpg");
    assert_eq!(file(&rows[0], "pictures".as_ref()), "coco/train2017/000000033471.jpg");
    assert_eq!(rows[0].prompt, "What are the colors of the bus in the image?");
    assert_eq!(rows[0].answer, response("The bus in the image is white and red."));
    assert_eq!(rows[1].prompt, "Where is the cat positioned in the image?");
    assert_eq!(rows.len(), 2);
}

#[test]
fn trl_conversations_are_read() {
    let image = json!({"type": "image"});
    let text = |text: &str| json!({"type": "text", "text": text});
    let turn = |role: &str, content: Value| json!({"role": role, "content": content});
    let user = turn("user", json!([image, text("What?")]));
    let reply = |said: &str| json!([turn("assistant", json!([text(said)]))]);

    let row = json!({"images": ["a.png"], "prompt": [user], "chosen": reply("A"), "rejected": "B"});
    assert_eq!(said(&row), ("What?".to_owned(), pair("A", "B")));
    let system = turn("system", json!("Be brief."));
    let row = json!({"image": "a.png", "prompt": [system, user], "completion": reply("A")});
    assert_eq!(said(&row), ("What?".to_owned(), response("A")));
    // The prompt may be repeated in both answers, instead of having a field of its own.
    let whole = |said: &str| json!([user, turn("assistant", json!(said))]);
    let row = json!({"image": "a.png", "chosen": whole("A"), "rejected": whole("B")});
    assert_eq!(said(&row), ("What?".to_owned(), pair("A", "B")));
    // Of several turns, the first exchange.
    let more = [user.clone(), turn("assistant", json!("A")), turn("user", json!("And?"))];
    let row = json!({"image": "a.png", "prompt": more, "completion": reply("B")});
    assert_eq!(said(&row), ("What?".to_owned(), response("A")));
    let row = json!({"image": "a.png", "messages": whole("A")});
    assert_eq!(said(&row), ("What?".to_owned(), response("A")));
}

#[test]
fn image_placeholder_is_removed_outside_of_templates() {
    let prompt = |prompt: &str| said(&json!({"image": "a.png", "prompt": prompt})).0;
    assert_eq!(prompt("<image>\nWhat?"), "What?");
    assert_eq!(prompt("What?\n<image>"), "What?");
    assert_eq!(prompt(" What? "), " What? ");
    assert_eq!(prompt("USER: <image>\nWhat? ASSISTANT:"), "USER: <image>\nWhat? ASSISTANT:");
    assert_eq!(prompt("<image>"), "Describe it.");
    let row = json!({"image": "a.png", "messages": [{"role": "user", "content": "In <image>\n?"}]});
    assert_eq!(said(&row).0, "In \n?");
}

#[test]
fn non_text_answers_are_none() {
    for answers in [json!(["red", "dark red"]), json!(true), json!({"text": ["x"]})] {
        let row = json!({"image": "a.png", "answer": answers});
        assert_eq!(said(&row).1, Answer::None);
    }
    assert_eq!(said(&json!({"image": "a.png", "answer": 5})).1, response("5"));
}

#[test]
fn images_are_read_from_data_urls() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("inline.jsonl");
    let (mut png, image) = (Vec::new(), image::RgbImage::from_pixel(3, 2, image::Rgb([9, 8, 7])));
    let mut encoder = std::io::Cursor::new(&mut png);
    image.write_to(&mut encoder, image::ImageFormat::Png).expect("an encodable image");
    let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&png));
    let broken = "data:image/png;base64,A*";
    fs::write(&path, format!("{{\"image\":\"{url}\"}}\n\n{{\"image\":\"{broken}\"}}\n"))
        .expect("writable");
    let set = open(&path);
    let row = set.row(0).expect("a row");
    assert_eq!(row.image_name, format!("{} row 1", path.display()));
    assert_eq!(row.image, RowImage::Bytes(png));
    assert_eq!(row.open_image().expect("a picture"), image);
    let said = crate::message(set.row(1), &folder);
    assert_eq!(said, "DIR/inline.jsonl, line 3: the data URL of its image is not base64");
    set.check_images(&|_| {}).expect("there are no files to look for");
}

#[test]
fn missing_images_are_counted_and_listed() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("rows.jsonl");
    let row = |number: u32| format!("{{\"image\": \"{}.png\"}}\n", number / 2);
    fs::write(&path, (0..20).map(row).collect::<String>()).expect("writable");
    for number in 0..3 {
        fs::write(folder.path().join(format!("{number}.png")), "").expect("writable");
    }
    let set = open(&path);
    let done = std::cell::Cell::new(0);
    let error = set.check_images(&|rows| done.set(rows)).expect_err("images are missing");
    assert_eq!(done.get(), 20);
    assert!(error.hint().expect("a hint").starts_with("--images FOLDER"));
    assert_eq!(
        crate::message(Err::<(), _>(error), &folder),
        "DIR/rows.jsonl: the images of 14 of 20 rows are not there, such as `DIR/3.png`, \
         `DIR/4.png`, `DIR/5.png`, `DIR/6.png`"
    );
}

fn any_row() -> impl Strategy<Value = Value> {
    let text = "[\\[\\]{},:\"\\\\\n\u{1}aé叫🦀]{0,9}";
    (prop::option::of("[a-z\"\\\\é]{1,5}"), text, prop::collection::vec(text, 0..3)).prop_map(
        |(image, prompt, other)| json!({"other": other, "image": image, "prompt": prompt}),
    )
}

proptest! {
    #[test]
    fn json_lines_lists_and_pretty_lists_give_all_rows(
        objects in prop::collection::vec(any_row(), 1..12),
    ) {
        let kept: Vec<_> = objects.iter().filter(|row| !row["image"].is_null()).collect();
        prop_assume!(!kept.is_empty());
        let folder = tempdir().expect("a temporary folder");
        let path = folder.path().join("rows");
        let lines = objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        let list = serde_json::to_string(&objects).expect("JSON");
        let pretty = serde_json::to_string_pretty(&objects).expect("JSON");
        for text in [lines, list, pretty] {
            fs::write(&path, text).expect("writable");
            let set = open(&path);
            prop_assert_eq!(set.len(), kept.len());
            prop_assert_eq!(set.skipped().without_image, objects.len() - kept.len());
            for (index, expected) in kept.iter().enumerate().rev() {
                let row = set.row(index).expect("a row");
                prop_assert_eq!(&row.image_name, expected["image"].as_str().expect("text"));
                let prompt = expected["prompt"].as_str().expect("text");
                let expected = if prompt.is_empty() { "Describe it." } else { prompt };
                prop_assert_eq!(row.prompt, expected);
            }
        }
    }
}

#[test]
fn images_are_read_from_bare_base64() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("rows.jsonl");
    let image = RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8 * 20, y as u8 * 30, 77]));
    let mut png = Vec::new();
    image.write_to(&mut Cursor::new(&mut png), ImageFormat::Png).expect("in memory");
    let text = BASE64_STANDARD.encode(&png);
    let wrapped: Vec<String> =
        text.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let of_urls = text.replace('+', "-").replace('/', "_");
    let forms = [text.clone(), text.trim_end_matches('=').to_owned(), wrapped.join("\n"), of_urls];
    let lines =
        forms.iter().map(|form| serde_json::json!({ "image": form, "id": 391_895.0 }).to_string());
    fs::write(&path, lines.collect::<Vec<_>>().join("\n")).expect("writable");
    let set = open(&path);
    assert_eq!(set.len(), forms.len());
    for row in rows(&set) {
        assert_eq!(row.id, "391895");
        assert_eq!(row.open_image().expect("an image"), image);
    }
    set.check_images(&|_| {}).expect("nothing is missing");
}

#[test]
fn images_outside_the_folder_are_read_only_where_that_is_allowed() {
    let folder = tempdir().expect("a temporary folder");
    let images = folder.path().join("images");
    fs::create_dir_all(images.join("sub")).expect("writable");
    let image = RgbImage::new(2, 2);
    for file in ["images/a.png", "images/sub/b.png", "secret.png"] {
        image.save(folder.path().join(file)).expect("writable");
    }
    let path = folder.path().join("rows.jsonl");
    let write = |names: &[&str]| {
        let lines = names.iter().map(|name| serde_json::json!({ "image": name }).to_string());
        fs::write(&path, lines.collect::<Vec<_>>().join("\n")).expect("writable");
    };
    let absolute = images.join("a.png").display().to_string();
    write(&["a.png", "sub/b.png", "./sub/../a.png", &absolute]);
    let set = PromptSet::open(&path, Some(&images), "").expect("all are inside");
    assert!(rows(&set).iter().all(|row| row.open_image().is_ok()));
    let secret = folder.path().join("secret.png").display().to_string();
    for name in ["../secret.png", "sub/../../secret.png", &secret] {
        write(&["a.png", name]);
        let error = PromptSet::open(&path, Some(&images), "").expect_err("outside").to_string();
        let start = format!(
            "{}, line 2: its image `{name}` is outside the folder of images, {}; --allow-outside-images",
            path.display(),
            images.display()
        );
        assert!(error.starts_with(&start), "{error}");
        let set = PromptSet::open_with_outside_images(&path, Some(&images), "").expect("allowed");
        assert!(set.row(1).expect("a row").open_image().is_ok());
    }
    // Without a folder of images it is that of the prompts.
    write(&["images/a.png", "../elsewhere.png"]);
    let error = PromptSet::open(&path, None, "").expect_err("outside").to_string();
    assert!(error.contains("line 2: its image `../elsewhere.png` is outside"), "{error}");
}

#[test]
fn symlink_within_the_image_folder_is_followed() {
    let folder = tempdir().expect("a temporary folder");
    let elsewhere = tempdir().expect("a temporary folder");
    RgbImage::new(2, 2).save(elsewhere.path().join("a.png")).expect("writable");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("link")).expect("a link");
        let path = folder.path().join("rows.jsonl");
        fs::write(&path, r#"{"image": "link/a.png"}"#).expect("writable");
        assert!(open(&path).row(0).expect("a row").open_image().is_ok());
    }
}

#[test]
fn every_unusable_image_is_found() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("rows.jsonl");
    RgbImage::new(2, 2).save(folder.path().join("good.png")).expect("writable");
    fs::write(folder.path().join("text.png"), "text").expect("writable");
    fs::write(folder.path().join("heic.png"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0")
        .expect("writable");
    let names = ["good.png", "text.png", "good.png", "heic.png", "text.png"];
    let lines = names.map(|name| serde_json::json!({ "image": name }).to_string());
    fs::write(&path, lines.join("\n")).expect("writable");
    let rows = |check| {
        let unusable = open(&path).unusable_images(check, &|_| {}).expect("rows can be read");
        assert!(unusable.iter().all(|(_, error)| error.is_unusable_image()));
        unusable.iter().map(|(row, _)| *row).collect::<Vec<_>>()
    };
    for check in [ImageCheck::Header, ImageCheck::Decoded] {
        assert_eq!(rows(check), [1, 3, 4]);
    }
    // Only who reads all of it notices that a file is truncated.
    let good = fs::read(folder.path().join("good.png")).expect("it is there");
    fs::write(folder.path().join("good.png"), &good[..40]).expect("writable");
    assert_eq!(rows(ImageCheck::Header), [1, 3, 4]);
    assert_eq!(rows(ImageCheck::Decoded), [0, 1, 2, 3, 4]);
}
