//! Linear layers, norms and embedding tables outside of tensors: kernels that read a model's weights where they lie and write into places that the
//! caller keeps. To the bit what the operations on tensors give.

use std::sync::Arc;

use burn::tensor::{DType, Element, Tensor};
use burn_flex::FlexTensor;
use bytemuck::Pod;
use half::{bf16, f16};

use crate::ActivationDtype;
use crate::bf16_linear;
use crate::cpu::{fill_linear, matrix};
use crate::held_tensor::held;
use crate::int8::Int8Matrix;
use crate::low_rank::Path;
use crate::matrix::Matrix;
use crate::rms_norm;
use crate::skinny_gemm::Half;
use crate::view::{View, contiguous, forward_strides, stored, values, view};

/// Rows of a step that meet a matrix at once. The kernels for few rows pack nothing, and are quicker for some rows after the other
/// than a general product is for all of them.
pub const ROWS: usize = 32;

/// A linear layer as kernels read it.
#[derive(Debug)]
pub struct LinearWeights {
    weight: FlexTensor,
    /// What is read instead of the weight.
    int8: Option<Arc<Int8Matrix>>,
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
        let activations = ActivationDtype::F32;
        Self { weight, int8: None, bias: None, adapter: None, activations }
    }

    /// The same with the weight in int8, [made](Int8Matrix::is_of) of this one; inputs are not rounded to bf16 then. Bias and adapter
    /// stay as they are.
    #[must_use]
    pub fn in_int8(self, matrix: &Arc<Int8Matrix>) -> Self {
        Self { int8: Some(Arc::clone(matrix)), ..self }
    }

    /// `x`: `[rows, in]` → `out`: `[rows, out]`.
    pub fn fill(&self, out: &mut [f32], x: &[f32]) {
        let shape = self.weight.layout().shape();
        let (inputs, outputs) = (shape[1], shape[0]);
        let rows = x.len() / inputs.max(1);
        // Many rows rounded to bf16 have a kernel of their own where the processor multiplies bf16, which is the quicker the more
        // they are. Elsewhere they are products like others, and those of many rows allocate.
        let rounds = self.activations.rounds(self.weight.dtype());
        let many = self.int8.is_none() && rounds && bf16_linear::takes_many_rows();
        let at_once = if many { rows } else { ROWS };
        in_parts(out, x, [inputs, outputs], at_once, |out, x| {
            let bias = self.bias.as_ref().map(values);
            match &self.int8 {
                Some(matrix) => matrix.fill(out, x, bias),
                None => fill_linear(out, x, &self.weight, bias, self.activations),
            }
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
