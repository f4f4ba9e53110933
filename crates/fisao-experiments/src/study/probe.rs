//! A supervised reader of the verifier's features: the ceiling that its scores are measured against.
//!
//! Logistic regression with an L2 penalty on the products `f_v ⊙ f_t`, of which a cosine is the unweighted sum, and on the
//! scores of the variants. It is given the truth about the calibration captions, so it shows what the encoder knows about
//! the words, whichever formula reads it.

use fisao_eval::detection::roc_auc;

/// Penalties that are tried.
const RIDGES: [f64; 5] = [0.001, 0.01, 0.1, 1.0, 10.0];
/// Parts of the data that take turns in judging a penalty.
const FOLDS: usize = 5;
/// Steps of accelerated gradient descent (Nesterov 1983).
const STEPS: usize = 300;

/// Weights on standardised features.
pub(super) struct Probe {
    mean: Vec<f64>,
    scale: Vec<f64>,
    weights: Vec<f64>,
    bias: f64,
    /// Penalty that did best on data left out.
    pub(super) ridge: f64,
}

impl Probe {
    /// Fits weights to examples; `None` where a class is missing.
    pub(super) fn fit(features: &[Vec<f64>], correct: &[bool]) -> Option<Self> {
        if !(correct.contains(&true) && correct.contains(&false)) {
            return None;
        }
        let all: Vec<usize> = (0..features.len()).collect();
        let left_out =
            |fold: usize| all.iter().partition::<Vec<usize>, _>(|at| **at % FOLDS == fold);
        let quality = |ridge: f64| {
            let mut scores = vec![0.0; features.len()];
            for fold in 0..FOLDS {
                let (out, rest) = left_out(fold);
                let probe = Self::with_ridge(features, correct, &rest, ridge);
                for at in out {
                    scores[at] = probe.score(&features[at]);
                }
            }
            let of = |class| {
                let pairs = scores.iter().zip(correct).filter(move |(_, is)| **is == class);
                pairs.map(|(score, _)| *score).collect::<Vec<_>>()
            };
            roc_auc(&of(true), &of(false)).unwrap_or(0.5)
        };
        let best = RIDGES.into_iter().map(|ridge| (quality(ridge), ridge));
        // Of equals the stronger penalty.
        let (_, ridge) = best.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)))?;
        Some(Self::with_ridge(features, correct, &all, ridge))
    }

    fn with_ridge(features: &[Vec<f64>], correct: &[bool], rows: &[usize], ridge: f64) -> Self {
        let width = features[0].len();
        let count = rows.len() as f64;
        let mut mean = vec![0.0; width];
        for &row in rows {
            mean.iter_mut().zip(&features[row]).for_each(|(mean, x)| *mean += x / count);
        }
        let mut scale = vec![0.0; width];
        for &row in rows {
            let deviations = features[row].iter().zip(&mean).map(|(x, mean)| (x - mean).powi(2));
            scale.iter_mut().zip(deviations).for_each(|(scale, square)| *scale += square / count);
        }
        for scale in &mut scale {
            *scale = scale.sqrt().max(1e-9);
        }
        let mut probe = Self { mean, scale, weights: vec![0.0; width], bias: 0.0, ridge };
        let standard: Vec<Vec<f64>> =
            rows.iter().map(|&row| probe.standardised(&features[row])).collect();
        let targets: Vec<f64> = rows.iter().map(|&row| f64::from(u8::from(correct[row]))).collect();
        probe.descend(&standard, &targets);
        probe
    }

    fn standardised(&self, features: &[f64]) -> Vec<f64> {
        let scales = self.mean.iter().zip(&self.scale);
        features.iter().zip(scales).map(|(x, (mean, scale))| (x - mean) / scale).collect()
    }

    /// Logit of being correct.
    pub(super) fn score(&self, features: &[f64]) -> f64 {
        self.bias + dot(&self.weights, &self.standardised(features))
    }

    fn descend(&mut self, rows: &[Vec<f64>], targets: &[f64]) {
        let count = rows.len() as f64;
        // The loss curves at most as strongly as a quarter of the largest eigenvalue of the features' second moments.
        let step = 1.0 / (0.25 * (largest_eigenvalue(rows) + 1.0) + self.ridge);
        let (mut weights, mut bias) = (self.weights.clone(), self.bias);
        for at in 0..STEPS {
            let momentum = at as f64 / (at as f64 + 3.0);
            let ahead = |now: f64, before: f64| now + momentum * (now - before);
            let lookahead: Vec<f64> = weights
                .iter()
                .zip(&self.weights)
                .map(|(now, before)| ahead(*now, *before))
                .collect();
            let lookahead_bias = ahead(bias, self.bias);
            let mut gradient: Vec<f64> =
                lookahead.iter().map(|weight| self.ridge * weight).collect();
            let mut bias_gradient = 0.0;
            for (row, target) in rows.iter().zip(targets) {
                let error = 1.0 / (1.0 + (-(lookahead_bias + dot(&lookahead, row))).exp()) - target;
                gradient.iter_mut().zip(row).for_each(|(sum, x)| *sum += error * x / count);
                bias_gradient += error / count;
            }
            (self.weights, self.bias) = (weights, bias);
            weights = lookahead
                .iter()
                .zip(&gradient)
                .map(|(weight, slope)| weight - step * slope)
                .collect();
            bias = lookahead_bias - step * bias_gradient;
        }
        (self.weights, self.bias) = (weights, bias);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Of the matrix of second moments of the rows, by power iteration.
fn largest_eigenvalue(rows: &[Vec<f64>]) -> f64 {
    let width = rows[0].len();
    let mut vector = vec![1.0 / (width as f64).sqrt(); width];
    let mut value = 0.0;
    for _ in 0..20 {
        let mut next = vec![0.0; width];
        for row in rows {
            let along = dot(row, &vector) / rows.len() as f64;
            next.iter_mut().zip(row).for_each(|(sum, x)| *sum += along * x);
        }
        value = dot(&next, &next).sqrt();
        if value == 0.0 {
            return 0.0;
        }
        vector = next.into_iter().map(|x| x / value).collect();
    }
    // A little more, as the iteration comes from below.
    1.1 * value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between −1 and 1 that look random.
    fn noise(at: usize) -> f64 {
        let hash = (at as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> 11) as f64 / (1_u64 << 53) as f64 * 2.0 - 1.0
    }

    #[test]
    fn probe_weights_the_informative_feature() {
        let correct: Vec<bool> = (0..400).map(|at| noise(at) > 0.0).collect();
        let features: Vec<Vec<f64>> = (0..400)
            .map(|at| {
                let signal = if correct[at] { 0.3 } else { -0.3 };
                vec![noise(7 * at + 5000), signal + noise(11 * at + 90_000), 5.0]
            })
            .collect();
        let probe = Probe::fit(&features, &correct).unwrap();
        assert!(probe.weights[1] > 3.0 * probe.weights[0].abs(), "{:?}", probe.weights);
        assert!(probe.weights[2].abs() < 1e-6);
        assert!(Probe::fit(&features, &vec![true; 400]).is_none());
    }
}
