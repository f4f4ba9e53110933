//! SHA-256 of files and tensors, in hexadecimal: how a run says which data and weights it used.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::FormatError;

/// SHA-256 of a file's bytes.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String, FormatError> {
    sha256_of(path, &|_| {})
}

fn sha256_of(path: &Path, advance: &(dyn Fn(u64) + Sync)) -> Result<String, FormatError> {
    let failed = |error| FormatError::io("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => return Ok(hexadecimal(&hasher.finalize())),
            read => {
                hasher.update(&block[..read]);
                advance(read as u64);
            }
        }
    }
}

/// The name that Git has for a file's content: SHA-1 over its length and bytes. It tells damage, and no forgery.
///
/// # Errors
/// The file cannot be read.
#[cfg(feature = "hub")]
pub fn git_blob_file(path: &Path) -> Result<String, FormatError> {
    use sha1::Digest as _;
    let content = fs::read(path).map_err(|error| FormatError::io("read", path, error))?;
    let mut hasher = sha1::Sha1::new();
    hasher.update(format!("blob {}\0", content.len()));
    hasher.update(&content);
    Ok(hexadecimal(&hasher.finalize()))
}

/// Files beside the weights that are read, and so say what a model computes. Others lie in some folders and not in others
/// of the same model.
const SETTINGS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "adapter_config.json",
];

/// SHA-256 over the names and contents of the files of a model or adapter folder that say what it computes:
/// configuration, tokenizer, image processing, weights. Files are read on all cores; `advance` is told of every block
/// of bytes, from any thread.
///
/// # Errors
/// The folder or a file in it cannot be read.
pub fn sha256_model(folder: &Path, advance: &(dyn Fn(u64) + Sync)) -> Result<String, FormatError> {
    let mut files = model_files(folder)?;
    files.sort();
    let digests = files
        .par_iter()
        .map(|file| sha256_of(file, advance))
        .collect::<Result<Vec<_>, FormatError>>()?;
    let mut hasher = Sha256::new();
    for (file, digest) in files.iter().zip(digests) {
        hasher.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.update([0]);
        hasher.update(digest);
    }
    Ok(hexadecimal(&hasher.finalize()))
}

/// Bytes that [`sha256_model`] will read.
///
/// # Errors
/// The folder cannot be read.
pub fn model_bytes(folder: &Path) -> Result<u64, FormatError> {
    let length = |file: &PathBuf| fs::metadata(file).map_or(0, |file| file.len());
    Ok(model_files(folder)?.iter().map(length).sum())
}

fn model_files(folder: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let failed = |error| FormatError::io("read", folder, error);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_read = SETTINGS.contains(&name) || name.ends_with(".safetensors");
        if is_read && path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// SHA-256 of bytes.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// SHA-256 over parts in the order given; where one ends and the next begins is part of it.
pub fn sha256_parts<Part: AsRef<[u8]>>(parts: impl IntoIterator<Item = Part>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hexadecimal(&hasher.finalize())
}

/// SHA-256 over named tensors in the order given: name, dtype, shape and bytes of each. Equal digests
/// mean equal bits; the order is part of it.
pub fn sha256_tensors<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a TensorData)>) -> String {
    let mut hasher = Sha256::new();
    for (name, tensor) in tensors {
        hasher.update(name.as_bytes());
        // A zero byte cannot occur in a name, so no two lists of tensors run together alike.
        hasher.update([0]);
        hasher.update(format!("{:?} {:?}", tensor.dtype(), tensor.shape()).as_bytes());
        hasher.update([0]);
        hasher.update(tensor.as_bytes());
    }
    hexadecimal(&hasher.finalize())
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(2 * digest.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}
