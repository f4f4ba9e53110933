//! The normal distribution, and the AUC of two of them.

use std::f64::consts::{PI, SQRT_2};

use statrs::distribution::{ContinuousCDF as _, Normal};

/// Standard deviations to either side that an expectation covers.
const REACH: f64 = 10.0;

/// Steps of an expectation. The trapezoidal rule converges faster than any power of the step for such integrands.
const STEPS: i32 = 2000;

/// φ(x) = exp(−x²/2)/√(2π).
pub fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

/// Φ(x), probability that a standard normal variable is below x.
pub fn cumulative(x: f64) -> f64 {
    Normal::standard().cdf(x)
}

/// Φ⁻¹(p), p in (0, 1).
pub fn quantile(p: f64) -> f64 {
    assert!(0.0 < p && p < 1.0, "a quantile is of a probability between 0 and 1, not of {p}");
    Normal::standard().inverse_cdf(p)
}

/// AUC of two unit normal distributions whose means are d′ apart: Φ(d′/√2).
///
/// Source: Green & Swets, *Signal Detection Theory and Psychophysics*, 1966.
pub fn auc(d_prime: f64) -> f64 {
    cumulative(d_prime / SQRT_2)
}

/// d′ = √2 Φ⁻¹(AUC), AUC in (0, 1).
pub fn d_prime(auc: f64) -> f64 {
    SQRT_2 * quantile(auc)
}

/// E f(x) for x ~ N(mean, 1), f smooth and of at most exponential growth.
pub fn expectation(mean: f64, f: impl Fn(f64) -> f64) -> f64 {
    let step = REACH / f64::from(STEPS / 2);
    let points = (-STEPS / 2..=STEPS / 2).map(|index| f64::from(index) * step);
    step * points.map(|x| density(x) * f(mean + x)).sum::<f64>()
}
