//! Learning rates as a pure function of the iteration.

use serde::{Deserialize, Serialize};

/// Shape of the learning rate after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Schedule {
    /// Stays at its full value.
    Constant,
    /// Falls in a straight line towards zero.
    #[default]
    Linear,
    /// Falls along half a cosine towards zero.
    Cosine,
}

impl Schedule {
    /// Factor on the learning rate, in `(0, 1]`, for `step ∈ [0, steps)`.
    ///
    /// Warm-up: `(step + 1) / (warmup + 1)`, so that no step is wasted on a rate of zero. After it,
    /// with `u = (step − warmup) / (steps − warmup)`: `1`, `1 − u` or `½ (1 + cos π u)`. Past the last
    /// step the factor is that of the last step.
    ///
    /// * `step` — steps done so far.
    /// * `steps` — steps planned.
    /// * `warmup` — steps of linear warm-up, fewer than `steps`.
    pub fn factor(self, step: usize, steps: usize, warmup: usize) -> f64 {
        let step = step.min(steps.saturating_sub(1));
        if step < warmup {
            return (step + 1) as f64 / (warmup + 1) as f64;
        }
        let progress = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - progress,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

/// The learning rates of one iteration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRates {
    /// For the adapter; 0 while only the critic is trained.
    pub policy: f64,
    /// For the value head.
    pub value: f64,
}
