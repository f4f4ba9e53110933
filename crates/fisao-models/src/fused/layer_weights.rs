//! Linear layers, norms and embedding tables outside of tensors: kernels that read a model's weights where they lie and write into places that the
//! caller keeps. To the bit what the operations on tensors give.

use burn::backend::Flex;
use burn::tensor::{DType, Element, Tensor};
use burn_flex::FlexTensor;
use bytemuck::Pod;
use half::{bf16, f16};

use super::bf16_linear;
use super::cpu::{fill_linear, matrix};
use super::linear::Matrix;
use super::low_rank::Path;
use super::rms_norm;
use super::skinny_gemm::Half;
use super::view::{View, contiguous, forward_strides, stored, values, view};
use crate::linear::{ActivationDtype, Embedding, Linear};
use crate::norm::RmsNorm;

/// Rows of a step that meet a matrix at once. The kernels for few rows pack nothing, and are quicker for some rows after the other
/// than a general product is for all of them.
const ROWS: usize = 32;

/// What a tensor of the CPU holds, without what it takes part in.
fn held<const D: usize>(tensor: &Tensor<D>) -> FlexTensor {
    let held = tensor.clone().inner().try_into_primitive::<Flex>();
    held.expect("kernels are chosen for tensors of the CPU only")
}

/// [`Linear`] as kernels read it.
#[derive(Debug)]
pub(crate) struct LinearWeights {
    weight: FlexTensor,
    bias: Option<FlexTensor>,
    adapter: Option<Adapter>,
    activations: ActivationDtype,
}

/// A and B of a linear layer's adapter, and the factor on its path.
#[derive(Debug)]
struct Adapter {
    a: FlexTensor,
    b: FlexTensor,
    scale: f32,
}

impl LinearWeights {
    pub(crate) fn new(linear: &Linear) -> Self {
        let adapter = linear.adapter.as_ref().map(|adapter| Adapter {
            a: forward_strides(held(&adapter.a)),
            b: forward_strides(held(&adapter.b)),
            scale: adapter.scale as f32,
        });
        let bias = linear.bias.as_ref().map(|bias| contiguous(held(bias)));
        Self { bias, adapter, activations: linear.activations, ..Self::of_weight(&linear.weight) }
    }

    /// Nothing but a product with a weight, `[out, in]`.
    pub(crate) fn of_weight(weight: &Tensor<2>) -> Self {
        let weight = held(weight);
        let wide = weight.dtype() == DType::F32;
        let weight = if wide { forward_strides(weight) } else { contiguous(weight) };
        Self { weight, bias: None, adapter: None, activations: ActivationDtype::F32 }
    }

    /// `x`: `[rows, in]` → `out`: `[rows, out]`.
    pub(crate) fn fill(&self, out: &mut [f32], x: &[f32]) {
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

/// [`RmsNorm`] as kernels read it.
#[derive(Debug)]
pub(crate) struct NormWeights {
    weight: FlexTensor,
    epsilon: f32,
}

impl NormWeights {
    pub(crate) fn new(norm: &RmsNorm) -> Self {
        Self { weight: contiguous(held(&norm.weight)), epsilon: norm.epsilon as f32 }
    }

    /// `[rows, width]` → `out`, likewise.
    pub(crate) fn fill(&self, out: &mut [f32], x: &[f32]) {
        rms_norm::fill(out, x, values(&self.weight), self.epsilon);
    }
}

/// [`Embedding`] as kernels read it.
#[derive(Debug)]
pub(crate) struct EmbeddingWeights(FlexTensor);

impl EmbeddingWeights {
    pub(crate) fn new(table: &Embedding) -> Self {
        Self(contiguous(held(&table.weight)))
    }

    /// The rows of some ids → `out`: `[ids, width]`.
    pub(crate) fn fill(&self, out: &mut [f32], ids: &[u32]) {
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
pub(crate) struct CachedHeads(FlexTensor);

impl CachedHeads {
    pub(crate) fn new(tensor: &Tensor<4>) -> Self {
        Self(forward_strides(held(tensor)))
    }

    pub(crate) fn view(&self) -> View<'_, 4> {
        view(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::lora::LowRank;
    use crate::parameters::{floats, from_floats, indices};

    /// Rows that are few, that are in two parts, and that are in three.
    const COUNTS: [usize; 3] = [ROWS, ROWS + 9, 2 * ROWS + 1];

    fn values<const D: usize>(shape: [usize; D], seed: f32) -> Tensor<D> {
        let value = |at: usize| (at as f32 * 1.7 + seed).sin();
        from_floats((0..shape.iter().product()).map(value).collect(), shape, &Device::flex())
    }

    #[test]
    fn linear_in_row_chunks_equals_whole() {
        let (inputs, outputs) = (70, 530);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let weight = values([outputs, inputs], 0.0).cast(dtype);
            let mut linear = Linear::new(weight, Some(values([outputs], 1.0)));
            for adapted in [false, true] {
                linear.adapter = adapted.then(|| LowRank {
                    a: values([4, inputs], 2.0),
                    b: values([outputs, 4], 3.0),
                    scale: 0.5,
                });
                for activations in [ActivationDtype::F32, ActivationDtype::Bf16] {
                    linear.activations = activations;
                    let weights = LinearWeights::new(&linear);
                    for rows in COUNTS {
                        let x = values([rows, inputs], 4.0);
                        let mut found = vec![f32::NAN; rows * outputs];
                        weights.fill(&mut found, &floats(&x));
                        let expected = floats(&linear.composed(x));
                        for (found, expected) in found.iter().zip(&expected) {
                            let close = (found - expected).abs() < 1e-4;
                            assert!(close, "{found} for {expected}: {rows} rows, {dtype:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn embedding_lookup_equals_tensor_select() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let table = Embedding { weight: values([9, 5], 0.0).cast(dtype) };
            let ids = [8, 0, 3, 3];
            let mut found = vec![f32::NAN; ids.len() * 5];
            EmbeddingWeights::new(&table).fill(&mut found, &ids);
            let ids = ids.iter().map(|&id| i64::from(id)).collect();
            assert_eq!(found, floats(&table.forward(indices(ids, &Device::flex()))));
        }
    }
}
