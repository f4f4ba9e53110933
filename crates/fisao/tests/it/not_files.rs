//! Named pipes and folders where a file is read: a pipe that nobody writes to would be waited for.
#![cfg(unix)]

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::fixture::Workplace;
use crate::merge::with_adapter;

const CAPTION: &[&str] =
    &["caption", "--model", "llava", "--image", "pictures", "--max-new-tokens", "4"];
const ADAPTED: &[&str] = &[
    "caption",
    "--model",
    "llava",
    "--image",
    "pictures",
    "--max-new-tokens",
    "4",
    "--adapter",
    "adapter",
];
const SCORE: &[&str] = &["score", "--verifier", "clip", "--image", "pictures", "--text", "dog"];
const MERGE: &[&str] = &["merge", "--model", "llava", "--adapter", "adapter", "--output", "merged"];

/// Files with a command that reads each of them, and what the command calls it.
const FILES: [(&str, &[&str], &str); 10] = [
    ("llava/model.safetensors", CAPTION, "weights file"),
    ("llava/config.json", CAPTION, "model configuration (config.json)"),
    ("llava/generation_config.json", CAPTION, "generation configuration"),
    ("llava/tokenizer.json", CAPTION, "tokenizer (tokenizer.json)"),
    ("llava/tokenizer_config.json", CAPTION, "tokenizer configuration"),
    ("llava/preprocessor_config.json", CAPTION, "image processor configuration"),
    ("llava/tokenizer.json", MERGE, "file of the checkpoint"),
    ("clip/model.safetensors", SCORE, "weights file"),
    ("adapter/adapter_model.safetensors", ADAPTED, "weights file"),
    ("adapter/adapter_config.json", ADAPTED, "adapter configuration (adapter_config.json)"),
];

/// The error of a command that has to end by itself.
fn refused_at_once(place: &Workplace, arguments: &[&str]) -> String {
    let mut command = place.command();
    let output = command.args(arguments).timeout(Duration::from_mins(1)).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
    errors
}

#[test]
fn pipes_and_folders_in_place_of_files_are_rejected_at_once() {
    let place = with_adapter();
    for (name, arguments, what) in FILES {
        let (file, aside) = (place.path(name), place.path("aside"));
        let there = file.exists();
        if there {
            fs::rename(&file, &aside).unwrap();
        }
        assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        let pipe = refused_at_once(&place, arguments);
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let folder = refused_at_once(&place, arguments);
        fs::remove_dir(&file).unwrap();
        if there {
            fs::rename(&aside, &file).unwrap();
        }
        for (error, found) in [(pipe, "a named pipe"), (folder, "a folder")] {
            let said = format!("error: {name} is {found}, not a file that can be read as {what}\n");
            assert!(error.contains(&said), "{error}");
        }
    }
    for arguments in [CAPTION, ADAPTED, SCORE, MERGE] {
        place.succeed(arguments);
    }
}
