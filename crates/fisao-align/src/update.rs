//! Phase 4 of an iteration: optimiser steps on the clipped losses.

use fisao_models::adamw::{AdamW, AdamWConfig};
use fisao_models::llava::Llava;
use fisao_models::parallel::{over_shares, shares_on};
use fisao_models::parameters::{
    GradientMap, ParameterMut, Parameters, add_gradients, clip_gradients, collect_gradients, floats,
};
use fisao_models::value_head::ValueHead;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::AlignError;
use crate::ppo::{
    LearningRates, PolicyStatistics, PpoConfig, ValueStatistics, policy_loss, value_loss,
};
use crate::rollout::{Rollout, examples};

/// Responses differentiated together by one core.
const MICRO_BATCH: usize = 8;

/// Prefix of the value head's tensors; everything else belongs to the adapter.
const VALUE_HEAD: &str = "value_head.";

/// What training moves: the adapter's matrices and the value head. Everything else stays constant.
#[derive(Debug, Clone)]
pub struct Learner {
    /// The policy; its adapter learns.
    pub policy: Llava,
    /// The critic.
    pub value_head: ValueHead,
}

impl Parameters for Learner {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        assert!(prefix.is_empty(), "the learner's tensors have absolute names");
        self.policy.visit_lora_mut(visitor);
        self.value_head.visit_mut("", visitor);
    }
}

/// What an update did.
#[derive(Debug, Clone, Default)]
pub struct UpdateReport {
    /// Ratios and clipping over all steps.
    pub policy: PolicyStatistics,
    /// The critic's errors over all steps.
    pub value: ValueStatistics,
    /// Clipped surrogate loss, mean over steps.
    pub policy_loss: f64,
    /// Clipped value loss, mean over steps.
    pub value_loss: f64,
    /// Norm of the policy's gradient before clipping, mean over steps.
    pub grad_norm: f64,
    /// Epochs done.
    pub epochs: usize,
    /// Optimiser steps done.
    pub steps: usize,
}

/// An optimiser for a learner.
pub(crate) fn optimiser(config: &PpoConfig) -> AdamW {
    AdamW::new(AdamWConfig { weight_decay: config.weight_decay, ..AdamWConfig::default() })
}

/// Gradients of one minibatch, summed over shares and micro-batches.
#[derive(Default)]
struct Differentiated {
    gradients: GradientMap,
    policy_loss: f64,
    value_loss: f64,
    policy: PolicyStatistics,
    value: ValueStatistics,
}

impl Differentiated {
    fn add(&mut self, other: &Self) {
        add_gradients(&mut self.gradients, &other.gradients);
        self.policy_loss += other.policy_loss;
        self.value_loss += other.value_loss;
        self.policy.merge(&other.policy);
        self.value.merge(&other.value);
    }
}

/// Runs the configured epochs over a rollout. `rng` decides how minibatches are drawn.
pub(crate) fn update(
    learner: &mut Learner,
    optimiser: &mut AdamW,
    rollout: &Rollout,
    config: &PpoConfig,
    rates: LearningRates,
    rng: &mut ChaCha8Rng,
) -> Result<UpdateReport, AlignError> {
    let mut report = UpdateReport::default();
    let mut order: Vec<usize> = (0..rollout.captions.len()).collect();
    for _ in 0..config.epochs {
        order.shuffle(rng);
        let mut epoch = PolicyStatistics::default();
        for minibatch in order.chunks(order.len().div_ceil(config.minibatches)) {
            let mut step = differentiate(learner, rollout, minibatch, config)?;
            epoch.merge(&step.policy);
            report.grad_norm += apply(learner, optimiser, &mut step.gradients, config, rates);
            report.policy_loss += step.policy_loss;
            report.value_loss += step.value_loss;
            report.policy.merge(&step.policy);
            report.value.merge(&step.value);
            report.steps += 1;
        }
        report.epochs += 1;
        if config.target_kl.is_some_and(|limit| epoch.approx_kl() > limit) {
            break;
        }
    }
    let steps = report.steps.max(1) as f64;
    report.grad_norm /= steps;
    report.policy_loss /= steps;
    report.value_loss /= steps;
    Ok(report)
}

/// Clips the gradients of policy and critic, each by its own norm, and steps. Returns the policy's
/// norm before clipping.
fn apply(
    learner: &mut Learner,
    optimiser: &mut AdamW,
    gradients: &mut GradientMap,
    config: &PpoConfig,
    rates: LearningRates,
) -> f64 {
    let mut critic: GradientMap = GradientMap::new();
    let names: Vec<String> =
        gradients.keys().filter(|name| name.starts_with(VALUE_HEAD)).cloned().collect();
    for name in names {
        if let Some(values) = gradients.remove(&name) {
            critic.insert(name, values);
        }
    }
    let norm = clip_gradients(gradients, config.max_grad_norm);
    clip_gradients(&mut critic, config.max_grad_norm);
    optimiser.begin();
    learner.visit_mut("", &mut |name, parameter| {
        if name.starts_with(VALUE_HEAD) {
            optimiser.apply(name, parameter, &critic, rates.value);
        } else if rates.policy > 0.0 {
            optimiser.apply(name, parameter, gradients, rates.policy);
        }
    });
    norm
}

/// Differentiates a minibatch: each core its share, in micro-batches of like length.
fn differentiate(
    learner: &Learner,
    rollout: &Rollout,
    minibatch: &[usize],
    config: &PpoConfig,
) -> Result<Differentiated, AlignError> {
    let length = |index: &usize| rollout.captions[*index].tokens.len();
    let tokens: usize = minibatch.iter().map(length).sum();
    let mut sorted = minibatch.to_vec();
    sorted.sort_by_key(|index| (std::cmp::Reverse(length(index)), *index));
    // Long and short responses alternate between the shares, so that cores finish together.
    let parts = shares_on(&learner.policy.device()).min(sorted.len()).max(1);
    let shares: Vec<Vec<usize>> =
        (0..parts).map(|part| sorted.iter().copied().skip(part).step_by(parts).collect()).collect();
    let results = over_shares(&shares, parts, |share| {
        let mut sum = Differentiated::default();
        for micro in share.iter().flat_map(|indices| indices.chunks(MICRO_BATCH)) {
            sum.add(&differentiate_micro(learner, rollout, micro, config, tokens as f64)?);
        }
        Ok::<_, AlignError>(sum)
    });
    let mut total = Differentiated::default();
    for result in results {
        total.add(&result?);
    }
    Ok(total)
}

fn differentiate_micro(
    learner: &Learner,
    rollout: &Rollout,
    micro: &[usize],
    config: &PpoConfig,
    normaliser: f64,
) -> Result<Differentiated, AlignError> {
    let mut replica = learner.clone();
    replica.train_where(&|_| true);
    let (examples, features) = examples(micro, &rollout.tasks, &rollout.encoded, &rollout.captions);
    let gather = |rows: &[Vec<f32>]| -> Vec<f32> {
        micro.iter().flat_map(|&index| rows[index].iter().copied()).collect()
    };
    let states = replica.policy.response_states(&examples, &features);
    let (logprobs, entropy) = replica.policy.log_probabilities(&states, config.temperature);
    let (policy_term, policy) = policy_loss(
        logprobs,
        &gather(&rollout.old_logprobs),
        &gather(&rollout.advantages),
        config.clip(),
        normaliser,
    );
    // The critic reads the state but does not shape it: its loss would pull on the adapter.
    let values = replica.value_head.forward(states.hidden.detach());
    let (value_term, value) = value_loss(
        values,
        &gather(&rollout.values),
        &gather(&rollout.returns),
        config.value_clip_range,
        normaliser,
    );
    let (policy_loss, value_loss) = (floats(&policy_term)[0], floats(&value_term)[0]);
    let mut loss = policy_term + value_term;
    if config.entropy_coefficient > 0.0 {
        loss = loss - entropy.sum() * (config.entropy_coefficient / normaliser);
    }
    let gradients = collect_gradients(&mut replica, &loss.backward())?;
    Ok(Differentiated {
        gradients,
        policy_loss: f64::from(policy_loss),
        value_loss: f64::from(value_loss),
        policy,
        value,
    })
}
