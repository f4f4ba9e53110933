//! Several signals about a mention, combined to one probability that it is correct.

use serde::{Deserialize, Serialize};

use super::CalibrationError;
use super::annotated::MINIMUM_PER_CLASS;
use super::error::check_finite;

const MAX_ITERATIONS: usize = 100;
/// Relative gain of a step at which the fit ends.
const LEAST_GAIN: f64 = 1e-12;

/// Logistic regression on standardised signals with an L2 penalty:
///
/// ```text
/// logit P(correct | x) = b + Σ_j w_j (x_j − m_j) / d_j
/// min over w, b  −Σ_i [ y_i log p_i + (1 − y_i) log(1 − p_i) ] + ridge/2 · Σ_j w_j²
/// ```
///
/// m and d are mean and standard deviation over the mentions it was fitted to. The penalty is a normal prior of variance
/// 1/ridge on each weight; the intercept has none. Where signals say the same, they share the weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Combination {
    /// The signals, in the order in which their values are given.
    pub signals: Vec<CombinedSignal>,
    /// b, log-odds of a mention whose signals all have their means.
    pub intercept: f64,
    /// Penalty it was fitted with.
    pub ridge: f64,
}

/// One of the signals of a [`Combination`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CombinedSignal {
    /// What it is called.
    pub name: String,
    /// m, in the signal's unit.
    pub mean: f64,
    /// d, in the signal's unit; 1 where the signal never changed.
    pub deviation: f64,
    /// w, log-odds per standard deviation.
    pub weight: f64,
}

impl Combination {
    /// Fits weights by Newton's method: `rows[i]` holds the signals of a mention in the order of `names`, `correct[i]`
    /// whether the image holds its object.
    ///
    /// # Errors
    /// Slices of different length, a signal that is not finite, or fewer than [`MINIMUM_PER_CLASS`] mentions of a class.
    pub fn fit(
        names: &[&str],
        rows: &[Vec<f64>],
        correct: &[bool],
        ridge: f64,
    ) -> Result<Self, CalibrationError> {
        if rows.len() != correct.len() {
            let (scores, found) = (rows.len(), correct.len());
            return Err(CalibrationError::Length { scores, what: "labels", found });
        }
        for row in rows {
            if row.len() != names.len() {
                let (scores, found) = (names.len(), row.len());
                return Err(CalibrationError::Length { scores, what: "signals", found });
            }
            check_finite("signal", row)?;
        }
        for (class, what) in [(true, "correct mentions"), (false, "hallucinated mentions")] {
            let found = correct.iter().filter(|is| **is == class).count();
            if found < MINIMUM_PER_CLASS {
                return Err(CalibrationError::TooFew { what, found, needed: MINIMUM_PER_CLASS });
            }
        }
        let signal = |(at, name): (usize, &&str)| {
            let (mean, deviation) = spread(rows.iter().map(|row| row[at]));
            CombinedSignal { name: (*name).to_owned(), mean, deviation, weight: 0.0 }
        };
        let signals = names.iter().enumerate().map(signal).collect();
        let mut combination = Self { signals, intercept: 0.0, ridge };
        let points: Vec<(Vec<f64>, f64)> = rows
            .iter()
            .zip(correct)
            .map(|(row, &is)| (combination.standardised(row), f64::from(u8::from(is))))
            .collect();
        let mut weights = newton(&points, names.len(), ridge);
        combination.intercept = weights.pop().unwrap_or(0.0);
        let fitted = combination.signals.iter_mut().zip(weights);
        fitted.for_each(|(signal, weight)| signal.weight = weight);
        Ok(combination)
    }

    /// Log-odds that a mention with these signals is correct.
    ///
    /// # Panics
    /// Not as many signals as it was fitted to.
    pub fn logit(&self, row: &[f64]) -> f64 {
        assert_eq!(row.len(), self.signals.len(), "signals of a mention");
        let terms = self.signals.iter().zip(self.standardised(row));
        self.intercept + terms.map(|(signal, x)| signal.weight * x).sum::<f64>()
    }

    /// Probability that a mention with these signals is correct.
    ///
    /// # Panics
    /// Not as many signals as it was fitted to.
    pub fn probability(&self, row: &[f64]) -> f64 {
        1.0 / (1.0 + (-self.logit(row)).exp())
    }

    fn standardised(&self, row: &[f64]) -> Vec<f64> {
        let values = row.iter().zip(&self.signals);
        values.map(|(x, signal)| (x - signal.mean) / signal.deviation).collect()
    }
}

/// Mean and standard deviation (n) of a signal; deviation 1 where it does not change.
fn spread(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let deviation = (values.map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
    let constant = deviation <= f64::EPSILON * count * mean.abs();
    (mean, if constant { 1.0 } else { deviation })
}

/// Weights, the intercept last. The penalised loss is convex; steps are halved until it falls.
fn newton(points: &[(Vec<f64>, f64)], width: usize, ridge: f64) -> Vec<f64> {
    let logit = |weights: &[f64], x: &[f64]| {
        weights[width] + x.iter().zip(weights).map(|(x, weight)| x * weight).sum::<f64>()
    };
    let loss = |weights: &[f64]| {
        let term = |(x, y): &(Vec<f64>, f64)| {
            let z = logit(weights, x);
            z.max(0.0) + (-z.abs()).exp().ln_1p() - y * z
        };
        let penalty: f64 = weights[..width].iter().map(|weight| weight * weight).sum();
        points.iter().map(term).sum::<f64>() + 0.5 * ridge * penalty
    };
    let mut weights = vec![0.0; width + 1];
    let mut current = loss(&weights);
    for _ in 0..MAX_ITERATIONS {
        let mut gradient: Vec<f64> = weights.iter().map(|weight| ridge * weight).collect();
        gradient[width] = 0.0;
        let mut hessian = vec![vec![0.0; width + 1]; width + 1];
        for (at, row) in hessian.iter_mut().enumerate().take(width) {
            row[at] = ridge;
        }
        for (x, y) in points {
            let p = 1.0 / (1.0 + (-logit(&weights, x)).exp());
            let input = |at: usize| if at == width { 1.0 } else { x[at] };
            for a in 0..=width {
                gradient[a] += (p - y) * input(a);
                for (b, sum) in hessian[a].iter_mut().enumerate() {
                    *sum += p * (1.0 - p) * input(a) * input(b);
                }
            }
        }
        let Some(direction) = solve(hessian, gradient) else { break };
        let moved = |step: f64| -> Vec<f64> {
            weights.iter().zip(&direction).map(|(weight, along)| weight - step * along).collect()
        };
        let mut step = 1.0;
        let mut next = moved(step);
        while loss(&next) > current && step > 1e-6 {
            step /= 2.0;
            next = moved(step);
        }
        let gain = current - loss(&next);
        if gain < 0.0 {
            break;
        }
        weights = next;
        current -= gain;
        if gain <= LEAST_GAIN * (1.0 + current.abs()) {
            break;
        }
    }
    weights
}

/// Solves `matrix · x = right` for a symmetric positive definite matrix, by Cholesky's decomposition; `None` where it is
/// not positive definite.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let size = right.len();
    for row in 0..size {
        for column in 0..=row {
            let known: f64 = (0..column).map(|at| matrix[row][at] * matrix[column][at]).sum();
            let rest = matrix[row][column] - known;
            matrix[row][column] = if row == column {
                Some(rest.sqrt()).filter(|root| *root > 0.0)?
            } else {
                rest / matrix[column][column]
            };
        }
    }
    for row in 0..size {
        let known: f64 = (0..row).map(|at| matrix[row][at] * right[at]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    for row in (0..size).rev() {
        let known: f64 = (row + 1..size).map(|at| matrix[at][row] * right[at]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    Some(right)
}
