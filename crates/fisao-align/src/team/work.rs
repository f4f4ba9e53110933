//! Parts of work, each of which depends on nothing but itself and the models.

use fisao_models::generation::{Generated, Sampling};
use serde::{Deserialize, Serialize};

use super::WorkModels;
use super::messages::{PackedEmbedding, PackedFeatures, PackedTask};
use crate::encoding::{EncodedImages, encode_here};
use crate::error::AlignError;
use crate::log_probabilities::{TokenEstimates, estimate_here};
use crate::objective::Normaliser;
use crate::responses::PromptedResponses;
use crate::run_control::RunControl;
use crate::sampling::{Question, generate_here, respond_here};
use crate::tasks::{Task, TaskList};
use crate::update::{Differentiated, UpdateRows, UpdateSettings, differentiate_here};

/// Something to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Run the image encoders.
    Encode(Vec<PackedTask>),
    /// Encode images and write responses.
    Caption(Caption),
    /// Write responses about images that are encoded.
    Sample(Sample),
    /// Read given responses.
    Estimate(Estimate),
    /// Differentiate the loss of given responses.
    Differentiate(Box<Differentiate>),
}

/// Of [`Work::Caption`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Caption {
    pub(crate) tasks: Vec<PackedTask>,
    /// Number of the first task, and of its random streams.
    pub(crate) first: usize,
    /// Responses to each.
    pub(crate) samples: usize,
    /// Of the longest prompt and response together, tokens.
    pub(crate) length: usize,
    pub(crate) sampling: Sampling,
}

/// Of [`Work::Sample`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) questions: Vec<Question<PackedFeatures>>,
    /// Responses to each.
    pub(crate) samples: usize,
    pub(crate) sampling: Sampling,
}

/// Of [`Work::Estimate`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Estimate {
    pub(crate) responses: PromptedResponses<PackedFeatures>,
    pub(crate) temperature: f64,
}

/// Of [`Work::Differentiate`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Differentiate {
    pub(crate) rows: UpdateRows<PackedFeatures>,
    /// Positions of the rows that are differentiated together.
    pub(crate) groups: Vec<Vec<usize>>,
    pub(crate) settings: UpdateSettings,
    pub(crate) normaliser: Normaliser,
}

/// What work gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    Encoded(Vec<(PackedFeatures, PackedEmbedding)>),
    Sampled(Vec<Generated>),
    Estimated(Vec<TokenEstimates>),
    Differentiated(Box<Differentiated>),
}

impl Work {
    /// Does it, by this process.
    pub(super) fn done_by(
        &self,
        models: WorkModels<'_>,
        control: RunControl<'_>,
    ) -> Result<Answer, AlignError> {
        let WorkModels { policy, verifier, .. } = models;
        let device = policy.device();
        Ok(match self {
            Self::Encode(tasks) => {
                let verifier = verifier.expect("images are encoded for policy and verifier");
                let tasks: Vec<Task> = tasks.iter().map(PackedTask::unpacked).collect();
                let EncodedImages { features, embeddings } =
                    encode_here(policy, verifier, &tasks, control)?;
                let pack = |(features, embedding)| {
                    (PackedFeatures::of(features), PackedEmbedding::of(embedding))
                };
                Answer::Encoded(features.iter().zip(&embeddings).map(pack).collect())
            }
            Self::Caption(Caption { tasks, first, samples, length, sampling }) => {
                let tasks: Vec<Task> = tasks.iter().map(PackedTask::unpacked).collect();
                let (list, all) = (TaskList(&tasks), (0..tasks.len(), *first));
                let written =
                    generate_here(policy, &list, all, *samples, *length, sampling, control)?;
                Answer::Sampled(written)
            }
            Self::Sample(Sample { questions, samples, sampling }) => {
                let questions: Vec<Question> = questions
                    .iter()
                    .map(|one| one.with_features(|packed| packed.on(&device)))
                    .collect();
                Answer::Sampled(respond_here(policy, &questions, *samples, sampling, control)?)
            }
            Self::Estimate(Estimate { responses, temperature }) => {
                let responses = responses.with_features(|packed| packed.on(&device));
                Answer::Estimated(estimate_here(models, &responses, *temperature, control)?)
            }
            Self::Differentiate(work) => {
                let Differentiate { rows, groups, settings, normaliser } = &**work;
                let rows = rows.with_features(|packed| packed.on(&device));
                let step =
                    differentiate_here(models, &rows, groups, settings, *normaliser, control)?;
                Answer::Differentiated(Box::new(step))
            }
        })
    }
}
