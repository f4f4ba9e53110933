//! Safetensors files, written atomically in the precision asked for.

use std::io::{BufWriter, Write};
use std::path::Path;

use burn::tensor::{DType, TensorData};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use crate::FormatError;
use crate::documents::write_atomically;

/// The file of a checkpoint whose weights are in one file.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// The precision of a file's tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

    fn burn(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    fn safetensors(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
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
    let mut end = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let start = end;
        end += tensor.num_elements() * dtype.bytes();
        let shape = tensor.shape().to_vec();
        let info = TensorInfo { dtype: dtype.safetensors(), shape, data_offsets: (start, end) };
        ((*name).to_owned(), info)
    });
    let format = [("format".to_owned(), "pt".to_owned())].into();
    let failed = |reason: String| FormatError::io("write", path, std::io::Error::other(reason));
    let metadata =
        Metadata::new(Some(format), infos.collect()).map_err(|error| failed(error.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| failed(error.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    write_atomically(path, |file| {
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (_, tensor) in tensors {
            if tensor.dtype() == dtype.burn() {
                file.write_all(tensor.as_bytes())?;
            } else {
                file.write_all(tensor.clone().convert_dtype(dtype.burn()).as_bytes())?;
            }
        }
        file.flush()
    })
}
