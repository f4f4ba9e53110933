//! Why a calibration cannot be made or used.

use super::{CALIBRATION_VERSION, LEAST_AUC, OLDEST_CALIBRATION_VERSION};

/// Scores from which no calibration follows, or a calibration that cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum CalibrationError {
    /// Two slices that belong together differ in length.
    #[error("{scores} scores came with {found} {what}; give one for every score")]
    Length {
        /// Number of scores.
        scores: usize,
        /// What the other slice holds.
        what: &'static str,
        /// Its length.
        found: usize,
    },
    /// A score is NaN or infinite.
    #[error("{what} {index} is {value}; every one must be a finite number")]
    NotFinite {
        /// What the slice holds.
        what: &'static str,
        /// Place in it, from 0.
        index: usize,
        /// The number found.
        value: f64,
    },
    /// Not enough to estimate a mean and a spread from.
    #[error("{found} {what} are too few to calibrate on ({needed} needed); caption more images")]
    TooFew {
        /// What there is too little of.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many it takes.
        needed: usize,
    },
    /// Every score of a class is the same number.
    #[error("all {what} have the same score; the verifier ignores its input")]
    NoSpread {
        /// The class.
        what: &'static str,
    },
    /// Hallucinated mentions score higher than correct ones.
    #[error(
        "the verifier scores hallucinated mentions higher than correct ones (AUC {auc:.3}, mean \
         {mu_hallucinated:.4} against {mu_correct:.4}): rewards from it would teach hallucination; \
         check that verifier, images and annotations belong together"
    )]
    Inverted {
        /// Measured AUC.
        auc: f64,
        /// μ₊.
        mu_correct: f64,
        /// μ₋.
        mu_hallucinated: f64,
    },
    /// Scores hardly tell the classes apart, so that an estimate of correctness would be nothing but noise.
    #[error(
        "the verifier's scores hardly tell correct mentions from hallucinated ones (AUC {auc:.3}; at least \
         {LEAST_AUC} is needed): what a score says of one mention is {deviation:.0} times smaller than its noise; \
         check that verifier, images and annotations belong together, or use a stronger verifier"
    )]
    Indistinct {
        /// Measured AUC.
        auc: f64,
        /// Standard deviation of the estimated correctness of one mention.
        deviation: f64,
    },
    /// One Gaussian explains the scores as well as two.
    #[error(
        "two kinds of mention cannot be told apart in {scores} unlabelled scores (two Gaussians \
         explain them no better than one, BIC gain {bic_gain:.1}); calibrate with annotations or \
         caption more images"
    )]
    Unseparated {
        /// Number of scores.
        scores: usize,
        /// BIC(one Gaussian) − BIC(two); not positive here.
        bic_gain: f64,
    },
    /// A view that tells nothing.
    #[error(
        "the {what} is the same for every mention, so it cannot tell which are correct; give another view"
    )]
    ConstantView {
        /// Which view.
        what: &'static str,
    },
    /// Two views of the same mentions that do not vary together.
    #[error(
        "{first} and {second} of the mentions do not vary together (covariance of their normal scores {covariance:.3} ± \
         {error:.3}, more than twice its standard error is needed), so that one of them, or the number of mentions, is \
         too weak to tell which are correct; caption more images or calibrate with annotations"
    )]
    Unrelated {
        /// One view.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// Covariance of their normal scores.
        covariance: f64,
        /// Its standard error.
        error: f64,
    },
    /// Two views of the same mentions of which one points the wrong way.
    #[error(
        "{first} and {second} of the mentions vary in opposite directions (covariance of their normal scores \
         {covariance:.3} ± {error:.3}); every view has to be higher for correct mentions: reverse the sign of the one \
         that is lower, or leave it out"
    )]
    Opposed {
        /// One view.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// Covariance of their normal scores.
        covariance: f64,
        /// Its standard error.
        error: f64,
    },
    /// Two views vary together for another reason than the truth.
    #[error(
        "{first} and {second} of the mentions depend on each other beyond what their being correct explains ({errors:.1} \
         standard errors, 3 are allowed), so that calibrating on them would be biased; give a view made in another way, \
         or calibrate with annotations"
    )]
    Dependent {
        /// One view.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// By how many standard errors the covariance of the squared views misses what independence foretells.
        errors: f64,
    },
    /// A fraction of correct mentions that no captioner has.
    #[error(
        "the views put the fraction of correct mentions at {fraction:.3}, outside of {least} to {greatest}: they are too weak, or \
         tell about something else than being correct; caption more images or calibrate with annotations"
    )]
    ImplausibleFraction {
        /// The estimate.
        fraction: f64,
        /// Least fraction that is believed.
        least: f64,
        /// Greatest fraction that is believed.
        greatest: f64,
    },
    /// Nothing is hallucinated.
    #[error(
        "all {mentions} mentions are correct, so there are no hallucinated mentions to calibrate with; caption more images, \
         longer (--max-new-tokens) or at a higher --temperature, where the model makes more up"
    )]
    AllCorrect {
        /// How many there are.
        mentions: usize,
    },
    /// Everything is hallucinated.
    #[error(
        "all {mentions} mentions count as hallucinated, which no model is so bad at: check that the annotations \
         belong to these images and name objects as the object vocabulary does"
    )]
    AllHallucinated {
        /// How many there are.
        mentions: usize,
    },
    /// What it was made with and what it holds do not go together.
    #[error(
        "the calibration says that scores are {}centred, and holds {} centres; calibrate again",
        if *said { "" } else { "not " }, if *said { "no" } else { "" }
    )]
    Centring {
        /// Whether scores are said to be centred.
        said: bool,
    },
    /// The same of weights of regions.
    #[error(
        "the calibration says that regions are {}weighted, and holds {} weights; calibrate again",
        if *said { "" } else { "not " }, if *said { "no" } else { "" }
    )]
    Weighting {
        /// Whether regions are said to be weighted.
        said: bool,
    },
    /// It was made with something else.
    #[error("this calibration was made with {differences}; calibrate again with what is at hand")]
    Foreign {
        /// Everything that differs.
        differences: String,
    },
    /// A calibration of another layout.
    #[error(
        "calibration version {found} is not one of {OLDEST_CALIBRATION_VERSION} to \
         {CALIBRATION_VERSION}; calibrate again"
    )]
    Version {
        /// Version found.
        found: u32,
    },
    /// A number that no calibration can hold.
    #[error("the calibration's {field} is {value}, which is out of range; calibrate again")]
    OutOfRange {
        /// Field of [`super::Calibration`].
        field: &'static str,
        /// The number found.
        value: f64,
    },
}

/// Checks every number of a slice.
pub(super) fn check_finite(what: &'static str, values: &[f64]) -> Result<(), CalibrationError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(CalibrationError::NotFinite { what, index, value: values[index] }),
        None => Ok(()),
    }
}
