//! Prompt sets: what each form says, and what is said about those that are wrong.

mod broken;
mod json;
mod order;
mod parquet;

use std::path::{Path, PathBuf};

use fisao_formats::prompts::{Answer, PromptRow, PromptSet, RowImage};

fn open(path: &Path) -> PromptSet {
    PromptSet::open(path, None, "Describe it.").expect("a prompt set")
}

fn rows(set: &PromptSet) -> Vec<PromptRow> {
    (0..set.len()).map(|index| set.row(index).expect("a row")).collect()
}

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../fixtures/prompts", name].iter().collect()
}

fn response(text: &str) -> Answer {
    Answer::Response(text.to_owned())
}

fn pair(chosen: &str, rejected: &str) -> Answer {
    Answer::Pair { chosen: chosen.to_owned(), rejected: rejected.to_owned() }
}

/// The file of an image, without the folders of `set`'s own path.
fn file(row: &PromptRow, folder: &Path) -> String {
    let RowImage::File(path) = &row.image else { panic!("{row:?} has a file of its own") };
    path.strip_prefix(folder).expect("a file in the folder").display().to_string()
}
