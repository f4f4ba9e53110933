//! Linear layers, norms and embedding tables outside of tensors: kernels that read a model's weights where they lie and write into places that the
//! caller keeps. To the bit what the operations on tensors give.

use std::borrow::Cow;
use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::{DType, Element, Tensor};
use burn_flex::FlexTensor;
use bytemuck::Pod;
use half::{bf16, f16};

use crate::ActivationDtype;
use crate::bf16_linear;
use crate::cpu::{fill_linear, matrix};
use crate::low_rank::Path;
use crate::matrix::Matrix;
use crate::rms_norm;
use crate::skinny_gemm::Half;
use crate::view::{View, contiguous, forward_strides, stored, values, view};

/// Rows of a step that meet a matrix at once. The kernels for few rows pack nothing, and are quicker for some rows after the other
/// than a general product is for all of them.
pub const ROWS: usize = 32;

/// What a tensor of the CPU holds, without what it takes part in.
fn held<const D: usize>(tensor: &Tensor<D>) -> FlexTensor {
    let held = tensor.clone().inner().try_into_primitive::<Flex>();
    held.expect("kernels are chosen for tensors of the CPU only")
}

/// A linear layer as kernels read it.
#[derive(Debug)]
pub struct LinearWeights {
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    adapter: Option<Adapter>,
    activations: ActivationDtype,
}

/// The tensors of an adapter on a linear layer.
#[derive(Debug, Clone, Copy)]
pub struct AdapterParts<'a> {
    /// A, `[rank, in]`.
    pub a: &'a Tensor<2>,
    /// B, `[out, rank]`.
    pub b: &'a Tensor<2>,
    /// Factor on the path.
    pub scale: f64,
}

/// A and B of a linear layer's adapter, and the factor on its path.
#[derive(Debug)]
struct Adapter {
    a: FlexTensor,
    b: FlexTensor,
    scale: f32,
}

impl LinearWeights {
    /// * `weight` — `[out, in]`, of f32, bf16 or f16.
    /// * `bias` — `[out]`.
    ///
    /// # Panics
    /// A tensor is not on the CPU.
    pub fn new(
        weight: &Tensor<2>,
        bias: Option<&Tensor<1>>,
        adapter: Option<AdapterParts<'_>>,
        activations: ActivationDtype,
    ) -> Self {
        let adapter = adapter.map(|AdapterParts { a, b, scale }| Adapter {
            a: forward_strides(held(a)),
            b: forward_strides(held(b)),
            scale: scale as f32,
        });
        let bias = bias.map(|bias| contiguous(held(bias)));
        Self { bias, adapter, activations, ..Self::of_weight(weight) }
    }

    /// Nothing but a product with a weight, `[out, in]`.
    pub fn of_weight(weight: &Tensor<2>) -> Self {
        let weight = held(weight);
        let wide = weight.dtype() == DType::F32;
        let weight = if wide { forward_strides(weight) } else { contiguous(weight) };
        Self { weight, bias: None, adapter: None, activations: ActivationDtype::F32 }
    }

    /// `x`: `[rows, in]` → `out`: `[rows, out]`.
    pub fn fill(&self, out: &mut [f32], x: &[f32]) {
        let shape = self.weight.layout().shape();
        let (inputs, outputs) = (shape[1], shape[0]);
        let rows = x.len() / inputs.max(1);
        // Many rows rounded to bf16 have a kernel of their own where the processor multiplies bf16, which is the quicker the more
        // they are. Elsewhere they are products like others, and those of many rows allocate.
        let rounds = self.activations.rounds(self.weight.dtype());
        let at_once = if rounds && bf16_linear::takes_many_rows() { rows } else { ROWS };
        in_parts(out, x, [inputs, outputs], at_once, |out, x| {
            let bias = self.bias.as_ref().map(values);
            fill_linear(out, x, &self.weight, bias, self.activations);
        });
        if let Some(Adapter { a, b, scale }) = &self.adapter {
            in_parts(out, x, [inputs, outputs], ROWS, |out, x| {
                Path { x, a: matrix(a), b: matrix(b), scale: *scale }.add_to(out);
            });
        }
    }
}

/// Calls `work` with up to `at_once` rows of `x` and of `out` after the other.
fn in_parts(
    out: &mut [f32],
    x: &[f32],
    [inputs, outputs]: [usize; 2],
    at_once: usize,
    work: impl Fn(&mut [f32], Matrix<'_>),
) {
    let at_once = at_once.max(1);
    let parts = out.chunks_mut(at_once * outputs.max(1)).zip(x.chunks(at_once * inputs.max(1)));
    parts.for_each(|(out, x)| work(out, Matrix::dense(x, x.len() / inputs.max(1), inputs)));
}

/// An RMS norm as kernels read it.
#[derive(Debug)]
pub struct NormWeights {
    weight: FlexTensor,
    epsilon: f32,
}

impl NormWeights {
    /// * `weight` — `[width]`.
    ///
    /// # Panics
    /// It is not on the CPU.
    pub fn new(weight: &Tensor<1>, epsilon: f64) -> Self {
        Self { weight: contiguous(held(weight)), epsilon: epsilon as f32 }
    }

    /// `[rows, width]` → `out`, likewise.
    pub fn fill(&self, out: &mut [f32], x: &[f32]) {
        rms_norm::fill(out, x, values(&self.weight), self.epsilon);
    }
}

/// An embedding table as kernels read it.
#[derive(Debug)]
pub struct EmbeddingWeights(FlexTensor);

impl EmbeddingWeights {
    /// * `table` — `[ids, width]`.
    ///
    /// # Panics
    /// It is not on the CPU.
    pub fn new(table: &Tensor<2>) -> Self {
        Self(contiguous(held(table)))
    }

    /// The rows of some ids → `out`: `[ids, width]`.
    pub fn fill(&self, out: &mut [f32], ids: &[u32]) {
        match self.0.dtype() {
            DType::BF16 => self.widen::<bf16>(out, ids),
            DType::F16 => self.widen::<f16>(out, ids),
            _ => self.rows(out, ids, |row: &[f32], out| out.copy_from_slice(row)),
        }
    }

    fn widen<T: Half + Element + Pod>(&self, out: &mut [f32], ids: &[u32]) {
        self.rows(out, ids, |row: &[T], out| {
            out.iter_mut().zip(row).for_each(|(out, value)| *out = value.widen());
        });
    }

    fn rows<T: Element + Pod>(&self, out: &mut [f32], ids: &[u32], put: impl Fn(&[T], &mut [f32])) {
        let width = self.0.layout().shape()[1];
        let table = stored::<T>(&self.0);
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
            put(&table[id as usize * width..][..width], out);
        }
    }
}

/// Keys or values of prompts, `[prompts, heads, positions, width]`.
#[derive(Debug)]
pub struct CachedHeads(FlexTensor);

impl CachedHeads {
    /// # Panics
    /// The tensor is not on the CPU.
    pub fn new(tensor: &Tensor<4>) -> Self {
        Self(forward_strides(held(tensor)))
    }

    /// As kernels read them.
    pub fn view(&self) -> View<'_, 4> {
        view(&self.0)
    }
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
