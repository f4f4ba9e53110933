//! A detector at every threshold.

use serde::{Deserialize, Serialize};

use super::ranks::tied_from_the_highest;
use super::risk_coverage::RiskCoverage;

/// Items of one score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The score, −∞ where there is none.
    pub score: f64,
    /// Items to be found, of this score.
    pub positive: usize,
    /// Other items of this score.
    pub negative: usize,
}

/// A threshold and what comes of taking every item that scores as much or more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// The lowest score that is taken.
    pub threshold: f64,
    /// 2PR / (P + R).
    pub f1: f64,
    /// Fraction of positives among those taken.
    pub precision: f64,
    /// Fraction of positives that are taken.
    pub recall: f64,
}

/// Scores of items, counted once so that all measures of them take one pass.
///
/// An item without a score has −∞: it ranks below all others, together with its like, and no
/// threshold takes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sweep {
    /// By score, from the highest down; no score twice.
    steps: Vec<Step>,
}

impl Sweep {
    /// Of items as (score, whether it is to be found), in any order. −0 equals 0.
    ///
    /// # Panics
    /// If one of several scores is NaN.
    pub fn of(items: impl IntoIterator<Item = (f64, bool)>) -> Self {
        let steps = tied_from_the_highest(items).into_iter().map(|tied| Step {
            score: tied.score,
            positive: tied.marked,
            negative: tied.count - tied.marked,
        });
        Self { steps: steps.collect() }
    }

    /// Of counts by score, from the highest down; steps without items are left out.
    ///
    /// # Panics
    /// If scores do not fall from step to step.
    pub fn of_steps(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = steps.into_iter().filter(|step| step.positive + step.negative > 0);
        let steps: Vec<Step> = steps.collect();
        assert!(steps.windows(2).all(|pair| pair[0].score > pair[1].score), "scores fall");
        Self { steps }
    }

    /// Items by score, from the highest down.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// n₊
    pub fn positive(&self) -> usize {
        self.steps.iter().map(|step| step.positive).sum()
    }

    /// n₋
    pub fn negative(&self) -> usize {
        self.steps.iter().map(|step| step.negative).sum()
    }

    /// Area under the ROC curve, as [`roc_auc`](super::roc_auc), from counts:
    ///
    /// ```text
    /// AUC = 1/(n₊n₋) Σ_t p_t ( n₋(s < t) + n_t / 2 )        ∈ [0, 1]
    /// ```
    ///
    /// with `p_t` positives and `n_t` negatives of score `t`. `None` without either.
    pub fn roc_auc(&self) -> Option<f64> {
        let (positive, negative) = (self.positive() as u128, self.negative() as u128);
        let mut below = negative;
        let mut twice = 0;
        for step in &self.steps {
            below -= step.negative as u128;
            twice += step.positive as u128 * (2 * below + step.negative as u128);
        }
        let pairs = positive * negative;
        (pairs > 0).then(|| twice as f64 / (2 * pairs) as f64)
    }

    /// Average precision, as [`average_precision`](super::average_precision). `None` without positives.
    pub fn average_precision(&self) -> Option<f64> {
        let positive = self.positive();
        let (mut found, mut taken, mut sum) = (0, 0, 0.0);
        for step in &self.steps {
            found += step.positive;
            taken += step.positive + step.negative;
            sum += step.positive as f64 * (found as f64 / taken as f64);
        }
        (positive > 0).then(|| sum / positive as f64)
    }

    /// The threshold with the highest F1:
    ///
    /// ```text
    /// F1(t) = 2 TP(t) / ( TP(t) + FP(t) + n₊ )        TP(t) = #{+ with s ≥ t}
    /// ```
    ///
    /// over the scores t above −∞, the highest of equals. It is chosen with the labels it is judged by,
    /// and so is an upper bound of what a threshold chosen beforehand reaches. `None` without positives or
    /// without a score.
    pub fn best_f1(&self) -> Option<Threshold> {
        let positive = self.positive();
        let (mut found, mut taken) = (0, 0);
        let mut best: Option<Threshold> = None;
        for step in self.steps.iter().filter(|step| step.score > f64::NEG_INFINITY) {
            found += step.positive;
            taken += step.positive + step.negative;
            let f1 = 2.0 * found as f64 / (taken + positive) as f64;
            if best.is_none_or(|best| f1 > best.f1) {
                best = Some(Threshold {
                    threshold: step.score,
                    f1,
                    precision: found as f64 / taken as f64,
                    recall: found as f64 / positive as f64,
                });
            }
        }
        best.filter(|_| positive > 0)
    }

    /// Items kept from the lowest score up, and the fraction of positives among them: confidence is
    /// −score, and what a positive costs is 1. Items without a score are not kept and not counted.
    /// `None` where nothing has a score.
    pub fn risk_coverage(&self) -> Option<RiskCoverage> {
        let scored = self.steps.iter().rev().filter(|step| step.score > f64::NEG_INFINITY);
        RiskCoverage::of_counts(scored.map(|step| (step.positive + step.negative, step.positive)))
    }
}
