//! How likely a model finds given responses.

use std::ops::Range;
use std::slice;

use fisao_models::parallel::parallel_chunks;
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::vision_language::VisionLanguageModel;
use serde::{Deserialize, Serialize};

use crate::encoding::image_batch;
use crate::error::AlignError;
use crate::run_control::RunControl;
use crate::sampling::BatchPlan;
use crate::sharing::{Kind, PackedTask, Work, WorkModels, in_parts, perform};
use crate::tasks::{Task, TaskList, TaskSource, all_tasks};

/// How likely a model finds each of several given responses: for each of the tasks `range` of a source the
/// mean log-probability over the tokens of each response, nats, at temperature 1. `responses` holds those of every
/// task of the source, none of them empty; `control` is told how many more tasks are done, from any thread.
/// `length` is that of the longest prompt and response together, tokens.
///
/// # Errors
/// What the source reports about a task; [`AlignError::NotFinite`] naming the task of a response whose probability is none;
/// [`AlignError::Stopped`] when that was asked for.
pub fn likelihoods(
    policy: &VisionLanguageModel,
    source: &dyn TaskSource,
    range: Range<usize>,
    responses: &[Vec<Vec<u32>>],
    length: usize,
    control: RunControl<'_>,
) -> Result<Vec<Vec<f64>>, AlignError> {
    let responses = &responses[range.clone()];
    let Some(team) = control.team else {
        return likelihoods_here(policy, source, (range, responses), length, control);
    };
    let tasks = all_tasks(source, range)?;
    let parts: Vec<_> =
        in_parts(&tasks, team.parts()).zip(in_parts(responses, team.parts())).collect();
    let work = |at: usize| Likelihoods {
        tasks: parts[at].0.iter().map(PackedTask::of).collect(),
        responses: parts[at].1.to_vec(),
        length,
    };
    let models = WorkModels::of_policy(policy);
    let alone = RunControl { advance: &|_| {}, ..control };
    let found = perform(team, models, parts.len(), work, alone)?;
    (control.advance)(tasks.len());
    Ok(found.into_iter().flatten().collect())
}

/// A part of [`likelihoods`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Likelihoods {
    tasks: Vec<PackedTask>,
    /// To each task.
    responses: Vec<Vec<Vec<u32>>>,
    length: usize,
}

impl Work for Likelihoods {
    const KIND: Kind = Kind::Likelihoods;
    type Answer = Vec<Vec<f64>>;

    fn done(
        &self,
        models: WorkModels<'_>,
        control: RunControl<'_>,
    ) -> Result<Self::Answer, AlignError> {
        let Self { tasks, responses, length } = self;
        let tasks: Vec<Task> = tasks.iter().map(PackedTask::unpacked).collect();
        let all = (0..tasks.len(), responses.as_slice());
        likelihoods_here(models.policy(), &TaskList(&tasks), all, *length, control)
    }
}

/// The same by this process alone; the responses are those to the tasks of the range.
fn likelihoods_here(
    policy: &VisionLanguageModel,
    source: &dyn TaskSource,
    (range, responses): (Range<usize>, &[Vec<Vec<u32>>]),
    length: usize,
    control: RunControl<'_>,
) -> Result<Vec<Vec<f64>>, AlignError> {
    let pairs: Vec<(usize, &Vec<Vec<u32>>)> = range.zip(responses).collect();
    let plan = BatchPlan::of(policy, length);
    let chunks = parallel_chunks(&pairs, plan.chunks, |chunk| {
        let mut found = Vec::with_capacity(chunk.len());
        for &(at, responses) in chunk {
            control.check()?;
            let task = source.task(at)?;
            let features =
                policy.image_features(image_batch(slice::from_ref(&task), &policy.device()))?;
            let mut means = Vec::with_capacity(responses.len());
            for batch in responses.chunks(plan.batch) {
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
            (control.advance)(1);
        }
        Ok(found)
    });
    let chunks = chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()?;
    Ok(chunks.into_iter().flatten().collect())
}
