//! What policy, reference and value head say about given responses.

use std::cmp::Reverse;

use fisao_models::parallel::parallel_chunks;
use fisao_models::parameters::floats;
use fisao_models::scoring::ResponseScores;
use fisao_models::sequences::Example;
use fisao_models::value_head::ValueHead;
use fisao_models::vision_language::{ImageFeatures, VisionLanguageModel};

use crate::encoding::EncodedImages;
use crate::error::AlignError;
use crate::mentions::ScoredResponse;
use crate::run_control::StopFlag;
use crate::tasks::Task;

/// Responses that one core reads at a time.
const BATCH: usize = 16;

/// What forward passes say about the tokens of one response, each `[T]`.
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

/// Runs policy, value head and reference over all responses, on all cores; responses of like length together, so that
/// little of a batch is padding.
///
/// # Errors
/// [`AlignError::Stopped`] when that was asked for.
pub(crate) fn token_estimates(
    (policy, value_head): (&VisionLanguageModel, Option<&ValueHead>),
    (tasks, encoded, captions): (&[Task], &EncodedImages, &[ScoredResponse]),
    temperature: f64,
    stop: &StopFlag,
) -> Result<Vec<TokenEstimates>, AlignError> {
    let reference = policy.without_lora();
    // Responses to one task stay together, where they are read from one prompt.
    let length = |at: usize| captions[at].tokens.len();
    let mut longest = vec![0; tasks.len()];
    for (at, caption) in captions.iter().enumerate() {
        longest[caption.task] = longest[caption.task].max(length(at));
    }
    let mut order: Vec<usize> = (0..captions.len()).collect();
    order.sort_by_key(|&at| (Reverse(longest[captions[at].task]), captions[at].task, at));
    let batches: Vec<&[usize]> = order.chunks(BATCH).collect();
    let chunks = policy.scoring_workers().min(batches.len()).max(1);
    // Long and short batches alternate between the cores, so that these finish together.
    let dealt: Vec<Vec<&[usize]>> = (0..chunks)
        .map(|chunk| batches.iter().copied().skip(chunk).step_by(chunks).collect())
        .collect();
    let parts = parallel_chunks(&dealt, chunks, |chunk| {
        let mut scored = Vec::new();
        for batch in chunk.iter().flatten() {
            stop.check()?;
            let (examples, features) = examples(batch, tasks, encoded, captions);
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

/// The examples at `indices` with the features of their images.
pub(crate) fn examples<'a>(
    indices: &[usize],
    tasks: &'a [Task],
    encoded: &EncodedImages,
    captions: &'a [ScoredResponse],
) -> (Vec<Example<'a>>, ImageFeatures) {
    let mut shown: Vec<usize> = Vec::new();
    let examples = indices
        .iter()
        .map(|&index| {
            let task = captions[index].task;
            if shown.last() != Some(&task) {
                shown.push(task);
            }
            Example {
                prompt: &tasks[task].prompt,
                image: shown.len() - 1,
                response: &captions[index].tokens,
            }
        })
        .collect();
    let features = shown.iter().map(|&task| encoded.features[task].clone()).collect();
    (examples, ImageFeatures::cat(features))
}
