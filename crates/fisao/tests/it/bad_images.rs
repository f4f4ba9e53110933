//! Images that cannot be used.

use std::fs;

use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use crate::bad_align::write_calibration;
use crate::fixture::Workplace;

const CAPTION: [&str; 5] = ["caption", "--model", "llava", "--max-new-tokens", "4"];

/// The error of captioning and of scoring `images`, which has to be the same.
fn refused(place: &Workplace, images: &str) -> String {
    let caption = place.refuse(&[&CAPTION[..], &["--image", images]].concat());
    let score = place.refuse(&["score", "--verifier", "clip", "--text", "dog", "--image", images]);
    assert_eq!(caption, score);
    caption
}

#[test]
fn missing_image_folder_is_reported() {
    let place = Workplace::furnished();
    insta::assert_snapshot!(refused(&place, "nowhere"), @"error: no image at nowhere");
}

#[test]
fn empty_image_folder_is_reported() {
    let place = Workplace::furnished();
    fs::create_dir(place.path("empty")).unwrap();
    place.write("notes.txt", "not a picture");
    insta::assert_snapshot!(
        refused(&place, "empty"),
        @"error: no images in empty (looked for *.jpg, *.jpeg, *.jpe, *.jfif, *.png, *.webp, *.bmp, *.gif, *.tif, *.tiff)"
    );
}

#[test]
fn truncated_image_stops_the_command_before_any_output() {
    let place = Workplace::furnished();
    // The last of three: captions of the others must not have been printed.
    place.truncate("pictures/c.png", 60);
    let error = refused(&place, "pictures");
    assert!(error.starts_with("error: pictures/c.png is a damaged PNG image: "), "{error}");
    let hint =
        "hint: remove or replace this file and run again, or pass over it with --skip-damaged\n";
    assert!(error.ends_with(hint), "{error}");
}

#[test]
fn text_file_named_as_an_image_is_recognised() {
    let place = Workplace::furnished();
    place.write("pictures/b.png", "This is not a picture.\n");
    insta::assert_snapshot!(refused(&place, "pictures"), @r"
    error: pictures/b.png is not an image: it is text
    hint: remove or replace this file and run again, or pass over it with --skip-damaged
    ");
}

/// Three images of which two are damaged, and one of a format that is not read.
fn damaged() -> Workplace {
    let place = Workplace::furnished();
    place.truncate("pictures/a.png", 60);
    place.write("pictures/c.png", "text");
    place.write("pictures/d.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0");
    // What macOS leaves beside an image is none.
    place.write("pictures/._b.png", b"\0\x05\x16\x07\0\x02\0\0");
    place
}

#[test]
fn all_damaged_images_are_reported_at_once() {
    let error = refused(&damaged(), "pictures");
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines[0], "error: 3 of 4 images cannot be used");
    assert!(lines[1].starts_with("  pictures/a.png is a damaged PNG image: "), "{error}");
    assert_eq!(lines[2], "  pictures/c.png is not an image: it is text");
    assert!(lines[3].starts_with("  pictures/d.jpg is a HEIC image, a format that is"), "{error}");
    assert!(lines[4].ends_with("or pass over them with --skip-damaged"), "{error}");
}

/// What a command prints that passes over damaged images, and the warnings about them.
fn passed_over(place: &Workplace, arguments: &[&str]) -> (String, String) {
    let output = place.run(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    (String::from_utf8(output.stdout).unwrap(), said)
}

#[test]
fn damaged_images_can_be_skipped() {
    let place = damaged();
    for (command, count) in [
        (&[&CAPTION[..], &["--image", "pictures"]].concat(), 1),
        (&vec!["score", "--verifier", "clip", "--text", "dog", "--image", "pictures"], 1),
    ] {
        let arguments = [command, &["--format", "json", "--skip-damaged"][..]].concat();
        let (printed, said) = passed_over(&place, &arguments);
        assert_eq!(printed.lines().count(), count, "{printed}");
        assert!(printed.contains("pictures/b.png"), "{printed}");
        assert!(said.contains("warning: passed over: pictures/a.png is a damaged PNG"), "{said}");
        assert!(said.contains("warning: passed over: pictures/d.jpg is a HEIC image"), "{said}");
        assert!(said.contains("warning: 3 of 4 images are passed over"), "{said}");
    }
    let arguments = [&CAPTION[..], &["--image", "pictures/a.png", "--skip-damaged"]].concat();
    assert!(place.refuse(&arguments).starts_with("error: pictures/a.png is a damaged PNG"));

    let rows = ["a", "b.png", "c", "b"].map(|id| json!({ "image_id": id, "caption": "A dog." }));
    place.write("captions.jsonl", rows.map(|row| row.to_string()).join("\n"));
    let verify =
        ["verify", "--captions", "captions.jsonl", "--images", "pictures", "--verifier", "clip"];
    let error = place.refuse(&verify);
    assert!(error.starts_with("error: 2 of 3 images cannot be used\n"), "{error}");
    let arguments = [&verify[..], &["--format", "jsonl", "--skip-damaged"]].concat();
    let (printed, said) = passed_over(&place, &arguments);
    assert_eq!(printed.lines().count(), 2, "{printed}");
    assert!(said.contains("warning: 2 of 3 images are passed over"), "{said}");
}

#[test]
fn questions_about_skipped_images_stay_unanswered() {
    let place = damaged();
    let rows = [("1", "a.png"), ("2", "b.png"), ("3", "c.png")].map(|(id, image)| {
        json!({ "question_id": id, "image": image, "text": "Is there a dog?", "label": "yes" })
            .to_string()
    });
    place.write("questions.jsonl", rows.join("\n"));
    let pope = [
        "eval",
        "pope",
        "--questions",
        "questions.jsonl",
        "--images",
        "pictures",
        "--output",
        "run",
        "--model",
        "llava",
        "--max-new-tokens",
        "2",
        "--format",
        "json",
    ];
    let error = place.refuse(&pope);
    assert!(error.starts_with("error: 2 of 3 images cannot be used\n"), "{error}");
    let arguments = [&pope[..], &["--skip-damaged"]].concat();
    let (printed, _) = passed_over(&place, &arguments);
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&report["questions"], &report["unanswered"]), (&json!(3), &json!(2)));
    let settings: Value =
        serde_json::from_slice(&fs::read(place.path("run/questions/settings.json")).unwrap())
            .unwrap();
    assert_eq!(settings["skipped_images"], json!(["a.png", "c.png"]));
    // It goes on where it was.
    assert_eq!(passed_over(&place, &arguments).0, printed);
}

#[test]
fn training_reports_all_damaged_images_or_skips_them() {
    let place = damaged();
    write_calibration(&place);
    let row = |name: &str| json!({ "image": name, "response": "a dog" }).to_string();
    let rows = ["b.png", "a.png", "b.png", "c.png"].map(row);
    place.write("prompts.jsonl", rows.join("\n"));
    fs::create_dir(place.path("outside")).unwrap();
    let outside = place.path("pictures/b.png").display().to_string();
    place.write("outside/prompts.jsonl", row(&outside));
    let align = |more: &str| {
        let all = format!(
            "align --model llava --verifier clip --calibration calibration.json --output run \
             --set max-new-tokens=8 --set align.iterations=1 --set align.images-per-iteration=2 \
             --set align.minibatches=1 --set guards.patience=0 {more}"
        );
        all.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let refused = |more: &str| {
        let arguments = align(more);
        place.refuse(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let trained = |more: &str| {
        let arguments = align(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (_, said) = passed_over(&place, &arguments);
        let skipped = fs::read_to_string(place.path("run/skipped.jsonl")).unwrap_or_default();
        fs::remove_dir_all(place.path("run")).unwrap();
        (said, skipped)
    };
    let error = refused("--images pictures");
    assert!(error.contains("error: 3 of 4 images cannot be used\n"), "{error}");
    let given = "--images pictures --prompts prompts.jsonl --set objective.kind=sft";
    let error = refused(given);
    assert!(error.contains("error: 2 of 4 images cannot be used\n"), "{error}");
    let (said, skipped) = trained(&format!("{given} --skip-damaged"));
    assert!(said.contains("warning: 2 of 4 images are passed over"), "{said}");
    let told = "2 of 4 rows were passed over, as run/skipped.jsonl says";
    assert!(said.contains(told), "{said}");
    let lines = skipped.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    let places: Vec<_> = lines.iter().map(|line| (&line["row"], &line["image"])).collect();
    let path = |name: &str| place.path("pictures").join(name).display().to_string();
    assert_eq!(places, [(&json!(2), &json!(path("a.png"))), (&json!(4), &json!(path("c.png")))]);
    let reason = format!("{} is not an image: it is text", path("c.png"));
    assert_eq!(lines[1]["reason"], reason);

    let given = "--images outside --prompts outside/prompts.jsonl --set objective.kind=sft";
    let error = refused(given);
    assert!(error.contains("outside/prompts.jsonl, line 1: its image `"), "{error}");
    assert!(error.contains("--allow-outside-images reads it"), "{error}");
    let (said, skipped) = trained(&format!("{given} --allow-outside-images"));
    assert!(skipped.is_empty() && !said.contains("passed over"), "{said}");
}

/// So many that they are not all decoded beforehand.
#[test]
fn non_image_files_are_found_among_very_many_rows() {
    let place = damaged();
    write_calibration(&place);
    let row = |name: &str| json!({ "image": name, "prompt": "a dog" }).to_string() + "\n";
    place.write("prompts.jsonl", row("b.png").repeat(20_000) + &row("c.png") + &row("d.jpg"));
    let more = "--prompts prompts.jsonl --images pictures";
    let align = format!(
        "align --model llava --verifier clip --calibration calibration.json --output run {more}"
    );
    let error = place.refuse(&align.split_whitespace().collect::<Vec<_>>());
    assert!(error.contains("error: 2 of 20002 images cannot be used\n"), "{error}");
    assert!(error.contains("pictures/c.png is not an image: it is text\n"), "{error}");
    assert!(error.contains("pictures/d.jpg is a HEIC image"), "{error}");
}

#[test]
fn image_with_extreme_aspect_ratio_is_processed() {
    let place = Workplace::furnished();
    RgbImage::from_pixel(1, 65_535, Rgb([9, 8, 7])).save(place.path("ribbon.png")).unwrap();
    place.succeed(&["score", "--verifier", "clip", "--text", "dog", "--image", "ribbon.png"]);
    place.succeed(&[&CAPTION[..], &["--image", "ribbon.png"]].concat());
}

#[cfg(unix)]
#[test]
fn control_characters_in_file_names_are_escaped() {
    let place = Workplace::furnished();
    let name = "a\n\u{9b}2J\u{202e}b\u{1b}[2J.png";
    let shown = "a\\n\\u{9b}2J\\u{202e}b\\u{1b}[2J.png";
    fs::rename(place.path("pictures/a.png"), place.path(name)).unwrap();
    let printed = place.succeed(&[&CAPTION[..], &["--image", name]].concat());
    assert!(printed.starts_with(&format!("{shown}: ")), "{printed}");
    let json = place.succeed(&[&CAPTION[..], &["--image", name, "--format", "json"]].concat());
    assert!(json.contains("a\\n\\u009b2J\\u202eb\\u001b[2J.png"), "{json}");
    let read: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read["image"], name);
    place.truncate(name, 60);
    let error = refused(&place, name);
    assert!(error.starts_with(&format!("error: {shown} is a damaged PNG image: ")), "{error}");
}
