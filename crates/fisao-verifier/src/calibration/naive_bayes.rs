//! Maximum likelihood of two classes from signals that are independent within each of them, whatever their shape.
//!
//! ```text
//! p(x₁, …, x_J) = π Π_j p₊(x_j) + (1 − π) Π_j p₋(x_j),     log p₊(x_j)/p₋(x_j) = a_j + b_j g + c_j (g² − 1)
//! ```
//!
//! with g the normal score of `x_j` among all mentions. Only the *ratio* of the class densities has a form; the density of
//! each signal is what the mentions say it is, so that nothing is learned from the shape of one signal, only from how
//! several go together. The ratio is exact for Gaussian classes of any spreads on the scale of g, and holds for any
//! rising function of such signals. The M step is a logistic regression of the responsibilities on (1, g, g² − 1), which is
//! the maximum of this likelihood over both densities (Qin, *Empirical likelihood ratio based confidence intervals for
//! mixture proportions*, Annals of Statistics 27, 1999).

use super::levels::Levels;

/// Neither class may vanish.
const MIN_FRACTION: f64 = 0.005;
/// Precision of the normal priors of a, b and c at 0: a is free, b has a deviation of 4.5, c one of 0.45. They keep the
/// ratio finite where the classes do not overlap, and flat where few hallucinated mentions could bend it at will.
const PRECISIONS: [f64; 3] = [0.0, 0.05, 5.0];
/// Newton steps of a logistic regression in each M step; each M step starts at the weights of the one before.
const NEWTON_STEPS: usize = 2;
/// Longest Newton step, in log-odds.
const LONGEST_STEP: f64 = 2.0;

type Coefficients = [f64; 3];

/// How to maximise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) most: usize,
    /// Mean change of the responsibilities below which EM stops.
    pub(super) tolerance: f64,
}

/// Two classes and what every mention belongs to.
#[derive(Clone, Debug)]
pub(super) struct NaiveBayes {
    /// π.
    fraction: f64,
    /// Per signal: logit P(correct | level) = the regression.
    ratios: Vec<Coefficients>,
    /// P(correct | all signals) of every mention.
    pub(super) correct: Vec<f64>,
}

impl NaiveBayes {
    /// EM from a first guess of P(correct) of every mention. `weights[i]` is how often mention i counts.
    pub(super) fn fit(views: &[Levels], weights: &[f64], guess: &[f64], steps: Steps) -> Self {
        let mut fit =
            Self { fraction: 0.5, ratios: vec![[0.0; 3]; views.len()], correct: guess.to_vec() };
        // The first regressions start from nothing.
        for _ in 0..3 {
            fit.maximise(views, weights);
        }
        fit.converge(views, weights, steps);
        fit
    }

    /// EM from this fit, for other weights of the same mentions.
    pub(super) fn refit(&self, views: &[Levels], weights: &[f64], steps: Steps) -> Self {
        let mut fit = self.clone();
        fit.converge(views, weights, steps);
        fit
    }

    fn converge(&mut self, views: &[Levels], weights: &[f64], steps: Steps) {
        let total: f64 = weights.iter().sum();
        for _ in 0..steps.most {
            self.maximise(views, weights);
            if self.expect(views, weights) <= steps.tolerance * total {
                break;
            }
        }
    }

    /// M step.
    fn maximise(&mut self, views: &[Levels], weights: &[f64]) {
        let total: f64 = weights.iter().sum();
        let right: f64 = weights.iter().zip(&self.correct).map(|(w, q)| w * q).sum();
        self.fraction = (right / total).clamp(MIN_FRACTION, 1.0 - MIN_FRACTION);
        for (view, ratio) in views.iter().zip(&mut self.ratios) {
            let mut sums = vec![(0.0, 0.0); view.places.len()];
            for ((&level, w), q) in view.of.iter().zip(weights).zip(&self.correct) {
                sums[level].0 += w;
                sums[level].1 += w * q;
            }
            for _ in 0..NEWTON_STEPS {
                newton_step(ratio, &view.places, &sums);
            }
        }
    }

    /// E step; the summed change of the responsibilities.
    fn expect(&mut self, views: &[Levels], weights: &[f64]) -> f64 {
        let prior = logit(self.fraction);
        let tables = self.tables(views);
        let mut change = 0.0;
        for (index, (q, weight)) in self.correct.iter_mut().zip(weights).enumerate() {
            let evidence: f64 =
                views.iter().zip(&tables).map(|(view, table)| table[view.of[index]] - prior).sum();
            let next = 1.0 / (1.0 + (-(prior + evidence)).exp());
            change += weight * (next - *q).abs();
            *q = next;
        }
        change
    }

    /// logit P(correct | level) per signal and level.
    fn tables(&self, views: &[Levels]) -> Vec<Vec<f64>> {
        let table = |(view, ratio): (&Levels, &Coefficients)| {
            view.places.iter().map(|place| log_odds(ratio, *place)).collect()
        };
        views.iter().zip(&self.ratios).map(table).collect()
    }

    /// log-likelihood less that of independent signals, over all mentions; nats.
    ///
    /// ```text
    /// Σ_i log[ π Π_j P(+|x_ij)/π + (1 − π) Π_j P(−|x_ij)/(1 − π) ]
    /// ```
    pub(super) fn log_likelihood(&self, views: &[Levels]) -> f64 {
        let prior = logit(self.fraction);
        let tables = self.tables(views);
        let of_mention = |index: usize| {
            let odds = || views.iter().zip(&tables).map(|(view, table)| table[view.of[index]]);
            let evidence: f64 = odds().map(|odds| odds - prior).sum();
            let wrong = (1.0 - self.fraction).ln();
            odds().map(|odds| -softplus(odds) - wrong).sum::<f64>()
                + wrong
                + softplus(prior + evidence)
        };
        (0..self.correct.len()).map(of_mention).sum()
    }
}

fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

fn features(place: f64) -> Coefficients {
    [1.0, place, place * place - 1.0]
}

fn log_odds(ratio: &Coefficients, place: f64) -> f64 {
    ratio.iter().zip(features(place)).map(|(c, x)| c * x).sum()
}

/// One step of Newton's method on `Σ_l [ k_l log h_l + (n_l − k_l) log(1 − h_l) ]` less the priors; `sums[l]` is `(n_l, k_l)`.
fn newton_step(ratio: &mut Coefficients, places: &[f64], sums: &[(f64, f64)]) {
    let mut gradient = [0.0; 3];
    let mut hessian = [[0.0; 3]; 3];
    for row in 0..3 {
        gradient[row] = -PRECISIONS[row] * ratio[row];
        // A trace of a prior on a as well: a singular matrix helps nobody.
        hessian[row][row] = PRECISIONS[row] + 1e-9;
    }
    for (&place, &(count, right)) in places.iter().zip(sums) {
        let x = features(place);
        let h = 1.0 / (1.0 + (-log_odds(ratio, place)).exp());
        for row in 0..3 {
            gradient[row] += (right - count * h) * x[row];
            for column in 0..3 {
                hessian[row][column] += count * h * (1.0 - h) * x[row] * x[column];
            }
        }
    }
    let step = solve(hessian, gradient);
    let longest = step.iter().fold(0.0_f64, |most, step| most.max(step.abs()));
    let factor = if longest > LONGEST_STEP { LONGEST_STEP / longest } else { 1.0 };
    for (coefficient, step) in ratio.iter_mut().zip(step) {
        *coefficient += factor * step;
    }
}

/// Solves H x = g for a symmetric positive definite H, by elimination.
fn solve(mut h: [[f64; 3]; 3], mut g: [f64; 3]) -> [f64; 3] {
    for pivot in 0..3 {
        for row in pivot + 1..3 {
            let factor = h[row][pivot] / h[pivot][pivot];
            let above = h[pivot];
            for (value, above) in h[row].iter_mut().zip(above) {
                *value -= factor * above;
            }
            g[row] -= factor * g[pivot];
        }
    }
    let mut x = [0.0; 3];
    for row in (0..3).rev() {
        let known: f64 = (row + 1..3).map(|column| h[row][column] * x[column]).sum();
        x[row] = (g[row] - known) / h[row][row];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::{newton_step, solve};

    #[test]
    fn linear_solver_matches_a_hand_computed_system() {
        // Columns of H times (1, −2, 3).
        let h = [[4.0, 1.0, 0.5], [1.0, 3.0, 0.25], [0.5, 0.25, 2.0]];
        let found = solve(h, [3.5, -4.25, 6.0]);
        for (found, expected) in found.iter().zip([1.0, -2.0, 3.0]) {
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
    }

    /// Two levels of 100 and 100, 80 and 40 right: without a prior the log-odds are ln 4 and ln ⅔, and
    /// the precision of 0.05 moves them by little.
    #[test]
    fn logistic_regression_matches_the_fractions_of_two_levels() {
        let mut ratio = [0.0; 3];
        for _ in 0..20 {
            newton_step(&mut ratio, &[1.0, -1.0], &[(100.0, 80.0), (100.0, 40.0)]);
        }
        assert!((ratio[0] + ratio[1] - 4.0_f64.ln()).abs() < 0.01, "{ratio:?}");
        assert!((ratio[0] - ratio[1] - (2.0_f64 / 3.0).ln()).abs() < 0.01, "{ratio:?}");
        assert!(ratio[2].abs() < 1e-9);
    }
}
