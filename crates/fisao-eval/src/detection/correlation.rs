//! Correlation of values and of ranks.

use super::mean_ranks;

/// With two pairs every correlation is 1 or −1, whatever the values.
const FEWEST_PAIRS: usize = 3;

/// Sums of a hundred million such values still have a number.
const LARGEST: f64 = 1e300;

/// Pearson's correlation:
///
/// ```text
/// r = Σ (x_i − x̄)(y_i − ȳ) / √( Σ (x_i − x̄)² · Σ (y_i − ȳ)² )        ∈ [−1, 1]
/// ```
///
/// `None` of fewer than three pairs, or where all of `x` or all of `y` are equal.
/// `scipy.stats.pearsonr`.
///
/// # Panics
/// If `x` and `y` differ in length or a value is NaN, infinite or beyond ±10³⁰⁰.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "a correlation is one of pairs");
    let (x, y) = (deviations(x)?, deviations(y)?);
    let sum_of_products = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // One root of the product rather than two roots: exactly 1 for a list and itself.
    let norms = (sum_of_products(&x, &x) * sum_of_products(&y, &y)).sqrt();
    // Rounding may lead a little past the ends.
    Some((sum_of_products(&x, &y) / norms).clamp(-1.0, 1.0))
}

/// Spearman's ρ, the correlation of ranks:
///
/// ```text
/// ρ = r( rank(x), rank(y) )        ∈ [−1, 1]
/// ```
///
/// with `r` of [`pearson`] and the ranks of [`mean_ranks`], in which equal values share their mean
/// rank. 1 if `y` rises wherever `x` does and ties wherever it does. `None` of fewer than three
/// pairs, or where all of `x` or all of `y` are equal. Values may be infinite.
/// `scipy.stats.spearmanr`.
///
/// # Panics
/// If `x` and `y` differ in length or a value is NaN.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "a correlation is one of pairs");
    pearson(&mean_ranks(x), &mean_ranks(y))
}

/// Deviations from the mean, the largest of them made 1 so that no square leaves the range of
/// numbers; `None` where there are too few or nothing deviates.
fn deviations(values: &[f64]) -> Option<Vec<f64>> {
    // False for NaN.
    let in_range = values.iter().all(|value| value.abs() <= LARGEST);
    assert!(in_range, "a value to correlate is NaN, infinite or beyond ±{LARGEST:e}");
    // Asked of the values, for the mean of equal ones may differ from them by rounding.
    let differ = values.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 0.0);
    if values.len() < FEWEST_PAIRS || !differ {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let largest = values.iter().map(|value| (value - mean).abs()).fold(0.0, f64::max);
    Some(values.iter().map(|value| (value - mean) / largest).collect())
}
