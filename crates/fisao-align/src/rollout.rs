//! What an iteration learns from: encode → sample → score → compare → reward → advantages.

use fisao_models::generation::{FinishReason, Generated, Sampling};
use fisao_models::value_head::ValueHead;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::calibration::Correctness;
use fisao_verifier::rewards::RewardRule;

use crate::captions::answer;
use crate::config::AlignConfig;
use crate::credit::{Credit, RewardTerms, credit};
use crate::encoding::EncodedImages;
use crate::error::AlignError;
use crate::events::{AlignEvent, Phase};
use crate::features::FeatureCache;
use crate::log_probabilities::{TokenEstimates, token_estimates};
use crate::mentions::{MentionScorer, ScoredResponse};
use crate::objective::{Data, Items, RewardedResponses};
use crate::phase_clock::PhaseClock;
use crate::ppo::KlEstimator;
use crate::recall::PairedCounts;
use crate::responses::PromptedResponses;
use crate::run_control::RunControl;
use crate::sampling::{Request, sample};
use crate::sharing::WorkModels;
use crate::tasks::Task;
use crate::token_rewards::{AdditionalRewards, token_rewards};

/// What a rollout reads.
pub(crate) struct RolloutPlan<'a> {
    pub(crate) policy: &'a VisionLanguageModel,
    /// What writes the responses: the policy, or the same with int8 weights.
    pub(crate) sampler: &'a VisionLanguageModel,
    pub(crate) value_head: Option<&'a ValueHead>,
    pub(crate) rule: &'a RewardRule,
    pub(crate) additional: &'a AdditionalRewards,
    pub(crate) config: &'a AlignConfig,
    pub(crate) terms: RewardTerms,
    pub(crate) sampling: &'a Sampling,
    pub(crate) streams: &'a [u64],
    /// Of the tasks, among all of the run.
    pub(crate) numbers: &'a [usize],
    /// Whether the images come up again.
    pub(crate) again: bool,
    /// Estimates correctness, where expected correct mentions are to be measured.
    pub(crate) correctness: Option<&'a Correctness>,
    /// Stopping, checked before every batch, and how the work is shared.
    pub(crate) control: RunControl<'a>,
}

/// Samples responses or takes the data's, scores and rewards what they name, and turns the rewards into what the objective
/// learns from.
///
/// # Errors
/// [`AlignError::ImageTokens`] and [`AlignError::NoAnswer`] where the data do not fit, [`AlignError::Stopped`], and whatever
/// the model or the verifier reports.
pub(crate) fn roll_out(
    plan: &RolloutPlan<'_>,
    scorer: &mut MentionScorer,
    cache: &mut FeatureCache,
    tasks: Vec<Task>,
    clock: &mut PhaseClock,
    emit: &mut dyn FnMut(AlignEvent),
) -> Result<Rollout, AlignError> {
    let config = plan.config;
    let samples = config.samples_per_image();

    clock.start(Phase::Encode, tasks.len(), emit);
    let control = plan.control;
    let (encoded, images_encoded) =
        cache.encode(plan.policy, &scorer.verifier, plan.numbers, &tasks, plan.again, control)?;
    check_image_tokens(plan.policy, &tasks, &encoded)?;

    clock.start(Phase::Sample, config.responses_per_iteration(), emit);
    let objective = config.objective.definition();
    let sampled = objective.data() == Data::Sampled;
    let (responses, per_task) = if sampled {
        let request = Request {
            tasks: &tasks,
            encoded: &encoded,
            streams: plan.streams,
            samples,
            sampling: plan.sampling,
            control,
        };
        (sample(plan.sampler, &request)?, samples)
    } else {
        given(config, &tasks)?
    };

    clock.start(Phase::Score, responses.len(), emit);
    let captions = scorer.read_all(responses, per_task, &encoded.embeddings)?;

    clock.start(Phase::Compare, plan.correctness.map_or(0, |_| 2 * tasks.len()), emit);
    let correct = match plan.correctness {
        Some(correctness) => Some(paired_counts(plan, scorer, &tasks, &encoded, correctness)?),
        None => None,
    };

    clock.start(Phase::Reward, captions.len(), emit);
    let rewards = token_rewards(plan.rule, plan.additional, (scorer, &tasks, &encoded), &captions)?;

    clock.start(Phase::Advantages, captions.len(), emit);
    let models = WorkModels::new(Some(plan.policy), None, plan.value_head);
    let prompted = PromptedResponses::new(&tasks, &encoded.features, &captions);
    let estimates = token_estimates(models, &prompted, config.align.temperature, control)?;
    let groups: Vec<usize> =
        captions.chunk_by(|a, b| a.task == b.task).map(<[ScoredResponse]>::len).collect();
    let credit = credit(&config.objective, &plan.terms, &groups, &rewards, &estimates);
    let items = objective.items(&RewardedResponses { groups: &groups, rewards: &rewards });
    let entropy = mean_entropy(&estimates);
    let (old_logprobs, reference_logprobs) =
        estimates.into_iter().map(|of| (of.logprobs, of.reference)).unzip();
    Ok(Rollout {
        tasks,
        encoded,
        images_encoded,
        captions,
        correct,
        rewards,
        length_bonus: plan.terms.length_bonus,
        old_logprobs,
        reference_logprobs,
        credit,
        items,
        sampled,
        in_int8: sampled && plan.sampler.decodes_in_int8(),
        entropy,
    })
}

/// Holds the prompts against the features: a placeholder too many or too few, and the image would be read as text.
fn check_image_tokens(
    policy: &VisionLanguageModel,
    tasks: &[Task],
    encoded: &EncodedImages,
) -> Result<(), AlignError> {
    let placeholder = policy.tokens().image;
    for (task, features) in tasks.iter().zip(&encoded.features) {
        let found = task.prompt.iter().filter(|&&id| id == placeholder).count();
        let expected = features.counts().iter().sum();
        if found != expected {
            return Err(AlignError::ImageTokens { id: task.id.clone(), found, expected });
        }
    }
    Ok(())
}

/// The data's own responses, and how many each task has.
fn given(config: &AlignConfig, tasks: &[Task]) -> Result<(Vec<Generated>, usize), AlignError> {
    let objective = config.objective.definition();
    let (wanted, count) = match objective.data() {
        Data::Pairs => ("chosen and rejected response", 2),
        Data::Sampled | Data::Responses => ("response", 1),
    };
    let mut given = Vec::with_capacity(count * tasks.len());
    for task in tasks {
        let responses = task.answer.responses();
        if responses.len() < count || responses.iter().any(|response| response.is_empty()) {
            let (id, objective) = (task.id.clone(), objective.name());
            return Err(AlignError::NoAnswer { id, wanted, objective });
        }
        given.extend(responses[..count].iter().map(|response| {
            let tokens = response.to_vec();
            Generated { tokens, logprobs: Vec::new(), finish: FinishReason::Stop }
        }));
    }
    Ok((given, count))
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
    let control = plan.control;
    let mut captions = |policy: &VisionLanguageModel| {
        answer(policy, scorer, (tasks, 0), encoded, &greedy, control)
    };
    let policy = captions(plan.policy)?;
    let base = captions(&plan.policy.without_lora())?;
    Ok(PairedCounts::new(&policy, &base, correctness))
}

/// Over all tokens; 0 of none.
fn mean_entropy(estimates: &[TokenEstimates]) -> f64 {
    let entropies = || estimates.iter().flat_map(|of| &of.entropy);
    entropies().map(|&entropy| f64::from(entropy)).sum::<f64>() / entropies().count().max(1) as f64
}

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
    /// What a step learns from at a time: single responses, or pairs of a better and a worse one.
    pub items: Items,
    /// Whether the policy wrote the responses itself, so that their log-probabilities tell of its distribution.
    pub sampled: bool,
    /// Whether it did so with int8 weights.
    pub in_int8: bool,
    /// Entropy per token, mean, nats.
    pub entropy: f64,
}

impl Rollout {
    /// Largest disagreement between the sampler's log-probabilities and the trainer's, nats; NaN where one of them is.
    pub fn sampler_gap(&self) -> f64 {
        let pairs = self.captions.iter().zip(&self.old_logprobs);
        largest_gap(pairs.flat_map(|(caption, trainer)| caption.logprobs.iter().zip(trainer)))
    }

    /// `KL(π_θ‖π_ref)` by the given estimator, summed over all responses, nats.
    pub fn divergence(&self, estimator: KlEstimator) -> f64 {
        total_divergence(estimator, self.old_logprobs.iter().zip(&self.reference_logprobs))
    }

    /// `KL(sampler‖policy)`, likewise, where the sampler has int8 weights.
    pub fn sampler_divergence(&self, estimator: KlEstimator) -> Option<f64> {
        let sampler = self.captions.iter().map(|caption| &caption.logprobs);
        self.in_int8.then(|| total_divergence(estimator, sampler.zip(&self.old_logprobs)))
    }
}

/// Summed over pairs of a response's log-probabilities under both, nats.
fn total_divergence<'a>(
    estimator: KlEstimator,
    pairs: impl Iterator<Item = (&'a Vec<f32>, &'a Vec<f32>)>,
) -> f64 {
    pairs.map(|(p, q)| estimator.sum(p, q)).sum()
}

/// max |a − b| over pairs; NaN where one of them is, which `f64::max` would drop.
fn largest_gap<'a>(pairs: impl Iterator<Item = (&'a f32, &'a f32)>) -> f64 {
    let gaps = pairs.map(|(&a, &b)| f64::from((a - b).abs()));
    gaps.fold(0.0, |most, gap| if most >= gap || most.is_nan() { most } else { gap })
}

#[cfg(test)]
mod tests {
    use super::largest_gap;

    #[test]
    fn largest_gap_propagates_nan() {
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
