//! Captioning images and scoring what the captions name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::slice;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use burn::tensor::Device;
use fisao_models::generation::{FinishReason, Generated, Prompt, Sampling};
use fisao_models::image::PixelValues;
use fisao_models::llama::KvCache;
use fisao_models::llava::{ImageBatch, ImageFeatures, Llava};
use fisao_models::parallel::{parallel_chunks, workers_on};
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::text::Tokenizer;
use fisao_verifier::mentions::{ObjectVocabulary, TokenMention};
use fisao_verifier::rewards::RewardRule;
use fisao_verifier::scorer::{ImageEmbedding, Verifier};

use crate::error::AlignError;
use crate::rollout::{response_reward, token_rewards};
use crate::run_control::RunControl;
use crate::tasks::{Task, TaskSource};

/// Most sequences decoded together by one core.
const BATCH: usize = 32;
/// Memory that the key–value caches of all sequences decoded at once may take, bytes.
const CACHES: usize = 2 << 30;

/// Finds the mentions of responses and scores them.
#[derive(Clone)]
pub struct MentionScorer {
    /// The policy's tokenizer.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Objects that are looked for.
    pub vocabulary: ObjectVocabulary,
    /// Scores them.
    pub verifier: Verifier,
}

/// A response with its scored mentions.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredResponse {
    /// Position of its task.
    pub task: usize,
    /// Ids, the end token last if the response stopped.
    pub tokens: Vec<u32>,
    /// Log-probability of each token when it was chosen.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// The text.
    pub text: String,
    /// Objects it says are there; negated mentions are left out.
    pub mentions: Vec<TokenMention>,
    /// Score of each mention.
    pub scores: Vec<f64>,
    /// How many mentions were left out because the text denies them.
    pub negated: usize,
}

impl ScoredResponse {
    /// The response as it was written.
    pub fn response(&self) -> Generated {
        let Self { tokens, logprobs, finish, .. } = self;
        Generated { tokens: tokens.clone(), logprobs: logprobs.clone(), finish: *finish }
    }

    /// Mentions whose category the response had named before.
    pub fn repeated(&self) -> usize {
        let named: BTreeSet<usize> = self.mentions.iter().map(|mention| mention.category).collect();
        self.mentions.len() - named.len()
    }
}

/// Image features of some tasks.
#[derive(Debug, Clone)]
pub struct EncodedImages {
    /// Per task, projected image tokens.
    pub features: Vec<ImageFeatures>,
    /// Per task, the verifier's embedding of its image.
    pub embeddings: Vec<ImageEmbedding>,
}

/// The images of some tasks, at least one.
pub fn image_batch(tasks: &[Task], device: &Device) -> ImageBatch {
    ImageBatch::new(tasks.iter().map(|task| &task.image), device)
}

/// Runs the image encoders over all tasks, on all cores of the CPU; an encoder that policy and verifier
/// [share](Verifier::share_tower) runs once. Either all tasks have pixels of their own for the
/// verifier, or none has.
///
/// # Errors
/// [`AlignError::Verifier`] when an embedding is not finite.
pub fn encode(
    policy: &Llava,
    verifier: &Verifier,
    tasks: &[Task],
) -> Result<EncodedImages, AlignError> {
    encode_on(policy, verifier, tasks, RunControl::new(&|_| {}))
}

/// The same, which can be stopped before a batch.
pub(crate) fn encode_on(
    policy: &Llava,
    verifier: &Verifier,
    tasks: &[Task],
    control: RunControl<'_>,
) -> Result<EncodedImages, AlignError> {
    let chunks = parallel_chunks(tasks, workers_on(&policy.device()), |chunk| {
        let mut encoded = EncodedImages { features: Vec::new(), embeddings: Vec::new() };
        for batch in chunk.chunks(BATCH) {
            control.check()?;
            let images = image_batch(batch, &policy.device());
            let shared =
                verifier.shares_tower() && batch.iter().all(|task| task.verifier_images.is_empty());
            if shared {
                let (features, output) = policy.image_features_and_vision_output(images);
                encoded.features.extend(features.split());
                encoded.embeddings.extend(verifier.embed_vision_output(output)?);
            } else {
                encoded.embeddings.extend(encode_images(verifier, batch)?);
                encoded.features.extend(policy.image_features(images).split());
            }
        }
        Ok(encoded)
    });
    let mut all = EncodedImages { features: Vec::new(), embeddings: Vec::new() };
    for chunk in chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()? {
        all.features.extend(chunk.features);
        all.embeddings.extend(chunk.embeddings);
    }
    Ok(all)
}

/// The verifier's embeddings of the tasks' images, at least one.
///
/// # Errors
/// [`AlignError::Verifier`] when an embedding is not finite.
pub fn encode_images(
    verifier: &Verifier,
    tasks: &[Task],
) -> Result<Vec<ImageEmbedding>, AlignError> {
    if tasks.iter().all(|task| task.verifier_images.is_empty()) {
        let device = verifier.model().vision().device();
        return Ok(verifier.embed_images(image_batch(tasks, &device).whole())?);
    }
    let views: Vec<&[PixelValues]> =
        tasks.iter().map(|task| task.verifier_images.as_slice()).collect();
    Ok(verifier.embed_views(&views)?)
}

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

/// Writes responses and scores their mentions, those of one batch while the next is being written. Responses to one task are
/// adjacent.
///
/// # Errors
/// [`AlignError::NotFinite`] when the model's logits are NaN or infinite, [`AlignError::Text`] when a response cannot
/// be decoded, [`AlignError::Verifier`] when a name cannot be scored, [`AlignError::Stopped`] when that was asked for.
pub fn caption(
    policy: &Llava,
    scorer: &mut MentionScorer,
    request: &Request<'_>,
) -> Result<Vec<ScoredResponse>, AlignError> {
    let Request { tasks, samples, .. } = *request;
    let indices: Vec<usize> = (0..tasks.len()).collect();
    let longest = tasks.iter().map(|task| task.prompt.len()).max().unwrap_or(0);
    let response = request.sampling.max_new_tokens;
    let plan = BatchPlan::of(policy, policy.cached_positions(longest, response, samples));
    let (written, arriving) = channel();
    std::thread::scope(|scope| {
        let write = |written: Sender<(usize, Result<Vec<Generated>, AlignError>)>| {
            parallel_chunks(&indices, plan.chunks, |chunk| {
                for batch in chunk.chunks((plan.batch / samples).max(1)) {
                    let responses = responses(policy, request, batch);
                    let failed = responses.is_err();
                    // The reader has gone: a response could not be read.
                    if written.send((batch[0], responses)).is_err() || failed {
                        return;
                    }
                    (request.control.advance)(batch.len() * samples);
                }
            });
        };
        // The writer owns the channel's end, so that the reader stops with it.
        let writer = scope.spawn(move || write(written));
        let captions = read_in_order(scorer, request, arriving);
        writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        captions
    })
}

/// The responses to the tasks of a batch: those that were written before, or new ones, which are kept. Only a whole batch is
/// known: another one would be computed in another order, with other last bits.
fn responses(
    policy: &Llava,
    request: &Request<'_>,
    batch: &[usize],
) -> Result<Vec<Generated>, AlignError> {
    let Request { tasks, encoded, samples, sampling, control, .. } = *request;
    control.check()?;
    let streams: Vec<u64> = batch.iter().map(|&at| request.streams[at]).collect();
    if let Some(kept) = control.kept {
        let known = streams.iter().map(|&stream| kept.get(sampling.seed, stream));
        let known = known.map(|known| known.filter(|known| known.len() == samples));
        if let Some(known) = known.collect::<Option<Vec<_>>>() {
            return Ok(known.concat());
        }
    }
    let features = batch.iter().map(|&at| encoded.features[at].clone()).collect();
    let features = ImageFeatures::cat(features);
    let prompts = batch.iter().zip(&streams).map(|(&at, &stream)| (&tasks[at], stream));
    let responses = respond(policy, prompts, &features, samples, sampling)?;
    if let Some(kept) = control.kept {
        kept.insert(sampling.seed, &streams, &responses)?;
    }
    Ok(responses)
}

/// Reads batches of responses as they arrive, each with the number of its first task: in the order of the tasks, whichever
/// core is first, so that nothing depends on timing.
fn read_in_order(
    scorer: &mut MentionScorer,
    request: &Request<'_>,
    arriving: Receiver<(usize, Result<Vec<Generated>, AlignError>)>,
) -> Result<Vec<ScoredResponse>, AlignError> {
    let mut waiting = BTreeMap::new();
    let mut captions = Vec::with_capacity(request.tasks.len() * request.samples);
    for (first, responses) in arriving {
        waiting.insert(first, responses?);
        while let Some(responses) = waiting.remove(&(captions.len() / request.samples)) {
            for response in responses {
                let task = captions.len() / request.samples;
                captions.push(scorer.read(task, response, &request.encoded.embeddings[task])?);
            }
        }
    }
    Ok(captions)
}

/// Several responses to each task, of which the one that the verifier's rewards find best is kept: no training, many times
/// the sampling. Of equal ones the first counts. Task `i` of them draws from random streams of its own, number `first + i`.
///
/// Returns the best responses and the tokens of all that were written.
///
/// # Errors
/// See [`caption`].
pub fn best_of(
    policy: &Llava,
    scorer: &mut MentionScorer,
    rule: &RewardRule,
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
    let mut best: Vec<(f64, ScoredResponse)> = Vec::with_capacity(tasks.len());
    for caption in captions {
        let reward = response_reward(&token_rewards(rule, scorer, &encoded, &caption)?);
        match best.last_mut().filter(|(_, known)| known.task == caption.task) {
            Some(kept) if reward > kept.0 => *kept = (reward, caption),
            Some(_) => {}
            None => best.push((reward, caption)),
        }
    }
    Ok((best.into_iter().map(|(_, caption)| caption).collect(), tokens))
}

/// Encodes the tasks' images and writes one response to each; task `i` draws from random stream `i`.
/// `control` is told how many more responses are done, from any thread.
///
/// # Errors
/// See [`caption`].
pub fn describe(
    policy: &Llava,
    scorer: &mut MentionScorer,
    tasks: &[Task],
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<(Vec<ScoredResponse>, EncodedImages), AlignError> {
    describe_from(policy, scorer, (tasks, 0), sampling, control)
}

/// The same of tasks of which the first has a number: task `i` of them draws from random stream `first + i`.
pub(crate) fn describe_from(
    policy: &Llava,
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
    policy: &Llava,
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

/// Captions all tasks of a source, a part of them at a time, so that neither pixels nor image features of all are kept:
/// the captions, and what the verifier made of each image. Task `i` draws from random stream `i`. `length` is that of the
/// longest prompt and response together, tokens; `seen` is shown every task once, in order.
///
/// # Errors
/// What the source reports about a task; see [`caption`].
pub fn describe_all(
    policy: &Llava,
    scorer: &mut MentionScorer,
    source: &dyn TaskSource,
    length: usize,
    sampling: &Sampling,
    control: RunControl<'_>,
    seen: &mut dyn FnMut(&Task),
) -> Result<(Vec<ScoredResponse>, Vec<ImageEmbedding>), AlignError> {
    let count = source.count();
    let (mut captions, mut images) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for part in parts(source, tasks_at_once(policy, length)) {
        let (first, tasks) = part?;
        tasks.iter().for_each(&mut *seen);
        let (written, encoded) = describe_from(policy, scorer, (&tasks, first), sampling, control)?;
        captions
            .extend(written.into_iter().map(|of| ScoredResponse { task: first + of.task, ..of }));
        images.extend(encoded.embeddings);
    }
    Ok((captions, images))
}

/// The verifier's embeddings of all images of a source, on all cores of the CPU, without keeping their pixels.
///
/// # Errors
/// What the source reports about a task; see [`encode_images`].
pub fn encode_all_images(
    verifier: &Verifier,
    source: &dyn TaskSource,
) -> Result<Vec<ImageEmbedding>, AlignError> {
    let indices: Vec<usize> = (0..source.count()).collect();
    let device = verifier.model().vision().device();
    let chunks = parallel_chunks(&indices, workers_on(&device), |chunk| {
        let mut embeddings = Vec::with_capacity(chunk.len());
        for batch in chunk.chunks(BATCH) {
            let tasks = batch.iter().map(|&at| source.task(at)).collect::<Result<Vec<_>, _>>()?;
            embeddings.extend(encode_images(verifier, &tasks)?);
        }
        Ok(embeddings)
    });
    Ok(chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()?.concat())
}

/// Writes one response to each of the tasks `range` of a source, in order, without keeping their images.
/// Task `i` draws from random stream `i`, so a response does not depend on which others are made with it.
/// `advance` is told how many more are done, from any thread. `length` is that of the longest prompt and
/// response together, tokens: so many are decoded at once as have room in memory.
///
/// # Errors
/// What the source reports about a task.
pub fn generate(
    policy: &Llava,
    source: &dyn TaskSource,
    range: Range<usize>,
    length: usize,
    sampling: &Sampling,
    advance: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Generated>, AlignError> {
    let indices: Vec<usize> = range.collect();
    let plan = BatchPlan::of(policy, length);
    let chunks = parallel_chunks(&indices, plan.chunks, |chunk| {
        let mut written = Vec::with_capacity(chunk.len());
        for batch in chunk.chunks(plan.batch) {
            let tasks = batch.iter().map(|&at| source.task(at)).collect::<Result<Vec<_>, _>>()?;
            let started = Instant::now();
            let features = policy.image_features(image_batch(&tasks, &policy.device()));
            let seconds = started.elapsed().as_secs_f64();
            tracing::debug!(images = tasks.len(), seconds, "images encoded");
            let prompts = tasks.iter().zip(batch.iter().map(|&at| at as u64));
            written.extend(respond(policy, prompts, &features, 1, sampling)?);
            advance(batch.len());
        }
        Ok(written)
    });
    let chunks = chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()?;
    Ok(chunks.into_iter().flatten().collect())
}

/// How likely a model finds each of several given responses: for each of the tasks `range` of a source the
/// mean log-probability over the tokens of each response, nats, at temperature 1. `responses` holds those of every
/// task of the source, none of them empty; `advance` is told how many more tasks are done, from any thread.
/// `length` is that of the longest prompt and response together, tokens.
///
/// # Errors
/// What the source reports about a task.
pub fn likelihoods(
    policy: &Llava,
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
                policy.image_features(image_batch(slice::from_ref(&task), &policy.device()));
            let mut means = Vec::with_capacity(responses[at].len());
            for batch in responses[at].chunks(plan.batch) {
                let example = |response| Example { prompt: &task.prompt, image: 0, response };
                let examples: Vec<_> = batch.iter().map(Vec::as_slice).map(example).collect();
                let states = policy.response_states_by_prompt(&examples, &features);
                let logprobs = floats(&policy.log_probabilities(&states, 1.0).0);
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

/// How sequences are shared among cores.
///
/// A small model gives each core a batch of its own; a model whose caches are large takes all cores for
/// one batch, as large as memory allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BatchPlan {
    /// Batches decoded side by side.
    chunks: usize,
    /// Sequences of one batch.
    batch: usize,
}

impl BatchPlan {
    /// For sequences of each of which so many tokens are kept.
    fn of(policy: &Llava, length: usize) -> Self {
        let each = KvCache::bytes(&policy.config().text, length).max(1);
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
/// wants to show responses as they come. `length` is that of prompt and response together, tokens.
pub fn tasks_at_once(policy: &Llava, length: usize) -> usize {
    let plan = BatchPlan::of(policy, length);
    plan.chunks * plan.batch
}

/// Responses to one batch: each task with the number of its random streams, and their image features.
///
/// # Errors
/// [`AlignError::NotFinite`] naming the first task whose logits are NaN or infinite.
fn respond<'a>(
    policy: &Llava,
    tasks: impl Iterator<Item = (&'a Task, u64)>,
    features: &ImageFeatures,
    samples: usize,
    sampling: &Sampling,
) -> Result<Vec<Generated>, AlignError> {
    let (tasks, prompts): (Vec<&Task>, Vec<Prompt>) = tasks
        .enumerate()
        .map(|(image, (task, stream))| (task, Prompt { ids: task.prompt.clone(), image, stream }))
        .unzip();
    let responses = policy.generate(&prompts, features, samples, sampling);
    match responses.iter().position(|response| !response.is_finite()) {
        Some(at) => Err(AlignError::NotFinite { id: tasks[at / samples].id.clone() }),
        None => Ok(responses),
    }
}

impl MentionScorer {
    /// Decodes a response, finds what it names and scores it against the image.
    ///
    /// # Errors
    /// See [`caption`].
    pub fn read(
        &mut self,
        task: usize,
        response: Generated,
        image: &ImageEmbedding,
    ) -> Result<ScoredResponse, AlignError> {
        let decoded = self.tokenizer.decode(&response.tokens)?;
        let all = self.vocabulary.token_mentions(&decoded.text, &decoded.spans);
        let found = all.len();
        let mentions: Vec<TokenMention> =
            all.into_iter().filter(|mention| !mention.negated).collect();
        self.verifier.embed_names(mentions.iter().map(|mention| mention.form.as_str()))?;
        let scores =
            mentions.iter().map(|mention| self.verifier.score(image, &mention.form)).collect();
        Ok(ScoredResponse {
            task,
            tokens: response.tokens,
            logprobs: response.logprobs,
            finish: response.finish,
            text: decoded.text,
            negated: found - mentions.len(),
            mentions,
            scores,
        })
    }
}
