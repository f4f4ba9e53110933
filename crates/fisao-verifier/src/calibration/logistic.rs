//! One-dimensional logistic regression.

use serde::{Deserialize, Serialize};

use super::annotated::moments;

const MAX_ITERATIONS: usize = 100;

/// logit P(correct | s) = slope · s + intercept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logistic {
    /// Log-odds per unit of score.
    pub slope: f64,
    /// Log-odds at score 0.
    pub intercept: f64,
}

impl Logistic {
    /// Maximum likelihood under targets drawn in from 0 and 1, which keeps the slope finite when
    /// the classes do not overlap (Platt, *Probabilistic Outputs for Support Vector Machines*,
    /// 1999, §2.2):
    ///
    /// ```text
    /// min  −Σ_i [ t_i log p_i + (1 − t_i) log(1 − p_i) ],   p_i = σ(a s_i + b)
    /// t_i = q_i (n₊+1)/(n₊+2) + (1 − q_i) /(n₋+2),          n₊ = Σ q_i, n₋ = Σ (1 − q_i)
    /// ```
    ///
    /// `targets[i]` = `q_i` ∈ [0, 1] is the label, or a probability of it.
    pub(super) fn fit(scores: &[f64], targets: &[f64]) -> Self {
        let positive: f64 = targets.iter().sum();
        let negative = targets.len() as f64 - positive;
        let high = (positive + 1.0) / (positive + 2.0);
        let low = 1.0 / (negative + 2.0);
        let (mean, deviation) = moments(scores);
        let points: Vec<(f64, f64)> = scores
            .iter()
            .zip(targets)
            .map(|(s, q)| ((s - mean) / deviation, q * high + (1.0 - q) * low))
            .collect();
        let (slope, intercept) = newton(&points, ((positive + 1.0) / (negative + 1.0)).ln());
        let slope = slope / deviation;
        Self { slope, intercept: intercept - slope * mean }
    }

    /// Log-odds that a mention of this score is correct.
    pub fn logit(&self, score: f64) -> f64 {
        self.slope * score + self.intercept
    }
}

/// Newton's method with step halving; the loss is convex, so it ends at the one minimum.
fn newton(points: &[(f64, f64)], intercept: f64) -> (f64, f64) {
    // −log-likelihood = Σ log(1 + e^z) − t z, in the form that does not overflow.
    let loss = |a: f64, b: f64| -> f64 {
        let term = |(x, t): &(f64, f64)| {
            let z = a * x + b;
            z.max(0.0) + (-z.abs()).exp().ln_1p() - t * z
        };
        points.iter().map(term).sum()
    };
    let (mut a, mut b) = (0.0, intercept);
    let mut current = loss(a, b);
    for _ in 0..MAX_ITERATIONS {
        let (mut ga, mut gb, mut haa, mut hab, mut hbb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (x, t) in points {
            let p = 1.0 / (1.0 + (-(a * x + b)).exp());
            let weight = p * (1.0 - p);
            ga += (p - t) * x;
            gb += p - t;
            haa += weight * x * x;
            hab += weight * x;
            hbb += weight;
        }
        let determinant = haa * hbb - hab * hab;
        if determinant <= 0.0 {
            break;
        }
        let (da, db) = ((hbb * ga - hab * gb) / determinant, (haa * gb - hab * ga) / determinant);
        let mut step = 1.0;
        let mut next = loss(a - da, b - db);
        while next > current && step > 1e-6 {
            step /= 2.0;
            next = loss(a - step * da, b - step * db);
        }
        if next > current {
            break;
        }
        (a, b) = (a - step * da, b - step * db);
        let gain = current - next;
        current = next;
        if gain <= 1e-12 * (1.0 + current.abs()) {
            break;
        }
    }
    (a, b)
}
