//! The update: optimiser steps on the losses of the objective.
//!
//! What is learned from responses to one image goes through the decoder together, which reads the image and the prompt once for all
//! of them. So minibatches are drawn by images.

use std::cmp::Reverse;

use fisao_models::adamw::{AdamW, AdamWConfig};
use fisao_models::parallel::parallel_chunks;
use fisao_models::parameters::{
    GradientMap, ParameterMut, Parameters, add_gradients, clip_gradients, collect_all_gradients,
    floats,
};
use fisao_models::scoring::ResponseScores;
use fisao_models::value_head::ValueHead;
use fisao_models::vision_language::VisionLanguageModel;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::config::{AlignConfig, LoopConfig};
use crate::error::AlignError;
use crate::log_probabilities::examples;
use crate::mentions::ScoredResponse;
use crate::objective::{Critic, LossInputs, Means, Normaliser, ObjectiveLoss};
use crate::ppo::{LearningRates, PolicyStatistics, ValueStatistics, value_loss};
use crate::rollout::Rollout;
use crate::run_control::StopFlag;

/// Prefix of the value head's tensors; everything else belongs to the adapter.
const VALUE_HEAD: &str = "value_head.";

/// What training moves: the adapter's matrices and the value head. Everything else stays constant.
#[derive(Debug, Clone)]
pub struct Learner {
    /// The policy; its adapter learns.
    pub policy: VisionLanguageModel,
    /// The critic, for objectives that have one.
    pub value_head: Option<ValueHead>,
}

impl Parameters for Learner {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        assert!(prefix.is_empty(), "the learner's tensors have absolute names");
        self.policy.visit_lora_mut(visitor);
        if let Some(head) = &mut self.value_head {
            head.visit_mut("", visitor);
        }
    }
}

/// What an update did.
#[derive(Debug, Clone, Default)]
pub struct UpdateReport {
    /// Ratios and clipping over all steps.
    pub policy: PolicyStatistics,
    /// The critic's errors over all steps.
    pub value: ValueStatistics,
    /// What else the objective measured, over all steps.
    pub means: Means,
    /// Loss of the policy, mean over steps.
    pub policy_loss: f64,
    /// Clipped value loss, mean over steps; absent without a critic.
    pub value_loss: Option<f64>,
    /// Norm of the policy's gradient before clipping, mean over steps.
    pub grad_norm: f64,
    /// Epochs done.
    pub epochs: usize,
    /// Optimiser steps done.
    pub steps: usize,
}

/// An optimiser for a learner.
pub(crate) fn optimiser(config: &LoopConfig) -> AdamW {
    AdamW::new(AdamWConfig { weight_decay: config.weight_decay, ..AdamWConfig::default() })
}

/// Gradients of one minibatch, summed over workers and micro-batches.
#[derive(Default)]
struct Differentiated {
    gradients: GradientMap,
    policy_loss: f64,
    value_loss: f64,
    policy: PolicyStatistics,
    value: ValueStatistics,
    means: Means,
}

impl Differentiated {
    fn add(&mut self, other: &Self) {
        add_gradients(&mut self.gradients, &other.gradients);
        self.policy_loss += other.policy_loss;
        self.value_loss += other.value_loss;
        self.policy.merge(&other.policy);
        self.value.merge(&other.value);
        self.means.merge(&other.means);
    }
}

/// Runs the configured epochs over a rollout. `rng` decides how minibatches are drawn. A rollout without anything to
/// learn from is no step at all. An error leaves learner and optimiser between two steps: the caller goes back to what they
/// were.
pub(crate) fn update(
    learner: &mut Learner,
    optimiser: &mut AdamW,
    rollout: &Rollout,
    (config, rates): (&AlignConfig, LearningRates),
    rng: &mut ChaCha8Rng,
    stop: &StopFlag,
) -> Result<UpdateReport, AlignError> {
    let LoopConfig { epochs, minibatches, max_grad_norm, target_kl, .. } = config.align;
    let mut report = UpdateReport::default();
    let mut order = by_image(rollout.items.positions(), &rollout.captions, minibatches);
    let mut value_loss = 0.0;
    for _ in 0..epochs {
        order.shuffle(rng);
        let mut epoch = PolicyStatistics::default();
        for minibatch in parts(&order, minibatches) {
            let minibatch = minibatch.concat();
            let mut step = differentiate(learner, rollout, &minibatch, config, stop)?;
            epoch.merge(&step.policy);
            report.grad_norm +=
                apply(learner, optimiser, &mut step.gradients, max_grad_norm, rates);
            report.policy_loss += step.policy_loss;
            value_loss += step.value_loss;
            report.policy.merge(&step.policy);
            report.value.merge(&step.value);
            report.means.merge(&step.means);
            report.steps += 1;
        }
        report.epochs += 1;
        if target_kl.is_some_and(|limit| epoch.approx_kl() > limit) {
            break;
        }
    }
    let steps = report.steps.max(1) as f64;
    report.grad_norm /= steps;
    report.policy_loss /= steps;
    report.value_loss = learner.value_head.is_some().then_some(value_loss / steps);
    Ok(report)
}

/// An item: positions of the responses that are learned from together.
type Item = Vec<usize>;

/// The items of each image; each item on its own where there would be fewer images than `minibatches`.
fn by_image<'a>(
    items: &'a [Item],
    captions: &[ScoredResponse],
    minibatches: usize,
) -> Vec<&'a [Item]> {
    let task = |item: &Item| captions[item[0]].task;
    let images: Vec<&[Item]> = items.chunk_by(|a, b| task(a) == task(b)).collect();
    if images.len() < minibatches { items.chunks(1).collect() } else { images }
}

/// `count` parts whose sizes differ by one at most; fewer where there are fewer items, none of them empty.
fn parts<T>(items: &[T], count: usize) -> impl Iterator<Item = &[T]> {
    let count = count.min(items.len());
    let edge = move |part: usize| part * items.len() / count;
    (0..count).map(move |part| &items[edge(part)..edge(part + 1)])
}

/// Clips the gradients of policy and critic, each by its own norm, and steps. Returns the policy's
/// norm before clipping.
fn apply(
    learner: &mut Learner,
    optimiser: &mut AdamW,
    gradients: &mut GradientMap,
    max_grad_norm: f64,
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
    let norm = clip_gradients(gradients, max_grad_norm);
    clip_gradients(&mut critic, max_grad_norm);
    gradients.append(&mut critic);
    optimiser.update(learner, gradients, &|name, _| {
        if name.starts_with(VALUE_HEAD) {
            Some(rates.value)
        } else {
            (rates.policy > 0.0).then_some(rates.policy)
        }
    });
    norm
}

/// Differentiates a minibatch: each core a part, in micro-batches of like length.
fn differentiate(
    learner: &Learner,
    rollout: &Rollout,
    minibatch: &[Item],
    config: &AlignConfig,
    stop: &StopFlag,
) -> Result<Differentiated, AlignError> {
    let tokens = |at: &usize| rollout.captions[*at].tokens.len();
    let normaliser = Normaliser {
        items: minibatch.len() as f64,
        tokens: minibatch.iter().flatten().map(tokens).sum::<usize>() as f64,
        first_tokens: minibatch.iter().map(|item| tokens(&item[0])).sum::<usize>() as f64,
    };
    let groups = prompt_groups(minibatch, &rollout.captions, config.align.micro_batch);
    // Long and short responses alternate between the parts, so that cores finish together.
    let parts = learner.policy.scoring_workers().min(groups.len()).max(1);
    let dealt: Vec<Vec<Vec<usize>>> = (0..parts)
        .map(|part| {
            let own = groups.iter().skip(part).step_by(parts);
            micro_batches(own, config.align.micro_batch)
        })
        .collect();
    let results = parallel_chunks(&dealt, parts, |micro_batches| {
        let mut sum = Differentiated::default();
        for micro in micro_batches.iter().flatten() {
            stop.check()?;
            sum.add(&differentiate_micro(learner, rollout, micro, config, normaliser)?);
        }
        Ok::<_, AlignError>(sum)
    });
    let mut total = Differentiated::default();
    for result in results {
        total.add(&result?);
    }
    Ok(total)
}

/// Responses that are differentiated together: those to one image, as many items as `most` responses have room for; the longest first.
fn prompt_groups(minibatch: &[Item], captions: &[ScoredResponse], most: usize) -> Vec<Vec<usize>> {
    let task = |item: &Item| captions[item[0]].task;
    let mut sorted: Vec<&Item> = minibatch.iter().collect();
    sorted.sort_by_key(|item| (task(item), item[0]));
    let mut all: Vec<Vec<usize>> = Vec::new();
    for of_image in sorted.chunk_by(|a, b| task(a) == task(b)) {
        let together = (most / of_image[0].len()).max(1);
        all.extend(
            of_image
                .chunks(together)
                .map(|items| items.iter().copied().flatten().copied().collect()),
        );
    }
    let length = |positions: &Vec<usize>| -> usize {
        positions.iter().map(|&at| captions[at].tokens.len()).sum()
    };
    all.sort_by_key(|positions| (Reverse(length(positions)), positions[0]));
    all
}

/// One after the other into micro-batches of `most` responses at most, or of one that has more.
fn micro_batches<'a>(groups: impl Iterator<Item = &'a Vec<usize>>, most: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = Vec::new();
    for positions in groups {
        match all.last_mut().filter(|last| last.len() + positions.len() <= most) {
            Some(last) => last.extend(positions),
            None => all.push(positions.clone()),
        }
    }
    all
}

fn differentiate_micro(
    learner: &Learner,
    rollout: &Rollout,
    micro: &[usize],
    config: &AlignConfig,
    normaliser: Normaliser,
) -> Result<Differentiated, AlignError> {
    let mut replica = learner.clone();
    replica.train_where(&|_| true);
    let (examples, features) = examples(micro, &rollout.tasks, &rollout.encoded, &rollout.captions);
    let gather = |rows: &[Vec<f32>]| -> Vec<f32> {
        micro.iter().flat_map(|&index| rows[index].iter().copied()).collect()
    };
    let recomputed = config.align.gradient_checkpointing.then_some(&learner.policy);
    let temperature = config.align.temperature;
    let (ResponseScores { hidden, log_probs, entropies }, pass) =
        replica.policy.training_scores(recomputed, &examples, &features, temperature)?;
    let credit = rollout.credit.as_ref();
    let advantages = credit.map(|credit| gather(&credit.advantages)).unwrap_or_default();
    let lengths: Vec<usize> = examples.iter().map(|one| one.response.len()).collect();
    let objective = config.objective.definition();
    let ObjectiveLoss { mut loss, policy, means } = objective.loss(LossInputs {
        log_probs,
        entropy: entropies,
        old_log_probs: &gather(&rollout.old_logprobs),
        reference_log_probs: &gather(&rollout.reference_logprobs),
        advantages: &advantages,
        lengths: &lengths,
        normaliser,
    });
    let policy_loss = f64::from(floats(&loss)[0]);
    let mut step = Differentiated { policy_loss, policy, means, ..Differentiated::default() };
    let taught = credit.and_then(|credit| credit.critic.as_ref());
    if let (Some(head), Some(Critic { values, returns }), Some(critic)) =
        (&replica.value_head, taught, objective.critic())
    {
        // The critic reads the state but does not shape it: its loss would pull on the adapter.
        let estimates = head.forward(hidden.detach());
        let (values, returns) = (gather(values), gather(returns));
        let (term, value) =
            value_loss(estimates, &values, &returns, critic.clip_range, normaliser.tokens);
        step.value_loss = f64::from(floats(&term)[0]);
        step.value = value;
        loss = loss + term;
    }
    let parts = replica.policy.backward(pass, &loss)?;
    step.gradients = collect_all_gradients(&mut replica, &parts)?;
    Ok(step)
}

#[cfg(test)]
mod tests {
    use fisao_models::generation::FinishReason;

    use super::*;

    /// A response of a length to a task.
    fn response((task, length): (usize, usize)) -> ScoredResponse {
        ScoredResponse {
            task,
            tokens: vec![7; length],
            logprobs: vec![-1.0; length],
            finish: FinishReason::Length,
            text: String::new(),
            mentions: Vec::new(),
            scores: Vec::new(),
            negated: 0,
        }
    }

    #[test]
    fn responses_to_one_image_are_differentiated_together() {
        let of_images = [(0, 3), (0, 4), (0, 5), (1, 9), (1, 8), (1, 1), (2, 2), (2, 1), (2, 1)];
        let captions = of_images.map(response);
        let items: Vec<Item> = (0..9).map(|at| vec![at]).collect();
        let images = by_image(&items, &captions, 3);
        assert_eq!(images.iter().map(|items| items.len()).collect::<Vec<_>>(), [3; 3]);
        // More steps than images: by responses again.
        assert_eq!(by_image(&items, &captions, 4).len(), 9);
        let minibatch: Vec<Item> = [8, 3, 0, 4, 7, 2, 1].map(|at| vec![at]).into();
        let groups = prompt_groups(&minibatch, &captions, 2);
        assert_eq!(groups, [vec![3, 4], vec![0, 1], vec![2], vec![7, 8]]);
        assert_eq!(micro_batches(groups.iter(), 3), [vec![3, 4], vec![0, 1, 2], vec![7, 8]]);
        assert_eq!(micro_batches(groups.iter(), 1), groups);
    }

    #[test]
    fn minibatches_have_the_requested_count_and_similar_sizes() {
        let sizes = |items: usize, count: usize| -> Vec<usize> {
            let items: Vec<usize> = (0..items).collect();
            let found: Vec<&[usize]> = parts(&items, count).collect();
            assert_eq!(found.concat(), items, "every item once, in order");
            found.into_iter().map(<[usize]>::len).collect()
        };
        assert_eq!(sizes(64, 4), [16; 4]);
        assert_eq!(sizes(9, 6), [1, 2, 1, 2, 1, 2]);
        assert_eq!(sizes(10, 4), [2, 3, 2, 3]);
        assert_eq!(sizes(3, 4), [1; 3]);
        assert_eq!(sizes(0, 4), [0; 0]);
    }
}
