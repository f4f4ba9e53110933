//! Calibration without labels: two Gaussians under the scores of the model's own mentions.
//!
//! ```text
//! s ~ π N(μ₊, σ₊²) + (1−π) N(μ₋, σ₋²),      μ₋ ≥ mean score of mismatched pairs,  μ₊ > μ₋
//! ```
//!
//! fitted by expectation–maximisation with the constraints kept in every M step. Mismatched pairs
//! (a mention against an image that does not mention it) only bound μ₋ from below: what a model
//! hallucinates is what its encoder half-sees, which scores far higher than a random pair.

use serde::{Deserialize, Serialize};

use super::annotated::{MINIMUM_PER_CLASS, spread};
use super::bootstrap::{intervals, resample};
use super::error::check_finite;
use super::normal::normal_cdf;
use super::{
    Bootstrap, Calibration, CalibrationError, ThreeViewsConfig, UnlabelledFit, Views,
    fit_three_views,
};

/// A component narrower than this fraction of the overall spread describes a handful of equal scores,
/// not a class; without a floor the likelihood has no maximum.
const LEAST_RELATIVE_DEVIATION: f64 = 0.1;
/// Neither class may vanish.
const MIN_FRACTION: f64 = 0.01;
/// Fractions of lowest scores taken for hallucinated to start from; the likeliest end wins.
const INITIAL_FRACTIONS: [f64; 5] = [0.05, 0.15, 0.3, 0.5, 0.7];
/// Fraction of mentions taken for prior-driven when log-probability drops are given.
const PRIOR_DRIVEN_FRACTION: f64 = 0.25;

/// Label-free evidence about hallucinated mentions.
#[derive(Clone, Copy, Debug)]
pub struct Anchors<'a> {
    /// Scores of mentions against images that do not mention them; their mean bounds μ₋ from below.
    pub mismatched: &'a [f64],
    /// For each mention, by how much its log-probability falls when the image is blanked or
    /// swapped; nats. Mentions that hardly fall are driven by the language prior, and the lowest
    /// quarter is where the fit starts looking for hallucinations.
    pub log_prob_drops: Option<&'a [f64]>,
    /// Two more signals of each mention, for scores that show no two humps.
    pub views: Option<Views<'a>>,
}

/// Settings of [`fit_unlabelled`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct UnlabelledConfig {
    /// Most EM steps from one start. Default: 1000.
    pub max_iterations: usize,
    /// Gain in mean log-likelihood below which EM stops; nats. Default: 1e-7, where μ₋ moves by
    /// less than a tenth of its bootstrap interval.
    pub tolerance: f64,
    /// Bootstrap of the intervals of two Gaussians. Default: 200 samples, seed 0.
    pub bootstrap: Bootstrap,
    /// AUC below which two Gaussians are not believed where there are three views, `[0, 1]`: of the Gaussians themselves or,
    /// since outliers may pass for a class, of the views. Default: 0.96, means 2.5 σ apart; below, two Gaussians miss by more
    /// than 0.3 σ, or are refused, in a tenth to all of the simulated worlds.
    pub least_auc: f64,
    /// What is then done.
    pub three_views: ThreeViewsConfig,
}

impl Default for UnlabelledConfig {
    fn default() -> Self {
        Self {
            max_iterations: 1000,
            tolerance: 1e-7,
            bootstrap: Bootstrap::default(),
            least_auc: 0.96,
            three_views: ThreeViewsConfig::default(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Component {
    mean: f64,
    deviation: f64,
}

#[derive(Clone, Copy, Debug)]
struct Mixture {
    correct: Component,
    hallucinated: Component,
    fraction: f64,
}

/// What every M step has to respect.
#[derive(Clone, Copy, Debug)]
struct Constraints {
    least_hallucinated_mean: f64,
    least_deviation: f64,
}

/// Calibrates on the scores of the model's own mentions, with no annotation: by two Gaussians, and if [`Anchors::views`] has them
/// by [three views](fit_three_views) where two Gaussians are refused or either fit has an AUC below [`UnlabelledConfig::least_auc`].
///
/// # Errors
/// A number that is not finite, drops that do not match the scores, too few scores, no spread, or
/// scores that one Gaussian explains as well as two (by BIC); where three views decide, what [`fit_three_views`] refuses.
pub fn fit_unlabelled(
    scores: &[f64],
    anchors: &Anchors<'_>,
    config: &UnlabelledConfig,
) -> Result<Calibration, CalibrationError> {
    check(scores, anchors)?;
    let (_, deviation) = spread("mentions", scores)?;
    let constraints = Constraints {
        least_hallucinated_mean: anchors.mismatched.iter().sum::<f64>()
            / anchors.mismatched.len() as f64,
        least_deviation: LEAST_RELATIVE_DEVIATION * deviation,
    };
    let fit = fit_gaussians(scores, anchors, constraints, config);
    if let Some(views) = &anchors.views {
        let apart = fit.as_ref().is_ok_and(|mixture| mixture.auc() >= config.least_auc);
        let seen = fit_three_views(scores, views, &config.three_views);
        // A handful of outliers may pass for a class that is far away; the views see more.
        if !apart || seen.as_ref().is_ok_and(|seen| seen.auc < config.least_auc) {
            return seen;
        }
    }
    let mixture = fit?;
    let mut calibration = mixture.calibration(scores);
    calibration.intervals = Some(intervals(&config.bootstrap, |rng| {
        let scores = resample(scores, rng);
        // From the estimate: another start could end in another split, which is no sampling error.
        let (fit, _) = maximise(&scores, mixture, constraints, config);
        let (plus, minus) = (fit.correct, fit.hallucinated);
        [plus.mean, plus.deviation, minus.mean, minus.deviation, fit.auc()]
    }));
    Ok(calibration)
}

/// The likeliest two Gaussians of all starts, if they explain the scores better than one.
fn fit_gaussians(
    scores: &[f64],
    anchors: &Anchors<'_>,
    constraints: Constraints,
    config: &UnlabelledConfig,
) -> Result<Mixture, CalibrationError> {
    let (mixture, log_likelihood) = starts(scores, anchors)
        .into_iter()
        .map(|wrong| {
            let right: Vec<f64> = wrong.iter().map(|is| 1.0 - is).collect();
            maximise(
                scores,
                Mixture::from_fractions(scores, &right, &constraints),
                constraints,
                config,
            )
        })
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .expect("there is at least one start");

    let (mean, deviation) = spread("mentions", scores)?;
    let single = Component { mean, deviation };
    let single: f64 = scores.iter().map(|score| single.log_density(*score)).sum();
    // Three parameters more: a mean, a spread and the fraction.
    let bic_gain = 2.0 * (log_likelihood - single) - 3.0 * (scores.len() as f64).ln();
    if bic_gain <= 0.0 {
        return Err(CalibrationError::Unseparated { scores: scores.len(), bic_gain });
    }
    let (mu_correct, mu_hallucinated) = (mixture.correct.mean, mixture.hallucinated.mean);
    if mu_correct <= mu_hallucinated {
        return Err(CalibrationError::Inverted { auc: mixture.auc(), mu_correct, mu_hallucinated });
    }
    Ok(mixture)
}

fn check(scores: &[f64], anchors: &Anchors<'_>) -> Result<(), CalibrationError> {
    check_finite("score", scores)?;
    check_finite("mismatched score", anchors.mismatched)?;
    let needed = 2 * MINIMUM_PER_CLASS;
    for (what, found) in
        [("mentions", scores.len()), ("mismatched pairs", anchors.mismatched.len())]
    {
        if found < needed {
            return Err(CalibrationError::TooFew { what, found, needed });
        }
    }
    if let Some(drops) = anchors.log_prob_drops {
        check_finite("log-probability drop", drops)?;
        if drops.len() != scores.len() {
            let (scores, found) = (scores.len(), drops.len());
            let what = "log-probability drops";
            return Err(CalibrationError::Length { scores, what, found });
        }
    }
    Ok(())
}

/// For each start, which mentions are taken for hallucinated at first (1 or 0).
fn starts(scores: &[f64], anchors: &Anchors<'_>) -> Vec<Vec<f64>> {
    let lowest = |values: &[f64], fraction: f64| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
        let mut taken = vec![0.0; values.len()];
        for index in &order[..((fraction * values.len() as f64) as usize).max(1)] {
            taken[*index] = 1.0;
        }
        taken
    };
    match anchors.log_prob_drops {
        Some(drops) => vec![lowest(drops, PRIOR_DRIVEN_FRACTION)],
        None => INITIAL_FRACTIONS.iter().map(|fraction| lowest(scores, *fraction)).collect(),
    }
}

/// EM until the likelihood stands still; the mixture and its total log-likelihood.
fn maximise(
    scores: &[f64],
    mut mixture: Mixture,
    constraints: Constraints,
    config: &UnlabelledConfig,
) -> (Mixture, f64) {
    let (mut right, mut likelihood) = mixture.responsibilities(scores);
    for _ in 0..config.max_iterations {
        mixture = Mixture::from_fractions(scores, &right, &constraints);
        let before = likelihood;
        (right, likelihood) = mixture.responsibilities(scores);
        if likelihood - before <= config.tolerance * scores.len() as f64 {
            break;
        }
    }
    (mixture, likelihood)
}

impl Component {
    fn log_density(&self, score: f64) -> f64 {
        let z = (score - self.mean) / self.deviation;
        -0.5 * z * z - self.deviation.ln() - 0.5 * (2.0 * std::f64::consts::PI).ln()
    }

    fn weighted(scores: &[f64], weights: &[f64], least_mean: f64, least_deviation: f64) -> Self {
        let total = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let average = |value: &dyn Fn(f64) -> f64| {
            scores.iter().zip(weights).map(|(s, w)| w * value(*s)).sum::<f64>() / total
        };
        // The likelihood is a parabola in the mean, so its constrained maximum is the nearest
        // allowed value; the spread is then taken about that.
        let mean = average(&|s| s).max(least_mean);
        let deviation = average(&|s| (s - mean).powi(2)).sqrt().max(least_deviation);
        Self { mean, deviation }
    }
}

impl Mixture {
    /// M step: `right[i]` is the fraction of mention i that belongs to the correct class.
    fn from_fractions(scores: &[f64], right: &[f64], constraints: &Constraints) -> Self {
        let wrong: Vec<f64> = right.iter().map(|fraction| 1.0 - fraction).collect();
        let least = constraints.least_deviation;
        let fraction = right.iter().sum::<f64>() / scores.len() as f64;
        Self {
            correct: Component::weighted(scores, right, f64::NEG_INFINITY, least),
            hallucinated: Component::weighted(
                scores,
                &wrong,
                constraints.least_hallucinated_mean,
                least,
            ),
            fraction: fraction.clamp(MIN_FRACTION, 1.0 - MIN_FRACTION),
        }
    }

    /// E step: P(correct | `s_i`) for every mention, and the total log-likelihood.
    fn responsibilities(&self, scores: &[f64]) -> (Vec<f64>, f64) {
        let mut likelihood = 0.0;
        let right = scores
            .iter()
            .map(|&score| {
                let right = self.fraction.ln() + self.correct.log_density(score);
                let wrong = (1.0 - self.fraction).ln() + self.hallucinated.log_density(score);
                likelihood += right.max(wrong) + (-(right - wrong).abs()).exp().ln_1p();
                1.0 / (1.0 + (wrong - right).exp())
            })
            .collect();
        (right, likelihood)
    }

    /// P(s₊ > s₋) = Φ((μ₊ − μ₋) / √(σ₊² + σ₋²)).
    fn auc(&self) -> f64 {
        let spread = self.correct.deviation.hypot(self.hallucinated.deviation);
        normal_cdf((self.correct.mean - self.hallucinated.mean) / spread)
    }

    fn calibration(&self, scores: &[f64]) -> Calibration {
        let (right, _) = self.responsibilities(scores);
        let (plus, minus) = (self.correct, self.hallucinated);
        let estimate = [plus.mean, plus.deviation, minus.mean, minus.deviation, self.auc()];
        UnlabelledFit::TwoGaussians.calibration(scores, right, self.fraction, estimate)
    }
}
