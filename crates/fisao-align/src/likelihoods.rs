//! How likely a model finds given responses.

use std::ops::Range;
use std::slice;

use fisao_models::parallel::parallel_chunks;
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::vision_language::VisionLanguageModel;

use crate::encoding::image_batch;
use crate::error::AlignError;
use crate::sampling::BatchPlan;
use crate::tasks::TaskSource;

/// How likely a model finds each of several given responses: for each of the tasks `range` of a source the
/// mean log-probability over the tokens of each response, nats, at temperature 1. `responses` holds those of every
/// task of the source, none of them empty; `advance` is told how many more tasks are done, from any thread.
/// `length` is that of the longest prompt and response together, tokens.
///
/// # Errors
/// What the source reports about a task.
pub fn likelihoods(
    policy: &VisionLanguageModel,
    source: &dyn TaskSource,
    range: Range<usize>,
    responses: &[Vec<Vec<u32>>],
    length: usize,
    advance: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Vec<f64>>, AlignError> {
    let indices: Vec<usize> = range.collect();
    let plan = BatchPlan::of(policy, length);
    let chunks = parallel_chunks(&indices, plan.chunks, |chunk| {
        let mut found = Vec::with_capacity(chunk.len());
        for &at in chunk {
            let task = source.task(at)?;
            let features =
                policy.image_features(image_batch(slice::from_ref(&task), &policy.device()))?;
            let mut means = Vec::with_capacity(responses[at].len());
            for batch in responses[at].chunks(plan.batch) {
                let example = |response| Example { prompt: &task.prompt, image: 0, response };
                let examples: Vec<_> = batch.iter().map(Vec::as_slice).map(example).collect();
                let scores = policy.response_scores(&examples, &features, 1.0)?;
                let logprobs = floats(&scores.log_probs);
                let mut rest = logprobs.as_slice();
                for response in batch {
                    let (own, others) = rest.split_at(response.len());
                    let sum: f64 = own.iter().map(|&logprob| f64::from(logprob)).sum();
                    if !sum.is_finite() {
                        return Err(AlignError::NotFinite { id: task.id });
                    }
                    means.push(sum / own.len() as f64);
                    rest = others;
                }
            }
            found.push(means);
            advance(1);
        }
        Ok(found)
    });
    let chunks = chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()?;
    Ok(chunks.into_iter().flatten().collect())
}
