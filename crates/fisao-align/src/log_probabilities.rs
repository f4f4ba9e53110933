//! What policy, reference and value head say about given responses.

use std::cmp::Reverse;

use fisao_models::parallel::parallel_chunks;
use fisao_models::parameters::floats;
use fisao_models::scoring::ResponseScores;
use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::responses::PromptedResponses;
use crate::run_control::RunControl;
use crate::sharing::{Kind, PackedFeatures, Work, WorkModels, in_parts, perform};

/// Responses that one core reads at a time.
const BATCH: usize = 16;

/// What forward passes say about the tokens of one response, each `[T]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TokenEstimates {
    /// log π, nats.
    pub(crate) logprobs: Vec<f32>,
    /// The same with the adapter off.
    pub(crate) reference: Vec<f32>,
    /// The critic's values, reward units; empty without a critic.
    pub(crate) values: Vec<f32>,
    /// Entropy of the policy, nats.
    pub(crate) entropy: Vec<f32>,
}

/// Runs policy, value head and reference over all responses, those to one task adjacent; shared where `control` says so.
///
/// # Errors
/// [`AlignError::Stopped`] when that was asked for.
pub(crate) fn token_estimates(
    models: WorkModels<'_>,
    responses: &PromptedResponses,
    temperature: f64,
    control: RunControl<'_>,
) -> Result<Vec<TokenEstimates>, AlignError> {
    let Some(team) = control.team else {
        return estimate_here(models, responses, temperature, control);
    };
    let positions: Vec<usize> = (0..responses.len()).collect();
    let of_tasks: Vec<&[usize]> =
        positions.chunk_by(|&a, &b| responses.task(a) == responses.task(b)).collect();
    let parts: Vec<&[&[usize]]> = in_parts(&of_tasks, team.parts()).collect();
    let work = |at: usize| {
        let responses = responses.part(&parts[at].concat(), PackedFeatures::of);
        Estimate { responses, temperature }
    };
    Ok(perform(team, models, parts.len(), work, control)?.into_iter().flatten().collect())
}

/// A part of [`token_estimates`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Estimate {
    responses: PromptedResponses<PackedFeatures>,
    temperature: f64,
}

impl Work for Estimate {
    const KIND: Kind = Kind::Estimate;
    type Answer = Vec<TokenEstimates>;

    fn done(
        &self,
        models: WorkModels<'_>,
        control: RunControl<'_>,
    ) -> Result<Self::Answer, AlignError> {
        let device = models.policy().device();
        let responses = self.responses.with_features(|packed| packed.on(&device));
        estimate_here(models, &responses, self.temperature, control)
    }
}

/// The same by this process alone, on all cores; responses of like length together, so that little of a batch is padding.
fn estimate_here(
    models: WorkModels<'_>,
    responses: &PromptedResponses,
    temperature: f64,
    control: RunControl<'_>,
) -> Result<Vec<TokenEstimates>, AlignError> {
    let (policy, value_head) = (models.policy(), models.value_head);
    let reference = policy.without_lora();
    // Responses to one task stay together, where they are read from one prompt.
    let mut longest = vec![0; responses.tasks()];
    for at in 0..responses.len() {
        let longest = &mut longest[responses.task(at)];
        *longest = responses.length(at).max(*longest);
    }
    let mut order: Vec<usize> = (0..responses.len()).collect();
    order.sort_by_key(|&at| (Reverse(longest[responses.task(at)]), responses.task(at), at));
    let batches: Vec<&[usize]> = order.chunks(BATCH).collect();
    let chunks = policy.scoring_workers().min(batches.len()).max(1);
    // Long and short batches alternate between the cores, so that these finish together.
    let dealt: Vec<Vec<&[usize]>> = (0..chunks)
        .map(|chunk| batches.iter().copied().skip(chunk).step_by(chunks).collect())
        .collect();
    let parts = parallel_chunks(&dealt, chunks, |chunk| {
        let mut scored = Vec::new();
        for batch in chunk.iter().flatten() {
            control.check()?;
            let (examples, features) = responses.examples(batch);
            let ResponseScores { hidden, log_probs, entropies } =
                policy.response_scores(&examples, &features, temperature)?;
            let values = value_head.map(|head| floats(&head.forward(hidden)));
            let base = reference.response_scores(&examples, &features, temperature)?.log_probs;
            let [logprobs, base, entropy] = [log_probs, base, entropies].map(|row| floats(&row));
            let mut start = 0;
            for (example, &at) in examples.iter().zip(*batch) {
                let range = start..start + example.response.len();
                let of = |row: &[f32]| row[range.clone()].to_vec();
                let values = values.as_deref().map(of).unwrap_or_default();
                let (logprobs, reference, entropy) = (of(&logprobs), of(&base), of(&entropy));
                scored.push((at, TokenEstimates { logprobs, reference, values, entropy }));
                start = range.end;
            }
        }
        Ok(scored)
    });
    let parts = parts.into_iter().collect::<Result<Vec<_>, AlignError>>()?;
    let mut scored: Vec<(usize, TokenEstimates)> = parts.into_iter().flatten().collect();
    scored.sort_by_key(|(at, _)| *at);
    Ok(scored.into_iter().map(|(_, scored)| scored).collect())
}
