//! Phases 1 to 3 of an iteration: captions, rewards, advantages.

use std::cmp::Reverse;
use std::time::Instant;

use fisao_models::generation::{FinishReason, Generated, Sampling};
use fisao_models::llava::{ImageFeatures, Llava};
use fisao_models::parallel::{parallel_chunks, workers_on};
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::value_head::ValueHead;
use fisao_verifier::calibration::Correctness;
use fisao_verifier::rewards::{Response, RewardRule, ScoredMention};

use crate::calibrate::sentence_score;
use crate::captions::{EncodedImages, MentionScorer, Request, ScoredResponse, answer, caption};
use crate::config::AlignConfig;
use crate::error::AlignError;
use crate::events::{AlignEvent, Phase};
use crate::features::FeatureCache;
use crate::group::group_advantages;
use crate::objective::{Data, Objective, PairSource};
use crate::ppo::{KlEstimator, Whitening, gae, token_rewards_with_kl, whiten};
use crate::preference::best_and_worst;
use crate::recall::PairedCounts;
use crate::run_control::{RunControl, StopFlag};
use crate::tasks::Task;

/// Responses scored together by one core.
const BATCH: usize = 16;

/// The responses of one iteration with everything the update needs. All per-token rows have the
/// length of their response; no prompt, image or padding position occurs.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// What was asked.
    pub tasks: Vec<Task>,
    /// What the encoders made of the images.
    pub encoded: EncodedImages,
    /// Images of which that was not known already.
    pub images_encoded: usize,
    /// What the policy answered.
    pub captions: Vec<ScoredResponse>,
    /// Expected correct mentions of policy and base model on these images, where they were measured.
    pub correct: Option<PairedCounts>,
    /// Verifier rewards per response and token.
    pub rewards: Vec<Vec<f32>>,
    /// What every token earns beside that by the length constraint, reward units.
    pub length_bonus: Option<f64>,
    /// The trainer's log-probabilities under the policy before the update.
    pub old_logprobs: Vec<Vec<f32>>,
    /// Log-probabilities with the adapter switched off.
    pub reference_logprobs: Vec<Vec<f32>>,
    /// How much better than expected each token was, for objectives that ask.
    pub credit: Option<Credit>,
    /// What a step learns from at a time, as positions of responses: one by one, or in pairs of a better and a worse one.
    pub items: Vec<Vec<usize>>,
    /// Whether the policy wrote the responses itself, so that their log-probabilities tell of its distribution.
    pub sampled: bool,
    /// Entropy per token, mean, nats.
    pub entropy: f64,
}

/// Advantages, and what the critic is taught.
#[derive(Debug, Clone)]
pub struct Credit {
    /// Whitened advantages per response and token.
    pub advantages: Vec<Vec<f32>>,
    /// What they were before.
    pub whitening: Whitening,
    /// Of the critic, where there is one.
    pub critic: Option<Critic>,
}

/// The critic before the update, and what it should have said.
#[derive(Debug, Clone)]
pub struct Critic {
    /// Its estimates per response and token.
    pub values: Vec<Vec<f32>>,
    /// What it should have estimated.
    pub returns: Vec<Vec<f32>>,
}

/// What the trainer's forward pass says about given responses.
struct Scored {
    logprobs: Vec<f32>,
    reference: Vec<f32>,
    /// Empty without a critic.
    values: Vec<f32>,
    entropy: Vec<f32>,
}

/// Everything the three phases read.
pub(crate) struct RolloutPlan<'a> {
    pub(crate) policy: &'a Llava,
    pub(crate) value_head: Option<&'a ValueHead>,
    pub(crate) rule: &'a RewardRule,
    pub(crate) config: &'a AlignConfig,
    pub(crate) kl_coefficient: f64,
    /// Reward of every token, by the length constraint; reward units.
    pub(crate) length_bonus: Option<f64>,
    pub(crate) sampling: &'a Sampling,
    pub(crate) streams: &'a [u64],
    /// Of the tasks, among all of the run.
    pub(crate) numbers: &'a [usize],
    /// Whether the images come up again.
    pub(crate) again: bool,
    /// Estimates correctness, where expected correct mentions are to be measured.
    pub(crate) correctness: Option<&'a Correctness>,
    pub(crate) iteration: usize,
    /// Looked at before every batch.
    pub(crate) stop: &'a StopFlag,
}

/// Samples responses or takes the data's, rewards their tokens and turns the rewards into what the objective learns from.
///
/// Returns the rollout and the seconds of the three phases.
pub(crate) fn roll_out(
    plan: &RolloutPlan<'_>,
    scorer: &mut MentionScorer,
    cache: &mut FeatureCache,
    tasks: Vec<Task>,
    emit: &mut dyn FnMut(AlignEvent),
) -> Result<(Rollout, [f64; 3]), AlignError> {
    let mut clock = PhaseClock::new(plan.iteration);
    clock.start(Phase::Rollout, plan.config.responses_per_iteration(), emit);
    let (encoded, images_encoded) =
        cache.encode(plan.policy, &scorer.verifier, plan.numbers, &tasks, plan.again)?;
    check_image_tokens(plan.policy, &tasks, &encoded)?;
    let captions = if plan.config.objective.data() == Data::Sampled {
        let request = Request {
            tasks: &tasks,
            encoded: &encoded,
            streams: plan.streams,
            samples: plan.config.align.samples_per_image,
            sampling: plan.sampling,
            control: RunControl::new(&|_| {}).until(plan.stop),
        };
        caption(plan.policy, scorer, &request)?
    } else {
        given(plan.config, scorer, &tasks, &encoded)?
    };
    let correct = match plan.correctness {
        Some(correctness) => Some(paired_counts(plan, scorer, &tasks, &encoded, correctness)?),
        None => None,
    };
    let rollout_seconds = clock.finish(emit);

    clock.start(Phase::Verify, captions.len(), emit);
    let rewards = captions
        .iter()
        .map(|caption| token_rewards(plan.rule, scorer, &encoded, caption))
        .collect::<Result<Vec<_>, _>>()?;
    let verify_seconds = clock.finish(emit);

    clock.start(Phase::Advantages, captions.len(), emit);
    let rollout = learn_from(plan, tasks, (encoded, images_encoded), captions, rewards)?;
    let rollout = Rollout { correct, ..rollout };
    let advantage_seconds = clock.finish(emit);
    Ok((rollout, [rollout_seconds, verify_seconds, advantage_seconds]))
}

/// Captions the images greedily with the adapter on and off, and compares what the two name correctly.
fn paired_counts(
    plan: &RolloutPlan<'_>,
    scorer: &mut MentionScorer,
    tasks: &[Task],
    encoded: &EncodedImages,
    correctness: &Correctness,
) -> Result<PairedCounts, AlignError> {
    let greedy = Sampling { temperature: 0.0, ..plan.sampling.clone() };
    let control = RunControl::new(&|_| {}).until(plan.stop);
    let mut captions =
        |policy: &Llava| answer(policy, scorer, (tasks, 0), encoded, &greedy, control);
    let policy = captions(plan.policy)?;
    let base = captions(&plan.policy.without_lora())?;
    Ok(PairedCounts::new(&policy, &base, correctness))
}

/// Token rewards of one response under a rule.
///
/// # Errors
/// [`AlignError::Verifier`] when the sentence form cannot encode the response.
pub fn token_rewards(
    rule: &RewardRule,
    scorer: &MentionScorer,
    encoded: &EncodedImages,
    caption: &ScoredResponse,
) -> Result<Vec<f32>, AlignError> {
    let mentions: Vec<ScoredMention> = caption
        .mentions
        .iter()
        .zip(&caption.scores)
        .map(|(mention, &score)| ScoredMention::new(mention, score))
        .collect();
    let sentence_score = if rule.needs_sentence_score() {
        Some(sentence_score(caption, &encoded.embeddings, scorer)?)
    } else {
        None
    };
    Ok(rule.token_rewards(&Response {
        mentions: &mentions,
        token_count: caption.tokens.len(),
        truncated: caption.finish == FinishReason::Length,
        sentence_score,
    }))
}

/// What a response earns in all, reward units.
///
/// * `rewards` — of its tokens, `[T]`.
pub fn response_reward(rewards: &[f32]) -> f64 {
    rewards.iter().map(|&reward| f64::from(reward)).sum()
}

/// Holds the prompts against the features: a placeholder too many or too few, and the image would be read as text.
fn check_image_tokens(
    policy: &Llava,
    tasks: &[Task],
    encoded: &EncodedImages,
) -> Result<(), AlignError> {
    let placeholder = policy.config().image_token_id;
    for (task, features) in tasks.iter().zip(&encoded.features) {
        let found = task.prompt.iter().filter(|&&id| id == placeholder).count();
        let expected = features.counts().iter().sum();
        if found != expected {
            return Err(AlignError::ImageTokens { id: task.id.clone(), found, expected });
        }
    }
    Ok(())
}

/// The data's own responses, read as if the policy had written them.
fn given(
    config: &AlignConfig,
    scorer: &mut MentionScorer,
    tasks: &[Task],
    encoded: &EncodedImages,
) -> Result<Vec<ScoredResponse>, AlignError> {
    let (wanted, count) = match config.objective.data() {
        Data::Pairs => ("chosen and rejected response", 2),
        Data::Sampled | Data::Responses => ("response", 1),
    };
    let mut captions = Vec::with_capacity(count * tasks.len());
    for (at, task) in tasks.iter().enumerate() {
        let responses = task.answer.responses();
        if responses.len() < count || responses.iter().any(|response| response.is_empty()) {
            let (id, objective) = (task.id.clone(), config.objective.name());
            return Err(AlignError::NoAnswer { id, wanted, objective });
        }
        for response in &responses[..count] {
            let tokens = response.to_vec();
            let response = Generated { tokens, logprobs: Vec::new(), finish: FinishReason::Stop };
            captions.push(scorer.read(at, response, &encoded.embeddings[at])?);
        }
    }
    Ok(captions)
}

fn learn_from(
    plan: &RolloutPlan<'_>,
    tasks: Vec<Task>,
    (encoded, images_encoded): (EncodedImages, usize),
    captions: Vec<ScoredResponse>,
    rewards: Vec<Vec<f32>>,
) -> Result<Rollout, AlignError> {
    let scored = score(plan, &tasks, &encoded, &captions)?;
    let credit = credit(plan, &captions, &rewards, &scored);
    let items = items(&plan.config.objective, &captions, &rewards);
    let tokens: usize = captions.iter().map(|caption| caption.tokens.len()).sum();
    let entropy = scored.iter().flat_map(|s| &s.entropy).map(|&e| f64::from(e)).sum::<f64>();
    let (mut old_logprobs, mut reference_logprobs) = (vec![], vec![]);
    for part in scored {
        old_logprobs.push(part.logprobs);
        reference_logprobs.push(part.reference);
    }
    Ok(Rollout {
        tasks,
        encoded,
        images_encoded,
        captions,
        correct: None,
        rewards,
        length_bonus: plan.length_bonus,
        old_logprobs,
        reference_logprobs,
        credit,
        items,
        sampled: plan.config.objective.data() == Data::Sampled,
        entropy: entropy / tokens.max(1) as f64,
    })
}

/// Advantages by the objective's own estimator, whitened over the whole rollout.
fn credit(
    plan: &RolloutPlan<'_>,
    captions: &[ScoredResponse],
    rewards: &[Vec<f32>],
    scored: &[Scored],
) -> Option<Credit> {
    let penalised = || {
        rewards.iter().zip(scored).map(|(reward, Scored { logprobs, reference, .. })| {
            let penalised = token_rewards_with_kl(reward, logprobs, reference, plan.kl_coefficient);
            with_length_bonus(penalised, plan.length_bonus.unwrap_or(0.0))
        })
    };
    let (mut advantages, critic, mode) = match &plan.config.objective {
        Objective::Ppo(ppo) => {
            let estimate = |(penalised, scored): (Vec<f32>, &Scored)| {
                gae(&penalised, &scored.values, ppo.gamma, ppo.lambda)
            };
            let (advantages, returns) = penalised().zip(scored).map(estimate).unzip();
            let values = scored.iter().map(|scored| scored.values.clone()).collect();
            (advantages, Some(Critic { values, returns }), ppo.whiten)
        }
        Objective::GroupRelative(group) => {
            let penalised: Vec<Vec<f32>> = penalised().collect();
            let mut advantages = Vec::with_capacity(penalised.len());
            // Responses to one image are adjacent.
            let groups = captions.chunk_by(|a, b| a.task == b.task).map(<[ScoredResponse]>::len);
            for size in groups {
                let first = advantages.len();
                let rows = &penalised[first..first + size];
                advantages.extend(group_advantages(rows, group.gamma, group.baseline));
            }
            (advantages, None, group.whiten)
        }
        Objective::Dpo(_) | Objective::Sft(_) => return None,
    };
    let whitening = whiten(&mut advantages, mode);
    Some(Credit { advantages, whitening, critic })
}

/// Adds the length constraint's reward to every token.
fn with_length_bonus(mut rewards: Vec<f32>, bonus: f64) -> Vec<f32> {
    for reward in &mut rewards {
        *reward = (f64::from(*reward) + bonus) as f32;
    }
    rewards
}

/// What a step learns from at a time.
fn items(
    objective: &Objective,
    captions: &[ScoredResponse],
    rewards: &[Vec<f32>],
) -> Vec<Vec<usize>> {
    let Objective::Dpo(dpo) = objective else {
        return (0..captions.len()).map(|at| vec![at]).collect();
    };
    let mut pairs = Vec::new();
    let mut first = 0;
    for group in captions.chunk_by(|a, b| a.task == b.task) {
        let pair = match dpo.pairs {
            PairSource::Data => Some((0, 1)),
            PairSource::Verifier => {
                let rows = &rewards[first..first + group.len()];
                let sums: Vec<f64> = rows.iter().map(|row| response_reward(row)).collect();
                best_and_worst(&sums, dpo.least_gap)
            }
        };
        pairs.extend(pair.map(|(chosen, rejected)| vec![first + chosen, first + rejected]));
        first += group.len();
    }
    pairs
}

/// Runs policy and reference over all responses, on all cores; responses of like length together, so that little of a
/// batch is padding.
fn score(
    plan: &RolloutPlan<'_>,
    tasks: &[Task],
    encoded: &EncodedImages,
    captions: &[ScoredResponse],
) -> Result<Vec<Scored>, AlignError> {
    let reference = plan.policy.without_lora();
    let temperature = plan.config.align.temperature;
    // Responses to one task stay together, where they are read from one prompt.
    let length = |at: usize| captions[at].tokens.len();
    let mut longest = vec![0; tasks.len()];
    for (at, caption) in captions.iter().enumerate() {
        longest[caption.task] = longest[caption.task].max(length(at));
    }
    let mut order: Vec<usize> = (0..captions.len()).collect();
    order.sort_by_key(|&at| (Reverse(longest[captions[at].task]), captions[at].task, at));
    let batches: Vec<&[usize]> = order.chunks(BATCH).collect();
    let chunks = workers_on(&plan.policy.device()).min(batches.len()).max(1);
    // Long and short batches alternate between the cores, so that these finish together.
    let dealt: Vec<Vec<&[usize]>> = (0..chunks)
        .map(|chunk| batches.iter().copied().skip(chunk).step_by(chunks).collect())
        .collect();
    let parts = parallel_chunks(&dealt, chunks, |chunk| {
        let mut scored = Vec::new();
        for batch in chunk.iter().flatten() {
            plan.stop.check()?;
            let (examples, features) = examples(batch, tasks, encoded, captions);
            let states = plan.policy.response_states_by_prompt(&examples, &features);
            let (logprobs, entropy) = plan.policy.log_probabilities(&states, temperature);
            let values = plan.value_head.map(|head| floats(&head.forward(states.hidden)));
            let states = reference.response_states_by_prompt(&examples, &features);
            let (base, _) = reference.log_probabilities(&states, temperature);
            let [logprobs, base, entropy] = [logprobs, base, entropy].map(|row| floats(&row));
            let mut start = 0;
            for (example, &at) in examples.iter().zip(*batch) {
                let range = start..start + example.response.len();
                let of = |row: &[f32]| row[range.clone()].to_vec();
                let values = values.as_deref().map(of).unwrap_or_default();
                let (logprobs, reference, entropy) = (of(&logprobs), of(&base), of(&entropy));
                scored.push((at, Scored { logprobs, reference, values, entropy }));
                start = range.end;
            }
        }
        Ok(scored)
    });
    let parts = parts.into_iter().collect::<Result<Vec<_>, AlignError>>()?;
    let mut scored: Vec<(usize, Scored)> = parts.into_iter().flatten().collect();
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

impl Rollout {
    /// Largest disagreement between the sampler's log-probabilities and the trainer's, nats; NaN where one of them is.
    pub fn sampler_gap(&self) -> f64 {
        let pairs = self.captions.iter().zip(&self.old_logprobs);
        largest_gap(pairs.flat_map(|(caption, trainer)| caption.logprobs.iter().zip(trainer)))
    }

    /// `KL(π_θ‖π_ref)` by the given estimator, summed over all responses, nats.
    pub fn divergence(&self, estimator: KlEstimator) -> f64 {
        let pairs = self.old_logprobs.iter().zip(&self.reference_logprobs);
        pairs.map(|(policy, reference)| estimator.sum(policy, reference)).sum()
    }
}

/// max |a − b| over pairs; NaN where one of them is, which `f64::max` would drop.
fn largest_gap<'a>(pairs: impl Iterator<Item = (&'a f32, &'a f32)>) -> f64 {
    let gaps = pairs.map(|(&a, &b)| f64::from((a - b).abs()));
    gaps.fold(0.0, |most, gap| if most >= gap || most.is_nan() { most } else { gap })
}

/// Times the phases and reports them.
pub(crate) struct PhaseClock {
    iteration: usize,
    running: Option<(Phase, Instant)>,
}

impl PhaseClock {
    pub(crate) fn new(iteration: usize) -> Self {
        Self { iteration, running: None }
    }

    pub(crate) fn start(&mut self, phase: Phase, steps: usize, emit: &mut dyn FnMut(AlignEvent)) {
        emit(AlignEvent::PhaseStarted { iteration: self.iteration, phase, steps });
        self.running = Some((phase, Instant::now()));
    }

    /// Ends the running phase; returns its seconds.
    pub(crate) fn finish(&mut self, emit: &mut dyn FnMut(AlignEvent)) -> f64 {
        let Some((phase, start)) = self.running.take() else { return 0.0 };
        let seconds = start.elapsed().as_secs_f64();
        emit(AlignEvent::PhaseFinished { iteration: self.iteration, phase, seconds });
        seconds
    }
}

#[cfg(test)]
mod tests {
    use super::largest_gap;

    #[test]
    fn a_gap_that_is_nan_stays_nan() {
        let gap = |a: &[f32], b: &[f32]| largest_gap(a.iter().zip(b));
        let bits = |gap: f64| gap.to_bits();
        assert_eq!(bits(gap(&[-1.0, -2.0, -3.0], &[-1.0, -2.5, -3.25])), bits(0.5));
        assert_eq!(bits(gap(&[], &[])), bits(0.0));
        for at in 0..3 {
            let mut sampler = [-1.0, -2.0, -3.0];
            sampler[at] = f32::NAN;
            assert!(gap(&sampler, &[-1.0, -2.5, -3.0]).is_nan());
            assert!(gap(&[-1.0, -2.5, -3.0], &sampler).is_nan());
        }
        assert_eq!(bits(gap(&[f32::NEG_INFINITY], &[-1.0])), bits(f64::INFINITY));
    }
}
