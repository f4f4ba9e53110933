//! From token rewards and values to advantages.
//!
//! Generalised advantage estimation: Schulman et al. 2016, arXiv 1506.02438.

use serde::{Deserialize, Serialize};

/// Smallest standard deviation [`whiten`] divides by; below it the advantages are all the same
/// number and carry no ranking worth magnifying.
const SMALLEST_DEVIATION: f64 = 1e-8;

/// Advantages and returns of one response.
///
/// `δ_t = r_t + γ V_{t+1} − V_t`,  `A_t = δ_t + γ λ A_{t+1}`,  `G_t = A_t + V_t`,
/// for `t ∈ [0, T)` with `V_T = A_T = 0`.
///
/// The state after the last token is terminal whether the response stopped by itself or ran out
/// of budget: the length budget is part of the task and its breach is penalised by a reward on the
/// last token, so bootstrapping `V_T` from a truncated response would cancel that penalty. Where
/// bootstrapping is wanted, add `γ V_T` to the last reward.
///
/// * `rewards` — `r`, `[T]`, reward units.
/// * `values` — `V`, `[T]`, the critic's estimate at each token's state, reward units.
/// * `gamma` — `γ ∈ [0, 1]`.
/// * `lambda` — `λ ∈ [0, 1]`.
///
/// Returns `(A, G)`, each `[T]`.
pub fn gae(rewards: &[f32], values: &[f32], gamma: f64, lambda: f64) -> (Vec<f32>, Vec<f32>) {
    assert_eq!(rewards.len(), values.len(), "one value per reward");
    let mut advantages = vec![0.0; rewards.len()];
    let mut returns = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let value = f64::from(values[t]);
        let delta = f64::from(rewards[t]) + gamma * next_value - value;
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = value;
        advantages[t] = next_advantage as f32;
        returns[t] = (next_advantage + value) as f32;
    }
    (advantages, returns)
}

/// How the advantages of a batch are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WhitenMode {
    /// Leave them as they are.
    None,
    /// Divide by the standard deviation and keep the mean. Most tokens have no reward, and
    /// subtracting the mean would give each of them a sign it did not earn.
    #[default]
    Scale,
    /// Subtract the mean, then divide by the standard deviation: the usual form where every
    /// response carries one scalar reward.
    MeanAndScale,
}

/// What the advantages of a batch were before [`whiten`] changed them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Whitening {
    /// Mean over the real tokens of the batch, reward units.
    pub mean: f64,
    /// Standard deviation (biased: divided by N) over the same tokens, reward units.
    pub standard_deviation: f64,
}

/// Normalises the advantages of a whole batch in place, over all its real tokens at once.
///
/// * `advantages` — one row per response, each of its own length `[T_i]`. Pass the *whole* rollout
///   batch: statistics over a minibatch would make the update depend on how the batch was split.
///
/// Returns the statistics before the change; an empty batch gives zeros. Advantages that are all
/// alike are not divided.
pub fn whiten(advantages: &mut [Vec<f32>], mode: WhitenMode) -> Whitening {
    let tokens = || advantages.iter().flatten().map(|&a| f64::from(a));
    let count = tokens().count().max(1) as f64;
    let mean = tokens().sum::<f64>() / count;
    let variance = tokens().map(|a| (a - mean).powi(2)).sum::<f64>() / count;
    let standard_deviation = variance.sqrt();
    let (shift, scale) = match mode {
        WhitenMode::None => (0.0, 1.0),
        WhitenMode::Scale => (0.0, divisor(standard_deviation)),
        WhitenMode::MeanAndScale => (mean, divisor(standard_deviation)),
    };
    for advantage in advantages.iter_mut().flatten() {
        *advantage = ((f64::from(*advantage) - shift) / scale) as f32;
    }
    Whitening { mean, standard_deviation }
}

fn divisor(standard_deviation: f64) -> f64 {
    if standard_deviation < SMALLEST_DEVIATION { 1.0 } else { standard_deviation }
}
