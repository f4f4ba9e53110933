//! Verifier-guided decoding: mentions that the verifier doubts are taken back while the response is being written.
//!
//! After every step each response is decoded. A mention that has become complete is scored, and its score turned into the
//! probability that its object is not in the image. Where that exceeds 1 − precision, the response is taken back to the mention's
//! first token, which is banned there, and decoding continues with the rest of the distribution. Nothing is trained; a response without
//! doubtful mentions is the one that the model writes anyway.
//!
//! In the place of a mention that was taken back, one of an object that the response has named before does not pass at first: it
//! would be true and say nothing. Where no other token leads to a mention that passes, tokens before it are taken back as well, one more at a time. Where that
//! does not help either, the least doubtful of the mentions stays, and is counted if the verifier doubts it.

use std::collections::BTreeSet;

use fisao_models::generation::{Decoding, Generated, Prompt, Sampling};
use fisao_models::parallel::parallel_chunks;
use fisao_models::vision_language::{ImageFeatures, VisionLanguageModel};
use fisao_verifier::calibration::{Calibration, ProbabilityModel};
use fisao_verifier::mentions::TokenMention;
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::rewards::RewardRule;
use serde::Serialize;

use crate::captions::best_responses;
use crate::encoding::encode_on;
use crate::error::AlignError;
use crate::mentions::{MentionScorer, ScoredResponse};
use crate::run_control::RunControl;
use crate::sampling::{BatchPlan, Request};
use crate::tasks::Task;
use crate::token_rewards::AdditionalRewards;

/// How strictly mentions are held to the image, and how hard another way is looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct GuidedConfig {
    /// Least probability that a mention is correct, in (0, 1).
    pub precision: f64,
    /// Other tokens that are tried in the place of a mention's first.
    pub retries: usize,
    /// Tokens before a mention that are taken back with it, one more at a time, when the retries are used up.
    pub backtrack: usize,
    /// Times that a response is taken back at most; what comes after is let through.
    pub max_rewinds: usize,
}

impl Default for GuidedConfig {
    fn default() -> Self {
        Self { precision: 0.8, retries: 4, backtrack: 4, max_rewinds: 32 }
    }
}

/// What decides whether a mention may stay.
#[derive(Debug, Clone)]
pub struct Guide {
    config: GuidedConfig,
    calibration: Calibration,
}

impl Guide {
    /// A guide by a calibration, which must be that of the verifier that scores.
    ///
    /// # Errors
    /// [`AlignError::OutOfRange`] when the precision is not between 0 and 1.
    pub fn new(config: GuidedConfig, calibration: &Calibration) -> Result<Self, AlignError> {
        if !(config.precision > 0.0 && config.precision < 1.0) {
            return Err(AlignError::OutOfRange {
                key: "guided.precision".to_owned(),
                found: config.precision.to_string(),
                allowed: "greater than 0 and less than 1".to_owned(),
            });
        }
        Ok(Self { config, calibration: calibration.clone() })
    }

    /// Probability that the object of a mention with this score is not in the image.
    fn p_hallucinated(&self, score: f64) -> f64 {
        1.0 - self.calibration.probability(score, ProbabilityModel::default())
    }

    fn doubts(&self, p_hallucinated: f64) -> bool {
        p_hallucinated > 1.0 - self.config.precision
    }
}

/// A mention that is no longer in the response.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TakenBack {
    /// The words, as written.
    pub text: String,
    /// Probability that the object is not in the image.
    pub p_hallucinated: f64,
}

/// What guidance did to a response.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Guidance {
    /// Mentions that were taken back, in order.
    pub taken_back: Vec<TakenBack>,
    /// Times that the response was taken back.
    pub rewinds: usize,
    /// Doubtful mentions that are still in it.
    pub let_through: usize,
    /// Tokens that were sampled and taken back.
    pub extra_tokens: usize,
}

/// A response that was written with guidance.
#[derive(Debug, Clone, PartialEq)]
pub struct GuidedResponse {
    /// The response.
    pub response: Generated,
    /// What guidance did to it.
    pub guidance: Guidance,
}

/// Writes responses with guidance, on all cores. Those to one task are adjacent. Responses that the request's control keeps are not
/// used.
///
/// # Errors
/// [`AlignError::NotFinite`] when the model's logits are NaN or infinite, [`AlignError::Card`] when the driver of its card fails,
/// [`AlignError::Text`] when a response cannot be decoded, [`AlignError::Verifier`] when a name cannot be scored,
/// [`AlignError::Stopped`] when that was asked for.
pub fn sample_guided(
    policy: &VisionLanguageModel,
    scorer: &mut MentionScorer,
    guide: &Guide,
    request: &Request<'_>,
) -> Result<Vec<GuidedResponse>, AlignError> {
    let Request { tasks, encoded, streams, samples, sampling, control } = *request;
    let indices: Vec<usize> = (0..tasks.len()).collect();
    let longest = tasks.iter().map(|task| task.prompt.len()).max().unwrap_or(0);
    let plan =
        BatchPlan::of(policy, policy.cached_positions(longest, sampling.max_new_tokens, samples));
    let known = &*scorer;
    let chunks = parallel_chunks(&indices, plan.chunks, |chunk| {
        let mut scorer = known.clone();
        let mut written = Vec::with_capacity(chunk.len() * samples);
        for batch in chunk.chunks((plan.batch / samples).max(1)) {
            control.check()?;
            let numbered = batch.iter().enumerate();
            let prompt = |(image, &at): (usize, &usize)| Prompt {
                ids: tasks[at].prompt.clone(),
                image,
                stream: streams[at],
            };
            let prompts: Vec<Prompt> = numbered.map(prompt).collect();
            let features = batch.iter().map(|&at| encoded.features[at].clone()).collect();
            let batch_images: Vec<&ImageEmbedding> =
                batch.iter().map(|&at| &encoded.embeddings[at]).collect();
            let inputs = BatchInputs {
                prompts: &prompts,
                features: &ImageFeatures::cat(features),
                images: &batch_images,
                samples,
                sampling,
            };
            let responses = write(policy, &mut scorer, guide, &inputs)?;
            if let Some(at) = responses.iter().position(|one| !one.response.is_finite()) {
                return Err(AlignError::NotFinite { id: tasks[batch[at / samples]].id.clone() });
            }
            written.extend(responses);
            (control.advance)(batch.len() * samples);
        }
        Ok((written, scorer.verifier))
    });
    let mut written = Vec::with_capacity(tasks.len() * samples);
    for (responses, verifier) in chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()? {
        written.extend(responses);
        scorer.verifier.learn_from(&verifier);
    }
    Ok(written)
}

/// Encodes the tasks' images and writes one response to each with guidance, or several of which the one that the rewards find best
/// is kept. Task `i` draws from random stream `first + i`.
///
/// # Errors
/// See [`sample_guided`].
pub fn caption_guided(
    policy: &VisionLanguageModel,
    scorer: &mut MentionScorer,
    guide: &Guide,
    choice: Option<(usize, &RewardRule, &AdditionalRewards)>,
    (tasks, first): (&[Task], usize),
    sampling: &Sampling,
    control: RunControl<'_>,
) -> Result<Vec<(ScoredResponse, Guidance)>, AlignError> {
    let encoded = encode_on(policy, &scorer.verifier, tasks, control)?;
    let streams: Vec<u64> = (first..first + tasks.len()).map(|at| at as u64).collect();
    let samples = choice.map_or(1, |(samples, ..)| samples);
    let (encoded, streams) = (&encoded, &streams[..]);
    let request = Request { tasks, encoded, streams, samples, sampling, control };
    let written = sample_guided(policy, scorer, guide, &request)?;
    let (responses, mut guidance): (Vec<Generated>, Vec<Guidance>) =
        written.into_iter().map(|one| (one.response, one.guidance)).unzip();
    let mut captions = scorer.read_all(responses, samples, &encoded.embeddings)?;
    if let Some((_, rule, additional)) = choice {
        let chosen = best_responses((rule, additional), (scorer, tasks, encoded), &captions)?;
        captions = chosen.iter().map(|&at| captions[at].clone()).collect();
        guidance = chosen.iter().map(|&at| std::mem::take(&mut guidance[at])).collect();
    }
    Ok(captions.into_iter().zip(guidance).collect())
}

/// What a batch is written from.
struct BatchInputs<'a> {
    prompts: &'a [Prompt],
    features: &'a ImageFeatures,
    /// The verifier's embedding of each prompt's image.
    images: &'a [&'a ImageEmbedding],
    samples: usize,
    sampling: &'a Sampling,
}

fn write(
    policy: &VisionLanguageModel,
    scorer: &mut MentionScorer,
    guide: &Guide,
    inputs: &BatchInputs<'_>,
) -> Result<Vec<GuidedResponse>, AlignError> {
    let &BatchInputs { prompts, features, images, samples, sampling } = inputs;
    let settings = vec![sampling.clone(); prompts.len()];
    policy.with_awake_workers(|| {
        let mut decoding = policy.start_decoding(prompts, features, samples, &settings)?;
        let mut progress = vec![Progress::default(); prompts.len() * samples];
        let mut active: Vec<usize> = decoding.open().collect();
        // Those that end with their first token are checked, too.
        active.extend(
            (0..progress.len()).filter(|&slot| {
                !decoding.is_open(slot) && !decoding.response(slot).tokens.is_empty()
            }),
        );
        active.sort_unstable();
        loop {
            for &slot in &active {
                let image = images[slot / samples];
                let mut check = Check { decoding: &mut decoding, scorer, guide, slot, image };
                // At the beginning of a response another token is sampled at once.
                while check.run(&mut progress[slot])? && decoding_is_at_start(&check) {}
            }
            active.retain(|&slot| decoding.is_open(slot));
            if !decoding.step()? {
                break;
            }
        }
        let responses = decoding.into_responses().into_iter();
        let guided = responses
            .zip(progress)
            .map(|(response, progress)| GuidedResponse { response, guidance: progress.guidance });
        Ok(guided.collect())
    })
}

/// Whether a response that was taken back has its next token already.
fn decoding_is_at_start(check: &Check<'_, '_>) -> bool {
    check.decoding.response(check.slot).tokens.len() == 1
}

/// How far a response has been checked.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// End of the last mention that passed: in the text, bytes, and in the response, tokens.
    passed: (usize, usize),
    /// The rejected mention that is replaced at the moment.
    place: Option<Place>,
    /// Since the last mention that passed: where retries were first used up, and the first token that was taken back since.
    back: Option<(usize, usize)>,
    guidance: Guidance,
}

/// The first token of a rejected mention.
#[derive(Debug, Clone)]
struct Place {
    token: usize,
    /// What was sampled there, each with the mention that it began.
    tried: Vec<(u32, TakenBack)>,
    /// Whether any mention may stay there.
    is_settled: bool,
}

impl Progress {
    /// Whether a mention that was taken back is to be replaced by another object, rather than by one that was named before: until
    /// the retries are used up, and while most of the rewinds are left.
    fn wants_another(&self, config: &GuidedConfig) -> bool {
        let has_time = self.guidance.rewinds < config.max_rewinds / 2;
        self.place.is_some() && self.back.is_none() && has_time
    }

    fn pass(&mut self, mention: &TokenMention) {
        self.passed = (mention.span.end, mention.tokens.end);
        self.place = None;
        self.back = None;
    }
}

/// A mention that is to be replaced.
struct Rejected {
    mention: TokenMention,
    p_hallucinated: f64,
    /// Whether the verifier doubts it; else it only repeats another.
    is_doubtful: bool,
}

/// What is done about a mention that is to be replaced.
enum Resolution {
    LetThrough,
    /// From so many tokens, with other tokens than these.
    Rewind(usize, Vec<u32>),
}

/// One look at a response.
struct Check<'c, 'm> {
    decoding: &'c mut Decoding<'m>,
    scorer: &'c mut MentionScorer,
    guide: &'c Guide,
    slot: usize,
    image: &'c ImageEmbedding,
}

impl Check<'_, '_> {
    /// Scores the mentions that have become complete. Whether the response was taken back.
    fn run(&mut self, progress: &mut Progress) -> Result<bool, AlignError> {
        let response = self.decoding.response(self.slot);
        let decoded = self.scorer.tokenizer.decode(&response.tokens)?;
        let text = decoded.text.as_str();
        let settled = if self.decoding.is_open(self.slot) {
            // A letter of several tokens may be there in part.
            self.scorer.vocabulary.settled(text.trim_end_matches(char::REPLACEMENT_CHARACTER))
        } else {
            usize::MAX
        };
        let mut named = BTreeSet::new();
        let mut mentions = self.scorer.vocabulary.token_mentions(text, &decoded.spans);
        self.scorer.verifier.describe(text, &mut mentions);
        for mention in mentions {
            if mention.negated {
                continue;
            }
            let is_repeat = !named.insert(mention.category);
            if mention.span.start < progress.passed.0 || mention.span.start >= settled {
                continue;
            }
            self.scorer.verifier.embed_mention(&mention)?;
            let score = self.scorer.verifier.score_mention(self.image, &mention)?;
            let p_hallucinated = self.guide.p_hallucinated(score);
            let is_doubtful = self.guide.doubts(p_hallucinated);
            if !(is_doubtful || is_repeat && progress.wants_another(&self.guide.config)) {
                progress.pass(&mention);
                continue;
            }
            let rejected = Rejected { mention, p_hallucinated, is_doubtful };
            let tokens = &self.decoding.response(self.slot).tokens;
            match resolve(&self.guide.config, progress, tokens, &rejected) {
                Resolution::LetThrough => {
                    progress.guidance.let_through += usize::from(is_doubtful);
                    progress.pass(&rejected.mention);
                }
                Resolution::Rewind(left, banned) => {
                    progress.guidance.rewinds += 1;
                    progress.guidance.extra_tokens += tokens.len() - left;
                    progress.passed.0 = progress.passed.0.min(decoded.spans[left].start);
                    self.decoding.rewind(self.slot, left, &banned);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// What to do about a rejected mention: another token in its place, then fewer tokens before it, then the least doubtful one.
fn resolve(
    config: &GuidedConfig,
    progress: &mut Progress,
    tokens: &[u32],
    rejected: &Rejected,
) -> Resolution {
    let Progress { passed, place, back, guidance } = progress;
    let Rejected { mention, p_hallucinated, is_doubtful } = rejected;
    let at = mention.tokens.start;
    let word = TakenBack { text: mention.text.clone(), p_hallucinated: *p_hallucinated };
    if place.as_ref().is_none_or(|place| place.token != at) {
        *place = Some(Place { token: at, tried: Vec::new(), is_settled: false });
    }
    let Some(here) = place else { return Resolution::LetThrough };
    if here.is_settled || guidance.rewinds >= config.max_rewinds {
        return Resolution::LetThrough;
    }
    here.tried.push((tokens[at], word.clone()));
    // A repetition is none of the words that are reported.
    let taken_back = is_doubtful.then_some(word);
    if here.tried.len() <= config.retries {
        guidance.taken_back.extend(taken_back);
        return Resolution::Rewind(at, here.tried.iter().map(|&(token, _)| token).collect());
    }
    let (from, lowest) = back.unwrap_or((at, at));
    let target = lowest.min(at).checked_sub(1);
    if let Some(target) = target.filter(|&to| to >= passed.1 && from - to <= config.backtrack) {
        guidance.taken_back.extend(taken_back);
        *back = Some((from, target));
        *place = None;
        return Resolution::Rewind(target, vec![tokens[target]]);
    }
    let by_doubt = |(_, a): &&(u32, TakenBack), (_, b): &&(u32, TakenBack)| {
        a.p_hallucinated.total_cmp(&b.p_hallucinated)
    };
    let Some((best, kept)) = here.tried.iter().min_by(by_doubt) else {
        return Resolution::LetThrough;
    };
    if *best == tokens[at] {
        return Resolution::LetThrough;
    }
    // It returns, and is no longer taken back.
    if let Some(returned) = guidance.taken_back.iter().rposition(|one| one == kept) {
        guidance.taken_back.remove(returned);
    }
    guidance.taken_back.extend(taken_back);
    here.is_settled = true;
    let others = here.tried.iter().map(|&(token, _)| token).filter(|token| token != best);
    Resolution::Rewind(at, others.collect())
}
