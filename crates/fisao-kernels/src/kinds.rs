//! What operations are told beside their tensors.

use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::{DType, Tensor, activation};
use serde::{Deserialize, Serialize};

use crate::{Operation, is_fused, one};

/// A non-linearity, spelled as in `hidden_act` / `projector_hidden_act`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `x · σ(1.702 x)`, OpenAI CLIP's approximation of GELU.
    #[serde(rename = "quick_gelu")]
    QuickGelu,
    /// Exact GELU, `x · Φ(x)`.
    #[serde(rename = "gelu")]
    Gelu,
    /// GELU by its tanh approximation (SigLIP).
    #[serde(rename = "gelu_pytorch_tanh")]
    GeluTanh,
    /// `x · σ(x)`.
    #[serde(rename = "silu")]
    Silu,
}

impl Activation {
    /// Applies the non-linearity element by element; the shape is kept.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        if is_fused(&x) { one(x, Operation::Activation(self)) } else { self.composed(x) }
    }

    /// The same from single operations.
    pub fn composed<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            // burn's own GELU is exact, its gradient that of the tanh approximation.
            Self::Gelu => x.clone() * ((x * FRAC_1_SQRT_2).erf() + 1.0) * 0.5,
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::Silu => x.clone() * activation::sigmoid(x),
        }
    }
}

/// What the inputs of linear layers are multiplied as, where the weight is held in bf16; anything else is multiplied in f32.
/// Sums, results, adapters, attention and the output layer are f32 in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationDtype {
    /// As they are: the weight is widened.
    #[default]
    F32,
    /// Rounded to bf16, and their gradients likewise, as PyTorch does; twice to four times as fast for many rows where the
    /// processor multiplies bf16 (AVX512-BF16, AMX-BF16).
    Bf16,
}

impl ActivationDtype {
    /// Whether inputs are rounded that meet a weight of this type.
    pub fn rounds(self, weight: DType) -> bool {
        self == Self::Bf16 && weight == DType::BF16
    }
}
