//! ROUGE-L of a caption against several references.
//!
//! Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, 2004, as pycocoevalcap 1.2 computes it
//! (`rouge.py`):
//!
//! ```text
//! ROUGE-L = (1 + β²) P R / (R + β² P),  β = 1.2
//! P = max over references of |LCS| / |caption|,  R = max over references of |LCS| / |reference|
//! ```
//!
//! Precision and recall may come from different references. An empty caption counts as one empty token.

/// Recall counts β² times as much as precision.
const BETA: f64 = 1.2;

pub(super) fn rouge_l(caption: &[u32], references: &[&[u32]]) -> f64 {
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    for reference in references {
        let common = longest_common_subsequence(caption, reference) as f64;
        precision = precision.max(common / caption.len() as f64);
        recall = recall.max(common / reference.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    let square = BETA * BETA;
    (1.0 + square) * precision * recall / (recall + square * precision)
}

/// Length of the longest sequence that both hold in this order, with gaps.
fn longest_common_subsequence(first: &[u32], second: &[u32]) -> usize {
    let mut lengths = vec![0; second.len() + 1];
    for one in first {
        let mut diagonal = 0;
        for (at, other) in second.iter().enumerate() {
            let above = lengths[at + 1];
            lengths[at + 1] = if one == other { diagonal + 1 } else { above.max(lengths[at]) };
            diagonal = above;
        }
    }
    lengths[second.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_common_subsequence_may_have_gaps() {
        assert_eq!(longest_common_subsequence(&[1, 2, 3, 4, 1], &[3, 4, 1, 2, 1, 3]), 3);
        assert_eq!(longest_common_subsequence(&[1, 1], &[1]), 1);
        assert_eq!(longest_common_subsequence(&[], &[1]), 0);
    }

    #[test]
    fn rouge_l_maximises_precision_and_recall_over_references() {
        // P = 2/2 from the first, R = 1/1 from the second.
        assert!((rouge_l(&[1, 2], &[&[1, 2, 3, 4], &[1]]) - 1.0).abs() < 1e-12);
        // P = 1/2, R = 1/4: 2.44 · 0.125 / (0.25 + 0.72)
        assert!((rouge_l(&[1, 5], &[&[1, 2, 3, 4]]) - 0.305 / 0.97).abs() < 1e-12);
        assert!(rouge_l(&[1], &[&[2]]).abs() < 1e-12);
    }
}
