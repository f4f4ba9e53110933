//! SHA-256 of files and tensors, in hexadecimal: how a run says which data and weights it used.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use burn::tensor::TensorData;
use sha2::{Digest, Sha256};

use crate::FormatError;

/// SHA-256 of a file's bytes.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String, FormatError> {
    let failed = |error| FormatError::io("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => return Ok(hexadecimal(&hasher.finalize())),
            read => hasher.update(&block[..read]),
        }
    }
}

/// SHA-256 of bytes.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
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
