//! Pictures that cannot be used.

use std::fs;

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
fn a_missing_folder_is_named() {
    let place = Workplace::furnished();
    insta::assert_snapshot!(refused(&place, "nowhere"), @"error: no image at nowhere");
}

#[test]
fn an_empty_folder_is_named() {
    let place = Workplace::furnished();
    fs::create_dir(place.path("empty")).unwrap();
    place.write("notes.txt", "not a picture");
    insta::assert_snapshot!(
        refused(&place, "empty"),
        @"error: no images in empty (looked for *.jpg, *.jpeg, *.png, *.webp, *.bmp, *.gif)"
    );
}

#[test]
fn a_truncated_picture_stops_the_whole_command() {
    let place = Workplace::furnished();
    // The last of three: captions of the others must not have been printed.
    place.truncate("pictures/c.png", 60);
    let error = refused(&place, "pictures");
    assert!(error.starts_with("error: pictures/c.png is a damaged PNG image: "), "{error}");
    assert!(error.ends_with("hint: remove or replace this file and run again\n"), "{error}");
}

#[test]
fn text_in_a_picture_s_clothes_is_recognised() {
    let place = Workplace::furnished();
    place.write("pictures/b.png", "This is not a picture.\n");
    insta::assert_snapshot!(refused(&place, "pictures"), @r"
    error: pictures/b.png is not an image: it is text
    hint: remove or replace this file and run again
    ");
}
