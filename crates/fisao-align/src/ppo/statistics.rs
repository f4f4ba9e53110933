//! What an update did, accumulated over micro-batches so that the numbers do not depend on the cut.

use serde::{Deserialize, Serialize};

use super::divergence::{KlEstimator, guarded_log_ratio};
use super::losses::ClipRange;

/// Sums over the tokens a policy update has seen.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PolicyStatistics {
    tokens: usize,
    clipped: usize,
    divergence: f64,
    largest_ratio: f64,
    largest_gap: f64,
}

impl PolicyStatistics {
    /// Measures one micro-batch; the arguments are those of [`super::losses::policy_loss`].
    pub fn measure(
        log_probs: &[f32],
        old_log_probs: &[f32],
        advantages: &[f32],
        clip: ClipRange,
    ) -> Self {
        let mut statistics = Self { tokens: log_probs.len(), ..Self::default() };
        for ((&new, &old), &advantage) in log_probs.iter().zip(old_log_probs).zip(advantages) {
            let (new, old, advantage) = (f64::from(new), f64::from(old), f64::from(advantage));
            let log_ratio = guarded_log_ratio(new, old);
            let ratio = log_ratio.exp();
            statistics.clipped += usize::from(is_clipped(ratio, advantage, clip));
            // Tokens were drawn from the old policy, so this is KL(π_old‖π_θ).
            statistics.divergence += KlEstimator::K3.estimate(old, new);
            statistics.largest_ratio = largest(statistics.largest_ratio, ratio);
            statistics.largest_gap = largest(statistics.largest_gap, log_ratio.abs());
        }
        statistics
    }

    /// Adds the tokens of another micro-batch.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.clipped += other.clipped;
        self.divergence += other.divergence;
        self.largest_ratio = largest(self.largest_ratio, other.largest_ratio);
        self.largest_gap = largest(self.largest_gap, other.largest_gap);
    }

    /// Tokens seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Fraction of tokens whose gradient the clip removed, `[0, 1]`.
    pub fn clip_fraction(&self) -> f64 {
        self.clipped as f64 / self.tokens.max(1) as f64
    }

    /// Mean `KL(π_old‖π_θ)` per token by k3, nats: how far this update has gone.
    pub fn approx_kl(&self) -> f64 {
        self.divergence / self.tokens.max(1) as f64
    }

    /// Largest `π_θ/π_old` of any token; 0 where none was seen.
    pub fn ratio_max(&self) -> f64 {
        self.largest_ratio
    }

    /// Largest `|log π_θ − log π_old|`, nats. Before the first optimiser step of an iteration this
    /// is the disagreement between sampler and trainer, and must be numerical noise.
    pub fn log_ratio_max(&self) -> f64 {
        self.largest_gap
    }
}

/// Whether the clipped branch is the one that counts, so that the token has no gradient.
fn is_clipped(ratio: f64, advantage: f64, clip: ClipRange) -> bool {
    if advantage > 0.0 {
        ratio > 1.0 + clip.epsilon
    } else if advantage < 0.0 {
        ratio < 1.0 - clip.epsilon || clip.dual.is_some_and(|c| ratio > c)
    } else {
        false
    }
}

/// Maximum that keeps a NaN once met: `f64::max` would drop it and hide a broken token.
fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Sums over the tokens a value update has seen.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ValueStatistics {
    tokens: usize,
    clipped: usize,
    squared_error: f64,
}

impl ValueStatistics {
    /// Measures one micro-batch; the arguments are those of [`super::losses::value_loss`].
    pub fn measure(values: &[f32], old_values: &[f32], returns: &[f32], clip_range: f64) -> Self {
        let mut statistics = Self { tokens: values.len(), ..Self::default() };
        for ((&value, &old), &target) in values.iter().zip(old_values).zip(returns) {
            let (value, old, target) = (f64::from(value), f64::from(old), f64::from(target));
            statistics.clipped += usize::from((value - old).abs() > clip_range);
            statistics.squared_error += (value - target).powi(2);
        }
        statistics
    }

    /// Adds the tokens of another micro-batch.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.clipped += other.clipped;
        self.squared_error += other.squared_error;
    }

    /// Fraction of tokens whose value left `V_old ± ε_v`, `[0, 1]`.
    pub fn clip_fraction(&self) -> f64 {
        self.clipped as f64 / self.tokens.max(1) as f64
    }

    /// Mean unclipped squared error, reward units squared.
    pub fn mean_squared_error(&self) -> f64 {
        self.squared_error / self.tokens.max(1) as f64
    }
}

/// How much of the returns' variance the critic explains: `1 − Var(G − V) / Var(G)`.
///
/// 1 is perfect, 0 no better than a constant, negative worse. `None` where the returns do not vary.
///
/// * `values` — `V`, `[N]`, reward units.
/// * `returns` — `G`, `[N]`, reward units.
pub fn explained_variance(values: &[f32], returns: &[f32]) -> Option<f64> {
    assert_eq!(values.len(), returns.len(), "one return per value");
    let residuals = values.iter().zip(returns).map(|(&v, &g)| f64::from(g) - f64::from(v));
    let total = variance(returns.iter().map(|&g| f64::from(g)));
    (total > 0.0).then(|| 1.0 - variance(residuals) / total)
}

fn variance(samples: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = samples.clone().count().max(1) as f64;
    let mean = samples.clone().sum::<f64>() / count;
    samples.map(|x| (x - mean).powi(2)).sum::<f64>() / count
}
