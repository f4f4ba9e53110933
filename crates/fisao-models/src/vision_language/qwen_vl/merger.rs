//! Patches that become one token together, in the decoder's space.

use burn::tensor::{Device, Tensor};

use super::block::Norm;
use super::{QwenGeneration, QwenVisionConfig};
use crate::activation::Activation;
use crate::linear::{Linear, LinearVisitor};
use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{WeightError, WeightSource};

/// A norm, and two layers on patches behind each other.
#[derive(Debug, Clone)]
pub(super) struct Merger {
    norm: Norm,
    layers: [Linear; 2],
    names: [&'static str; 3],
    /// Whether the norm is of the patches together.
    joined: bool,
}

impl Merger {
    /// * `joined` — whether the norm is of the patches together, as that of deep features is.
    /// * `hidden` — width of the decoder.
    pub(super) fn load(
        config: &QwenVisionConfig,
        (joined, hidden): (bool, usize),
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let names = match config.generation {
            QwenGeneration::Qwen2_5 { .. } => ["ln_q", "mlp.0", "mlp.2"],
            QwenGeneration::Qwen3 { .. } => ["norm", "linear_fc1", "linear_fc2"],
        };
        let width = config.hidden_size * config.merge_size.pow(2);
        let normed = if joined { width } else { config.hidden_size };
        let part = |part: &str| format!("{name}.{part}");
        let norm = Norm::load(&config.generation, weights, &part(names[0]), normed, device)?;
        let first = Linear::load(weights, &part(names[1]), [width, width], true, device)?;
        let second = Linear::load(weights, &part(names[2]), [width, hidden], true, device)?;
        Ok(Self { norm, layers: [first, second], names, joined })
    }

    /// `[tokens · patches of each, width]` → `[tokens, hidden]`
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [patches, width] = x.dims();
        let joined = self.layers[0].size()[0];
        let size = [patches * width / joined, joined];
        let x = if self.joined {
            self.norm.forward(x.reshape(size))
        } else {
            self.norm.forward(x).reshape(size)
        };
        self.layers[1].forward(Activation::Gelu.forward(self.layers[0].forward(x)))
    }

    pub(super) fn visit_linears_mut(&mut self, prefix: &str, visitor: &mut LinearVisitor<'_>) {
        for (name, linear) in self.names[1..].iter().zip(&mut self.layers) {
            visitor(&format!("{prefix}.{name}"), linear);
        }
    }
}

impl Parameters for Merger {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.norm.visit_mut(&format!("{prefix}.{}", self.names[0]), visitor);
        self.visit_linears_mut(prefix, &mut |name, linear| linear.visit_mut(name, visitor));
    }
}
