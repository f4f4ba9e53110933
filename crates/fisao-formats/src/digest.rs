//! SHA-256 of files and tensors, in hexadecimal: how a run says which data and weights it used.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::FormatError;
use crate::checkpoint::FamilyFormat;
use crate::weights::MappedFile;

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
            0 => return Ok(hex::encode(hasher.finalize())),
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
    Ok(hex::encode(hasher.finalize()))
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
    sha256_files(folder, &|file| sha256_of(file, advance))
}

/// Weight files up to this length are read whole by [`sha256_model_sampled`], bytes.
const READ_WHOLE: u64 = 64 << 20;
/// Bytes that it reads at the beginning, in the middle and at the end of each tensor of a longer one.
const SAMPLE: usize = 4096;

/// The same, with little of long weight files read: their length, their header, and some bytes of every tensor. It tells another
/// model, or another training of the same one, in a moment; single values that were changed it may miss.
///
/// # Errors
/// The folder or a file in it cannot be read.
pub fn sha256_model_sampled(folder: &Path) -> Result<String, FormatError> {
    sha256_files(folder, &|file| {
        let length =
            fs::metadata(file).map_err(|error| FormatError::io("read", file, error))?.len();
        let weights = file.extension().is_some_and(|extension| extension == "safetensors");
        if weights && length > READ_WHOLE {
            sha256_weights_sampled(file)
        } else {
            sha256_file(file)
        }
    })
}

/// SHA-256 of a weight file's length, header and some bytes of every tensor; of all bytes where it is damaged.
fn sha256_weights_sampled(path: &Path) -> Result<String, FormatError> {
    let Ok(file) = MappedFile::open(path) else { return sha256_file(path) };
    let mut hasher = Sha256::new();
    hasher.update(file.length().to_le_bytes());
    hasher.update(file.header());
    for key in file.keys() {
        let tensor = file.tensor(&key).expect("the key is the file's own");
        let bytes = tensor.bytes();
        if bytes.len() <= 3 * SAMPLE {
            hasher.update(bytes);
        } else {
            for start in [0, (bytes.len() - SAMPLE) / 2, bytes.len() - SAMPLE] {
                hasher.update(&bytes[start..start + SAMPLE]);
            }
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

/// SHA-256 over the names and digests of the files of a model or adapter folder.
fn sha256_files(
    folder: &Path,
    digest: &(dyn Fn(&Path) -> Result<String, FormatError> + Sync),
) -> Result<String, FormatError> {
    let mut files = model_files(folder)?;
    files.sort();
    let digests =
        files.par_iter().map(|file| digest(file)).collect::<Result<Vec<_>, FormatError>>()?;
    let mut hasher = Sha256::new();
    for (file, digest) in files.iter().zip(digests) {
        let name = file.strip_prefix(folder).unwrap_or(file);
        hasher.update(name.as_os_str().as_encoded_bytes());
        hasher.update([0]);
        hasher.update(digest);
    }
    Ok(hex::encode(hasher.finalize()))
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
    let own = FamilyFormat::all_instruction_tokenizers().map(|name| folder.join(name));
    files.extend(own.filter(|path| path.is_file()));
    Ok(files)
}

/// SHA-256 of bytes.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 over parts in the order given; where one ends and the next begins is part of it.
pub fn sha256_parts<Part: AsRef<[u8]>>(parts: impl IntoIterator<Item = Part>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex::encode(hasher.finalize())
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
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{StoredDtype, write_safetensors};

    /// A change of one tensor at its beginning, in its middle or at its end, of a header and of a length.
    #[test]
    fn sampled_weight_digest_distinguishes_other_weights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let digest = |name: &str, values: Vec<f32>| {
            let tensors = [
                ("large", TensorData::new(values.clone(), [values.len()])),
                (name, TensorData::new(vec![1.0_f32; 10], [10])),
            ];
            let named = tensors.iter().map(|(name, tensor)| (*name, tensor));
            write_safetensors(&path, named, StoredDtype::F32).unwrap();
            sha256_weights_sampled(&path).unwrap()
        };
        let count = 40_000;
        let changed = |at: usize| {
            let mut values = vec![0.5; count];
            values[at] = 0.25;
            values
        };
        let original = digest("small", vec![0.5; count]);
        assert_eq!(digest("small", vec![0.5; count]), original);
        for other in [
            digest("small", changed(0)),
            digest("small", changed(count / 2)),
            digest("small", changed(count - 1)),
            digest("other", vec![0.5; count]),
            digest("small", vec![0.5; count + 1]),
        ] {
            assert_ne!(other, original);
        }
        assert_eq!(digest("small", changed(count / 4)), original, "that is not looked at");
        // A short file is read whole.
        digest("small", vec![0.5; count]);
        let whole = sha256_model_sampled(folder.path()).unwrap();
        digest("small", changed(count / 4));
        assert_ne!(sha256_model_sampled(folder.path()).unwrap(), whole);
    }
}
