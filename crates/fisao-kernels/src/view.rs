//! Reading and making tensors of the CPU backend.

use burn::tensor::{DType, Element, Shape, TensorData};
use burn_flex::{FlexTensor, Layout};
use bytemuck::Pod;

/// A tensor's values as they lie in memory, read through strides.
#[derive(Clone, Copy)]
pub struct View<'a, const D: usize> {
    /// Starts at the first element.
    pub data: &'a [f32],
    /// Length of each dimension.
    pub shape: [usize; D],
    /// Numbers from one index of each dimension to the next.
    pub strides: [usize; D],
}

/// `tensor` through its own strides; it must have passed [`forward_strides`].
pub(crate) fn view<const D: usize>(tensor: &FlexTensor) -> View<'_, D> {
    let layout = tensor.layout();
    let dims: [usize; D] = std::array::from_fn(|at| layout.shape()[at]);
    let strides = std::array::from_fn(|at| layout.strides()[at].unsigned_abs());
    View { data: &tensor.storage::<f32>()[layout.start_offset()..], shape: dims, strides }
}

/// The tensor itself, or a copy where it is read backwards.
pub(crate) fn forward_strides(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().strides().iter().all(|&stride| stride >= 0) {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The tensor itself, or a copy where its values are not in row-major order.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The values of a tensor that has passed [`contiguous`].
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    stored(tensor)
}

/// The values of a tensor of any type that has passed [`contiguous`].
pub(crate) fn stored<T: Element + Pod>(tensor: &FlexTensor) -> &[T] {
    let layout = tensor.layout();
    let start = layout.start_offset();
    &tensor.storage::<T>()[start..start + layout.num_elements()]
}

/// A tensor in row-major order.
pub(crate) fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

/// `[batch, heads, length, width]` whose values lie in memory as `[batch, length, heads, width]`, so
/// that heads can be joined without a copy.
pub(crate) fn heads_inside(values: Vec<f32>, shape: [usize; 4]) -> FlexTensor {
    let [batch, heads, length, width] = shape;
    let stored = tensor(values, &[batch, length, heads, width]);
    let strides =
        [length * heads * width, width, heads * width, 1].map(|stride| stride as isize).to_vec();
    stored.with_layout(Layout::new(Shape::from(shape.to_vec()), strides, 0))
}

/// Checks what [`crate::is_fused`] promised.
pub(crate) fn assert_f32(tensor: &FlexTensor) {
    assert!(tensor.dtype() == DType::F32, "fused operations take f32, not {:?}", tensor.dtype());
}
