//! Tensors of the CPU outside of burn's operations.

use std::borrow::Cow;
use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::{DType, Tensor};
use burn_flex::FlexTensor;

/// What a tensor of the CPU holds, without what it takes part in.
pub(crate) fn held<const D: usize>(tensor: &Tensor<D>) -> FlexTensor {
    let held = tensor.clone().inner().try_into_primitive::<Flex>();
    held.expect("kernels are chosen for tensors of the CPU only")
}

/// A tensor of the CPU as it was when it was held: whoever writes to it later writes to a copy.
#[derive(Debug, Clone)]
pub struct HeldTensor(FlexTensor);

impl HeldTensor {
    /// # Panics
    /// The tensor is not on the CPU.
    pub fn new<const D: usize>(tensor: &Tensor<D>) -> Self {
        Self(held(tensor))
    }

    /// Whether both are the same memory, read in the same way.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.data_arc(), &other.0.data_arc())
            && self.0.layout() == other.0.layout()
            && self.0.dtype() == other.0.dtype()
    }

    /// Type of its elements.
    pub fn dtype(&self) -> DType {
        self.0.dtype()
    }

    /// Length of each dimension.
    pub fn shape(&self) -> &[usize] {
        self.0.layout().shape()
    }

    /// Its elements in row-major order; copied where they lie in another one.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        let row_major = |tensor: &FlexTensor| {
            let element = tensor.dtype().size();
            let first = tensor.layout().start_offset() * element;
            first..first + tensor.layout().num_elements() * element
        };
        if self.0.is_contiguous() {
            Cow::Borrowed(&self.0.bytes()[row_major(&self.0)])
        } else {
            let copy = self.0.to_contiguous();
            Cow::Owned(copy.bytes()[row_major(&copy)].to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn held_tensor_is_what_it_was() {
        let matrix =
            Tensor::<2>::from_data([[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::flex());
        let held = HeldTensor::new(&matrix);
        assert!(held.is(&HeldTensor::new(&matrix)));
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&held.bytes());
        assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let turned = HeldTensor::new(&matrix.clone().transpose());
        assert!(!turned.is(&held), "read in another way");
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&turned.bytes());
        assert_eq!(values, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        let values: Vec<f32> =
            bytemuck::pod_collect_to_vec(&HeldTensor::new(&matrix.clone().narrow(0, 1, 1)).bytes());
        assert_eq!(values, [4.0, 5.0, 6.0]);
        let changed = matrix + 1.0;
        assert!(!HeldTensor::new(&changed).is(&held), "another tensor");
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&held.bytes());
        assert_eq!(values[..1], [1.0], "it was held before the change");
    }
}
