//! Whether probabilities come true.

/// Brier score, the mean squared error of probabilities:
///
/// ```text
/// B = 1/n Σ (p_i − y_i)²        ∈ [0, 1]
/// ```
///
/// with y = 1 where the outcome is true and 0 elsewhere. Lower is better; ½ for every probability
/// gives ¼. `None` of none. `sklearn.metrics.brier_score_loss`.
///
/// # Panics
/// If the lists differ in length or a probability is not in [0, 1].
pub fn brier(probabilities: &[f64], outcomes: &[bool]) -> Option<f64> {
    let errors = errors(probabilities, outcomes);
    let squares: f64 = errors.iter().map(|error| error * error).sum();
    (!errors.is_empty()).then(|| squares / errors.len() as f64)
}

/// Expected calibration error with B bins of equal width:
///
/// ```text
/// ECE = Σ_b n_b/n · | mean_{i∈b} p_i − mean_{i∈b} y_i |        ∈ [0, 1]
/// bin b = { i : (b−1)/B < p_i ≤ b/B }, b = 1 … B, and p_i = 0 in the first
/// ```
///
/// with y = 1 where the outcome is true and 0 elsewhere. `probabilities` are those of the outcome
/// itself, not of the likelier of two. Empty bins count nothing; lower is better, though 0 is also
/// reached by saying the fraction of true outcomes always. `None` of none. Naeini, Cooper &
/// Hauskrecht, *Obtaining Well Calibrated Probabilities Using Bayesian Binning*, 2015; bins of Guo
/// et al., *On Calibration of Modern Neural Networks*, 2017, and of
/// `sklearn.calibration.calibration_curve(strategy="uniform")`.
///
/// # Panics
/// If the lists differ in length, a probability is not in [0, 1] or there are no bins.
pub fn expected_calibration_error(
    probabilities: &[f64],
    outcomes: &[bool],
    bins: usize,
) -> Option<f64> {
    assert!(bins > 0, "a calibration error needs bins");
    let errors = errors(probabilities, outcomes);
    // Compared with rather than computed by ⌈p·B⌉, which rounding takes past a bound: 0.07 · 100 > 7.
    let bounds: Vec<f64> = (1..bins).map(|bin| bin as f64 / bins as f64).collect();
    let mut sums = vec![0.0_f64; bins];
    for (probability, error) in probabilities.iter().zip(&errors) {
        sums[bounds.partition_point(|bound| bound < probability)] += error;
    }
    // n_b cancels: it is in the weight and in both means.
    let sum: f64 = sums.iter().map(|sum| sum.abs()).sum();
    (!errors.is_empty()).then(|| sum / errors.len() as f64)
}

/// By how much every probability exceeds its outcome, `p_i − y_i`.
fn errors(probabilities: &[f64], outcomes: &[bool]) -> Vec<f64> {
    assert_eq!(probabilities.len(), outcomes.len(), "every probability has its outcome");
    let possible = probabilities.iter().all(|probability| (0.0..=1.0).contains(probability));
    assert!(possible, "a probability is not in [0, 1]");
    let pairs = probabilities.iter().zip(outcomes);
    pairs.map(|(probability, &outcome)| probability - f64::from(u8::from(outcome))).collect()
}
