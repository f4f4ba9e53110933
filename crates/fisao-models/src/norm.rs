//! Layer normalisation and root-mean-square normalisation over the last dimension.

use burn::tensor::{Device, Tensor};
use fisao_kernels::layer_weights::NormWeights;
use fisao_kernels::{Operation, is_fused, three, two};

use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{Init, WeightError, WeightSource, widened};

/// `(x − mean) / √(var + ε) · γ + β` (Ba et al. 2016), biased variance.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    pub(crate) weight: Tensor<1>,
    pub(crate) bias: Tensor<1>,
    pub(crate) epsilon: f64,
}

impl LayerNorm {
    /// Loads `{name}.weight` and `{name}.bias` of shape `[width]`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        weights: &mut dyn WeightSource,
        name: &str,
        width: usize,
        epsilon: f64,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let weight = weights.tensor(&format!("{name}.weight"), &[width], Init::Ones)?;
        let bias = weights.tensor(&format!("{name}.bias"), &[width], Init::Zeros)?;
        Ok(Self { weight: widened(weight, device), bias: widened(bias, device), epsilon })
    }

    /// # Shapes
    /// `[rows, width]` → `[rows, width]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        if is_fused(&x) {
            let operation = Operation::LayerNorm { epsilon: self.epsilon as f32 };
            return three(x, self.weight.clone(), self.bias.clone(), operation);
        }
        self.composed(x)
    }

    /// The same from single operations.
    pub(crate) fn composed(&self, x: Tensor<2>) -> Tensor<2> {
        let centred = x.clone() - x.mean_dim(1);
        let variance = centred.clone().square().mean_dim(1);
        let scaled = centred * (variance + self.epsilon).sqrt().recip();
        scaled * self.weight.clone().unsqueeze() + self.bias.clone().unsqueeze()
    }
}

impl Parameters for LayerNorm {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        visitor(&format!("{prefix}.weight"), ParameterMut::Vector(&mut self.weight));
        visitor(&format!("{prefix}.bias"), ParameterMut::Vector(&mut self.bias));
    }
}

/// `x / √(mean(x²) + ε) · γ` (Zhang & Sennrich 2019), as Llama uses it.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    pub(crate) weight: Tensor<1>,
    pub(crate) epsilon: f64,
}

impl RmsNorm {
    /// Loads `{name}.weight` of shape `[width]`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        weights: &mut dyn WeightSource,
        name: &str,
        width: usize,
        epsilon: f64,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let weight = weights.tensor(&format!("{name}.weight"), &[width], Init::Ones)?;
        Ok(Self { weight: widened(weight, device), epsilon })
    }

    /// # Shapes
    /// `[rows, width]` → `[rows, width]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        if is_fused(&x) {
            let operation = Operation::RmsNorm { epsilon: self.epsilon as f32 };
            return two(x, self.weight.clone(), operation);
        }
        self.composed(x)
    }

    /// The same from single operations.
    pub(crate) fn composed(&self, x: Tensor<2>) -> Tensor<2> {
        let mean_square = x.clone().square().mean_dim(1);
        x * (mean_square + self.epsilon).sqrt().recip() * self.weight.clone().unsqueeze()
    }

    /// What a decoding step on the CPU reads.
    pub(crate) fn kernel_weights(&self) -> NormWeights {
        NormWeights::new(&self.weight, self.epsilon)
    }
}

impl Parameters for RmsNorm {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        visitor(&format!("{prefix}.weight"), ParameterMut::Vector(&mut self.weight));
    }
}
