//! Calibration: what the verifier's scores of correct and of hallucinated mentions look like.
//!
//! ```text
//! s | correct ~ N(μ₊, σ₊²)      s | hallucinated ~ N(μ₋, σ₋²)      π = P(correct)
//! ```
//!
//! [`fit_annotated`] takes the split from image annotations; [`fit_unlabelled`] estimates it from
//! the scores alone, or, where they show no two humps, with [`fit_three_views`] from two more signals of
//! each mention. Everything is in the unit of the scores: cosine, centred or not.

mod annotated;
mod auc;
mod bootstrap;
mod centring;
mod combination;
mod correctness;
mod error;
mod histogram;
mod levels;
mod logistic;
mod mentions;
mod mixture;
mod naive_bayes;
mod normal;
mod probability;
mod prospects;
mod provenance;
mod sentence;
mod three_views;
mod unlabelled;
mod view_moments;
mod weighted;

use serde::{Deserialize, Serialize};

use crate::regions::{RegionWeights, Regions};

pub use annotated::{MINIMUM_PER_CLASS, fit_annotated};
pub use auc::auc;
pub use bootstrap::{Bootstrap, Interval, Intervals, bootstrap_annotated};
pub use centring::{Centres, centres};
pub use combination::{Combination, CombinedSignal};
pub(crate) use correctness::gaussian_mean;
pub use correctness::{Correctness, LEAST_AUC, Statistic};
pub use error::CalibrationError;
pub use histogram::{Histogram, Histograms, histogram};
pub use logistic::Logistic;
pub use mentions::MentionScores;
pub use mixture::{Anchors, UnlabelledConfig, fit_unlabelled};
pub use probability::ProbabilityModel;
pub use prospects::{FrontierPoint, Prospects};
pub use provenance::{
    AtHand, ImagesIdentity, ModelIdentity, Provenance, VerifierIdentity, VocabularyIdentity,
};
pub use sentence::{SentenceCalibration, fit_sentences};
pub use three_views::{MINIMUM_FOR_THREE_VIEWS, ThreeViewsConfig, Views, fit_three_views};
pub use unlabelled::UnlabelledFit;

/// Layout of [`Calibration`] this version writes.
pub const CALIBRATION_VERSION: u32 = 3;

/// Oldest layout it reads: version 2 lacks [`Calibration::mentions`], for which the two Gaussians stand in.
pub const OLDEST_CALIBRATION_VERSION: u32 = 2;

/// Where the split into correct and hallucinated mentions came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// Image annotations, as in the paper.
    #[default]
    Annotations,
    /// No annotation at all: a mixture over the model's own scores, held by label-free anchors, or
    /// three views of every mention.
    None,
}

/// Scores of correct (+) and hallucinated (−) mentions, summed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// [`CALIBRATION_VERSION`] of the writer.
    pub version: u32,
    /// Where the split came from.
    pub mode: Labels,
    /// Without annotations, how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<UnlabelledFit>,
    /// μ₊, mean score of correct mentions; cosine.
    pub mu_correct: f64,
    /// σ₊, standard deviation of their scores (n − 1).
    pub sigma_correct: f64,
    /// μ₋, mean score of hallucinated mentions; cosine.
    pub mu_hallucinated: f64,
    /// σ₋, standard deviation of their scores (n − 1).
    pub sigma_hallucinated: f64,
    /// σ, pooled: √(((n₊−1)σ₊² + (n₋−1)σ₋²) / (n₊+n₋−2)).
    pub sigma: f64,
    /// Probability that a correct mention outscores a hallucinated one; ties count half. Exact
    /// with annotations, implied by the two Gaussians without, and from three views that of the
    /// scores with every mention counted for either class by its probability.
    pub auc: f64,
    /// Correct mentions; without annotations the expected number, rounded.
    pub correct: usize,
    /// Hallucinated mentions; likewise.
    pub hallucinated: usize,
    /// π, fraction of correct mentions among the model's own.
    pub prior_correct: f64,
    /// Logistic regression of correctness on the score, the alternative to the two Gaussians.
    pub logistic: Logistic,
    /// What has been taken from the score of each name; absent when scores are used as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub centres: Option<Centres>,
    /// What has been taken besides from the scores of phrases that describe what they name ("small brown dog"); absent where none was
    /// scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub described: Option<f64>,
    /// Fractions of the regions in a score, where they were found with the calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<RegionWeights>,
    /// Scale of whole-response scores, needed by the sentence-level reward only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence: Option<SentenceCalibration>,
    /// Counts of scores per class. Without annotations each score counts for its more probable
    /// class.
    pub histograms: Histograms,
    /// The mentions it was made from; empty in files of version 2 and where it was put together by hand.
    #[serde(default, skip_serializing_if = "MentionScores::is_empty")]
    pub mentions: MentionScores,
    /// Bootstrap intervals, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intervals: Option<Intervals>,
    /// What it was made with; absent where it was put together by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_with: Option<Provenance>,
}

impl Calibration {
    /// Checks a calibration that came from a file or was put together by hand.
    ///
    /// # Errors
    /// Another version, a number out of its range, or means in the wrong order.
    pub fn validate(&self) -> Result<(), CalibrationError> {
        if !(OLDEST_CALIBRATION_VERSION..=CALIBRATION_VERSION).contains(&self.version) {
            return Err(CalibrationError::Version { found: self.version });
        }
        let open_unit = |value: f64| value > 0.0 && value < 1.0;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let checks = [
            ("mu_correct", self.mu_correct, self.mu_correct.is_finite()),
            ("mu_hallucinated", self.mu_hallucinated, self.mu_hallucinated.is_finite()),
            ("sigma_correct", self.sigma_correct, positive(self.sigma_correct)),
            ("sigma_hallucinated", self.sigma_hallucinated, positive(self.sigma_hallucinated)),
            ("sigma", self.sigma, positive(self.sigma)),
            ("prior_correct", self.prior_correct, open_unit(self.prior_correct)),
            ("logistic.slope", self.logistic.slope, positive(self.logistic.slope)),
            ("logistic.intercept", self.logistic.intercept, self.logistic.intercept.is_finite()),
            ("auc", self.auc, (0.0..=1.0).contains(&self.auc)),
        ];
        let sentence = self.sentence.into_iter().flat_map(|scale| {
            [
                ("sentence.mean", scale.mean, scale.mean.is_finite()),
                ("sentence.deviation", scale.deviation, positive(scale.deviation)),
            ]
        });
        let weights = self.weights.map(|RegionWeights { patches }| {
            ("weights.patches", patches, (0.0..=1.0).contains(&patches))
        });
        let described = self.described.map(|centre| ("described", centre, centre.is_finite()));
        let checks = checks.into_iter().chain(sentence).chain(weights).chain(described);
        for (field, value, good) in checks {
            if !good {
                return Err(CalibrationError::OutOfRange { field, value });
            }
        }
        self.mentions.validate()?;
        if let Some(made_with) = &self.made_with {
            let said = made_with.verifier.score.centred;
            if said != self.centres.is_some() {
                return Err(CalibrationError::Centring { said });
            }
            let weighted = made_with.verifier.score.regions == Regions::Auto;
            if weighted != self.weights.is_some() {
                return Err(CalibrationError::Weighting { said: weighted });
            }
        }
        self.check_direction()
    }

    /// A verifier that scores hallucinations higher would reward them.
    fn check_direction(&self) -> Result<(), CalibrationError> {
        if self.auc < 0.5 || self.mu_correct <= self.mu_hallucinated {
            return Err(CalibrationError::Inverted {
                auc: self.auc,
                mu_correct: self.mu_correct,
                mu_hallucinated: self.mu_hallucinated,
            });
        }
        Ok(())
    }
}
