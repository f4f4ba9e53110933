//! The losses of proximal policy optimisation (arXiv 1707.06347, eq. 7), per token.
//!
//! Every loss exists twice: as a scalar function of `f64`, which is the definition, and on burn
//! tensors, which is what is differentiated. Tensor losses are *sums over real tokens divided by a
//! normaliser the caller names* (the token count of the whole minibatch): a mean taken inside a
//! micro-batch would weigh tokens by how the minibatch happened to be cut.

use burn::tensor::{Tensor, activation::log_softmax};

use super::divergence::{LOG_RATIO_LIMIT, guarded_log_ratio};
use super::statistics::{PolicyStatistics, ValueStatistics};

/// How far the policy may move before the surrogate stops paying for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipRange {
    /// ε: the ratio is clipped to `[1 − ε, 1 + ε]`.
    pub epsilon: f64,
    /// Dual clip `c > 1` (Ye et al. 2020, arXiv 1912.09729): bounds the loss of a token with
    /// negative advantage by `−c A`, however large its ratio grew.
    pub dual: Option<f64>,
}

/// Loss of one token: `−min(ρ A, clip(ρ, 1−ε, 1+ε) A)`, and for `A < 0` with a dual clip the lesser of
/// that and `−c A`.
///
/// * `log_ratio` — `log ρ = log π_θ(y_t) − log π_old(y_t)`, nats.
/// * `advantage` — `A_t`.
pub fn policy_term(log_ratio: f64, advantage: f64, clip: ClipRange) -> f64 {
    let ratio = guarded_log_ratio(log_ratio, 0.0).exp();
    let clipped = ratio.clamp(1.0 - clip.epsilon, 1.0 + clip.epsilon);
    let surrogate = (ratio * advantage).min(clipped * advantage);
    match clip.dual {
        Some(c) if advantage < 0.0 => -surrogate.max(c * advantage),
        _ => -surrogate,
    }
}

/// Loss of one value estimate: `½ max((V − G)², (V_old + clip(V − V_old, −ε_v, ε_v) − G)²)`.
///
/// * `value` — `V`, reward units.
/// * `old_value` — `V_old`, the estimate the advantages were computed with.
/// * `target` — `G`, the return.
/// * `clip_range` — `ε_v`, reward units.
pub fn value_term(value: f64, old_value: f64, target: f64, clip_range: f64) -> f64 {
    let clipped = old_value + (value - old_value).clamp(-clip_range, clip_range);
    0.5 * (value - target).powi(2).max((clipped - target).powi(2))
}

/// Entropy of one categorical distribution: `−Σ p log p`, nats.
///
/// * `logits` — unnormalised log-probabilities, `[V]`.
pub fn entropy_term(logits: &[f64]) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = largest + logits.iter().map(|l| (l - largest).exp()).sum::<f64>().ln();
    -logits.iter().map(|l| (l - log_sum).exp() * (l - log_sum)).sum::<f64>()
}

/// Clipped surrogate loss of a micro-batch, [`policy_term`] summed over its tokens and divided by
/// `normaliser`.
///
/// * `log_probs` — `log π_θ`, tracked, `[N]`, nats.
/// * `old_log_probs` — `log π_old`, `[N]`, nats.
/// * `advantages` — `A`, `[N]`, whitened over the batch beforehand.
/// * `normaliser` — real tokens of the whole minibatch (not of this micro-batch).
///
/// Returns the loss `[1]` and what the tokens of this micro-batch did.
pub fn policy_loss(
    log_probs: Tensor<1>,
    old_log_probs: &[f32],
    advantages: &[f32],
    clip: ClipRange,
    normaliser: f64,
) -> (Tensor<1>, PolicyStatistics) {
    let [tokens] = log_probs.dims();
    assert_eq!(old_log_probs.len(), tokens, "one old log-probability per token");
    assert_eq!(advantages.len(), tokens, "one advantage per token");
    assert!(normaliser > 0.0, "normaliser must be positive, not {normaliser}");
    let statistics =
        PolicyStatistics::measure(&values_of(&log_probs), old_log_probs, advantages, clip);

    let device = log_probs.device();
    let old = Tensor::<1>::from_data(old_log_probs, &device);
    let advantage = Tensor::<1>::from_data(advantages, &device);
    let ratio = (log_probs - old).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp();
    let clipped = ratio.clone().clamp(1.0 - clip.epsilon, 1.0 + clip.epsilon);
    let mut surrogate = (ratio * advantage.clone()).min_pair(clipped * advantage.clone());
    if let Some(c) = clip.dual {
        let bounded = surrogate.clone().max_pair(advantage.clone() * c);
        surrogate = surrogate.mask_where(advantage.lower_elem(0.0), bounded);
    }
    (surrogate.sum() * (-1.0 / normaliser), statistics)
}

/// Clipped value loss of a micro-batch, [`value_term`] summed over its tokens and divided by
/// `normaliser`.
///
/// * `values` — `V`, tracked, `[N]`, reward units.
/// * `old_values` — `V_old`, `[N]`.
/// * `returns` — `G`, `[N]`.
/// * `clip_range` — `ε_v`, reward units.
/// * `normaliser` — real tokens of the whole minibatch.
///
/// Returns the loss `[1]` and the errors of this micro-batch.
pub fn value_loss(
    values: Tensor<1>,
    old_values: &[f32],
    returns: &[f32],
    clip_range: f64,
    normaliser: f64,
) -> (Tensor<1>, ValueStatistics) {
    let [tokens] = values.dims();
    assert_eq!(old_values.len(), tokens, "one old value per token");
    assert_eq!(returns.len(), tokens, "one return per token");
    assert!(normaliser > 0.0, "normaliser must be positive, not {normaliser}");
    let statistics = ValueStatistics::measure(&values_of(&values), old_values, returns, clip_range);

    let device = values.device();
    let old = Tensor::<1>::from_data(old_values, &device);
    let target = Tensor::<1>::from_data(returns, &device);
    let clipped = old.clone() + (values.clone() - old).clamp(-clip_range, clip_range);
    let error = (values - target.clone()).square().max_pair((clipped - target).square());
    (error.sum() * (0.5 / normaliser), statistics)
}

/// Entropy of the policy at each token, [`entropy_term`] per row.
///
/// # Shapes
/// `logits` `[N, V]` → `[N]`, nats
pub fn entropy(logits: Tensor<2>) -> Tensor<1> {
    let log_probs = log_softmax(logits, 1);
    let [tokens, _] = log_probs.dims();
    -(log_probs.clone().exp() * log_probs).sum_dim(1).reshape([tokens])
}

fn values_of(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}
