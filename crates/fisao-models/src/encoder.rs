//! The pre-norm transformer encoder shared by CLIP's two towers.
//!
//! Ported from transformers' `CLIPEncoder`; no dropout, since it is off in CLIP's configuration.

use burn::tensor::{Device, Tensor};

use crate::activation::Activation;
use crate::attention::{Mask, Shown, attend, merge_heads, split_heads};
use crate::linear::{Linear, LinearVisitor};
use crate::norm::LayerNorm;
use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{WeightError, WeightSource};

/// Sizes of one encoder.
#[derive(Debug, Clone, Copy)]
pub struct EncoderConfig {
    /// Model width.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Non-linearity of the feed-forward part.
    pub hidden_act: Activation,
}

#[derive(Debug, Clone)]
struct EncoderLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    activation: Activation,
}

impl EncoderLayer {
    fn load(
        config: &EncoderConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let epsilon = config.layer_norm_eps;
        let mut linear =
            |part: &str, size| Linear::load(weights, &format!("{name}.{part}"), size, true, device);
        let q_proj = linear("self_attn.q_proj", [width, width])?;
        let k_proj = linear("self_attn.k_proj", [width, width])?;
        let v_proj = linear("self_attn.v_proj", [width, width])?;
        let out_proj = linear("self_attn.out_proj", [width, width])?;
        let fc1 = linear("mlp.fc1", [width, config.intermediate_size])?;
        let fc2 = linear("mlp.fc2", [config.intermediate_size, width])?;
        let mut norm = |part: &str| {
            LayerNorm::load(weights, &format!("{name}.{part}"), width, epsilon, device)
        };
        Ok(Self {
            layer_norm1: norm("layer_norm1")?,
            layer_norm2: norm("layer_norm2")?,
            q_proj,
            k_proj,
            v_proj,
            out_proj,
            fc1,
            fc2,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
        })
    }

    /// The linear layers with their names inside the layer.
    fn linears_mut(&mut self) -> [(&'static str, &mut Linear); 6] {
        [
            ("self_attn.q_proj", &mut self.q_proj),
            ("self_attn.k_proj", &mut self.k_proj),
            ("self_attn.v_proj", &mut self.v_proj),
            ("self_attn.out_proj", &mut self.out_proj),
            ("mlp.fc1", &mut self.fc1),
            ("mlp.fc2", &mut self.fc2),
        ]
    }

    /// `x`: `[batch · length, width]`.
    fn forward(&self, x: Tensor<2>, batch: usize, shown: &Shown<'_>) -> Tensor<2> {
        let length = x.dims()[0] / batch;
        let normed = self.layer_norm1.forward(x.clone());
        let split = |projection: &Linear| {
            split_heads(projection.forward(normed.clone()), batch, length, self.heads)
        };
        let mixed = attend(split(&self.q_proj), split(&self.k_proj), split(&self.v_proj), shown);
        let x = x + self.out_proj.forward(merge_heads(mixed));
        let hidden = self.fc1.forward(self.layer_norm2.forward(x.clone()));
        x + self.fc2.forward(self.activation.forward(hidden))
    }
}

impl Parameters for EncoderLayer {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.q_proj.visit_mut(&format!("{prefix}.self_attn.q_proj"), visitor);
        self.k_proj.visit_mut(&format!("{prefix}.self_attn.k_proj"), visitor);
        self.v_proj.visit_mut(&format!("{prefix}.self_attn.v_proj"), visitor);
        self.out_proj.visit_mut(&format!("{prefix}.self_attn.out_proj"), visitor);
        self.layer_norm1.visit_mut(&format!("{prefix}.layer_norm1"), visitor);
        self.fc1.visit_mut(&format!("{prefix}.mlp.fc1"), visitor);
        self.fc2.visit_mut(&format!("{prefix}.mlp.fc2"), visitor);
        self.layer_norm2.visit_mut(&format!("{prefix}.layer_norm2"), visitor);
    }
}

/// A stack of encoder layers.
#[derive(Debug, Clone)]
pub struct Encoder {
    layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// Loads `{name}.layers.N.*`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        config: &EncoderConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let layers = (0..config.num_hidden_layers)
            .map(|index| {
                EncoderLayer::load(config, weights, &format!("{name}.layers.{index}"), device)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { layers })
    }

    /// Number of layers.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Runs the first `depth` layers.
    ///
    /// # Shapes
    /// `x`: `[batch · length, width]`.
    pub fn forward(&self, x: Tensor<2>, batch: usize, mask: &Mask, depth: usize) -> Tensor<2> {
        let shown = Shown::by(mask);
        self.layers[..depth].iter().fold(x, |x, layer| layer.forward(x, batch, &shown))
    }

    /// Runs the layers behind the first `depth`.
    ///
    /// # Shapes
    /// `x`: `[batch · length, width]`.
    pub fn finish(&self, x: Tensor<2>, batch: usize, mask: &Mask, depth: usize) -> Tensor<2> {
        let shown = Shown::by(mask);
        self.layers[depth..].iter().fold(x, |x, layer| layer.forward(x, batch, &shown))
    }

    /// Visits every linear layer under `{prefix}.layers.N.…`.
    pub(crate) fn visit_linears_mut(&mut self, prefix: &str, visitor: &mut LinearVisitor<'_>) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            for (name, linear) in layer.linears_mut() {
                visitor(&format!("{prefix}.layers.{index}.{name}"), linear);
            }
        }
    }
}

impl Parameters for Encoder {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_mut(&format!("{prefix}.layers.{index}"), visitor);
        }
    }
}
