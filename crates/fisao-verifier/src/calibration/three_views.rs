//! Calibration without labels from three views of every mention, for verifiers too weak for two Gaussians.
//!
//! Let z be the truth about a mention, x₁ its score and x₂, x₃ two other signals of the same mention: by how much its
//! log-probability falls without the image, how many sampled captions of the image agree on it. If the three are
//! independent given z, with `Δ_j` the gap between the class means of `x_j` and π = P(z = 1),
//!
//! ```text
//! Cov(x_j, x_k) = π(1 − π) Δ_j Δ_k               C₁₂, C₁₃, C₂₃
//! E Π_j (x_j − E x_j) = π(1 − π)(1 − 2π) Δ₁ Δ₂ Δ₃      T
//!
//! (1 − 2π)/√(π(1 − π)) = T / √(C₁₂ C₁₃ C₂₃)        Δ₁² = C₁₂ C₁₃ / (C₂₃ π(1 − π))
//! ```
//!
//! so that how the signals go together gives the fraction and every gap: nothing has to be read from the shape of one signal,
//! which at an AUC of 0.8 shows no two humps. This is the method of moments of Anandkumar, Hsu and Kakade (*A Method of
//! Moments for Mixture Models and Hidden Markov Models*, arXiv 1203.0683) for two classes, and with covariances the triplet
//! method of Fu et al. (*Fast and Three-rious*, arXiv 2002.11955). Moments are taken of normal scores, which no outlier
//! moves; they are noisy, so maximum likelihood starts from them (`naive_bayes.rs`) and gives every mention its
//! `q_i` = P(correct | x₁, x₂, x₃), with which the class mean of any function of the score is
//!
//! ```text
//! f̄₊ = Σ q_i f(s_i) / Σ q_i        f̄₋ = Σ (1 − q_i) f(s_i) / Σ (1 − q_i)
//! ```
//!
//! **Two views do not do.** Of two signals only C₁₂ is left: one equation for π and two gaps. Nor do all values of two
//! signals identify them: their joint distribution is a matrix of rank two, which is a sum of two products of non-negative
//! vectors in infinitely many ways. Equal spreads of both classes would add Cov(x₁², x₂) = π(1 − π)(1 − 2π) Δ₁² Δ₂ and its
//! mirror, and with them an answer, but an assumption about spreads that is not quite true then *is* the answer. So there
//! is no fallback to two.
//!
//! **Dependence is found where it can be seen.** Signals that vary together within a class bias everything: a
//! correlation of 0.1 is half of what the truth itself causes at π = 0.85 and AUCs of 0.8. Their first moments
//! fit any three covariances, but their squares have a covariance that the fit foretells, `π(1 − π) Δ(x_j²) Δ(x_k²)`; where
//! the mentions say otherwise, the calibration is refused.

use serde::{Deserialize, Serialize};

use super::annotated::{MINIMUM_PER_CLASS, spread};
use super::bootstrap::intervals;
use super::error::check_finite;
use super::levels::Levels;
use super::naive_bayes::{NaiveBayes, Steps};
use super::view_moments::{Moments, NAMES, check_independence};
use super::weighted::{Captions, Order};
use super::{Bootstrap, Calibration, CalibrationError, UnlabelledFit};

/// Mentions it takes: with fewer, views with AUCs of 0.8 do not covary beyond their sampling error at a fraction of 0.85.
pub const MINIMUM_FOR_THREE_VIEWS: usize = 200;

/// Resamples differ little from the whole, so that EM need not be as exact as for the estimate.
const RESAMPLE_COARSENESS: f64 = 10.0;
/// Fraction taken for hallucinated by the start that looks at ranks alone.
const INITIAL_FRACTION: f64 = 0.15;

/// Two signals of every mention beside its score, each higher for correct mentions and, given whether the mention is
/// correct, independent of the score and of the other. Any unit, any scale: only the order of the values counts.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a> {
    /// One value per mention; for instance by how much its log-probability falls when the image is replaced.
    pub second: &'a [f64],
    /// One value per mention; for instance the fraction of other captions of the image that mention it.
    pub third: &'a [f64],
    /// The number of the caption that each mention stands in: mentions of one caption are right or wrong together, so that
    /// standard errors are those over captions, and the bootstrap resamples them. `None`: every mention counts alone.
    pub captions: Option<&'a [usize]>,
}

/// Settings of [`fit_three_views`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ThreeViewsConfig {
    /// Levels into which a signal is cut, at most; at least 3. Default: 64. With 16, the lowest is larger than a class of 5 % of
    /// the mentions, and E[ẑ | hallucinated] was off by 0.20 instead of 0.16.
    pub levels: usize,
    /// Most EM steps. Default: 2000.
    pub max_iterations: usize,
    /// Mean change of the probabilities in one step below which EM stops. Default: 1e-5.
    pub tolerance: f64,
    /// Least fraction of correct mentions that is believed, `[0, 1]`. Default: 0.5: captions are more often right than not, and
    /// views that say otherwise depend on each other.
    pub least_fraction: f64,
    /// Greatest fraction of correct mentions that is believed, `[0, 1]`. Default: 0.99.
    pub greatest_fraction: f64,
    /// Bootstrap of the intervals. Default: 200 samples, seed 0.
    pub bootstrap: Bootstrap,
}

impl Default for ThreeViewsConfig {
    fn default() -> Self {
        Self {
            levels: 64,
            max_iterations: 2000,
            tolerance: 1e-5,
            least_fraction: 0.5,
            greatest_fraction: 0.99,
            bootstrap: Bootstrap::default(),
        }
    }
}

/// Calibrates without labels on the scores of the model's own mentions and two other views of each. The AUC is that of
/// the scores with every mention counted for either class by its probability.
///
/// # Errors
/// A number that is not finite, slices of different length, fewer than [`MINIMUM_FOR_THREE_VIEWS`] mentions, a view without
/// spread, views that do not covary or covary with the wrong sign, a fraction of correct mentions that is not
/// believed or leaves fewer than [`MINIMUM_PER_CLASS`] hallucinated ones, views that depend on each other given the
/// truth, or a verifier that scores hallucinations higher.
pub fn fit_three_views(
    scores: &[f64],
    views: &Views<'_>,
    config: &ThreeViewsConfig,
) -> Result<Calibration, CalibrationError> {
    check(scores, views)?;
    let levels =
        [scores, views.second, views.third].map(|of| Levels::new(of, config.levels.max(3)));
    let captions = Captions::new(scores.len(), views.captions);
    let moments = Moments::of(&levels, &captions)?;
    let weights = vec![1.0; scores.len()];
    let steps = Steps { most: config.max_iterations, tolerance: config.tolerance };
    let starts = [moments.responsibilities(&levels), lowest_ranks(&levels)];
    let fit = starts
        .map(|guess| NaiveBayes::fit(&levels, &weights, &guess, steps))
        .into_iter()
        .max_by(|a, b| a.log_likelihood(&levels).total_cmp(&b.log_likelihood(&levels)))
        .expect("there are two starts");

    // Before the fraction: dependence is what most often makes it implausible.
    check_independence(&levels, &fit.correct, &captions)?;
    let fraction = mean(&fit.correct);
    if !(config.least_fraction..=config.greatest_fraction).contains(&fraction) {
        let (least, greatest) = (config.least_fraction, config.greatest_fraction);
        return Err(CalibrationError::ImplausibleFraction { fraction, least, greatest });
    }
    let found = ((1.0 - fraction) * scores.len() as f64).round() as usize;
    if found < MINIMUM_PER_CLASS {
        let what = "hallucinated mentions (expected)";
        return Err(CalibrationError::TooFew { what, found, needed: MINIMUM_PER_CLASS });
    }

    let order = Order::of(scores);
    let estimate = order.estimate(&weights, &fit.correct);
    let mut calibration =
        UnlabelledFit::ThreeViews.calibration(scores, fit.correct.clone(), fraction, estimate);
    calibration.check_direction()?;
    let steps = Steps { tolerance: RESAMPLE_COARSENESS * config.tolerance, ..steps };
    calibration.intervals = Some(intervals(&config.bootstrap, |rng| {
        let weights = captions.resampled(rng);
        // From the estimate: another start could end elsewhere, which is no sampling error.
        order.estimate(&weights, &fit.refit(&levels, &weights, steps).correct)
    }));
    Ok(calibration)
}

fn check(scores: &[f64], views: &Views<'_>) -> Result<(), CalibrationError> {
    let all = [scores, views.second, views.third];
    for (what, values) in NAMES.into_iter().zip(all) {
        check_finite(what, values)?;
    }
    let captions = views.captions.map_or(scores.len(), <[usize]>::len);
    let lengths = [
        ("values of the second view", views.second.len()),
        ("values of the third view", views.third.len()),
        ("captions", captions),
    ];
    for (what, found) in lengths {
        if found != scores.len() {
            return Err(CalibrationError::Length { scores: scores.len(), what, found });
        }
    }
    let (what, found, needed) = ("mentions", scores.len(), MINIMUM_FOR_THREE_VIEWS);
    if found < needed {
        return Err(CalibrationError::TooFew { what, found, needed });
    }
    spread("mentions", scores)?;
    for (what, values) in NAMES.into_iter().zip(all) {
        spread(what, values).map_err(|_| CalibrationError::ConstantView { what })?;
    }
    Ok(())
}

/// A start that trusts no moment: the mentions whose ranks in all views are lowest are taken for hallucinated.
fn lowest_ranks(views: &[Levels; 3]) -> Vec<f64> {
    let count = views[0].of.len();
    let mut sums = vec![0.0; count];
    for view in views {
        for (sum, value) in sums.iter_mut().zip(view.values()) {
            *sum += value;
        }
    }
    let mut sorted = sums.clone();
    sorted.sort_by(f64::total_cmp);
    let cut = sorted[(INITIAL_FRACTION * count as f64) as usize];
    sums.into_iter().map(|sum| if sum < cut { 0.05 } else { 0.95 }).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
