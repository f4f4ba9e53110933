//! What can go wrong while aligning, apart from bugs.

use fisao_models::parameters::SeveredGradient;
use fisao_models::text::TextError;
use fisao_verifier::scorer::VerifierError;

/// Errors of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlignError {
    /// A configuration value lies outside its range.
    #[error("`{key}` = {found} is out of range: it must be {allowed}")]
    OutOfRange {
        /// Full key as it is written in the configuration, for example `ppo.clip-range`.
        key: String,
        /// The value found, as text.
        found: String,
        /// The allowed range, in words.
        allowed: String,
    },
    /// A setting that another part of the project refuses.
    #[error("{0}")]
    Setting(String),
    /// An image or prompt cannot be used.
    #[error("{id}: {reason}")]
    Task {
        /// Name of the image.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing to train on.
    #[error("there are no images to train on")]
    NoTasks,
    /// Responses do not depend on the image.
    #[error(
        "the model ignores its image: {compared} captions are the same with the picture and with a \
         blank one"
    )]
    ImageIgnored {
        /// How many captions were compared.
        compared: usize,
    },
    /// The verifier cannot be used.
    #[error("{0}")]
    Verifier(String),
    /// Text could not be encoded or decoded.
    #[error("{0}")]
    Text(String),
    /// Part of the adapter is cut off from the loss.
    #[error("{0}")]
    Severed(String),
    /// The saved state does not belong to this run.
    #[error("the saved state does not fit this run: {0}")]
    State(String),
    /// Going on is pointless.
    #[error("iteration {iteration}: {message}")]
    Broken {
        /// Iteration, from 0.
        iteration: usize,
        /// What broke.
        message: String,
    },
}

impl AlignError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OutOfRange { key, .. } => {
                Some(format!("change `{key}` in the configuration file, or pass --set {key}=VALUE"))
            }
            Self::ImageIgnored { .. } => Some(
                "check that the prompt holds the image placeholder and that projector and vision \
                 tower were loaded from this checkpoint"
                    .to_owned(),
            ),
            Self::Broken { .. } => Some(
                "resume from the last checkpoint with a lower ppo.learning-rate or \
                 ppo.max-grad-norm"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl From<VerifierError> for AlignError {
    fn from(error: VerifierError) -> Self {
        Self::Verifier(error.to_string())
    }
}

impl From<TextError> for AlignError {
    fn from(error: TextError) -> Self {
        Self::Text(error.to_string())
    }
}

impl From<SeveredGradient> for AlignError {
    fn from(error: SeveredGradient) -> Self {
        Self::Severed(error.to_string())
    }
}
