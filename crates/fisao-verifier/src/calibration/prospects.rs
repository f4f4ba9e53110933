//! What a verifier can buy, told before anything is trained.

use serde::{Deserialize, Serialize};

use super::{Calibration, CalibrationError, Correctness, Statistic};

/// Fractions of correct mentions given up at which the frontier is told.
const GIVEN_UP: [f64; 5] = [0.0, 0.01, 0.02, 0.05, 0.1];

/// Two-sided 95 % quantile of the normal distribution.
const CONFIDENCE_95: f64 = 1.96;

/// One point of the frontier: the least likely mentions are deleted, up to a score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontierPoint {
    /// Mentions that score below this are deleted; cosine.
    pub score: f64,
    /// Fraction of the correct mentions that goes with them, `[0, 1]`.
    pub correct_lost: f64,
    /// Fraction of the hallucinated mentions that goes, `[0, 1]`.
    pub hallucinated_removed: f64,
    /// Fraction of what is left that is hallucinated, `[0, 1]`: its `CHAIR_I`.
    pub chair_i: f64,
}

/// What to expect of training with a calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prospects {
    /// Fraction of the model's own mentions that is hallucinated, `[0, 1]`.
    pub chair_i: f64,
    /// Standard deviation of the estimated correctness of one mention, beyond that of the truth; 0 for a perfect verifier.
    pub noise: f64,
    /// How many captions tell as much as one that a perfect verifier scored: 1 + ν²/π(1 − π), with π the fraction of correct
    /// mentions and ν the noise.
    #[serde(alias = "price")]
    pub sample_factor: f64,
    /// Filtering, for comparison: what deleting the least likely mentions would reach. Empty where the calibration holds no
    /// mentions. A policy can do better, since it learns from many images what a single score does not tell.
    pub frontier: Vec<FrontierPoint>,
}

impl Calibration {
    /// What this verifier can buy.
    ///
    /// # Errors
    /// [`CalibrationError::Indistinct`] when it can buy nothing.
    pub fn prospects(&self, statistic: Statistic) -> Result<Prospects, CalibrationError> {
        let noise = Correctness::new(self, statistic)?.noise();
        let fraction = self.prior_correct;
        Ok(Prospects {
            chair_i: 1.0 - fraction,
            noise,
            sample_factor: 1.0 + noise * noise / (fraction * (1.0 - fraction)),
            frontier: self.frontier(),
        })
    }

    /// `CHAIR_I` against the correct mentions given up, for deleting mentions from the lowest score on.
    fn frontier(&self) -> Vec<FrontierPoint> {
        let mut mentions: Vec<(f64, f64)> = self
            .mentions
            .scores
            .iter()
            .copied()
            .zip(self.mentions.correct.iter().copied())
            .collect();
        mentions.sort_by(|a, b| a.0.total_cmp(&b.0));
        let right: f64 = mentions.iter().map(|(_, correct)| correct).sum();
        let wrong = mentions.len() as f64 - right;
        if right <= 0.0 || wrong <= 0.0 {
            return Vec::new();
        }
        let point = |given_up: f64| {
            let (mut right_lost, mut wrong_lost, mut score) = (0.0, 0.0, f64::NEG_INFINITY);
            for &(next, correct) in &mentions {
                score = next;
                if right_lost + correct > given_up * right {
                    break;
                }
                right_lost += correct;
                wrong_lost += 1.0 - correct;
            }
            let (kept_right, kept_wrong) = (right - right_lost, wrong - wrong_lost);
            FrontierPoint {
                score,
                correct_lost: right_lost / right,
                hallucinated_removed: wrong_lost / wrong,
                chair_i: kept_wrong / (kept_right + kept_wrong).max(f64::MIN_POSITIVE),
            }
        };
        GIVEN_UP.into_iter().map(point).collect()
    }
}

impl Prospects {
    /// Mentions of one object that it takes to tell with 95 % confidence whether its precision is above or below a break-even
    /// precision that lies `distance` from it:  n = 1.96² (π(1 − π) + ν²) / distance².
    pub fn mentions_needed(&self, distance: f64) -> f64 {
        let own = self.chair_i * (1.0 - self.chair_i);
        CONFIDENCE_95.powi(2) * (own + self.noise * self.noise) / (distance * distance)
    }
}
