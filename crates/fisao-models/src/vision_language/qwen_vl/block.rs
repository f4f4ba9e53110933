//! One layer of the image tower, of either generation.

use burn::tensor::{Device, Tensor};

use super::{QwenGeneration, QwenVisionConfig};
use crate::activation::Activation;
use crate::attention::{Mask, Shown, attend, merge_heads, split_heads};
use crate::linear::{Linear, LinearVisitor};
use crate::llama::rotary::RotaryAngles;
use crate::llama::swiglu;
use crate::norm::{LayerNorm, RmsNorm};
use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{WeightError, WeightSource};

/// ε of the norms, which no configuration names.
const EPSILON: f64 = 1e-6;

/// The norm of a generation.
#[derive(Debug, Clone)]
pub(super) enum Norm {
    Layer(Box<LayerNorm>),
    Rms(Box<RmsNorm>),
}

impl Norm {
    pub(super) fn load(
        generation: &QwenGeneration,
        weights: &mut dyn WeightSource,
        name: &str,
        width: usize,
        device: &Device,
    ) -> Result<Self, WeightError> {
        Ok(match generation {
            QwenGeneration::Qwen2_5 { .. } => {
                Self::Rms(Box::new(RmsNorm::load(weights, name, width, EPSILON, device)?))
            }
            QwenGeneration::Qwen3 { .. } => {
                Self::Layer(Box::new(LayerNorm::load(weights, name, width, EPSILON, device)?))
            }
        })
    }

    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
        }
    }
}

impl Parameters for Norm {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        match self {
            Self::Layer(norm) => norm.visit_mut(prefix, visitor),
            Self::Rms(norm) => norm.visit_mut(prefix, visitor),
        }
    }
}

/// The feed-forward part of a generation.
#[derive(Debug, Clone)]
enum FeedForward {
    /// Gate, up and down.
    SwiGlu(Box<[Linear; 3]>),
    /// Two layers and what is between them.
    Plain(Box<[Linear; 2]>, Activation),
}

const SWIGLU: [&str; 3] = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"];
const PLAIN: [&str; 2] = ["mlp.linear_fc1", "mlp.linear_fc2"];
const ATTENTION: [&str; 2] = ["attn.qkv", "attn.proj"];
const NORMS: [&str; 2] = ["norm1", "norm2"];

impl FeedForward {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::SwiGlu(layers) => {
                let [gate, up, down] = &**layers;
                down.forward(swiglu(gate.forward(x.clone()), up.forward(x)))
            }
            Self::Plain(layers, activation) => {
                let [first, second] = &**layers;
                second.forward(activation.forward(first.forward(x)))
            }
        }
    }

    fn linears_mut(&mut self) -> Vec<(&'static str, &mut Linear)> {
        match self {
            Self::SwiGlu(layers) => SWIGLU.into_iter().zip(layers.iter_mut()).collect(),
            Self::Plain(layers, _) => PLAIN.into_iter().zip(layers.iter_mut()).collect(),
        }
    }
}

/// What all layers of one pass share.
pub(super) struct Surroundings {
    /// Angles of all patches, `[1 · patches]`.
    pub(super) rotary: RotaryAngles,
    /// Windows of one size, and patches of each of them.
    pub(super) windows: Vec<[usize; 2]>,
}

/// Attention and feed-forward part, each behind a norm and added to its input.
#[derive(Debug, Clone)]
pub(super) struct Block {
    norms: [Norm; 2],
    attention: [Linear; 2],
    feed_forward: FeedForward,
    heads: usize,
}

impl Block {
    pub(super) fn load(
        config: &QwenVisionConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let mut linear =
            |part: &str, size| Linear::load(weights, &format!("{name}.{part}"), size, true, device);
        let attention =
            [linear(ATTENTION[0], [width, 3 * width])?, linear(ATTENTION[1], [width, width])?];
        let feed_forward = match &config.generation {
            QwenGeneration::Qwen2_5 { .. } => FeedForward::SwiGlu(Box::new([
                linear(SWIGLU[0], [width, inner])?,
                linear(SWIGLU[1], [width, inner])?,
                linear(SWIGLU[2], [inner, width])?,
            ])),
            QwenGeneration::Qwen3 { hidden_act, .. } => {
                let layers = [linear(PLAIN[0], [width, inner])?, linear(PLAIN[1], [inner, width])?];
                FeedForward::Plain(Box::new(layers), *hidden_act)
            }
        };
        let mut norm = |part: &str| {
            Norm::load(&config.generation, weights, &format!("{name}.{part}"), width, device)
        };
        let norms = [norm(NORMS[0])?, norm(NORMS[1])?];
        Ok(Self { norms, attention, feed_forward, heads: config.num_attention_heads })
    }

    /// `x`: `[patches, width]`; `windowed`: whether a patch sees its window only.
    pub(super) fn forward(&self, x: Tensor<2>, around: &Surroundings, windowed: bool) -> Tensor<2> {
        let [patches, width] = x.dims();
        let [qkv, projection] = &self.attention;
        let all = qkv.forward(self.norms[0].forward(x.clone()));
        let part = |part: usize| {
            split_heads(all.clone().narrow(1, part * width, width), 1, patches, self.heads)
        };
        let [q, k] = [0, 1].map(|at| around.rotary.apply_rotary(part(at)));
        let mixed = if windowed {
            attend_in_windows(&[q, k, part(2)], &around.windows)
        } else {
            attend(q, k, part(2), &Shown::by(&Mask::Full))
        };
        let x = x + projection.forward(merge_heads(mixed));
        let normed = self.norms[1].forward(x.clone());
        x + self.feed_forward.forward(normed)
    }

    pub(super) fn visit_linears_mut(&mut self, prefix: &str, visitor: &mut LinearVisitor<'_>) {
        let attention = ATTENTION.into_iter().zip(&mut self.attention);
        for (name, linear) in attention.chain(self.feed_forward.linears_mut()) {
            visitor(&format!("{prefix}.{name}"), linear);
        }
    }
}

/// Attention within each window: `[1, heads, patches, d]`.
fn attend_in_windows(qkv: &[Tensor<4>; 3], windows: &[[usize; 2]]) -> Tensor<4> {
    let [_, heads, _, width] = qkv[0].dims();
    let mut first = 0;
    let of_size = |&[count, each]: &[usize; 2]| {
        let [q, k, v] = qkv.each_ref().map(|x| {
            let own = x.clone().narrow(2, first, count * each);
            own.reshape([heads, count, each, width]).swap_dims(0, 1)
        });
        first += count * each;
        let mixed = attend(q, k, v, &Shown::by(&Mask::Full));
        mixed.swap_dims(0, 1).reshape([1, heads, count * each, width])
    };
    Tensor::cat(windows.iter().map(of_size).collect(), 2)
}

impl Parameters for Block {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        for (name, norm) in NORMS.iter().zip(&mut self.norms) {
            norm.visit_mut(&format!("{prefix}.{name}"), visitor);
        }
        self.visit_linears_mut(prefix, &mut |name, linear| linear.visit_mut(name, visitor));
    }
}
