//! Distance from the reference: estimators of `KL(π_θ‖π_ref)` and the control of its penalty β.
//!
//! Estimators: Schulman, "Approximating KL divergence" (2020). Controller: Ziegler et al. 2019,
//! arXiv 1909.08593, §2.2.

use serde::{Deserialize, Serialize};

use super::config::{KlConfig, KlControllerKind};

/// Log-ratios are clamped to `±LOG_RATIO_LIMIT` nats before anything is exponentiated. `e^20 ≈ 5·10⁸`
/// is still far inside f32; a token beyond it is broken anyway and must not turn the batch into
/// infinities.
pub const LOG_RATIO_LIMIT: f64 = 20.0;

/// Largest relative distance from the target the adaptive controller reacts to (Ziegler et al.).
const LARGEST_PROPORTIONAL_ERROR: f64 = 0.2;

/// Single-sample estimators of `KL(p‖q)` from `x ~ p`, with `ℓ = log p(x) − log q(x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KlEstimator {
    /// `ℓ`. Unbiased, high variance, may be negative. The one that belongs into the reward.
    K1,
    /// `½ ℓ²`. Biased as a value, low variance; as a *loss* its gradient equals that of k1 in the
    /// reward.
    K2,
    /// `e^{−ℓ} − 1 + ℓ`. Unbiased and never negative: the one to report. Biased in a reward.
    K3,
}

impl KlEstimator {
    /// The estimate for one token.
    ///
    /// * `log_p`, `log_q` — log-probabilities of the sampled token, nats.
    pub fn estimate(self, log_p: f64, log_q: f64) -> f64 {
        let log_ratio = guarded_log_ratio(log_p, log_q);
        match self {
            Self::K1 => log_ratio,
            Self::K2 => 0.5 * log_ratio * log_ratio,
            // exp_m1 keeps the digits where policy and reference nearly agree.
            Self::K3 => (-log_ratio).exp_m1() + log_ratio,
        }
    }

    /// Sum of the estimates over the tokens of one response: nats per response.
    ///
    /// * `log_probs`, `reference_log_probs` — `[T]`, nats.
    pub fn sum(self, log_probs: &[f32], reference_log_probs: &[f32]) -> f64 {
        assert_eq!(log_probs.len(), reference_log_probs.len(), "one reference per token");
        log_probs
            .iter()
            .zip(reference_log_probs)
            .map(|(&p, &q)| self.estimate(p.into(), q.into()))
            .sum()
    }
}

/// `log p − log q`, clamped to `±`[`LOG_RATIO_LIMIT`]. A NaN stays a NaN, so that it is noticed.
pub fn guarded_log_ratio(log_p: f64, log_q: f64) -> f64 {
    (log_p - log_q).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
}

/// Token rewards with the KL penalty: `r_t − β (log π_old(y_t) − log π_ref(y_t))`.
///
/// k1, because in the reward it is the only one of the three whose gradient is that of the KL
/// (arXiv 2512.21852).
///
/// * `rewards` — `[T]`, reward units.
/// * `log_probs` — under the policy that sampled, `[T]`, nats.
/// * `reference_log_probs` — under the reference, `[T]`, nats.
/// * `beta` — β, reward units per nat.
pub fn token_rewards_with_kl(
    rewards: &[f32],
    log_probs: &[f32],
    reference_log_probs: &[f32],
    beta: f64,
) -> Vec<f32> {
    assert_eq!(rewards.len(), log_probs.len(), "one log-probability per reward");
    assert_eq!(rewards.len(), reference_log_probs.len(), "one reference per reward");
    (0..rewards.len())
        .map(|t| {
            let log_p = f64::from(log_probs[t]);
            let log_q = f64::from(reference_log_probs[t]);
            (f64::from(rewards[t]) - beta * KlEstimator::K1.estimate(log_p, log_q)) as f32
        })
        .collect()
}

/// The KL penalty β and how it follows the measured KL; its fields are its whole state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum KlController {
    /// β never changes.
    Fixed {
        /// β, reward units per nat.
        coefficient: f64,
    },
    /// β rises while the KL is above target and falls while it is below.
    Adaptive {
        /// Current β, reward units per nat.
        coefficient: f64,
        /// Wanted KL, nats per response.
        target: f64,
        /// Responses over which a constant error of +20 % multiplies β by about `e^0.2`.
        horizon: f64,
    },
}

impl KlController {
    /// The controller at the start of a run.
    pub fn new(config: &KlConfig) -> Self {
        match config.controller {
            KlControllerKind::Fixed => Self::Fixed { coefficient: config.coefficient },
            KlControllerKind::Adaptive => Self::Adaptive {
                coefficient: config.coefficient,
                target: config.target,
                horizon: config.horizon,
            },
        }
    }

    /// Current β, reward units per nat.
    pub fn coefficient(&self) -> f64 {
        match self {
            Self::Fixed { coefficient } | Self::Adaptive { coefficient, .. } => *coefficient,
        }
    }

    /// Reacts to one iteration's KL.
    ///
    /// `e = clip(KL/target − 1, −0.2, 0.2)`,  `β ← β (1 + e · min(n/horizon, 1))`.
    ///
    /// The last factor is bounded because a batch larger than five horizons would otherwise turn
    /// β negative. A KL that is not a number leaves β alone.
    ///
    /// * `kl` — mean over the iteration's responses of the KL summed over tokens, nats.
    /// * `responses` — `n`, how many responses that mean is over.
    pub fn update(&mut self, kl: f64, responses: usize) {
        if let Self::Adaptive { coefficient, target, horizon } = self
            && kl.is_finite()
        {
            let error =
                (kl / *target - 1.0).clamp(-LARGEST_PROPORTIONAL_ERROR, LARGEST_PROPORTIONAL_ERROR);
            *coefficient *= 1.0 + error * (responses as f64 / *horizon).min(1.0);
        }
    }
}
