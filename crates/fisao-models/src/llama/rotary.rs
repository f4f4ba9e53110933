//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864) in the "rotate half" convention.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use super::LlamaConfig;
use crate::fused::rotary::Angles;
use crate::fused::{Operation, is_fused, one};
use crate::parameters::from_floats;

/// Rotary angles of every position: cos and sin, `[positions, head_dim / 2]`.
#[derive(Debug, Clone)]
pub(super) struct Rotary {
    table: Arc<Angles>,
}

impl Rotary {
    pub(super) fn new(config: &LlamaConfig) -> Self {
        let half = config.head_dim / 2;
        let angles: Vec<f64> = (0..config.max_position_embeddings)
            .flat_map(|position| {
                (0..half).map(move |index| {
                    let exponent = 2.0 * index as f64 / config.head_dim as f64;
                    position as f64 / config.rope_theta.powf(exponent)
                })
            })
            .collect();
        let table = |f: fn(f64) -> f64| angles.iter().map(|&a| f(a) as f32).collect();
        Self { table: Arc::new(Angles { cos: table(f64::cos), sin: table(f64::sin), half }) }
    }

    /// The turn of `batch` sequences at the given positions, `[batch · length]`.
    pub(super) fn at(&self, positions: &[usize], batch: usize, device: &Device) -> Rotation {
        let half = self.table.half;
        let pick = |table: &[f32]| -> Vec<f32> {
            let rows = positions.iter().map(|&at| &table[at * half..(at + 1) * half]);
            rows.flatten().copied().collect()
        };
        let angles = Angles { cos: pick(&self.table.cos), sin: pick(&self.table.sin), half };
        Rotation { angles: Arc::new(angles), batch, device: device.clone().inner() }
    }
}

/// The turn at every position of one batch.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    angles: Arc<Angles>,
    batch: usize,
    device: Device,
}

impl Rotation {
    /// `(x₁, x₂) ↦ (x₁ cos − x₂ sin, x₂ cos + x₁ sin)` on the two halves of the last dimension of
    /// `[batch, heads, length, head_dim]`.
    pub(super) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        if is_fused(&x) {
            return one(x, Operation::Rotary(Arc::clone(&self.angles)));
        }
        self.composed(x)
    }

    /// The same from single operations.
    pub(crate) fn composed(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, length, width] = x.dims();
        let half = width / 2;
        let table = |values: &[f32]| {
            from_floats::<4>(values.to_vec(), [self.batch, 1, length, half], &self.device)
        };
        let (cos, sin) = (table(&self.angles.cos), table(&self.angles.sin));
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let low = first.clone() * cos.clone() - second.clone() * sin.clone();
        let high = second * cos + first * sin;
        Tensor::cat(vec![low, high], 3)
    }
}
