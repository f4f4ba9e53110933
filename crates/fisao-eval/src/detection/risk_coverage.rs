//! What is gained by leaving the least confident answers out.

use serde::{Deserialize, Serialize};

use super::ranks::tied_from_the_highest;

/// Fraction of wrong answers among the most confident, by how many of them are kept.
///
/// Geifman & El-Yaniv, *Selective Classification for Deep Neural Networks*, 2017:
///
/// ```text
/// risk(k/n) = W(k) / k        W(k) = wrong ones among the k most confident of n answers
/// ```
///
/// Answers of one confidence are one step. Where k ends within it, W(k) is the expectation over
/// all their orders: of m tied answers with w wrong, each counts w/m.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RiskCoverage {
    /// Nothing at all, then what is kept down to each confidence.
    kept: Vec<KeptCounts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeptCounts {
    answers: usize,
    wrong: usize,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskPoint {
    /// Fraction of answers that is kept, above 0 and at most 1.
    pub coverage: f64,
    /// Fraction of wrong ones among those kept, from 0 to 1.
    pub risk: f64,
}

impl RiskCoverage {
    /// Of answers as (confidence, correct), in any unit in which more is surer and in any order;
    /// `None` of none.
    ///
    /// # Panics
    /// If one of several confidences is NaN.
    pub fn of(answers: &[(f64, bool)]) -> Option<Self> {
        let tied = tied_from_the_highest(answers.iter().map(|&(score, right)| (score, !right)));
        Self::of_counts(tied.into_iter().map(|tied| (tied.count, tied.marked)))
    }

    /// Of (answers, wrong ones among them) by confidence, from the highest down, none of them without
    /// answers; `None` of none.
    pub(super) fn of_counts(counts: impl IntoIterator<Item = (usize, usize)>) -> Option<Self> {
        let mut all = KeptCounts { answers: 0, wrong: 0 };
        let mut kept = vec![all];
        for (answers, wrong) in counts {
            all = KeptCounts { answers: all.answers + answers, wrong: all.wrong + wrong };
            kept.push(all);
        }
        (kept.len() > 1).then_some(Self { kept })
    }

    /// Area under the curve, the mean of the risks at all n coverages:
    ///
    /// ```text
    /// AURC = 1/n Σ_{k=1}^{n} risk(k/n)        ∈ [0, 1]
    /// ```
    ///
    /// Lower is better. The expectation over the orders of ties, so that one confidence for all
    /// gives the fraction of wrong answers, as does chance. It is not 0 for a perfect order unless all
    /// answers are right, so that only areas over the same answers compare. Named in Geifman, Uziel
    /// & El-Yaniv, *Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers*, 2019.
    pub fn aurc(&self) -> f64 {
        let of_step = |step: &[KeptCounts]| -> f64 {
            let within = step[0].answers + 1..=step[1].answers;
            within.map(|k| wrong_within(step, k as f64) / k as f64).sum()
        };
        self.kept.windows(2).map(of_step).sum::<f64>() / self.answers()
    }

    /// Risk where the fraction `coverage` of answers is kept, W(k)/k at k = coverage · n; between whole
    /// k, W runs straight, so that rounding of k never takes in another answer. Below the first
    /// confidence's step it is that step's risk. `None` unless 0 < `coverage` ≤ 1.
    pub fn risk_at(&self, coverage: f64) -> Option<f64> {
        if !(coverage > 0.0 && coverage <= 1.0) {
            return None;
        }
        let k = coverage * self.answers();
        let end = self.kept.partition_point(|kept| (kept.answers as f64) < k);
        let risk = wrong_within(&self.kept[end - 1..=end], k) / k;
        Some(risk.clamp(0.0, 1.0))
    }

    /// At most `count` points for a plot, evenly spaced in coverage and ending with all answers; all
    /// n of the curve where they are no more than that.
    pub fn points(&self, count: usize) -> Vec<RiskPoint> {
        let count = count.min(self.answers() as usize);
        let coverages = (1..=count).map(|at| at as f64 / count as f64);
        coverages
            .filter_map(|coverage| Some(RiskPoint { coverage, risk: self.risk_at(coverage)? }))
            .collect()
    }

    /// n
    fn answers(&self) -> f64 {
        self.kept.last().map_or(0.0, |all| all.answers as f64)
    }
}

/// W(k) for a `k` within a step, given by what is kept before it and after it.
fn wrong_within(step: &[KeptCounts], k: f64) -> f64 {
    let [before, after] = [step[0], step[1]];
    let fraction = (after.wrong - before.wrong) as f64 / (after.answers - before.answers) as f64;
    before.wrong as f64 + (k - before.answers as f64) * fraction
}
