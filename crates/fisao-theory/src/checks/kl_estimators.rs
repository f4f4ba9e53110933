//! Checks of [`crate::kl_estimators`].

use crate::comparison::{Check, Facts, Origin, Topic};
use crate::estimate::mean_and_variance;
use crate::kl_estimators::{self, bernoulli_gradient, k2, k3, k3_loss_gradient};
use crate::random::Stream;

/// Samples per batch.
const SAMPLES: usize = 60_000;
/// Divergences along a curve, nats.
const DIVERGENCES: &[f64] = &[0.05, 0.1, 0.2, 0.3, 0.4];

const fn facts(name: &'static str, what: &'static str, formula: &'static str) -> Facts {
    Facts {
        name,
        topic: Topic::KlPenalty,
        what,
        formula,
        origin: Origin::Ours,
        source: "docs/src/theory.md; the estimators are Schulman's, http://joschu.net/blog/kl-approx.html",
        parameter: "κ, KL of policy and reference, nats",
        assumptions: &["the log-ratio of policy and reference is normal"],
    }
}

/// Log-ratio of N(Δ, 1) and N(0, 1) at a sample of the first, Δ = √(2κ).
fn log_ratio(divergence: f64, stream: &mut Stream) -> f64 {
    let delta = (2.0 * divergence).sqrt();
    delta * (delta + stream.normal()) - divergence
}

/// Mean and variance of a function of a log-ratio.
pub(super) fn moments(draw: impl FnMut() -> f64) -> (f64, f64) {
    mean_and_variance(SAMPLES, draw)
}

pub(super) fn k1_variance(seed: u64) -> Check {
    let facts = facts("k1-variance", "Variance of the estimator k1 = ℓ, which has no bias", "2κ");
    facts.check(seed, (DIVERGENCES, 2), kl_estimators::k1_variance, |x, stream| {
        moments(|| log_ratio(x, stream)).1
    })
}

pub(super) fn k2_bias(seed: u64) -> Check {
    let facts = facts("k2-bias", "Bias of the estimator k2 = ℓ²/2", "κ²/2");
    facts.check(seed, (&[0.1, 0.2, 0.4, 0.6, 0.8], 3), kl_estimators::k2_bias, |x, stream| {
        // k1 of the same samples removes most of the noise.
        moments(|| {
            let ratio = log_ratio(x, stream);
            k2(ratio) - ratio
        })
        .0
    })
}

pub(super) fn k3_variance(seed: u64) -> Check {
    let facts = facts(
        "k3-variance",
        "Variance of the estimator k3 = exp(−ℓ) − 1 + ℓ, which has no bias",
        "exp(2κ) − 1 − 2κ",
    );
    facts.check(seed, (DIVERGENCES, 2), kl_estimators::k3_variance, |x, stream| {
        moments(|| k3(log_ratio(x, stream))).1
    })
}

pub(super) fn k3_by_token(seed: u64) -> Check {
    let facts = Facts {
        parameter: "T, tokens that share a KL of 1 nat",
        ..facts(
            "k3-by-token",
            "Variance of k3 added over tokens: below k1's 2κ from two tokens on",
            "T (exp(2κ/T) − 1 − 2κ/T)",
        )
    };
    facts.check(
        seed,
        (&[4.0, 8.0, 12.0, 16.0, 24.0], 2),
        |tokens| kl_estimators::k3_variance_by_token(1.0, tokens),
        |tokens, stream| {
            let count = tokens as usize;
            let draw = || (0..count).map(|_| k3(log_ratio(1.0 / tokens, stream))).sum();
            mean_and_variance(SAMPLES / count, draw).1
        },
    )
}

/// Probability of the reference policy in [`k3_gradient`].
const REFERENCE: f64 = 0.5;

pub(super) fn k3_gradient(seed: u64) -> Check {
    let facts = Facts {
        parameter: "p, probability of the policy; the reference's is 0.5",
        origin: Origin::Known,
        source: "Tang & Munos, arXiv 2506.09477",
        assumptions: &["samples are constants of the loss"],
        ..facts(
            "k3-loss-gradient",
            "Gradient of k3 as a loss over the gradient of the KL: another direction's divergence",
            "(p − q)/(p (1 − p)(logit p − logit q))",
        )
    };
    facts.check(
        seed,
        (&[0.6, 0.7, 0.8, 0.9, 0.95], 3),
        |p| k3_loss_gradient(p, REFERENCE) / bernoulli_gradient(p, REFERENCE),
        |p, stream| {
            let (mut by_k3, mut by_k2) = (0.0, 0.0);
            for _ in 0..SAMPLES {
                let chosen = stream.happens(p);
                let ratio = if chosen { REFERENCE / p } else { (1.0 - REFERENCE) / (1.0 - p) };
                let score = f64::from(chosen) - p;
                by_k3 += (1.0 - ratio) * score;
                // k2's gradient, which has no bias.
                by_k2 -= ratio.ln() * score;
            }
            by_k3 / by_k2
        },
    )
}
