//! Operations that would cost several passes over memory when composed, done in one, with backward
//! passes written by hand.
//!
//! Each operation is a pair of functions on plain f32 slices in a module of its own. This module ties
//! them to tensors through burn's backend extension: on the CPU backend an [`Operation`] runs as one
//! kernel and one node of the autodiff graph. On every other device the callers compose the same
//! formula from burn's own operations; the tests hold the two against each other.
//!
//! Loops are compiled for AVX-512, AVX2 and the baseline, and chosen at run time (`simd`). Large
//! ones are cut into a fixed number of rows per piece, so results do not depend on how many threads
//! there are.

#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into `simd::vectorised` is compiled for the baseline"
)]

mod activation;
pub mod attention;
mod autodiff;
mod bf16_linear;
mod cpu;
mod disjoint_slices;
#[cfg(target_arch = "x86_64")]
mod dot_products;
mod half_linear;
pub mod held_tensor;
pub mod int8;
#[cfg(target_arch = "x86_64")]
mod int8_dot_products;
mod kinds;
mod layer_norm;
pub mod layer_weights;
pub mod linear;
mod low_rank;
pub mod matrix;
mod rank_k_update;
mod rms_norm;
pub mod rotary;
mod rounding;
mod rows;
mod scratch;
mod simd;
mod skinny_gemm;
pub mod swiglu;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod token_log_probs;
mod transpose;
pub mod view;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchDevice, backend_extension};
use burn::tensor::{DType, Device, Tensor};

pub use bf16_linear::multiplies_in_tiles;
pub use kinds::{Activation, ActivationDtype};
pub use rows::accumulate;
pub use simd::{exponentials, highest, vectorised};

/// One fused operation with everything about it that is not a tensor.
#[derive(Debug, Clone)]
pub enum Operation {
    /// `x`, weight and bias: see `layer_norm`.
    LayerNorm {
        /// ε under the root.
        epsilon: f32,
    },
    /// `x` and weight: see `rms_norm`.
    RmsNorm {
        /// ε under the root.
        epsilon: f32,
    },
    /// `x`: see `activation`.
    Activation(Activation),
    /// gate and up: see [`swiglu`].
    SwiGlu,
    /// `x`, weight and, with three inputs, bias: see [`linear`], and `half_linear` for a weight of
    /// 16 bits, `bf16_linear` where inputs are rounded, too.
    Linear(ActivationDtype),
    /// `x`, weight, the adapter's A and B and, with five inputs, bias: see `low_rank`.
    LowRankLinear {
        /// Factor on the low-rank path.
        scale: f32,
        /// Of the linear layer itself; the path multiplies f32.
        activations: ActivationDtype,
    },
    /// `x`: see [`rotary`].
    RotaryEmbedding(Arc<rotary::Angles>),
    /// q, k and v: see [`attention`].
    Attention(attention::Mask),
    /// q, k and v of the prompts, k and v of the sequences' own: the same, where several sequences continue one prompt.
    /// Forwards only.
    SharedAttention {
        /// Which of all keys are seen.
        mask: attention::Mask,
        /// Which prompt each sequence continues.
        of: Arc<Vec<usize>>,
    },
    /// logits: see `token_log_probs`.
    TokenLogProbs {
        /// The token asked for in each row.
        targets: Arc<Vec<u32>>,
        /// Divides the logits.
        temperature: f32,
    },
    /// states and the output matrix: the same without logits that are kept, some rows at a time.
    HeadLogProbs {
        /// The token asked for in each row.
        targets: Arc<Vec<u32>>,
        /// Divides the logits.
        temperature: f32,
    },
}

/// Fused operations by their number of tensors.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait FusedOperations: Backend {
    /// Applies an operation on one tensor.
    fn fused_1(x: FloatTensor<Self>, operation: Operation) -> FloatTensor<Self>;
    /// Applies an operation on two tensors.
    fn fused_2(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self>;
    /// Applies an operation on three tensors.
    fn fused_3(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        z: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self>;
    /// Applies an operation on four tensors.
    fn fused_4(
        w: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        z: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self>;
    /// Applies an operation on five tensors.
    fn fused_5(
        v: FloatTensor<Self>,
        w: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        z: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self>;
}

/// The backward passes of [`FusedOperations`].
pub(crate) trait FusedGradients: Backend {
    /// Gradients with respect to those inputs that want one.
    fn gradients<const N: usize>(
        operation: &Operation,
        inputs: [FloatTensor<Self>; N],
        gradient: FloatTensor<Self>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<Self>>; N];
}

/// Whether this tensor's operations run as kernels of this crate.
pub fn is_fused<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_cpu(&x.device())
}

/// Whether this is the device of this crate's kernels.
pub fn is_cpu(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// Whether a linear layer with this weight runs as a kernel of this crate; `x` is asked for by
/// [`is_fused`].
pub fn is_fused_weight(weight: &Tensor<2>) -> bool {
    let read = matches!(weight.dtype(), DType::F32 | DType::BF16 | DType::F16);
    read && is_cpu(&weight.device())
}

/// Applies an operation to a tensor.
pub fn one<const D: usize, const R: usize>(x: Tensor<D>, operation: Operation) -> Tensor<R> {
    Tensor::from_dispatch(Dispatch::fused_1(x.into_dispatch(), operation))
}

/// Applies an operation to two tensors.
pub fn two<const D: usize, const E: usize, const R: usize>(
    x: Tensor<D>,
    y: Tensor<E>,
    operation: Operation,
) -> Tensor<R> {
    Tensor::from_dispatch(Dispatch::fused_2(x.into_dispatch(), y.into_dispatch(), operation))
}

/// Applies an operation to three tensors.
pub fn three<const D: usize, const E: usize, const F: usize, const R: usize>(
    x: Tensor<D>,
    y: Tensor<E>,
    z: Tensor<F>,
    operation: Operation,
) -> Tensor<R> {
    let (x, y, z) = (x.into_dispatch(), y.into_dispatch(), z.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_3(x, y, z, operation))
}

/// Attention behind a prompt: `q`, keys and values of the prompts, keys and values of the sequences' own.
pub fn five(
    q: Tensor<4>,
    before: (Tensor<4>, Tensor<4>),
    own: (Tensor<4>, Tensor<4>),
    operation: Operation,
) -> Tensor<4> {
    let [q, x, y, z, w] = [q, before.0, before.1, own.0, own.1].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fused_5(q, x, y, z, w, operation))
}

/// A linear layer and the low-rank path of its adapter: `x`, weight, A, B and perhaps a bias, for an
/// [`Operation::LowRankLinear`].
pub fn adapted(
    x: Tensor<2>,
    [weight, a, b]: [Tensor<2>; 3],
    bias: Option<Tensor<1>>,
    operation: Operation,
) -> Tensor<2> {
    let [x, weight, a, b] = [x, weight, a, b].map(Tensor::into_dispatch);
    Tensor::from_dispatch(match bias {
        Some(bias) => Dispatch::fused_5(x, weight, a, b, bias.into_dispatch(), operation),
        None => Dispatch::fused_4(x, weight, a, b, operation),
    })
}
