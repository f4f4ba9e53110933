//! Safetensors files, written atomically in the precision asked for.

use std::path::Path;

use burn::tensor::{DType, TensorData};
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

use super::stream::{Slot, write_stream};
use crate::FormatError;

/// The file of a checkpoint whose weights are in one file.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// The precision of a file's tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StoredDtype {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, 10 of mantissa: half the size, for values below 65504.
    F16,
    /// 16 bits, 7 of mantissa: half the size, at f32's range.
    Bf16,
}

impl StoredDtype {
    /// The name PyTorch and `config.json` have for it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// The name the tensor library has for it.
    pub(crate) fn burn(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// The precision of a stored tensor, if it is one of these.
    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    pub(crate) fn safetensors(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }
}

/// Writes float tensors to a safetensors file, sorted by name and converted to `dtype` one at a
/// time. The header carries `format: pt`, without which transformers refuses the file.
///
/// # Errors
/// The file cannot be written.
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a TensorData)>,
    dtype: StoredDtype,
) -> Result<(), FormatError> {
    let mut tensors = tensors.into_iter().collect::<Vec<_>>();
    tensors.sort_by_key(|(name, _)| *name);
    let slots = tensors.iter().map(|(name, tensor)| {
        Slot::new((*name).to_owned(), dtype.safetensors(), tensor.shape().to_vec())
    });
    let slots = slots.collect::<Vec<_>>();
    let mut tensors = tensors.iter();
    write_stream(path, &slots, |_, file| {
        let (_, tensor) = tensors.next().expect("there is one slot for each tensor");
        if tensor.dtype() == dtype.burn() {
            file.write_all(tensor.as_bytes())?;
        } else {
            file.write_all((*tensor).clone().convert_dtype(dtype.burn()).as_bytes())?;
        }
        Ok(())
    })
}
