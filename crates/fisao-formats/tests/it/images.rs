//! Folders of images, and what is said about images that cannot be used.

use std::fs;
use std::path::PathBuf;

use fisao_formats::FormatError;
use fisao_formats::images::{list_images, list_unread_images, open_image};
use image::{Rgb, RgbImage};
use tempfile::tempdir;

use crate::message;

#[test]
fn image_folders_are_listed_in_name_order() {
    let folder = tempdir().expect("a temporary folder");
    // Hidden files as macOS leaves them are no images, whatever they are called.
    let hidden = ["._a.jpeg", ".hidden.png", ".DS_Store", "._f.heic"];
    for name in ["b.PNG", "a.jpeg", "h.TIF", "c.txt", "d", "f.HEIC", "g.avif"].iter().chain(&hidden)
    {
        fs::write(folder.path().join(name), "").expect("writable");
    }
    fs::create_dir(folder.path().join("e.png")).expect("writable");
    let names = list_images(folder.path()).expect("three images");
    assert_eq!(names, ["a.jpeg", "b.PNG", "h.TIF"].map(|name| folder.path().join(name)));
    let unread = list_unread_images(folder.path()).expect("a folder");
    assert_eq!(unread, ["f.HEIC", "g.avif"].map(|name| folder.path().join(name)));
}

#[test]
fn missing_and_empty_image_folders_are_errors() {
    let folder = tempdir().expect("a temporary folder");
    assert_eq!(
        message(list_images(folder.path()), &folder),
        "no images in DIR (looked for *.jpg, *.jpeg, *.jpe, *.jfif, *.png, *.webp, *.bmp, *.gif, *.tif, *.tiff)"
    );
    assert_eq!(
        message(list_images(&folder.path().join("nowhere")), &folder),
        "no image folder at DIR/nowhere"
    );
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use fisao_formats::documents::{open_text, read_text};
    use fisao_formats::json_lines::{CaptionRecord, read_json_lines};
    use fisao_formats::prompts::PromptSet;

    let folder = tempdir().expect("a temporary folder");
    let pipe = folder.path().join("pipe.png");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there").success());
    let socket = folder.path().join("socket.png");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    for (path, found) in
        [(&pipe, "a named pipe"), (&socket, "a socket"), (&PathBuf::from("/dev/zero"), "a device")]
    {
        let shown = path.display();
        let said = |error: FormatError| error.to_string();
        let error = open_image(path).expect_err("no file");
        assert_eq!(said(error), format!("{shown} is not an image: it is {found}"));
        let error = PromptSet::open(path, None, "").expect_err("no file");
        assert_eq!(
            said(error),
            format!("{shown} is {found}, not a file that can be read as prompt file")
        );
        let error = read_json_lines::<CaptionRecord>("captions", path).expect_err("no file");
        assert_eq!(
            said(error),
            format!("{shown} is {found}, not a file that can be read as captions")
        );
        let error = read_text("list", path).expect_err("no file");
        assert_eq!(said(error), format!("{shown} is {found}, not a file that can be read as list"));
        assert!(open_text("answers", path).is_err());
    }
    // A folder of images passes over what is no file.
    assert!(list_images(folder.path()).is_err());
    // Where a link leads is what counts.
    let link = folder.path().join("link.png");
    std::os::unix::fs::symlink(&pipe, &link).expect("a link");
    assert!(open_image(&link).expect_err("no file").to_string().ends_with("it is a named pipe"));
}

#[test]
fn hints_say_what_to_do_with_an_image() {
    let folder = tempdir().expect("a temporary folder");
    let path = folder.path().join("photo.png");
    RgbImage::from_pixel(3, 2, Rgb([1, 2, 3])).save(&path).expect("writable");
    let whole = fs::read(&path).expect("it was written just now");
    let mut large =
        b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x30\x75\0\0\x30\x75\0\0\x01\0\x18".to_vec();
    large.extend([0; 41]);
    let arithmetic = b"\xFF\xD8\xFF\xC9\0\x0B\x08\0\x01\0\x01\x01\x01\x11\0";
    let cases: [(&[u8], &str); 5] = [
        (b"a shopping list", "remove or replace this file"),
        (&whole[..whole.len() / 2], "remove or replace this file"),
        (b"\0\0\x01\0\x01\0\x10\x10", "convert it"),
        (&large, "make it smaller"),
        (arithmetic, "save it as an ordinary JPEG or PNG"),
    ];
    for (content, expected) in cases {
        fs::write(&path, content).expect("writable");
        let error = open_image(&path).expect_err("it cannot be used");
        assert!(error.is_unusable_image(), "{error}");
        assert!(error.hint().expect("a hint").starts_with(expected), "{error}");
    }
    let error = open_image(&folder.path().join("absent.png")).expect_err("it is not there");
    assert!(!error.is_unusable_image(), "{error}");
    assert_eq!(error.hint(), None);
}
