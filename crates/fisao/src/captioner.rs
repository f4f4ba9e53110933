//! Captions for a sequence of tasks, on all cores, with progress.

use burn::tensor::Tensor;
use fisao_align::AlignError;
use fisao_align::captions::pixels;
use fisao_align::tasks::{Task, TaskSource};
use fisao_models::generation::{Generated, Prompt, Sampling};
use fisao_models::llava::Llava;
use fisao_models::parallel::{cores, over_shares};

use crate::reporter::PhaseProgress;

/// Images captioned together by one core.
const BATCH: usize = 16;

/// Images that are read, captioned and handed on before the next are read.
pub(crate) fn images_at_once() -> usize {
    BATCH * cores()
}

/// Captions the tasks `range` of a source, one caption each, in order. Task `i` draws from random
/// stream `i`, so a caption does not depend on which others are made with it.
pub(crate) fn caption(
    policy: &Llava,
    source: &dyn TaskSource,
    range: std::ops::Range<usize>,
    sampling: &Sampling,
    progress: &PhaseProgress,
) -> Result<Vec<Generated>, AlignError> {
    let indices: Vec<usize> = range.collect();
    let shares = over_shares(&indices, cores(), |share| {
        let mut written = Vec::with_capacity(share.len());
        for batch in share.chunks(BATCH) {
            written.extend(caption_batch(policy, source, batch, sampling)?);
            progress.advance(batch.len() as u64);
        }
        Ok(written)
    });
    let shares = shares.into_iter().collect::<Result<Vec<_>, AlignError>>()?;
    Ok(shares.into_iter().flatten().collect())
}

fn caption_batch(
    policy: &Llava,
    source: &dyn TaskSource,
    indices: &[usize],
    sampling: &Sampling,
) -> Result<Vec<Generated>, AlignError> {
    let tasks: Vec<Task> =
        indices.iter().map(|&index| source.task(index)).collect::<Result<_, _>>()?;
    let side = policy.config().vision.image_size;
    let features: Tensor<3> = policy.image_features(pixels(&tasks, side, &policy.device()));
    let prompts: Vec<Prompt> = tasks
        .into_iter()
        .zip(indices)
        .enumerate()
        .map(|(image, (task, &index))| Prompt { ids: task.prompt, image, stream: index as u64 })
        .collect();
    Ok(policy.generate(&prompts, &features, 1, sampling))
}
