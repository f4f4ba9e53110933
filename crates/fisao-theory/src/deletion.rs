//! What a verifier allows by deleting words: every mention whose score lies below a threshold goes.
//!
//! Binormal scores; the formulas are the ROC curve read from its low end (Green & Swets 1966), their use is ours.

use crate::normal::{cumulative, quantile};

/// Fraction of the hallucinated mentions that goes when a fraction `lost` in (0, 1) of the correct ones does:
///
/// ```text
/// h = Φ(Φ⁻¹(lost) + d′)
/// ```
pub fn removed(d_prime: f64, lost: f64) -> f64 {
    removed_unequal(d_prime, 1.0, lost)
}

/// The same where the scores of hallucinated mentions spread `spread` > 0 times as widely as those of correct ones, and d′ is in standard
/// deviations of the latter: h = Φ((Φ⁻¹(lost) + d′)/`spread`).
pub fn removed_unequal(d_prime: f64, spread: f64, lost: f64) -> f64 {
    cumulative((quantile(lost) + d_prime) / spread)
}

/// `CHAIR_I` afterwards of a model that had `chair` in (0, 1): (1 − h) C/((1 − h) C + (1 − lost)(1 − C)). Recall falls by the
/// fraction `lost`.
pub fn chair_after(chair: f64, lost: f64, removed: f64) -> f64 {
    let (wrong, right) = ((1.0 - removed) * chair, (1.0 - lost) * (1.0 - chair));
    wrong / (wrong + right)
}

/// d′ that removes a fraction of the hallucinated mentions at the cost of a fraction `lost` of the correct ones:
/// Φ⁻¹(removed) − Φ⁻¹(lost).
pub fn d_prime_needed(removed: f64, lost: f64) -> f64 {
    quantile(removed) - quantile(lost)
}
