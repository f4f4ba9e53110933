//! Captions of many images with the scores of what they name.

use fisao_models::generation::Sampling;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::rewards::RewardRule;

use crate::encoding::{EncodedImages, encode_on};
use crate::error::AlignError;
use crate::features::FeatureCache;
use crate::mentions::{MentionScorer, ScoredResponse};
use crate::run_control::RunControl;
use crate::sampling::{Request, sample, tasks_at_once};
use crate::tasks::{Task, TaskSource};
use crate::token_rewards::{AdditionalRewards, response_reward, token_rewards};

/// Writes responses and scores their mentions. Responses to one task are adjacent.
///
/// # Errors
/// [`AlignError::NotFinite`] when the model's logits are NaN or infinite, [`AlignError::Text`] when a response cannot
/// be decoded, [`AlignError::Verifier`] when a name cannot be scored, [`AlignError::Stopped`] when that was asked for.
pub fn caption(
    policy: &VisionLanguageModel,
    scorer: &mut MentionScorer,
    request: &Request<'_>,
) -> Result<Vec<ScoredResponse>, AlignError> {
    let responses = sample(policy, request)?;
    scorer.read_all(responses, request.samples, &request.encoded.embeddings)
}

/// Encodes the tasks' images and writes one response to each; task `i` draws from random stream `i`.
/// `control` is told how many more responses are done, from any thread.
///
/// # Errors
/// See [`caption`].
pub fn describe(
    policy: &VisionLanguageModel,
    scorer: &mut MentionScorer,
    tasks: &[Task],
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<(Vec<ScoredResponse>, EncodedImages), AlignError> {
    describe_from(policy, scorer, (tasks, 0), sampling, control)
}

/// The same of tasks of which the first has a number: task `i` of them draws from random stream `first + i`.
pub(crate) fn describe_from(
    policy: &VisionLanguageModel,
    scorer: &mut MentionScorer,
    (tasks, first): (&[Task], usize),
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<(Vec<ScoredResponse>, EncodedImages), AlignError> {
    let encoded = encode_on(policy, &scorer.verifier, tasks, control)?;
    let captions = answer(policy, scorer, (tasks, first), &encoded, sampling, control)?;
    Ok((captions, encoded))
}

/// One response to each of some tasks whose images are encoded already, of which the first has a number: task `i` of them
/// draws from random stream `first + i`.
pub(crate) fn answer(
    policy: &VisionLanguageModel,
    scorer: &mut MentionScorer,
    (tasks, first): (&[Task], usize),
    encoded: &EncodedImages,
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<Vec<ScoredResponse>, AlignError> {
    let streams: Vec<u64> = (first..first + tasks.len()).map(|at| at as u64).collect();
    let request = Request { tasks, encoded, streams: &streams, samples: 1, sampling, control };
    caption(policy, scorer, &request)
}

/// Captions all tasks of a source, a part of them at a time, so that neither pixels nor image features of all are kept:
/// the captions, and what the verifier made of each image. Task `i` draws from random stream `i`. `length` is that of the
/// longest prompt and response together, tokens; `seen` is shown every task once, in order.
///
/// # Errors
/// What the source reports about a task; see [`caption`].
pub fn describe_all(
    policy: &VisionLanguageModel,
    scorer: &mut MentionScorer,
    source: &dyn TaskSource,
    length: usize,
    sampling: &Sampling,
    control: RunControl<'_>,
    seen: &mut dyn FnMut(&Task),
) -> Result<(Vec<ScoredResponse>, Vec<ImageEmbedding>), AlignError> {
    let cache = &mut FeatureCache::none();
    describe_all_with(policy, (scorer, cache), source, length, sampling, control, seen)
}

/// The same with a cache of what the image encoders made of the source's images, by their places in it.
///
/// # Errors
/// See [`describe_all`].
pub fn describe_all_with(
    policy: &VisionLanguageModel,
    (scorer, cache): (&mut MentionScorer, &mut FeatureCache),
    source: &dyn TaskSource,
    length: usize,
    sampling: &Sampling,
    control: RunControl<'_>,
    seen: &mut dyn FnMut(&Task),
) -> Result<(Vec<ScoredResponse>, Vec<ImageEmbedding>), AlignError> {
    let count = source.count();
    let (mut captions, mut images) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for part in parts(source, tasks_at_once(policy, length, control.team)) {
        let (first, tasks) = part?;
        tasks.iter().for_each(&mut *seen);
        let part = (tasks.as_slice(), first);
        let encoded = cache.encode_from(policy, &scorer.verifier, part, control)?;
        let written = answer(policy, scorer, part, &encoded, sampling, control)?;
        captions
            .extend(written.into_iter().map(|of| ScoredResponse { task: first + of.task, ..of }));
        images.extend(encoded.embeddings);
    }
    Ok((captions, images))
}

/// The tasks of a source, some at a time, each part with the number of its first.
pub(crate) fn parts(
    source: &dyn TaskSource,
    at_once: usize,
) -> impl Iterator<Item = Result<(usize, Vec<Task>), AlignError>> {
    let count = source.count();
    (0..count).step_by(at_once).map(move |first| {
        let part = first..count.min(first + at_once);
        Ok((first, part.map(|at| source.task(at)).collect::<Result<Vec<_>, _>>()?))
    })
}

/// Several responses to each task, of which the one that the verifier's rewards find best is kept: no training, many times
/// the sampling. Of equal ones the first counts. Task `i` of them draws from random streams of its own, number `first + i`.
///
/// Returns the best responses and the tokens of all that were written.
///
/// # Errors
/// See [`caption`].
pub fn best_of(
    policy: &VisionLanguageModel,
    scorer: &mut MentionScorer,
    (rule, additional): (&RewardRule, &AdditionalRewards),
    (tasks, first): (&[Task], usize),
    samples: usize,
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<(Vec<ScoredResponse>, usize), AlignError> {
    let encoded = encode_on(policy, &scorer.verifier, tasks, control)?;
    let streams: Vec<u64> = (first..first + tasks.len()).map(|at| at as u64).collect();
    let request =
        Request { tasks, encoded: &encoded, streams: &streams, samples, sampling, control };
    let captions = caption(policy, scorer, &request)?;
    let tokens = captions.iter().map(|caption| caption.tokens.len()).sum();
    let best = best_responses((rule, additional), (scorer, tasks, &encoded), &captions)?;
    Ok((best.into_iter().map(|at| captions[at].clone()).collect(), tokens))
}

/// Which of adjacent responses to each task the rewards find best, by its place among all of them; of equal ones the first.
pub(crate) fn best_responses(
    (rule, additional): (&RewardRule, &AdditionalRewards),
    inputs: (&MentionScorer, &[Task], &EncodedImages),
    captions: &[ScoredResponse],
) -> Result<Vec<usize>, AlignError> {
    let rewards = token_rewards(rule, additional, inputs, captions)?;
    let mut best: Vec<(f64, usize)> = Vec::with_capacity(inputs.1.len());
    for (at, rewards) in rewards.iter().enumerate() {
        let reward = response_reward(rewards);
        match best.last_mut().filter(|(_, known)| captions[*known].task == captions[at].task) {
            Some(kept) if reward > kept.0 => *kept = (reward, at),
            Some(_) => {}
            None => best.push((reward, at)),
        }
    }
    Ok(best.into_iter().map(|(_, at)| at).collect())
}
