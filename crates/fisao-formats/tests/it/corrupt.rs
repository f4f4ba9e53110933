//! The corpus of damaged weights (`fixtures/corrupt_checkpoints/generate.py`), and damage of our own.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fisao_formats::checkpoint::{Checkpoint, write_clip};
use fisao_formats::weights::{Layout, LoadDtype, SafetensorsSource, StoredDtype};
use tempfile::tempdir;

use crate::tiny;

fn corpus() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "fixtures", "corrupt_checkpoints"].iter().collect()
}

/// The entries of the corpus, sorted.
fn entries() -> Vec<PathBuf> {
    let entries = fs::read_dir(corpus()).expect("the corpus is committed");
    let mut entries: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a readable folder").path()).collect();
    entries.retain(|path| path.extension().is_none_or(|extension| extension == "safetensors"));
    entries.sort();
    entries
}

fn refusal(path: &Path) -> String {
    let (layout, dtype) = (Layout::CONTRASTIVE, LoadDtype::AsStored);
    let opened = if path.is_dir() {
        SafetensorsSource::open(path, layout, dtype)
    } else {
        SafetensorsSource::open_file(path, layout, dtype)
    };
    let error = opened.err().unwrap_or_else(|| panic!("{} is taken for sound", path.display()));
    error.to_string().replace(&corpus().display().to_string(), "DIR")
}

#[test]
fn every_corrupt_file_gives_a_one_line_error_with_its_path() {
    let entries = entries();
    assert!(entries.len() > 35, "only {} entries", entries.len());
    let mut told = Vec::new();
    for path in entries {
        let sentence = refusal(&path);
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        assert!(sentence.contains(&format!("DIR/{name}")), "{name}: {sentence}");
        assert!(!sentence.contains('\n') && sentence.len() < 400, "{name}: {sentence}");
        told.push(sentence);
    }
    insta::assert_snapshot!(told.join("\n"));
}

/// Any byte of the header changed: the file is refused, or read as what it says; it is never a panic.
#[test]
fn changed_header_bytes_never_panic() {
    let folder = tempdir().expect("a temporary folder");
    write_clip(folder.path(), &tiny::clip(1), StoredDtype::F32).expect("writable");
    let file = folder.path().join("model.safetensors");
    let sound = fs::read(&file).expect("it was written just now");
    let length = u64::from_le_bytes(sound[..8].try_into().expect("eight bytes")) as usize;
    let (mut refused, mut read) = (0, 0);
    for at in (0..8 + length).step_by(3) {
        let mut bytes = sound.clone();
        bytes[at] = bytes[at].wrapping_add(1 + (at % 7) as u8);
        fs::write(&file, bytes).expect("writable");
        let checkpoint = Checkpoint::open(folder.path()).expect("config.json is sound");
        match checkpoint.load_clip(LoadDtype::AsStored, &Device::flex()) {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 10 * (read + 1), "{refused} refused, {read} read");
}
