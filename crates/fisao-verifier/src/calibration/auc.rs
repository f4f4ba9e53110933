//! Area under the ROC curve.

/// Exact AUC of a detector, the Mann–Whitney statistic:
///
/// ```text
/// AUC = (1 / n₊n₋) Σ_{i∈+} Σ_{j∈−} ( [s_i > s_j] + ½ [s_i = s_j] )
///     = (Σ_{i∈+} rank(s_i) − n₊(n₊+1)/2) / n₊n₋          (ties share their mean rank)
/// ```
///
/// computed from ranks in O(n log n). `positive` are the n₊ scores that should be high, `negative`
/// the n₋ that should be low; ½ when either is empty. Scores must not be NaN.
pub fn auc(positive: &[f64], negative: &[f64]) -> f64 {
    if positive.is_empty() || negative.is_empty() {
        return 0.5;
    }
    let labelled = |scores: &[f64], label: bool| {
        // Adding 0 makes −0 the same score as 0 in the total order below.
        scores.iter().map(move |score| (score + 0.0, label)).collect::<Vec<_>>()
    };
    let mut ranked = labelled(positive, true);
    ranked.extend(labelled(negative, false));
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));

    let mut rank_sum = 0.0;
    let mut before = 0;
    for tied in ranked.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let mean_rank = before as f64 + f64::midpoint(tied.len() as f64, 1.0);
        rank_sum += mean_rank * tied.iter().filter(|(_, is_positive)| *is_positive).count() as f64;
        before += tied.len();
    }
    let (n, m) = (positive.len() as f64, negative.len() as f64);
    (rank_sum - n * (n + 1.0) / 2.0) / (n * m)
}
