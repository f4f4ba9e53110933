//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864) in the "rotate half" convention.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};
use fisao_kernels::rotary::Angles;
use fisao_kernels::{Operation, is_fused, one};

use super::LlamaConfig;
use crate::parameters::from_floats;

/// Frequencies of the rotary embedding: the angle of each pair of dimensions from one position to the next, radians,
/// `[head_dim / 2]`.
#[derive(Debug, Clone)]
pub(super) struct RotaryEmbedding {
    frequencies: Arc<[f64]>,
}

impl RotaryEmbedding {
    pub(super) fn new(config: &LlamaConfig) -> Self {
        let width = config.head_dim as f64;
        let frequency = |index| config.rope_theta.powf(-2.0 * f64::from(index as u32) / width);
        Self { frequencies: (0..config.head_dim / 2).map(frequency).collect() }
    }

    /// Rotary angles of `batch` sequences at the given positions, `[batch · length]`.
    pub(super) fn at(&self, positions: &[usize], batch: usize, device: &Device) -> RotaryAngles {
        let last = positions.iter().copied().max().unwrap_or(0);
        // Sequences of a batch share their positions, so each is worked out once; the few of a step of
        // decoding are not worth a table up to theirs.
        let angles = if positions.len() > last {
            let table = self.angles(0..=last);
            let half = table.half;
            let gather = |table: &[f32]| -> Vec<f32> {
                let rows = positions.iter().map(|&at| &table[at * half..(at + 1) * half]);
                rows.flatten().copied().collect()
            };
            Angles { cos: gather(&table.cos), sin: gather(&table.sin), half }
        } else {
            self.angles(positions.iter().copied())
        };
        let device = device.clone().inner();
        RotaryAngles { angles: Arc::new(angles), batch, device, tables: OnceLock::new() }
    }

    /// Cosine and sine at each position.
    pub(super) fn angles(&self, positions: impl Iterator<Item = usize>) -> Angles {
        let half = self.frequencies.len();
        let numbers = positions.size_hint().0 * half;
        let (mut sin, mut cos) = (Vec::with_capacity(numbers), Vec::with_capacity(numbers));
        for at in positions {
            for frequency in &*self.frequencies {
                let (s, c) = (at as f64 * frequency).sin_cos();
                sin.push(s as f32);
                cos.push(c as f32);
            }
        }
        Angles { cos, sin, half }
    }
}

/// Rotary angles at every position of one batch.
#[derive(Debug, Clone)]
pub(super) struct RotaryAngles {
    angles: Arc<Angles>,
    batch: usize,
    device: Device,
    /// Cosines and sines for single operations, made once for all layers.
    tables: OnceLock<[Tensor<4>; 2]>,
}

impl RotaryAngles {
    /// `(x₁, x₂) ↦ (x₁ cos − x₂ sin, x₂ cos + x₁ sin)` on the two halves of the last dimension of
    /// `[batch, heads, length, head_dim]`.
    pub(super) fn apply_rotary(&self, x: Tensor<4>) -> Tensor<4> {
        if is_fused(&x) {
            return one(x, Operation::RotaryEmbedding(Arc::clone(&self.angles)));
        }
        self.composed(x)
    }

    /// The same from single operations.
    pub(crate) fn composed(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, length, width] = x.dims();
        let half = width / 2;
        let tables = self.tables.get_or_init(|| {
            [&self.angles.cos, &self.angles.sin].map(|values| {
                from_floats::<4>(values.clone(), [self.batch, 1, length, half], &self.device)
            })
        });
        let [cos, sin] = tables.clone();
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let low = first.clone() * cos.clone() - second.clone() * sin.clone();
        let high = second * cos + first * sin;
        Tensor::cat(vec![low, high], 3)
    }
}
