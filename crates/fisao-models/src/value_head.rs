//! The critic: a linear map from the policy's last hidden state to an expected return.

use burn::tensor::{Device, Tensor};

use crate::linear::Linear;
use crate::parameters::{ParameterMut, Parameters};

/// `V(s) = w · h + b`, starting at zero so that the first advantages are the rewards themselves.
#[derive(Debug, Clone)]
pub struct ValueHead {
    summary: Linear,
}

impl ValueHead {
    /// A zero head for states of width `hidden`.
    pub fn new(hidden: usize, device: &Device) -> Self {
        Self {
            summary: Linear::new(
                Tensor::zeros([1, hidden], device),
                Some(Tensor::zeros([1], device)),
            ),
        }
    }

    /// Values of states: `[tokens, hidden]` → `[tokens]`.
    pub fn forward(&self, hidden: Tensor<2>) -> Tensor<1> {
        let count = hidden.dims()[0];
        self.summary.forward(hidden).reshape([count])
    }
}

impl Parameters for ValueHead {
    /// Visits `{prefix}value_head.weight` and `{prefix}value_head.bias`.
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.summary.visit_mut(&format!("{prefix}value_head"), visitor);
    }
}
