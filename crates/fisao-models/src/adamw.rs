//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) in PyTorch's form.
//!
//! `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`,
//! `θ ← θ(1 − ηλ) − η · m̂ / (√v̂ + ε)` with `m̂ = m/(1−β₁ᵗ)`, `v̂ = v/(1−β₂ᵗ)`, where t counts the updates of that parameter.
//!
//! Moments and the update are kept as plain f32 slices: the whole state can be saved and restored
//! bit for bit, and one pass over memory, shared by all cores, does the work of a dozen tensor operations on each
//! parameter.

use std::collections::BTreeMap;

use fisao_kernels::vectorised;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::parameters::{GradientMap, ParameterMut, Parameters};

/// Numbers that a core updates at a time.
const PIECE: usize = 1 << 15;

/// Constants of the optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay of the first moment, β₁.
    pub beta1: f64,
    /// Decay of the second moment, β₂.
    pub beta2: f64,
    /// ε, added outside the root.
    pub epsilon: f64,
    /// Decoupled decay λ; applied to matrices and kernels, not to vectors.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// First and second moments of one parameter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moments {
    /// m.
    pub first: Vec<f32>,
    /// v.
    pub second: Vec<f32>,
    /// t, updates of the parameter so far.
    pub steps: u64,
}

/// The optimiser with its state.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    config: AdamWConfig,
    /// Number of updates made, whatever parameters took part.
    pub step: u64,
    /// Moments by parameter name.
    pub moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// An optimiser that has seen nothing.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, step: 0, moments: BTreeMap::new() }
    }

    /// One update of the parameters of `model` that have a gradient and, by name, a learning rate; they come back frozen.
    /// Without a rate a parameter stays as it is, moments and all.
    pub fn update(
        &mut self,
        model: &mut impl Parameters,
        gradients: &GradientMap,
        rate: &dyn Fn(&str, &ParameterMut<'_>) -> Option<f64>,
    ) {
        self.step += 1;
        let mut work = BTreeMap::new();
        model.visit_mut("", &mut |name, parameter| {
            let Some(gradient) = gradients.get(name) else { return };
            let Some(rate) = rate(name, &parameter) else { return };
            let decays = matches!(
                parameter,
                ParameterMut::Matrix(_) | ParameterMut::Kernel(_) | ParameterMut::Volume(_)
            );
            let decay = if decays { self.config.weight_decay } else { 0.0 };
            let values = parameter.values();
            assert_eq!(values.len(), gradient.len(), "{name} has a gradient for every number");
            let mut moments = self.moments.remove(name).unwrap_or_else(|| Moments {
                first: vec![0.0; values.len()],
                second: vec![0.0; values.len()],
                steps: 0,
            });
            moments.steps += 1;
            let factors = self.factors(rate, decay, moments.steps);
            work.insert(name.to_owned(), Work { values, gradient, moments, factors });
        });
        let pieces: Vec<Piece<'_>> = work.values_mut().flat_map(Work::pieces).collect();
        pieces.into_par_iter().for_each(Piece::update);
        model.visit_mut("", &mut |name, mut parameter| {
            let Some(Work { values, moments, .. }) = work.remove(name) else { return };
            parameter.set_values(values);
            self.moments.insert(name.to_owned(), moments);
        });
    }

    /// What all numbers of a parameter are updated with.
    fn factors(&self, learning_rate: f64, decay: f64, steps: u64) -> Factors {
        let AdamWConfig { beta1, beta2, epsilon, .. } = self.config;
        let step = i32::try_from(steps).unwrap_or(i32::MAX);
        Factors {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            rate: (learning_rate / (1.0 - beta1.powi(step))) as f32,
            root: (1.0 - beta2.powi(step)).sqrt() as f32,
            epsilon: epsilon as f32,
            keep: (1.0 - learning_rate * decay) as f32,
        }
    }
}

/// One parameter that is being updated.
struct Work<'a> {
    values: Vec<f32>,
    gradient: &'a [f32],
    moments: Moments,
    factors: Factors,
}

impl Work<'_> {
    fn pieces(&mut self) -> impl Iterator<Item = Piece<'_>> {
        let factors = self.factors;
        let moments =
            self.moments.first.chunks_mut(PIECE).zip(self.moments.second.chunks_mut(PIECE));
        let numbers = self.values.chunks_mut(PIECE).zip(self.gradient.chunks(PIECE));
        numbers.zip(moments).map(move |((values, gradient), (first, second))| Piece {
            values,
            gradient,
            first,
            second,
            factors,
        })
    }
}

/// Constants of one update of one parameter.
#[derive(Clone, Copy)]
struct Factors {
    beta1: f32,
    beta2: f32,
    /// η / (1 − β₁ᵗ).
    rate: f32,
    /// √(1 − β₂ᵗ).
    root: f32,
    epsilon: f32,
    /// 1 − ηλ.
    keep: f32,
}

/// Part of a parameter.
struct Piece<'a> {
    values: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    factors: Factors,
}

impl Piece<'_> {
    fn update(self) {
        let Self { values, gradient, first, second, factors } = self;
        let Factors { beta1, beta2, rate, root, epsilon, keep } = factors;
        vectorised(
            #[inline(always)]
            || {
                let state = first.iter_mut().zip(second);
                for ((value, &g), (m, v)) in values.iter_mut().zip(gradient).zip(state) {
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *value = *value * keep - rate * *m / (v.sqrt() / root + epsilon);
                }
            },
        );
    }
}
