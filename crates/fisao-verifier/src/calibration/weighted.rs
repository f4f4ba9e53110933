//! What scores look like when every mention counts for both classes by a probability.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::bootstrap::Estimate;

/// Scores in rising order, sorted once for many weightings.
#[derive(Clone, Debug)]
pub(super) struct Order<'a> {
    scores: &'a [f64],
    rising: Vec<usize>,
}

impl<'a> Order<'a> {
    pub(super) fn of(scores: &'a [f64]) -> Self {
        let mut rising: Vec<usize> = (0..scores.len()).collect();
        rising.sort_by(|a, b| compare(scores[*a], scores[*b]));
        Self { scores, rising }
    }

    /// μ₊, σ₊, μ₋, σ₋ and AUC, with mention i counted `weights[i] · correct[i]` times for the correct and
    /// `weights[i] · (1 − correct[i])` times for the hallucinated ones.
    ///
    /// ```text
    /// AUC = Σ_ij w_i q_i w_j (1 − q_j) ([s_i > s_j] + ½ [s_i = s_j]) / (Σ w_i q_i  Σ w_j (1 − q_j))
    /// ```
    pub(super) fn estimate(&self, weights: &[f64], correct: &[f64]) -> Estimate {
        let of_class = |fraction: &dyn Fn(f64) -> f64| {
            let counts = || weights.iter().zip(correct).map(|(w, q)| w * fraction(*q));
            let total = counts().sum::<f64>().max(f64::MIN_POSITIVE);
            let mean = counts().zip(self.scores).map(|(w, s)| w * s).sum::<f64>() / total;
            let square = counts().zip(self.scores).map(|(w, s)| w * (s - mean).powi(2));
            (mean, (square.sum::<f64>() / total).sqrt())
        };
        let (mu_plus, sigma_plus) = of_class(&|q| q);
        let (mu_minus, sigma_minus) = of_class(&|q| 1.0 - q);
        [mu_plus, sigma_plus, mu_minus, sigma_minus, self.auc(weights, correct)]
    }

    fn auc(&self, weights: &[f64], correct: &[f64]) -> f64 {
        let (mut won, mut wrong_below, mut right_total) = (0.0, 0.0, 0.0);
        for tied in self.rising.chunk_by(|a, b| compare(self.scores[*a], self.scores[*b]).is_eq()) {
            let right: f64 = tied.iter().map(|&i| weights[i] * correct[i]).sum();
            let wrong: f64 = tied.iter().map(|&i| weights[i] * (1.0 - correct[i])).sum();
            won += right * (wrong_below + wrong / 2.0);
            wrong_below += wrong;
            right_total += right;
        }
        won / (right_total * wrong_below).max(f64::MIN_POSITIVE)
    }
}

/// The total order, in which adding 0 makes −0 the same as 0.
fn compare(a: f64, b: f64) -> Ordering {
    (a + 0.0).total_cmp(&(b + 0.0))
}

/// Mentions by the caption they stand in.
#[derive(Clone, Debug)]
pub(super) struct Captions {
    mentions: Vec<Vec<usize>>,
    count: usize,
}

impl Captions {
    /// `numbers[i]` is the caption of mention i; without them every mention stands in one of its own.
    pub(super) fn new(count: usize, numbers: Option<&[usize]>) -> Self {
        let mut by_number: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for mention in 0..count {
            let number = numbers.map_or(mention, |numbers| numbers[mention]);
            by_number.entry(number).or_default().push(mention);
        }
        Self { mentions: by_number.into_values().collect(), count }
    }

    /// Mean of one value per mention and its standard error, with captions instead of mentions as what is independent.
    ///
    /// ```text
    /// √( Σ_c (Σ_{i∈c} (x_i − x̄))² ) / n
    /// ```
    pub(super) fn mean_and_error(&self, values: &[f64]) -> (f64, f64) {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let of_caption =
            |mentions: &Vec<usize>| mentions.iter().map(|&i| values[i] - mean).sum::<f64>();
        let square: f64 = self.mentions.iter().map(|caption| of_caption(caption).powi(2)).sum();
        (mean, square.sqrt() / count)
    }

    /// As many captions as there are, drawn with replacement: how often each mention came up.
    pub(super) fn resampled(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let mut weights = vec![0.0; self.count];
        for _ in 0..self.mentions.len() {
            for &mention in &self.mentions[rng.random_range(0..self.mentions.len())] {
                weights[mention] += 1.0;
            }
        }
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::super::annotated::moments;
    use super::super::auc;
    use super::{Captions, Order};

    /// Six mentions, 1 to 3 and again: the error of a mean of 2 is √(4/36) with each in its own caption, √(8/36) where the
    /// pairs share one.
    #[test]
    fn standard_error_treats_mentions_of_one_caption_as_a_cluster() {
        let values = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0];
        for (numbers, square) in [(None, 4.0), (Some([7, 7, 1, 1, 0, 0].as_slice()), 8.0)] {
            let (mean, error) = Captions::new(6, numbers).mean_and_error(&values);
            assert!((mean - 2.0).abs() < 1e-12);
            assert!((error * error * 36.0 - square).abs() < 1e-9, "{error}");
        }
    }

    /// Probabilities of 0 and 1 are labels.
    #[test]
    fn certain_probabilities_give_the_estimates_of_labels() {
        let scores = [0.5, 0.1, 0.3, 0.1, 0.7, 0.3, 0.2, 0.9];
        let correct = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0];
        let found = Order::of(&scores).estimate(&[1.0; 8], &correct);
        let right = [0.5, 0.3, 0.7, 0.2, 0.9];
        let wrong = [0.1, 0.1, 0.3];
        let ((mu_plus, sigma_plus), (mu_minus, sigma_minus)) = (moments(&right), moments(&wrong));
        let biased = |sigma: f64, n: f64| sigma * ((n - 1.0) / n).sqrt();
        let expected = [
            mu_plus,
            biased(sigma_plus, 5.0),
            mu_minus,
            biased(sigma_minus, 3.0),
            auc(&right, &wrong),
        ];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
    }
}
