//! A card that has a copy of a part of a model; what it is given: tensors by name, and whether they are still the same.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Tensor};
use fisao_cuda::{Storage, WeightSource, WeightTensor};
use fisao_kernels::held_tensor::HeldTensor;

use crate::parameters::{Parameters, SharedParameter};

/// A card and what lies on it, shared by all clones of a model.
pub(crate) struct Card<State> {
    name: String,
    state: Mutex<State>,
}

impl<State> Card<State> {
    pub(crate) fn of(name: String, state: State) -> Self {
        Self { name, state: Mutex::new(state) }
    }

    /// What the card calls itself.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What lies on the card, for one thread at a time.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<State> fmt::Debug for Card<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Card").field(&self.name).finish()
    }
}

/// Tensors of a model, each under a name.
#[derive(Debug, Clone, Default)]
pub(crate) struct NamedTensors(Vec<(String, HeldTensor)>);

impl NamedTensors {
    /// Adds one.
    pub(crate) fn put<const D: usize>(&mut self, name: String, tensor: &Tensor<D>) {
        self.0.push((name, HeldTensor::new(tensor)));
    }

    /// All tensors of a part of a model, adapters excepted, and whether none of them learns.
    pub(crate) fn of(part: &(impl Parameters + Clone), prefix: &str) -> (Self, bool) {
        let (mut all, mut frozen) = (Self::default(), true);
        part.clone().visit_mut(prefix, &mut |name, parameter| match parameter.share() {
            SharedParameter::Vector(tensor) => frozen &= all.put_one(name, &tensor),
            SharedParameter::Matrix(tensor) => frozen &= all.put_one(name, &tensor),
            SharedParameter::Batch(tensor) => frozen &= all.put_one(name, &tensor),
            SharedParameter::Kernel(tensor) => frozen &= all.put_one(name, &tensor),
            SharedParameter::Volume(tensor) => frozen &= all.put_one(name, &tensor),
        });
        (all, frozen)
    }

    /// Adds one; whether it is frozen.
    fn put_one<const D: usize>(&mut self, name: &str, tensor: &Tensor<D>) -> bool {
        self.put(name.to_owned(), tensor);
        !tensor.is_tracked()
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
