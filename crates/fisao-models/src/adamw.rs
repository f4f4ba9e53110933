//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) in PyTorch's form.
//!
//! `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`,
//! `θ ← θ(1 − ηλ) − η · m̂ / (√v̂ + ε)` with `m̂ = m/(1−β₁ᵗ)`, `v̂ = v/(1−β₂ᵗ)`.
//!
//! Moments and the update are kept as plain f32 slices: the whole state can be saved and restored
//! bit for bit, and one pass over memory does the work of a dozen tensor operations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::parameters::{GradientMap, ParameterMut};

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
}

/// The optimiser with its state.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    config: AdamWConfig,
    /// Number of updates made.
    pub step: u64,
    /// Moments by parameter name.
    pub moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// An optimiser that has seen nothing.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, step: 0, moments: BTreeMap::new() }
    }

    /// Starts an update: counts it for the bias correction of all parameters.
    pub fn begin(&mut self) {
        self.step += 1;
    }

    /// Updates one parameter if `gradients` holds its name; it comes back frozen.
    pub fn apply(
        &mut self,
        name: &str,
        mut parameter: ParameterMut<'_>,
        gradients: &GradientMap,
        learning_rate: f64,
    ) {
        let Some(gradient) = gradients.get(name) else { return };
        let decays = matches!(parameter, ParameterMut::Matrix(_) | ParameterMut::Kernel(_));
        let decay = if decays { self.config.weight_decay } else { 0.0 };
        let mut values = parameter.values();
        let moments = self.moments.entry(name.to_owned()).or_insert_with(|| Moments {
            first: vec![0.0; values.len()],
            second: vec![0.0; values.len()],
        });
        update(&mut values, gradient, moments, &self.config, self.step, learning_rate, decay);
        parameter.set_values(values);
    }
}

fn update(
    values: &mut [f32],
    gradient: &[f32],
    moments: &mut Moments,
    config: &AdamWConfig,
    step: u64,
    learning_rate: f64,
    decay: f64,
) {
    let (beta1, beta2) = (config.beta1 as f32, config.beta2 as f32);
    let step = step as i32;
    let correction1 = 1.0 - config.beta1.powi(step);
    let correction2 = 1.0 - config.beta2.powi(step);
    let rate = (learning_rate / correction1) as f32;
    let root = correction2.sqrt() as f32;
    let epsilon = config.epsilon as f32;
    let keep = (1.0 - learning_rate * decay) as f32;
    let state = moments.first.iter_mut().zip(&mut moments.second);
    for ((value, &g), (m, v)) in values.iter_mut().zip(gradient).zip(state) {
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * g * g;
        *value = *value * keep - rate * *m / (v.sqrt() / root + epsilon);
    }
}
