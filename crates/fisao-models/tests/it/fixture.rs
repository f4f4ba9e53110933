//! Reading what the generators under `fixtures/` wrote.

use std::path::PathBuf;

use burn::tensor::TensorData;
use fisao_models::weights::{Init, WeightError, WeightSource};
use image::RgbImage;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "fixtures", name].iter().collect()
}

fn bytes(name: &str) -> Vec<u8> {
    let path = path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn json(name: &str) -> Value {
    serde_json::from_slice(&bytes(name)).expect("the generator writes JSON")
}

/// All numbers in a nested list, in order.
pub(crate) fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().expect("a number") as f32],
    }
}

/// Ids in a list.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("a list of ids")
}

fn from_hexadecimal(value: &Value) -> Vec<u8> {
    let digits = value.as_str().expect("a string of hexadecimal digits");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

/// Width, height and bytes of an image.
pub(crate) fn image(value: &Value) -> RgbImage {
    let size = ids(&value["size"]);
    RgbImage::from_raw(size[0], size[1], from_hexadecimal(&value["rgb"]))
        .expect("three bytes per pixel")
}

/// Little-endian f32 in hexadecimal.
pub(crate) fn floats_from_hexadecimal(value: &Value) -> Vec<f32> {
    little_endian(&from_hexadecimal(value))
}

fn little_endian(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect()
}

/// The tensors of one f32 safetensors file.
pub(crate) struct StoredWeights {
    bytes: Vec<u8>,
    /// Names asked for so far.
    pub(crate) read: Vec<String>,
}

impl StoredWeights {
    pub(crate) fn open(name: &str) -> Self {
        Self { bytes: bytes(name), read: Vec::new() }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("the generator writes safetensors")
    }

    /// Names in the file that no constructor has asked for.
    pub(crate) fn unread(&self) -> Vec<String> {
        let tensors = self.tensors();
        let names = tensors.names().into_iter().map(ToString::to_string);
        names.filter(|name| !self.read.contains(name)).collect()
    }
}

impl WeightSource for StoredWeights {
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        _init: Init,
    ) -> Result<TensorData, WeightError> {
        self.read.push(name.to_owned());
        let tensors = self.tensors();
        let view =
            tensors.tensor(name).map_err(|_| WeightError::Missing { name: name.to_owned() })?;
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        if view.shape() != shape {
            return Err(WeightError::Shape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: view.shape().to_vec(),
            });
        }
        Ok(TensorData::new(little_endian(view.data()), shape.to_vec()))
    }
}
