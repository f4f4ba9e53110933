//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864) in the "rotate half" convention.

use burn::tensor::{Device, Int, Tensor};

use super::LlamaConfig;
use crate::parameters::from_floats;

/// Rotary angles of every position: cos and sin, `[positions, head_dim / 2]`.
#[derive(Debug, Clone)]
pub(super) struct Rotary {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl Rotary {
    pub(super) fn new(config: &LlamaConfig, device: &Device) -> Self {
        let half = config.head_dim / 2;
        let positions = config.max_position_embeddings;
        let angles: Vec<f64> = (0..positions)
            .flat_map(|position| {
                (0..half).map(move |index| {
                    let exponent = 2.0 * index as f64 / config.head_dim as f64;
                    position as f64 / config.rope_theta.powf(exponent)
                })
            })
            .collect();
        let table = |f: fn(f64) -> f64| {
            from_floats(angles.iter().map(|&a| f(a) as f32).collect(), [positions, half], device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Angles at the given positions: `[batch · length]` → two of `[batch, 1, length, half]`.
    pub(super) fn at(&self, positions: &Tensor<1, Int>, batch: usize) -> (Tensor<4>, Tensor<4>) {
        let half = self.cos.dims()[1];
        let length = positions.dims()[0] / batch;
        let pick = |table: &Tensor<2>| {
            table.clone().select(0, positions.clone()).reshape([batch, 1, length, half])
        };
        (pick(&self.cos), pick(&self.sin))
    }
}

/// `(x₁, x₂) ↦ (x₁ cos − x₂ sin, x₂ cos + x₁ sin)` on the two halves of the last dimension.
pub(super) fn rotate(x: Tensor<4>, (cos, sin): &(Tensor<4>, Tensor<4>)) -> Tensor<4> {
    let half = x.dims()[3] / 2;
    let first = x.clone().narrow(3, 0, half);
    let second = x.narrow(3, half, half);
    let low = first.clone() * cos.clone() - second.clone() * sin.clone();
    let high = second * cos.clone() + first * sin.clone();
    Tensor::cat(vec![low, high], 3)
}
