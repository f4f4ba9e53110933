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
use fisao_models::vision_language::{ImageFeatures, VisionLanguageModel};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::config::{AlignConfig, LoopConfig};
use crate::error::AlignError;
use crate::link::as_bytes;
use crate::objective::{LossInputs, Means, Normaliser, Objective, ObjectiveLoss};
use crate::ppo::{LearningRates, PolicyStatistics, ValueStatistics, value_loss};
use crate::responses::PromptedResponses;
use crate::rollout::Rollout;
use crate::run_control::RunControl;
use crate::sharing::{Add, Kind, PackedFeatures, Work, WorkModels, in_parts, perform};

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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Differentiated {
    #[serde(with = "as_bytes::by_name")]
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
    control: RunControl<'_>,
) -> Result<UpdateReport, AlignError> {
    let LoopConfig { epochs, minibatches, max_grad_norm, target_kl, .. } = config.align;
    let (rows, settings) = (UpdateRows::of(rollout), UpdateSettings::of(config));
    let mut report = UpdateReport::default();
    let mut order = by_image(rollout.items.positions(), &rows.responses, minibatches);
    let mut value_loss = 0.0;
    for _ in 0..epochs {
        order.shuffle(rng);
        let mut epoch = PolicyStatistics::default();
        for minibatch in in_parts(&order, minibatches) {
            let minibatch = minibatch.concat();
            let models = WorkModels::new(Some(&learner.policy), None, learner.value_head.as_ref());
            let mut step = differentiate(models, &rows, &minibatch, &settings, control)?;
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
fn by_image<'a, F>(
    items: &'a [Item],
    responses: &PromptedResponses<F>,
    minibatches: usize,
) -> Vec<&'a [Item]> {
    let task = |item: &Item| responses.task(item[0]);
    let images: Vec<&[Item]> = items.chunk_by(|a, b| task(a) == task(b)).collect();
    if images.len() < minibatches { items.chunks(1).collect() } else { images }
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

/// What a minibatch is differentiated by.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct UpdateSettings {
    objective: Objective,
    /// Most responses of a micro-batch.
    micro_batch: usize,
    temperature: f64,
    gradient_checkpointing: bool,
}

impl UpdateSettings {
    fn of(config: &AlignConfig) -> Self {
        let LoopConfig { micro_batch, temperature, gradient_checkpointing, .. } = config.align;
        let objective = config.objective.clone();
        Self { objective, micro_batch, temperature, gradient_checkpointing }
    }
}

/// What an update reads of a rollout. `F` is what image features are held as.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct UpdateRows<F = ImageFeatures> {
    responses: PromptedResponses<F>,
    /// What is known of the tokens of each.
    tokens: Vec<TokenRows>,
}

/// Of the tokens of one response, each `[T]`, empty where the objective does not ask.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct TokenRows {
    #[serde(with = "as_bytes")]
    old_logprobs: Vec<f32>,
    #[serde(with = "as_bytes")]
    reference_logprobs: Vec<f32>,
    #[serde(with = "as_bytes")]
    advantages: Vec<f32>,
    /// Of the critic.
    #[serde(with = "as_bytes")]
    values: Vec<f32>,
    /// What it is taught.
    #[serde(with = "as_bytes")]
    returns: Vec<f32>,
}

impl UpdateRows {
    fn of(rollout: &Rollout) -> Self {
        let Rollout { tasks, encoded, captions, credit, .. } = rollout;
        let critic = credit.as_ref().and_then(|credit| credit.critic.as_ref());
        let row = |rows: Option<&Vec<Vec<f32>>>, at: usize| {
            rows.map(|rows| rows[at].clone()).unwrap_or_default()
        };
        let tokens = (0..captions.len()).map(|at| TokenRows {
            old_logprobs: rollout.old_logprobs[at].clone(),
            reference_logprobs: rollout.reference_logprobs[at].clone(),
            advantages: row(credit.as_ref().map(|credit| &credit.advantages), at),
            values: row(critic.map(|critic| &critic.values), at),
            returns: row(critic.map(|critic| &critic.returns), at),
        });
        Self {
            responses: PromptedResponses::new(tasks, &encoded.features, captions),
            tokens: tokens.collect(),
        }
    }
}

impl<F> UpdateRows<F> {
    /// Those of the responses at `indices`, in this order.
    fn part<G>(&self, indices: &[usize], features: impl FnMut(&F) -> G) -> UpdateRows<G> {
        let tokens = indices.iter().map(|&at| self.tokens[at].clone()).collect();
        UpdateRows { responses: self.responses.part(indices, features), tokens }
    }

    /// The same with features held as something else.
    fn with_features<G>(&self, features: impl FnMut(&F) -> G) -> UpdateRows<G> {
        UpdateRows {
            responses: self.responses.with_features(features),
            tokens: self.tokens.clone(),
        }
    }
}

/// Differentiates a minibatch; shared where `control` says so.
fn differentiate(
    models: WorkModels<'_>,
    rows: &UpdateRows,
    minibatch: &[Item],
    settings: &UpdateSettings,
    control: RunControl<'_>,
) -> Result<Differentiated, AlignError> {
    let tokens = |at: &usize| rows.responses.length(*at);
    let normaliser = Normaliser {
        items: minibatch.len() as f64,
        tokens: minibatch.iter().flatten().map(tokens).sum::<usize>() as f64,
        first_tokens: minibatch.iter().map(|item| tokens(&item[0])).sum::<usize>() as f64,
    };
    let groups = prompt_groups(minibatch, &rows.responses, settings.micro_batch);
    let Some(team) = control.team else {
        return differentiate_here(models, rows, &groups, settings, normaliser, control);
    };
    let dealt = dealt(&groups, team.parts());
    let work = |at: usize| {
        let mut next = 0..;
        let renumbered =
            dealt[at].iter().map(|group| next.by_ref().take(group.len()).collect()).collect();
        let positions: Vec<usize> = dealt[at].iter().copied().flatten().copied().collect();
        Differentiate {
            rows: rows.part(&positions, PackedFeatures::of),
            groups: renumbered,
            settings: settings.clone(),
            normaliser,
        }
    };
    let steps = perform(team, models, dealt.len(), work, control)?;
    Ok(steps.into_iter().next().unwrap_or_default())
}

/// A part of a minibatch.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Differentiate {
    rows: UpdateRows<PackedFeatures>,
    /// Positions of the rows that are differentiated together.
    groups: Vec<Vec<usize>>,
    settings: UpdateSettings,
    normaliser: Normaliser,
}

impl Work for Differentiate {
    const KIND: Kind = Kind::Differentiate;
    const ADD: Option<Add<Differentiated>> = Some(|sum, step| sum.add(&step));
    type Answer = Differentiated;

    fn done(
        &self,
        models: WorkModels<'_>,
        control: RunControl<'_>,
    ) -> Result<Differentiated, AlignError> {
        let Self { rows, groups, settings, normaliser } = self;
        let device = models.policy().device();
        let rows = rows.with_features(|packed| packed.on(&device));
        differentiate_here(models, &rows, groups, settings, *normaliser, control)
    }
}

/// Every `parts`-th group from the first, the second, … on: long and short responses alternate between the parts, which so finish
/// together.
fn dealt<T>(groups: &[T], parts: usize) -> Vec<Vec<&T>> {
    let parts = parts.min(groups.len()).max(1);
    (0..parts).map(|part| groups.iter().skip(part).step_by(parts).collect()).collect()
}

/// Differentiates groups of rows by this process alone: each core a part, in micro-batches of like length.
fn differentiate_here(
    models: WorkModels<'_>,
    rows: &UpdateRows,
    groups: &[Vec<usize>],
    settings: &UpdateSettings,
    normaliser: Normaliser,
    control: RunControl<'_>,
) -> Result<Differentiated, AlignError> {
    let dealt: Vec<Vec<Vec<usize>>> = dealt(groups, models.policy().scoring_workers())
        .into_iter()
        .map(|own| micro_batches(own.into_iter(), settings.micro_batch))
        .collect();
    let results = parallel_chunks(&dealt, dealt.len(), |micro_batches| {
        let mut sum = Differentiated::default();
        for micro in micro_batches.iter().flatten() {
            control.check()?;
            sum.add(&differentiate_micro(models, rows, micro, settings, normaliser)?);
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
fn prompt_groups<F>(
    minibatch: &[Item],
    responses: &PromptedResponses<F>,
    most: usize,
) -> Vec<Vec<usize>> {
    let task = |item: &Item| responses.task(item[0]);
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
        positions.iter().map(|&at| responses.length(at)).sum()
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
    models: WorkModels<'_>,
    rows: &UpdateRows,
    micro: &[usize],
    settings: &UpdateSettings,
    normaliser: Normaliser,
) -> Result<Differentiated, AlignError> {
    let (policy, value_head) = (models.policy(), models.value_head);
    let mut replica = Learner { policy: policy.clone(), value_head: value_head.cloned() };
    replica.train_where(&|_| true);
    let (examples, features) = rows.responses.examples(micro);
    let gather = |row: fn(&TokenRows) -> &Vec<f32>| -> Vec<f32> {
        micro.iter().flat_map(|&index| row(&rows.tokens[index]).iter().copied()).collect()
    };
    let recomputed = settings.gradient_checkpointing.then_some(policy);
    let (ResponseScores { hidden, log_probs, entropies }, pass) =
        replica.policy.training_scores(recomputed, &examples, &features, settings.temperature)?;
    let lengths: Vec<usize> = examples.iter().map(|one| one.response.len()).collect();
    let objective = settings.objective.definition();
    let ObjectiveLoss { mut loss, policy, means } = objective.loss(LossInputs {
        log_probs,
        entropy: entropies,
        old_log_probs: &gather(|rows| &rows.old_logprobs),
        reference_log_probs: &gather(|rows| &rows.reference_logprobs),
        advantages: &gather(|rows| &rows.advantages),
        lengths: &lengths,
        normaliser,
    });
    let policy_loss = f64::from(floats(&loss)[0]);
    let mut step = Differentiated { policy_loss, policy, means, ..Differentiated::default() };
    if let (Some(head), Some(critic)) = (&replica.value_head, objective.critic()) {
        // The critic reads the state but does not shape it: its loss would pull on the adapter.
        let estimates = head.forward(hidden.detach());
        let (values, returns) = (gather(|rows| &rows.values), gather(|rows| &rows.returns));
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
    use super::*;

    #[test]
    fn responses_to_one_image_are_differentiated_together() {
        let of_images = [(0, 3), (0, 4), (0, 5), (1, 9), (1, 8), (1, 1), (2, 2), (2, 1), (2, 1)];
        let responses = PromptedResponses::of_lengths(&of_images);
        let items: Vec<Item> = (0..9).map(|at| vec![at]).collect();
        let images = by_image(&items, &responses, 3);
        assert_eq!(images.iter().map(|items| items.len()).collect::<Vec<_>>(), [3; 3]);
        // More steps than images: by responses again.
        assert_eq!(by_image(&items, &responses, 4).len(), 9);
        let minibatch: Vec<Item> = [8, 3, 0, 4, 7, 2, 1].map(|at| vec![at]).into();
        let groups = prompt_groups(&minibatch, &responses, 2);
        assert_eq!(groups, [vec![3, 4], vec![0, 1], vec![2], vec![7, 8]]);
        assert_eq!(micro_batches(groups.iter(), 3), [vec![3, 4], vec![0, 1, 2], vec![7, 8]]);
        assert_eq!(micro_batches(groups.iter(), 1), groups);
    }

    #[test]
    fn minibatches_have_the_requested_count_and_similar_sizes() {
        let sizes = |items: usize, count: usize| -> Vec<usize> {
            let items: Vec<usize> = (0..items).collect();
            let found: Vec<&[usize]> = in_parts(&items, count).collect();
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
