//! Element-wise non-linearities under the names Hugging Face configurations use.

use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

use crate::fused::{Operation, is_fused, one};

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
    pub(crate) fn composed<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            // burn's own GELU is exact, its gradient that of the tanh approximation.
            Self::Gelu => x.clone() * ((x * FRAC_1_SQRT_2).erf() + 1.0) * 0.5,
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::Silu => x.clone() * activation::sigmoid(x),
        }
    }
}
