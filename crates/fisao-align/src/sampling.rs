//! Responses of the policy to many tasks, in batches that memory has room for.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fisao_models::generation::{Generated, Prompt, Sampling};
use fisao_models::llama::KvCache;
use fisao_models::parallel::parallel_chunks;
use fisao_models::vision_language::{ImageFeatures, VisionLanguageModel};
use serde::{Deserialize, Serialize};

use crate::encoding::{EncodedImages, image_batch};
use crate::error::AlignError;
use crate::run_control::RunControl;
use crate::sharing::{Kind, PackedFeatures, PackedTask, Work, WorkModels, in_parts, perform};
use crate::tasks::{Task, TaskList, TaskSource, all_tasks};
use crate::team::Team;

/// Most sequences decoded together by one core.
const BATCH: usize = 32;

/// Most sequences decoded together by a card: its matrices are read once for all of them.
const CARD_BATCH: usize = 64;

/// Tasks of one part of exact work that are captioned at once.
const EXACT_BATCH: usize = 8;

/// Memory that the key–value caches of all sequences decoded at once may take, bytes.
const CACHES: usize = 2 << 30;

/// Which responses are wanted.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What is asked.
    pub tasks: &'a [Task],
    /// What the encoders made of the tasks' images.
    pub encoded: &'a EncodedImages,
    /// Number of the random streams of each task, see
    /// [`Prompt::stream`](fisao_models::generation::Prompt::stream).
    pub streams: &'a [u64],
    /// Responses to each task.
    pub samples: usize,
    /// How tokens are chosen.
    pub sampling: &'a Sampling,
    /// Progress, stopping and saved responses; checked before every batch.
    pub control: RunControl<'a>,
}

/// Writes responses, on all cores. Those to one task are adjacent.
///
/// # Errors
/// [`AlignError::NotFinite`] when the model's logits are NaN or infinite, [`AlignError::Card`] when the driver of its card fails,
/// [`AlignError::Stopped`] when that was asked for.
pub fn sample(
    policy: &VisionLanguageModel,
    request: &Request<'_>,
) -> Result<Vec<Generated>, AlignError> {
    let Request { tasks, encoded, streams, samples, sampling, control } = *request;
    let questions = tasks.iter().zip(&encoded.features).zip(streams);
    let questions: Vec<Question> = questions
        .map(|((task, features), &stream)| Question {
            id: task.id.clone(),
            prompt: task.prompt.clone(),
            features: features.clone(),
            stream,
        })
        .collect();
    let Some(team) = control.team else {
        return respond_here(policy, &questions, samples, sampling, control);
    };
    let parts: Vec<&[Question]> = in_parts(&questions, team.parts()).collect();
    let mut answers: Vec<Option<Vec<Generated>>> =
        parts.iter().map(|part| known_responses(part, samples, sampling, control)).collect();
    let missing: Vec<usize> = (0..parts.len()).filter(|&at| answers[at].is_none()).collect();
    let work = |at: usize| {
        let pack = |one: &Question| one.with_features(PackedFeatures::of);
        let questions = parts[missing[at]].iter().map(pack).collect();
        let in_int8 = policy.decodes_in_int8();
        Sample { questions, samples, sampling: sampling.clone(), in_int8 }
    };
    let models = WorkModels::of_policy(policy);
    // Progress and kept responses are this process's alone, of whole parts.
    let alone = RunControl { kept: None, advance: &|_| {}, ..control };
    let written = perform(team, models, missing.len(), work, alone)?;
    for (&at, responses) in missing.iter().zip(written) {
        keep_responses(parts[at], &responses, sampling, control)?;
        answers[at] = Some(responses);
    }
    (control.advance)(questions.len() * samples);
    Ok(answers.into_iter().flatten().flatten().collect())
}

/// A part of [`sample`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    questions: Vec<Question<PackedFeatures>>,
    samples: usize,
    sampling: Sampling,
    in_int8: bool,
}

impl Work for Sample {
    const KIND: Kind = Kind::Sample;
    type Answer = Vec<Generated>;

    fn done(
        &self,
        models: WorkModels<'_>,
        control: RunControl<'_>,
    ) -> Result<Self::Answer, AlignError> {
        let (Self { questions, samples, sampling, in_int8 }, policy) = (self, models.policy());
        let rounded = in_int8.then(|| policy.decoding_in_int8());
        let policy = rounded.as_ref().unwrap_or(policy);
        let device = policy.device();
        let unpack =
            |one: &Question<PackedFeatures>| one.with_features(|packed| packed.on(&device));
        let questions: Vec<Question> = questions.iter().map(unpack).collect();
        respond_here(policy, &questions, *samples, sampling, control)
    }
}

/// A prompt about an image. `F` is what the image's features are held as.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Question<F = ImageFeatures> {
    /// Name of the image.
    id: String,
    prompt: Vec<u32>,
    features: F,
    /// Number of its random streams.
    stream: u64,
}

impl<F> Question<F> {
    /// The same with features held as something else.
    fn with_features<G>(&self, features: impl FnOnce(&F) -> G) -> Question<G> {
        let Self { id, prompt, stream, .. } = self;
        let features = features(&self.features);
        Question { id: id.clone(), prompt: prompt.clone(), features, stream: *stream }
    }
}

/// Writes responses by this process alone, on all cores.
fn respond_here(
    policy: &VisionLanguageModel,
    questions: &[Question],
    samples: usize,
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<Vec<Generated>, AlignError> {
    let longest = questions.iter().map(|one| one.prompt.len()).max().unwrap_or(0);
    let response = sampling.max_new_tokens;
    let plan = BatchPlan::of(policy, policy.cached_positions(longest, response, samples));
    // What the others would still write is of no use after an error.
    let failed = AtomicBool::new(false);
    let chunks = parallel_chunks(questions, plan.chunks, |chunk| {
        let mut written = Vec::with_capacity(chunk.len() * samples);
        for batch in chunk.chunks((plan.batch / samples).max(1)) {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            let responses = batch_responses(policy, batch, samples, sampling, control);
            failed.fetch_or(responses.is_err(), Ordering::Relaxed);
            written.extend(responses?);
            (control.advance)(batch.len() * samples);
        }
        Ok(written)
    });
    Ok(chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()?.concat())
}

/// The responses to a batch of questions: those that were written before, or new ones, which are kept.
fn batch_responses(
    policy: &VisionLanguageModel,
    batch: &[Question],
    samples: usize,
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<Vec<Generated>, AlignError> {
    control.check()?;
    if let Some(known) = known_responses(batch, samples, sampling, control) {
        return Ok(known);
    }
    let features = ImageFeatures::cat(batch.iter().map(|one| one.features.clone()).collect());
    let prompts = batch.iter().map(|one| (one.id.as_str(), &one.prompt, one.stream));
    let responses = respond(policy, prompts, &features, samples, sampling)?;
    keep_responses(batch, &responses, sampling, control)?;
    Ok(responses)
}

/// The responses to some questions that were written before. Only all of them are known: others would be computed in another order,
/// with other last bits.
fn known_responses(
    questions: &[Question],
    samples: usize,
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Option<Vec<Generated>> {
    let kept = control.kept?;
    let known = questions.iter().map(|one| kept.get(sampling.seed, one.stream));
    let known = known.map(|known| known.filter(|known| known.len() == samples));
    Some(known.collect::<Option<Vec<_>>>()?.concat())
}

fn keep_responses(
    questions: &[Question],
    responses: &[Generated],
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<(), AlignError> {
    let Some(kept) = control.kept else { return Ok(()) };
    let streams: Vec<u64> = questions.iter().map(|one| one.stream).collect();
    kept.insert(sampling.seed, &streams, responses)
}

/// Writes `samples` responses to each of the tasks `range` of a source, in order, without keeping their images; those to one task
/// are adjacent. Task `i` draws from the random streams of number `i`, so a response does not depend on which others are made with it.
/// `control` is told how many more tasks are done, from any thread. `length` is that of the longest prompt and
/// response together, tokens: so many are decoded at once as have room in memory.
///
/// # Errors
/// What the source reports about a task; [`AlignError::NotFinite`] and [`AlignError::Card`] as [`sample`].
pub fn generate(
    policy: &VisionLanguageModel,
    source: &dyn TaskSource,
    range: Range<usize>,
    samples: usize,
    length: usize,
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<Vec<Generated>, AlignError> {
    let Some(team) = control.team else {
        return generate_here(policy, source, (range, 0), samples, length, sampling, control);
    };
    let indices: Vec<usize> = range.clone().collect();
    let tasks = all_tasks(source, range.clone())?;
    let parts: Vec<&[usize]> = in_parts(&indices, team.parts()).collect();
    let work = |at: usize| {
        let of_part = &tasks[parts[at][0] - range.start..][..parts[at].len()];
        Caption {
            tasks: of_part.iter().map(PackedTask::of).collect(),
            first: parts[at][0],
            samples,
            length,
            sampling: sampling.clone(),
        }
    };
    let models = WorkModels::of_policy(policy);
    let alone = RunControl { advance: &|_| {}, ..control };
    let written = perform(team, models, parts.len(), work, alone)?;
    (control.advance)(tasks.len());
    Ok(written.into_iter().flatten().collect())
}

/// A part of [`generate`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Caption {
    tasks: Vec<PackedTask>,
    /// Number of the first task, and of its random streams.
    first: usize,
    samples: usize,
    length: usize,
    sampling: Sampling,
}

impl Work for Caption {
    const KIND: Kind = Kind::Caption;
    type Answer = Vec<Generated>;

    fn done(
        &self,
        models: WorkModels<'_>,
        control: RunControl<'_>,
    ) -> Result<Self::Answer, AlignError> {
        let (Self { tasks, first, samples, length, sampling }, policy) = (self, models.policy());
        let tasks: Vec<Task> = tasks.iter().map(PackedTask::unpacked).collect();
        let (list, all) = (TaskList(&tasks), (0..tasks.len(), *first));
        generate_here(policy, &list, all, *samples, *length, sampling, control)
    }
}

/// The same by this process alone; task `i` of the source has the number `first + i`.
fn generate_here(
    policy: &VisionLanguageModel,
    source: &dyn TaskSource,
    (range, first): (Range<usize>, usize),
    samples: usize,
    length: usize,
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<Vec<Generated>, AlignError> {
    let indices: Vec<usize> = range.collect();
    let plan = BatchPlan::of(policy, length);
    let chunks = parallel_chunks(&indices, plan.chunks, |chunk| {
        let mut written = Vec::with_capacity(chunk.len() * samples);
        for batch in chunk.chunks((plan.batch / samples).max(1)) {
            control.check()?;
            let tasks = batch.iter().map(|&at| source.task(at)).collect::<Result<Vec<_>, _>>()?;
            let started = Instant::now();
            let features = policy.image_features(image_batch(&tasks, &policy.device()))?;
            let seconds = started.elapsed().as_secs_f64();
            tracing::debug!(images = tasks.len(), seconds, "images encoded");
            let prompts = tasks.iter().zip(batch);
            let prompts =
                prompts.map(|(task, &at)| (task.id.as_str(), &task.prompt, (first + at) as u64));
            written.extend(respond(policy, prompts, &features, samples, sampling)?);
            (control.advance)(batch.len());
        }
        Ok(written)
    });
    let chunks = chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()?;
    Ok(chunks.into_iter().flatten().collect())
}

/// How sequences are shared among cores.
///
/// A small model gives each core a batch of its own; a model whose caches are large takes all cores for
/// one batch, as large as memory allows, and so does a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchPlan {
    /// Batches decoded side by side.
    pub(crate) chunks: usize,
    /// Sequences of one batch.
    pub(crate) batch: usize,
}

impl BatchPlan {
    /// For sequences of each of which so many tokens are kept.
    pub(crate) fn of(policy: &VisionLanguageModel, length: usize) -> Self {
        if let Some(batch) = policy.rows_on_card(length, CARD_BATCH) {
            return Self { chunks: 1, batch };
        }
        let each = KvCache::bytes(policy.language_model().config(), length).max(1);
        let fit = CACHES / each;
        let chunks = policy.decoding_workers();
        if fit >= BATCH * chunks {
            Self { chunks, batch: BATCH }
        } else {
            Self { chunks: 1, batch: fit.clamp(1, BATCH) }
        }
    }
}

/// Tasks that [`generate`] works on at once, over all cores: what a caller should ask for at a time who
/// wants to show responses as they come. `length` is that of prompt and response together, tokens. Where work is exact they are as many
/// for any number of processes and cores.
pub fn tasks_at_once(policy: &VisionLanguageModel, length: usize, team: Option<Team<'_>>) -> usize {
    let BatchPlan { chunks, batch } = BatchPlan::of(policy, length);
    match team {
        None => chunks * batch,
        Some(team) if team.is_exact() => team.parts() * EXACT_BATCH,
        Some(team) => team.parts() * chunks * batch,
    }
}

/// Responses to one batch: name, prompt and number of the random streams of each, and their image features.
///
/// # Errors
/// [`AlignError::NotFinite`] naming the first whose logits are NaN or infinite, [`AlignError::Card`].
fn respond<'a>(
    policy: &VisionLanguageModel,
    questions: impl Iterator<Item = (&'a str, &'a Vec<u32>, u64)>,
    features: &ImageFeatures,
    samples: usize,
    sampling: &Sampling,
) -> Result<Vec<Generated>, AlignError> {
    let (ids, prompts): (Vec<&str>, Vec<Prompt>) = questions
        .enumerate()
        .map(|(image, (id, ids, stream))| (id, Prompt { ids: ids.clone(), image, stream }))
        .unzip();
    let responses = policy.generate(&prompts, features, samples, sampling)?;
    match responses.iter().position(|response| !response.is_finite()) {
        Some(at) => Err(AlignError::NotFinite { id: ids[at / samples].to_owned() }),
        None => Ok(responses),
    }
}
