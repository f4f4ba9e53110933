//! Vectors by name in one safetensors file: how text embeddings are kept between runs.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::FormatError;
use crate::documents::write_bytes;

const WHAT: &str = "cache of embeddings";
/// The tensor, `[names, width]`.
const TENSOR: &str = "embeddings";
/// Key of the metadata that lists the names, as JSON.
const NAMES: &str = "names";

/// Reads the vectors of a file.
///
/// # Errors
/// The file cannot be read, or does not hold one vector of f32 for each of its names.
pub fn read_named_vectors(path: &Path) -> Result<Vec<(String, Vec<f32>)>, FormatError> {
    let bytes = std::fs::read(path).map_err(|error| FormatError::io("read", path, error))?;
    vectors(&bytes).ok_or_else(|| FormatError::Malformed {
        what: WHAT,
        path: path.to_owned(),
        reason: "it does not hold one vector of f32 for each name".to_owned(),
    })
}

fn vectors(bytes: &[u8]) -> Option<Vec<(String, Vec<f32>)>> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).ok()?;
    let names = metadata.metadata().as_ref()?.get(NAMES)?;
    let names: Vec<String> = serde_json::from_str(names).ok()?;
    let file = SafeTensors::deserialize(bytes).ok()?;
    let tensor = file.tensor(TENSOR).ok()?;
    let &[count, width] = tensor.shape() else { return None };
    if tensor.dtype() != Dtype::F32 || count != names.len() || width == 0 {
        return None;
    }
    let numbers = tensor.data().as_chunks::<4>().0.iter().map(|&four| f32::from_le_bytes(four));
    let numbers: Vec<f32> = numbers.collect();
    Some(names.into_iter().zip(numbers.chunks_exact(width).map(<[f32]>::to_vec)).collect())
}

/// Writes vectors of one width, at least one.
///
/// # Errors
/// The file cannot be written.
///
/// # Panics
/// There are no vectors.
pub fn write_named_vectors<'a>(
    path: &Path,
    vectors: impl IntoIterator<Item = (&'a String, &'a Vec<f32>)>,
) -> Result<(), FormatError> {
    let (names, rows): (Vec<&String>, Vec<&Vec<f32>>) = vectors.into_iter().unzip();
    let width = rows.first().expect("at least one vector").len();
    let bytes: Vec<u8> =
        rows.iter().flat_map(|row| row.iter().flat_map(|number| number.to_le_bytes())).collect();
    let shape = vec![names.len(), width];
    let malformed =
        |reason: String| FormatError::Malformed { what: WHAT, path: path.to_owned(), reason };
    let tensor =
        TensorView::new(Dtype::F32, shape, &bytes).map_err(|error| malformed(error.to_string()))?;
    let names = serde_json::to_string(&names).map_err(|error| malformed(error.to_string()))?;
    let metadata = HashMap::from([(NAMES.to_owned(), names)]);
    let file = safetensors::serialize([(TENSOR, tensor)], Some(metadata))
        .map_err(|error| malformed(error.to_string()))?;
    write_bytes(path, &file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_vectors_round_trip_exactly_and_truncation_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let written =
            [("dog".to_owned(), vec![0.1_f32, -0.0]), ("é".to_owned(), vec![f32::MIN, 1e-40])];
        write_named_vectors(&path, written.iter().map(|(name, row)| (name, row))).unwrap();
        let found = read_named_vectors(&path).unwrap();
        let bits = |rows: &[(String, Vec<f32>)]| -> Vec<(String, Vec<u32>)> {
            rows.iter().map(|(n, r)| (n.clone(), r.iter().map(|x| x.to_bits()).collect())).collect()
        };
        assert_eq!(bits(&found), bits(&written));

        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(matches!(read_named_vectors(&path), Err(FormatError::Malformed { .. })));
    }
}
