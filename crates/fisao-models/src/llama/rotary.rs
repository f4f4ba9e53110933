//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864) in the "rotate half" convention, and how decoders scale its
//! frequencies for longer sequences (reference: transformers' `modeling_rope_utils`).

use std::f64::consts::TAU;
use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};
use fisao_kernels::rotary::Angles;
use fisao_kernels::{Operation, is_fused, one};
use serde::{Deserialize, Serialize};

use super::LlamaConfig;
use super::positions::Positions;
use crate::parameters::from_floats;

/// How rotary frequencies are scaled, for sequences longer than those a decoder was first trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    Default,
    /// All are divided by a factor (Chen et al. 2023, arXiv 2306.15595).
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// The base grows with a sequence, but only beyond the [longest](super::LlamaConfig::max_position_embeddings) that a decoder
    /// is given here: up to there nothing is scaled.
    Dynamic {
        /// At least 1.
        factor: f64,
    },
    /// Low frequencies are divided by a factor, high ones stay, those between are blended (Llama 3.1; Dubey et al. 2024, arXiv
    /// 2407.21783).
    Llama3 {
        /// At least 1.
        factor: f64,
        /// A frequency is low if it has fewer periods than this in the original context.
        low_freq_factor: f64,
        /// And high if it has more periods than this, which is greater.
        high_freq_factor: f64,
        /// The original context, tokens.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// What becomes of a frequency.
    fn scaled(self, frequency: f64) -> f64 {
        match self {
            Self::Default | Self::Dynamic { .. } => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: context,
            } => {
                let periods = context as f64 * frequency / TAU;
                let kept = ((periods - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}

/// Frequencies of the rotary embedding: the angle of each pair of dimensions from one position to the next, radians,
/// `[head_dim / 2]`.
#[derive(Debug, Clone)]
pub(super) struct RotaryEmbedding {
    frequencies: Arc<[f64]>,
    /// Which of three positions each pair reads, where tokens have three.
    axes: Arc<[usize]>,
}

impl RotaryEmbedding {
    pub(super) fn new(config: &LlamaConfig) -> Self {
        let half = config.head_dim / 2;
        Self {
            frequencies: frequencies(config.rope_theta, half)
                .into_iter()
                .map(|frequency| config.rope_scaling.scaled(frequency))
                .collect(),
            axes: config.positions.axes(half).into(),
        }
    }

    /// Radians from one position to the next, `[head_dim / 2]`.
    pub(super) fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// Which of three positions each pair reads, `[head_dim / 2]`.
    pub(super) fn axes(&self) -> &[usize] {
        &self.axes
    }

    /// Rotary angles of `batch` sequences at the given positions, `[batch · length]`.
    pub(super) fn at(&self, positions: &Positions, batch: usize, device: &Device) -> RotaryAngles {
        let last = positions.last();
        let angles = match positions {
            Positions::Single(positions) => self.at_single(positions, last),
            Positions::Triple(positions) => self.at_triple(positions, last),
        };
        RotaryAngles::new(angles, batch, device)
    }

    fn at_single(&self, positions: &[usize], last: usize) -> Angles {
        // Sequences of a batch share their positions, so each is worked out once; the few of a step of
        // decoding are not worth a table up to theirs.
        if positions.len() > last {
            let table = self.angles(0..=last);
            let half = table.half;
            let gather = |table: &[f32]| -> Vec<f32> {
                let rows = positions.iter().map(|&at| &table[at * half..(at + 1) * half]);
                rows.flatten().copied().collect()
            };
            Angles { cos: gather(&table.cos), sin: gather(&table.sin), half }
        } else {
            self.angles(positions.iter().copied())
        }
    }

    /// Each pair of dimensions at the position of the three that it reads.
    fn at_triple(&self, positions: &[[usize; 3]], last: usize) -> Angles {
        let table = self.angles(0..=last);
        let half = table.half;
        let gather = |table: &[f32]| -> Vec<f32> {
            let row = |at: &[usize; 3]| {
                let at = *at;
                self.axes.iter().enumerate().map(move |(pair, &axis)| table[at[axis] * half + pair])
            };
            positions.iter().flat_map(row).collect()
        };
        Angles { cos: gather(&table.cos), sin: gather(&table.sin), half }
    }

    /// Cosine and sine at each position.
    pub(super) fn angles(&self, positions: impl Iterator<Item = usize>) -> Angles {
        angles(&self.frequencies, positions)
    }
}

/// Cosine and sine of each frequency at each position.
pub(crate) fn angles(frequencies: &[f64], positions: impl Iterator<Item = usize>) -> Angles {
    let half = frequencies.len();
    let numbers = positions.size_hint().0 * half;
    let (mut sin, mut cos) = (Vec::with_capacity(numbers), Vec::with_capacity(numbers));
    for at in positions {
        for frequency in frequencies {
            let (s, c) = (at as f64 * frequency).sin_cos();
            sin.push(s as f32);
            cos.push(c as f32);
        }
    }
    Angles { cos, sin, half }
}

/// What `pairs` of dimensions turn by from one position to the next, radians.
pub(crate) fn frequencies(base: f64, pairs: usize) -> Vec<f64> {
    let width = 2.0 * pairs as f64;
    (0..pairs).map(|pair| base.powf(-2.0 * f64::from(pair as u32) / width)).collect()
}

/// Rotary angles at every position of one batch.
#[derive(Debug, Clone)]
pub(crate) struct RotaryAngles {
    angles: Arc<Angles>,
    batch: usize,
    device: Device,
    /// Cosines and sines for single operations, made once for all layers.
    tables: OnceLock<[Tensor<4>; 2]>,
}

impl RotaryAngles {
    /// Angles of `batch` sequences, `[batch · length, half]`.
    pub(crate) fn new(angles: Angles, batch: usize, device: &Device) -> Self {
        let device = device.clone().inner();
        Self { angles: Arc::new(angles), batch, device, tables: OnceLock::new() }
    }

    /// `(x₁, x₂) ↦ (x₁ cos − x₂ sin, x₂ cos + x₁ sin)` on the two halves of the last dimension of
    /// `[batch, heads, length, head_dim]`.
    pub(crate) fn apply_rotary(&self, x: Tensor<4>) -> Tensor<4> {
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
