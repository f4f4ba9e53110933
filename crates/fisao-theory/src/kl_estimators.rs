//! Estimators of KL(π‖π_ref) from samples of π: k1, k2, k3 of Schulman, *Approximating KL Divergence*, 2020
//! (<http://joschu.net/blog/kl-approx.html>).
//!
//! With ℓ = log π(x) − log π_ref(x), x ~ π:
//!
//! ```text
//! k1 = ℓ          k2 = ℓ²/2          k3 = exp(−ℓ) − 1 + ℓ
//! ```
//!
//! For π = N(Δ, 1) and π_ref = N(0, 1), κ = KL = Δ²/2 and ℓ ~ N(κ, 2κ), which gives every moment below. The estimators and their
//! behaviour are known; these expressions are ours.

/// Var k1 = 2κ, κ ≥ 0; k1 has no bias.
pub fn k1_variance(divergence: f64) -> f64 {
    2.0 * divergence
}

/// E k2 − κ = κ²/2.
pub fn k2_bias(divergence: f64) -> f64 {
    0.5 * divergence.powi(2)
}

/// Var k2 = 2κ² + 2κ³.
pub fn k2_variance(divergence: f64) -> f64 {
    2.0 * divergence.powi(2) * (1.0 + divergence)
}

/// Var k3 = exp(2κ) − 1 − 2κ; k3 has no bias. 2κ² for small κ, above that of k1 from κ = 0.628 on.
pub fn k3_variance(divergence: f64) -> f64 {
    (2.0 * divergence).exp_m1() - 2.0 * divergence
}

/// Variance of k3 added over T tokens that share a divergence κ equally: T (exp(2κ/T) − 1 − 2κ/T). k1's stays 2κ.
pub fn k3_variance_by_token(divergence: f64, tokens: f64) -> f64 {
    tokens * k3_variance(divergence / tokens)
}

/// d KL/dθ of a Bernoulli policy with probability p = σ(θ), reference q: p (1 − p)(logit p − logit q). A loss with k2, or a
/// reward with k1, has this gradient on average.
pub fn bernoulli_gradient(p: f64, q: f64) -> f64 {
    p * (1.0 - p) * (crate::rewards::logit(p) - crate::rewards::logit(q))
}

/// E ∂k3/∂θ where k3 is a loss and samples are constants: E\[(1 − π_ref/π) ∂ log π\] = p − q, the gradient of KL(π_ref‖π), the other
/// direction (Tang & Munos, arXiv 2506.09477).
pub fn k3_loss_gradient(p: f64, q: f64) -> f64 {
    p - q
}

/// k3 of a log-ratio.
pub fn k3(log_ratio: f64) -> f64 {
    (-log_ratio).exp_m1() + log_ratio
}

/// k2 of a log-ratio.
pub fn k2(log_ratio: f64) -> f64 {
    0.5 * log_ratio * log_ratio
}
