//! What a KL penalty does to the optimum: the exponential tilt.
//!
//! ```text
//! max_π E_π r − β KL(π‖π_ref)   ⇒   π*(y) = π_ref(y) exp(r(y)/β)/Z,    KL(π*‖π_ref) = E_π* r/β − log Z
//! ```
//!
//! Known: Ziebart 2010; Korbak et al., arXiv 2205.11275; Rafailov et al., arXiv 2305.18290. β > 0 in reward units per nat.

use crate::rewards::{logit, sigmoid};

/// KL of the optimum where rewards of the reference's responses are N(m, s²): s²/(2β²). The optimum's mean reward is
/// m + s²/β, so that KL = ½ (gain/s)²: what a gain costs does not depend on β.
pub fn gaussian_divergence(reward_deviation: f64, beta: f64) -> f64 {
    0.5 * (reward_deviation / beta).powi(2)
}

/// By how much the optimum's mean reward exceeds the reference's: s²/β.
pub fn gaussian_gain(reward_deviation: f64, beta: f64) -> f64 {
    reward_deviation.powi(2) / beta
}

/// Probability with which the optimum names an object that the reference names with probability p in (0, 1), where naming is right with
/// probability `precision` and pays z − q*: logit p* = logit p + (`precision` − q*)/β.
pub fn naming_probability(reference: f64, (precision, break_even): (f64, f64), beta: f64) -> f64 {
    sigmoid(logit(reference) + (precision - break_even) / beta)
}

/// KL between two Bernoulli distributions, nats; both in (0, 1).
pub fn bernoulli_divergence(p: f64, q: f64) -> f64 {
    p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln()
}
