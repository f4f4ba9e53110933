//! Phases 1 to 3 of an iteration: captions, rewards, advantages.

use std::time::Instant;

use fisao_models::generation::{FinishReason, Sampling};
use fisao_models::llava::{ImageFeatures, Llava};
use fisao_models::parallel::{over_shares, shares_on};
use fisao_models::parameters::floats;
use fisao_models::sequences::Example;
use fisao_models::value_head::ValueHead;
use fisao_verifier::rewards::{Response, RewardRule, ScoredUnit};

use crate::calibrate::sentence_score;
use crate::captions::{Captioned, Encoded, Judge, Request, caption, encode};
use crate::error::AlignError;
use crate::events::{AlignEvent, Phase};
use crate::ppo::{
    KlEstimator, PpoConfig, WhitenMode, Whitening, gae, token_rewards_with_kl, whiten,
};
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
    pub encoded: Encoded,
    /// What the policy answered.
    pub captions: Vec<Captioned>,
    /// Verifier rewards per response and token.
    pub rewards: Vec<Vec<f32>>,
    /// The trainer's log-probabilities under the policy before the update.
    pub old_logprobs: Vec<Vec<f32>>,
    /// Log-probabilities with the adapter switched off.
    pub reference_logprobs: Vec<Vec<f32>>,
    /// Critic's estimates before the update.
    pub values: Vec<Vec<f32>>,
    /// Whitened advantages.
    pub advantages: Vec<Vec<f32>>,
    /// What the critic should have estimated.
    pub returns: Vec<Vec<f32>>,
    /// Advantages before whitening.
    pub whitening: Whitening,
    /// Entropy per token, mean, nats.
    pub entropy: f64,
}

/// What the trainer's forward pass says about given responses.
struct Scored {
    logprobs: Vec<f32>,
    reference: Vec<f32>,
    values: Vec<f32>,
    entropy: Vec<f32>,
}

/// Everything the three phases read.
pub(crate) struct RolloutPlan<'a> {
    pub(crate) policy: &'a Llava,
    pub(crate) value_head: &'a ValueHead,
    pub(crate) rule: &'a RewardRule,
    pub(crate) ppo: &'a PpoConfig,
    pub(crate) kl_coefficient: f64,
    pub(crate) sampling: &'a Sampling,
    pub(crate) streams: &'a [u64],
    pub(crate) iteration: usize,
}

/// Samples responses, rewards their tokens and turns the rewards into advantages.
///
/// Returns the rollout and the seconds of the three phases.
pub(crate) fn roll_out(
    plan: &RolloutPlan<'_>,
    judge: &mut Judge,
    tasks: Vec<Task>,
    emit: &mut dyn FnMut(AlignEvent),
) -> Result<(Rollout, [f64; 3]), AlignError> {
    let mut clock = PhaseClock::new(plan.iteration);
    clock.start(Phase::Rollout, plan.ppo.responses_per_iteration(), emit);
    let encoded = encode(plan.policy, &judge.verifier, &tasks)?;
    let request = Request {
        tasks: &tasks,
        encoded: &encoded,
        streams: plan.streams,
        samples: plan.ppo.samples_per_image,
        sampling: plan.sampling,
        advance: &|_| {},
    };
    let captions = caption(plan.policy, judge, &request)?;
    let rollout_seconds = clock.finish(emit);

    clock.start(Phase::Verify, captions.len(), emit);
    let rewards = captions
        .iter()
        .map(|caption| token_rewards(plan.rule, judge, &encoded, caption))
        .collect::<Result<Vec<_>, _>>()?;
    let verify_seconds = clock.finish(emit);

    clock.start(Phase::Advantages, captions.len(), emit);
    let rollout = advantages(plan, tasks, encoded, captions, rewards);
    let advantage_seconds = clock.finish(emit);
    Ok((rollout, [rollout_seconds, verify_seconds, advantage_seconds]))
}

/// Token rewards of one response under a rule.
///
/// # Errors
/// [`AlignError::Verifier`] when the sentence form cannot encode the response.
pub fn token_rewards(
    rule: &RewardRule,
    judge: &Judge,
    encoded: &Encoded,
    caption: &Captioned,
) -> Result<Vec<f32>, AlignError> {
    let units: Vec<ScoredUnit> = caption
        .units
        .iter()
        .zip(&caption.scores)
        .map(|(unit, &score)| ScoredUnit::new(unit, score))
        .collect();
    let sentence_score = if rule.needs_sentence_score() {
        Some(sentence_score(caption, &encoded.embeddings, judge)?)
    } else {
        None
    };
    Ok(rule.token_rewards(&Response {
        units: &units,
        token_count: caption.tokens.len(),
        truncated: caption.finish == FinishReason::Length,
        sentence_score,
    }))
}

fn advantages(
    plan: &RolloutPlan<'_>,
    tasks: Vec<Task>,
    encoded: Encoded,
    captions: Vec<Captioned>,
    rewards: Vec<Vec<f32>>,
) -> Rollout {
    let scored = score(plan, &tasks, &encoded, &captions);
    let mut advantages = Vec::with_capacity(captions.len());
    let mut returns = Vec::with_capacity(captions.len());
    for (reward, scored) in rewards.iter().zip(&scored) {
        let penalised =
            token_rewards_with_kl(reward, &scored.logprobs, &scored.reference, plan.kl_coefficient);
        let (advantage, target) = gae(&penalised, &scored.values, plan.ppo.gamma, plan.ppo.lambda);
        advantages.push(advantage);
        returns.push(target);
    }
    let mode: WhitenMode = plan.ppo.whiten;
    let whitening = whiten(&mut advantages, mode);
    let tokens: usize = captions.iter().map(|caption| caption.tokens.len()).sum();
    let entropy = scored.iter().flat_map(|s| &s.entropy).map(|&e| f64::from(e)).sum::<f64>();
    let (mut old_logprobs, mut reference_logprobs, mut values) = (vec![], vec![], vec![]);
    for part in scored {
        old_logprobs.push(part.logprobs);
        reference_logprobs.push(part.reference);
        values.push(part.values);
    }
    Rollout {
        tasks,
        encoded,
        captions,
        rewards,
        old_logprobs,
        reference_logprobs,
        values,
        advantages,
        returns,
        whitening,
        entropy: entropy / tokens.max(1) as f64,
    }
}

/// Runs policy and reference over all responses, on all cores; longest responses together.
fn score(
    plan: &RolloutPlan<'_>,
    tasks: &[Task],
    encoded: &Encoded,
    captions: &[Captioned],
) -> Vec<Scored> {
    let reference = plan.policy.without_lora();
    let indices: Vec<usize> = (0..captions.len()).collect();
    let parts = over_shares(&indices, shares_on(&plan.policy.device()), |share| {
        let mut scored = Vec::with_capacity(share.len());
        for batch in share.chunks(BATCH) {
            let (examples, features) = examples(batch, tasks, encoded, captions);
            let states = plan.policy.response_states(&examples, &features);
            let (logprobs, entropy) = plan.policy.log_probabilities(&states, plan.ppo.temperature);
            let values = floats(&plan.value_head.forward(states.hidden));
            let states = reference.response_states(&examples, &features);
            let (base, _) = reference.log_probabilities(&states, plan.ppo.temperature);
            let rows = [floats(&logprobs), floats(&base), values, floats(&entropy)];
            let mut start = 0;
            for example in &examples {
                let end = start + example.response.len();
                let [logprobs, reference, values, entropy] =
                    rows.each_ref().map(|row| row[start..end].to_vec());
                scored.push(Scored { logprobs, reference, values, entropy });
                start = end;
            }
        }
        scored
    });
    parts.into_iter().flatten().collect()
}

/// The examples at `indices` with the features of their images.
pub(crate) fn examples<'a>(
    indices: &[usize],
    tasks: &'a [Task],
    encoded: &Encoded,
    captions: &'a [Captioned],
) -> (Vec<Example<'a>>, ImageFeatures) {
    let examples = indices
        .iter()
        .enumerate()
        .map(|(image, &index)| Example {
            prompt: &tasks[captions[index].task].prompt,
            image,
            response: &captions[index].tokens,
        })
        .collect();
    let features =
        indices.iter().map(|&index| encoded.features[captions[index].task].clone()).collect();
    (examples, ImageFeatures::cat(features))
}

impl Rollout {
    /// Largest disagreement between the sampler's log-probabilities and the trainer's, nats.
    pub fn sampler_gap(&self) -> f64 {
        let pairs = self.captions.iter().zip(&self.old_logprobs);
        pairs
            .flat_map(|(caption, trainer)| caption.logprobs.iter().zip(trainer))
            .map(|(&sampler, &trainer)| f64::from((sampler - trainer).abs()))
            .fold(0.0, f64::max)
    }

    /// `KL(π_θ‖π_ref)` by the given estimator, summed over all responses, nats.
    pub fn divergence(&self, estimator: KlEstimator) -> f64 {
        let pairs = self.old_logprobs.iter().zip(&self.reference_logprobs);
        pairs.map(|(policy, reference)| estimator.sum(policy, reference)).sum()
    }
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
