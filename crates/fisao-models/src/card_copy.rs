//! What a card is given of a model: tensors by name, and whether they are still the same.

use std::borrow::Cow;

use burn::tensor::{DType, Tensor};
use fisao_cuda::{Storage, WeightSource, WeightTensor};
use fisao_kernels::layer_weights::HeldTensor;

/// Tensors of a model, each under a name.
#[derive(Debug, Clone, Default)]
pub(crate) struct NamedTensors(Vec<(String, HeldTensor)>);

impl NamedTensors {
    /// Adds one.
    pub(crate) fn put<const D: usize>(&mut self, name: String, tensor: &Tensor<D>) {
        self.0.push((name, HeldTensor::new(tensor)));
    }

    /// Whether both are the same memory under the same names.
    pub(crate) fn are(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(a, b)| a.0 == b.0 && a.1.is(&b.1))
    }
}

impl WeightSource for &NamedTensors {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<WeightTensor<'_>, String> {
        let found = self.0.iter().find(|(of, _)| of == name);
        let (_, tensor) = found.ok_or("the model does not have it")?;
        if tensor.shape() != shape {
            return Err(format!("shape {:?} in the place of {shape:?}", tensor.shape()));
        }
        let bytes: Cow<'_, [u8]> = tensor.bytes();
        Ok(WeightTensor { storage: storage(tensor.dtype()), bytes })
    }
}

/// The type on a card of tensors of this type.
pub(crate) fn storage(dtype: DType) -> Storage {
    match dtype {
        DType::BF16 => Storage::Bf16,
        DType::F16 => Storage::F16,
        _ => Storage::F32,
    }
}
