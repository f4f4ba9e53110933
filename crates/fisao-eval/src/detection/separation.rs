//! How well scores tell two classes apart.

use super::mean_ranks;
use super::ranks::tied_from_the_highest;

/// Area under the ROC curve, the probability that a positive scores above a negative:
///
/// ```text
/// AUC = 1/(n₊n₋) Σ_{i∈+} Σ_{j∈−} ( [s_i > s_j] + ½ [s_i = s_j] )        ∈ [0, 1]
///     = ( Σ_{i∈+} rank(s_i) − n₊(n₊+1)/2 ) / (n₊n₋)
/// ```
///
/// the statistic of Mann and Whitney, exact, with the ranks of [`mean_ranks`]. `positive` are the
/// n₊ scores that should be high, `negative` the n₋ that should be low; ½ is chance, and what a tie
/// counts. `None` where either is empty. `sklearn.metrics.roc_auc_score`.
///
/// # Panics
/// If a score is NaN.
pub fn roc_auc(positive: &[f64], negative: &[f64]) -> Option<f64> {
    if positive.is_empty() || negative.is_empty() {
        return None;
    }
    let ranks = mean_ranks(&[positive, negative].concat());
    let (n, m) = (positive.len() as f64, negative.len() as f64);
    let sum: f64 = ranks[..positive.len()].iter().sum();
    Some((sum - n * (n + 1.0) / 2.0) / (n * m))
}

/// Average precision, the area under the steps of precision over recall:
///
/// ```text
/// AP = Σ_t (R_t − R_{t−1}) P_t        ∈ (0, 1]
/// P_t = #{+ with s ≥ t} / #{s ≥ t}        R_t = #{+ with s ≥ t} / n₊        R₀ = 0
/// ```
///
/// over the distinct scores t from the highest down: equal scores are one threshold, which takes
/// all of them in at once, and nothing is interpolated. `positive` are the n₊ scores that should be
/// high, `negative` those that should be low. Chance is the fraction of positives, not ½. 1 without
/// negatives, `None` without positives. `sklearn.metrics.average_precision_score`, which says 0
/// where there are no positives.
///
/// # Panics
/// If a score is NaN.
pub fn average_precision(positive: &[f64], negative: &[f64]) -> Option<f64> {
    if positive.is_empty() {
        return None;
    }
    let labelled = |scores: &[f64], label| scores.iter().map(|&score| (score, label)).collect();
    let scores: [Vec<(f64, bool)>; 2] = [labelled(positive, true), labelled(negative, false)];

    let (mut found, mut taken, mut sum) = (0, 0, 0.0);
    for tied in tied_from_the_highest(scores.concat()) {
        found += tied.marked;
        taken += tied.count;
        sum += tied.marked as f64 * (found as f64 / taken as f64);
    }
    Some(sum / positive.len() as f64)
}
