//! What can go wrong while aligning, apart from bugs.

use std::error::Error;

use fisao_models::lora::LoraError;
use fisao_models::parameters::SeveredGradient;
use fisao_models::scoring::CudaError;
use fisao_models::text::TextError;
use fisao_verifier::calibration::CalibrationError;
use fisao_verifier::regions::ScoreConfigError;
use fisao_verifier::rewards::RewardError;
use fisao_verifier::scorer::VerifierError;
use fisao_verifier::templates::TemplateError;

use crate::link::{LinkError, MessageError};

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// The setting has no effect on this model.
    #[error(
        "align.activation-dtype = \"bf16\" changes nothing: no weight of the model is held in bf16"
    )]
    NothingInBf16,
    /// Int8 weights are for decoding on the CPU.
    #[error(
        "align.int8-sampling is for models that decode on the CPU, and this one decodes on a card"
    )]
    Int8OnCard,
    /// The card that the decoder runs on failed, or has no room.
    #[error("{0}")]
    Card(#[from] CudaError),
    /// The adapter cannot be put on the model.
    #[error("{0}")]
    Lora(#[from] LoraError),
    /// The sentences in which names are scored cannot be used.
    #[error("{0}")]
    Templates(#[from] TemplateError),
    /// A setting of the verifier's score lies outside its range.
    #[error("{0}")]
    Score(#[from] ScoreConfigError),
    /// The reward does not fit its settings or the calibration.
    #[error("{0}")]
    Reward(#[from] RewardError),
    /// The mentions do not allow an estimate of the verifier's scores.
    #[error("{0}")]
    Calibration(#[from] CalibrationError),
    /// An image or prompt cannot be used.
    #[error("{id}: {source}")]
    Task {
        /// Name of the image.
        id: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is nothing to train on.
    #[error("there are no images to train on")]
    NoTasks,
    /// The objective learns from responses that the data does not have.
    #[error("{id} has no {wanted}, which the objective `{objective}` learns from")]
    NoAnswer {
        /// Name of the image.
        id: String,
        /// What is missing, in words.
        wanted: &'static str,
        /// As the configuration names it.
        objective: &'static str,
    },
    /// No word of the first responses earns or costs anything.
    #[error(
        "the reward is zero for every one of the first {responses} responses ({mentions} mentions per \
         response were found and scored): there is nothing to learn from"
    )]
    RewardZero {
        /// How many were rewarded.
        responses: usize,
        /// Mentions in a response, mean, written with one decimal.
        mentions: String,
    },
    /// Sampler and trainer disagree before the first step.
    #[error(
        "before the first step the trainer's log-probabilities differ from the sampler's by up to {gap} \
         nats (limit {limit})"
    )]
    SamplerMismatch {
        /// Largest difference, nats.
        gap: String,
        /// `guards.sampler-gap`.
        limit: String,
    },
    /// A prompt holds another number of image tokens than the image has features.
    #[error("{id}: the prompt holds {found} image tokens, but the image has {expected} features")]
    ImageTokens {
        /// Name of the image.
        id: String,
        /// Placeholders in the prompt.
        found: usize,
        /// Rows of its features.
        expected: usize,
    },
    /// The model's logits are NaN or infinite.
    #[error("{id}: the model's logits are NaN or infinite, so that no token can be chosen")]
    NotFinite {
        /// Name of the image.
        id: String,
    },
    /// Responses do not depend on the image.
    #[error(
        "the model ignores its image: {compared} captions are the same with the image and with a \
         blank one"
    )]
    ImageIgnored {
        /// How many captions were compared.
        compared: usize,
    },
    /// A reward of one's own does not give what it promises.
    #[error(
        "{id}: the reward `{reward}` must be one finite number for each of the {tokens} tokens; it gave {found}, or one that is not finite"
    )]
    AdditionalReward {
        /// Which one, as the configuration names it.
        reward: String,
        /// Name of the image.
        id: String,
        /// How many numbers it gave.
        found: usize,
        /// Tokens of the response.
        tokens: usize,
    },
    /// The verifier cannot be used.
    #[error("{0}")]
    Verifier(#[from] VerifierError),
    /// Text could not be encoded or decoded.
    #[error("{0}")]
    Text(#[from] TextError),
    /// Part of the adapter is cut off from the loss.
    #[error("{0}")]
    Severed(#[from] SeveredGradient),
    /// Another process of the command cannot be reached.
    #[error("{0}")]
    Link(#[from] LinkError),
    /// It does not speak as this one does.
    #[error("{0}")]
    Message(#[from] MessageError),
    /// Another process could not do its part.
    #[error("process {process}: {reason}")]
    Process {
        /// Its number.
        process: usize,
        /// What it said.
        reason: String,
    },
    /// Somebody asked for it.
    #[error("stopped, as was asked for")]
    Stopped,
    /// Responses could not be saved for a resume.
    #[error("{0}")]
    Unkept(#[source] Box<dyn Error + Send + Sync>),
    /// The saved state does not belong to this run.
    #[error("the saved state does not fit this run: {0}")]
    State(String),
    /// A guard has warned of something that training does not recover from, again and again.
    #[error("stopped after iteration {iteration}: {message}")]
    Unrecoverable {
        /// Iterations done.
        iteration: usize,
        /// The evidence.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// Going on is pointless.
    #[error("iteration {iteration}: {message}")]
    Broken {
        /// Iteration, from 1.
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
            Self::NotFinite { .. } => Some(
                "weights of the model or of its adapter are damaged, or beyond the range of their precision: `fisao inspect \
                 --check` finds the tensors"
                    .to_owned(),
            ),
            Self::NoAnswer { .. } => Some(
                "take prompts that come with responses (`response`) or pairs (`chosen`, `rejected`), or \
                 another objective"
                    .to_owned(),
            ),
            Self::RewardZero { .. } => Some(
                "calibrate on this model's own responses to such images, give a vocabulary that names \
                 what they show, or lower the margin"
                    .to_owned(),
            ),
            Self::SamplerMismatch { .. } => Some(
                "ratios would not mean what they are taken for: use one dtype for both; guards.sampler-gap \
                 is the limit"
                    .to_owned(),
            ),
            Self::Unrecoverable { hint, .. } => Some(hint.clone()),
            Self::Broken { .. } => Some(
                "start again with a lower align.learning-rate or align.max-grad-norm".to_owned(),
            ),
            _ => None,
        }
    }
}
