//! The loop: rollout → verify → advantages → update, and what it reports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fisao_models::adamw::{AdamW, Moments};
use fisao_models::generation::{FinishReason, Sampling};
use fisao_models::linear::ActivationDtype;
use fisao_models::llava::Llava;
use fisao_models::parameters::Parameters;
use fisao_models::random::Purpose;
use fisao_models::value_head::ValueHead;
use fisao_verifier::calibration::{Calibration, Correctness, Statistic, auc};
use fisao_verifier::rewards::{RewardForm, RewardRule};
use rand::Rng as _;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::captions::{EncodedImages, MentionScorer, ScoredResponse, answer, describe_from};
use crate::config::AlignConfig;
use crate::error::AlignError;
use crate::events::{AlignEvent, IterationMetrics, Phase, PhaseSeconds, WarningCode};
use crate::features::FeatureCache;
use crate::guards::{
    Baseline, SplitHealth, check_iteration, check_recall_bound, check_recall_estimate, check_split,
    unrecoverable,
};
use crate::length::LengthController;
use crate::objective::{Data, Objective};
use crate::ppo::{KlController, KlEstimator, explained_variance};
use crate::recall::{RecallConfig, RecallController, expected_correct, standard_error};
use crate::rollout::{PhaseClock, Rollout, RolloutPlan, response_reward, roll_out, token_rewards};
use crate::run_control::{RunControl, StopFlag};
use crate::tasks::{Task, TaskSource};
use crate::update::{Learner, UpdateReport, optimiser, update};

/// Captions compared with those of a blank image before training.
const ABLATED: usize = 8;

/// The validation set: tasks on which reward is measured, and recall where they are labelled. Training never sees the labels.
#[derive(Debug, Clone)]
pub struct ValidationSet {
    /// Tasks that are not trained on.
    pub tasks: Vec<Task>,
    /// Categories in each image, where they are known.
    pub truth: Option<Vec<BTreeSet<String>>>,
}

/// Result of a validation.
#[derive(Debug, Clone)]
pub struct ValidationResult {
    /// In numbers.
    pub health: SplitHealth,
    /// The policy's greedy responses, one to each task.
    pub captions: Vec<ScoredResponse>,
}

/// A mention in a response with its score and reward.
#[derive(Debug, Clone, PartialEq)]
pub struct WordVerdict {
    /// Where it stands in the text, bytes.
    pub span: std::ops::Range<usize>,
    /// What it names.
    pub category: String,
    /// The verifier's score.
    pub score: f64,
    /// Its reward, for the first mention of its category.
    pub reward: f64,
}

/// Everything that changes during a run; together with configuration and data it determines the rest
/// of the run bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Iterations done.
    pub iteration: usize,
    /// Values of adapter and value head by name.
    pub parameters: BTreeMap<String, Vec<f32>>,
    /// First and second moments of the optimiser by name.
    pub moments: BTreeMap<String, (Vec<f32>, Vec<f32>)>,
    /// Optimiser steps done.
    pub optimiser_steps: u64,
    /// Of these, those that updated each parameter; empty in states of earlier versions, which counted all for every one.
    #[serde(default)]
    pub parameter_steps: BTreeMap<String, u64>,
    /// β and its controller, for objectives that have it.
    pub kl: Option<KlController>,
    /// What metrics are compared with.
    pub baseline: Option<Baseline>,
    /// Recall of the base model on the validation tasks.
    pub base_recall: Option<f64>,
    /// Expected correct mentions of the base model per caption of the validation tasks.
    #[serde(default)]
    pub base_correct: Option<f64>,
    /// The recall constraint, for runs that have it.
    #[serde(default)]
    pub recall: Option<RecallController>,
    /// The length constraint, for runs that have it.
    #[serde(default)]
    pub length: Option<LengthController>,
    /// Iterations in a row, up to now, that gave reason to stop; saved states call it `hopeless`.
    #[serde(rename = "hopeless")]
    pub unrecoverable: usize,
}

impl TrainerState {
    /// That it is consistent: moments belong to parameters and have their size, and tensors and recall constraint are finite.
    ///
    /// # Errors
    /// [`AlignError::State`] names the first tensor or number that is not.
    pub fn check(&self) -> Result<(), AlignError> {
        let wrong = |what: String| Err(AlignError::State(what));
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        for (name, values) in &self.parameters {
            if !finite(values) {
                return wrong(format!("tensor `{name}` holds NaN or infinite values"));
            }
        }
        for (name, (first, second)) in &self.moments {
            let Some(values) = self.parameters.get(name) else {
                return wrong(format!("it has moments of `{name}`, but no such tensor"));
            };
            if first.len() != values.len() || second.len() != values.len() {
                let (first, second, values) = (first.len(), second.len(), values.len());
                return wrong(format!(
                    "the moments of `{name}` have {first} and {second} values for {values}"
                ));
            }
            if !finite(first) || !finite(second) || second.iter().any(|&value| value < 0.0) {
                return wrong(format!("the moments of `{name}` are not those of an optimiser"));
            }
        }
        if let Some(name) =
            self.parameter_steps.keys().find(|name| !self.moments.contains_key(*name))
        {
            return wrong(format!("it counts steps of `{name}`, which has no moments"));
        }
        if self.parameter_steps.values().any(|&steps| steps > self.optimiser_steps) {
            return wrong("it counts more steps of a tensor than of the optimiser".to_owned());
        }
        let recall = self.recall.is_none_or(|recall| recall.is_finite());
        let base = [self.base_recall, self.base_correct].into_iter().flatten().all(f64::is_finite);
        if !recall || !base {
            return wrong("its recall constraint holds NaN or infinite values".to_owned());
        }
        if self.length.is_some_and(|length| !length.is_finite()) {
            return wrong("its length constraint holds NaN or infinite values".to_owned());
        }
        Ok(())
    }
}

/// A run.
pub struct Trainer<'a> {
    config: AlignConfig,
    learner: Learner,
    scorer: MentionScorer,
    rule: RewardRule,
    /// Estimates which mentions are correct; absent where the scores of the classes overlap too much.
    correctness: Option<Correctness>,
    recall: Option<RecallController>,
    /// Its settings, for this verifier's noise.
    recall_config: RecallConfig,
    length: Option<LengthController>,
    optimiser: AdamW,
    kl: Option<KlController>,
    /// Matrices of the adapter.
    adapted: usize,
    tasks: &'a dyn TaskSource,
    /// What the encoders made of images that come up again.
    features: FeatureCache,
    /// The order of one pass over the tasks, and which.
    order: Option<(usize, Vec<u32>)>,
    validation: Option<ValidationSet>,
    iteration: usize,
    baseline: Option<Baseline>,
    base_recall: Option<f64>,
    base_correct: Option<f64>,
    unrecoverable: usize,
    stop: StopFlag,
}

/// Snapshot of what an iteration changes, taken before it.
struct IterationSnapshot {
    learner: Learner,
    optimiser: AdamW,
    kl: Option<KlController>,
    recall: Option<RecallController>,
    length: Option<LengthController>,
    baseline: Option<Baseline>,
    unrecoverable: usize,
}

impl<'a> Trainer<'a> {
    /// Attaches a fresh adapter to `policy` and binds the reward to its calibration.
    ///
    /// # Errors
    /// [`AlignError`] when a setting is out of range, the reward does not fit the calibration, or
    /// there are no tasks.
    pub fn new(
        config: AlignConfig,
        mut policy: Llava,
        mut scorer: MentionScorer,
        calibration: &Calibration,
        tasks: &'a dyn TaskSource,
        validation: Option<ValidationSet>,
    ) -> Result<Self, AlignError> {
        config.validate()?;
        if tasks.count() == 0 {
            return Err(AlignError::NoTasks);
        }
        let activations = config.align.activation_dtype;
        let concerned = policy.set_activation_dtype(activations);
        if activations == ActivationDtype::Bf16 && concerned == 0 {
            return Err(AlignError::Setting(
                "align.activation-dtype = \"bf16\" changes nothing: no weight of the model is held in bf16"
                    .to_owned(),
            ));
        }
        let rule = RewardRule::new(&config.reward, calibration)
            .map_err(|error| AlignError::Setting(error.to_string()))?;
        let statistic = match config.reward.form {
            RewardForm::Corrected { statistic, .. } => statistic,
            _ => Statistic::default(),
        };
        let correctness = Correctness::new(calibration, statistic).ok();
        let noise = correctness.as_ref().map_or(0.0, Correctness::noise);
        let recall_config = config.recall.for_noise(noise);
        let recall = config.constrains_recall().then(|| RecallController::new(rule.break_even()));
        let length = config.constrains_length().then(LengthController::default);
        scorer.verifier.apply_calibration(calibration);
        // All names at once and in one order: embedded as they come up, their last bits would depend on what came up
        // with them, and a resumed run would part from an uninterrupted one.
        scorer.verifier.embed_names(scorer.vocabulary.forms().map(|(form, _)| form))?;
        let adapted = policy
            .add_lora(&config.lora, config.seed)
            .map_err(|error| AlignError::Setting(error.to_string()))?;
        let hidden = policy.config().text.hidden_size;
        let critic = matches!(config.objective, Objective::Ppo(_));
        let value_head = critic.then(|| ValueHead::new(hidden, &policy.device()));
        let optimiser = optimiser(&config.align);
        let kl = config.objective.kl().map(KlController::new);
        let megabytes = |count: usize| (count as u64).saturating_mul(1_000_000);
        let features = FeatureCache::new(
            megabytes(config.align.feature_cache_mb),
            megabytes(config.align.feature_cache_disk_mb),
            &std::env::temp_dir(),
        );
        Ok(Self {
            config,
            learner: Learner { policy, value_head },
            scorer,
            rule,
            correctness,
            recall,
            recall_config,
            length,
            optimiser,
            kl,
            adapted,
            tasks,
            features,
            order: None,
            validation,
            iteration: 0,
            baseline: None,
            base_recall: None,
            base_correct: None,
            unrecoverable: 0,
            stop: StopFlag::default(),
        })
    }

    /// A flag that ends whatever the trainer does with [`AlignError::Stopped`] once it is raised.
    pub fn stop_on(&mut self, stop: StopFlag) {
        self.stop = stop;
    }

    /// The policy with its adapter.
    pub fn policy(&self) -> &Llava {
        &self.learner.policy
    }

    /// Where image features go that are kept on disk: until told, the system's folder for temporary files.
    pub fn keep_features_in(&mut self, folder: &Path) {
        self.features.set_folder(folder);
    }

    /// Iterations done.
    pub fn iteration(&self) -> usize {
        self.iteration
    }

    /// Whether all iterations are done.
    pub fn is_finished(&self) -> bool {
        self.iteration >= self.config.align.iterations
    }

    /// Matrices that the adapter adds: two for every linear layer it changes.
    pub fn adapter_matrices(&self) -> usize {
        self.adapted
    }

    /// Number of trainable parameters: those of the adapter and of the value head.
    pub fn trainable(&self) -> usize {
        let mut count = 0;
        self.learner.clone().visit_mut("", &mut |_, parameter| {
            count += parameter.shape().iter().product::<usize>();
        });
        count
    }

    /// Compares captions of the first tasks with and without their images.
    ///
    /// # Errors
    /// [`AlignError::ImageIgnored`] when no caption differs.
    pub fn check_image_matters(&mut self) -> Result<(), AlignError> {
        let count = ABLATED.min(self.tasks.count());
        let tasks: Vec<Task> =
            (0..count).map(|index| self.tasks.task(index)).collect::<Result<_, _>>()?;
        let mut blank = tasks.clone();
        for task in &mut blank {
            task.image.values.fill(0.0);
        }
        let seen = self.describe(&tasks, 0.0)?.0;
        let unseen = self.describe(&blank, 0.0)?.0;
        let same = seen.iter().zip(&unseen).filter(|(a, b)| a.tokens == b.tokens).count();
        if same == count { Err(AlignError::ImageIgnored { compared: count }) } else { Ok(()) }
    }

    /// One iteration.
    ///
    /// # Errors
    /// [`AlignError::Unrecoverable`] after `guards.patience` unrecoverable iterations in a row; this one is done then. After every other error the trainer is as after the previous iteration: [`AlignError::Broken`] when a metric is
    /// not a number, before the first update [`AlignError::RewardZero`] or [`AlignError::SamplerMismatch`],
    /// [`AlignError::Stopped`] when that was asked for, and whatever a task, the model or the verifier reports.
    pub fn iterate(
        &mut self,
        emit: &mut dyn FnMut(AlignEvent),
    ) -> Result<IterationMetrics, AlignError> {
        let snapshot = IterationSnapshot {
            learner: self.learner.clone(),
            optimiser: self.optimiser.clone(),
            kl: self.kl.clone(),
            recall: self.recall,
            length: self.length,
            baseline: self.baseline,
            unrecoverable: self.unrecoverable,
        };
        let outcome = self.attempt(emit);
        if outcome.as_ref().is_err_and(|error| !matches!(error, AlignError::Unrecoverable { .. })) {
            self.roll_back(snapshot)?;
        }
        outcome
    }

    fn roll_back(&mut self, snapshot: IterationSnapshot) -> Result<(), AlignError> {
        let IterationSnapshot { learner, optimiser, kl, recall, length, baseline, unrecoverable } =
            snapshot;
        (self.learner, self.optimiser, self.kl) = (learner, optimiser, kl);
        (self.recall, self.length) = (recall, length);
        (self.baseline, self.unrecoverable) = (baseline, unrecoverable);
        self.follow_recall()
    }

    /// One iteration, after whose error the learner may be between two steps.
    fn attempt(
        &mut self,
        emit: &mut dyn FnMut(AlignEvent),
    ) -> Result<IterationMetrics, AlignError> {
        let TaskBatch { tasks, numbers, streams } = self.draw_tasks()?;
        let sampling = self.sampling(self.config.align.temperature);
        let measured =
            self.recall.is_some() && self.iteration.is_multiple_of(self.recall_config.every);
        let plan = RolloutPlan {
            policy: &self.learner.policy,
            value_head: self.learner.value_head.as_ref(),
            rule: &self.rule,
            config: &self.config,
            kl_coefficient: self.kl.as_ref().map_or(0.0, KlController::coefficient),
            length_bonus: self.length.map(|controller| controller.bonus(&self.config.length)),
            sampling: &sampling,
            streams: &streams,
            numbers: &numbers,
            again: self.has_another_pass(),
            correctness: self.correctness.as_ref().filter(|_| measured),
            iteration: self.iteration,
            stop: &self.stop,
        };
        let (rollout, seconds) =
            roll_out(&plan, &mut self.scorer, &mut self.features, tasks, emit)?;

        if self.iteration == 0 {
            self.check_first(&rollout)?;
        }
        let mut clock = PhaseClock::new(self.iteration);
        clock.start(Phase::Update, self.config.align.epochs * self.config.align.minibatches, emit);
        let rates = self.config.learning_rates(self.iteration);
        let mut rng = Purpose::Minibatches.stream(self.config.seed, self.iteration as u64);
        let report = update(
            &mut self.learner,
            &mut self.optimiser,
            &rollout,
            (&self.config, rates),
            &mut rng,
            &self.stop,
        )?;
        let update_seconds = clock.finish(emit);
        let [rollout_seconds, verify, advantages] = seconds;
        let seconds =
            PhaseSeconds { rollout: rollout_seconds, verify, advantages, update: update_seconds };
        // After the update's rewards were given: what is measured now moves the next iteration's break-even precision and
        // reward per token.
        if let Some(counts) = &rollout.correct {
            if let Some(controller) = &mut self.recall {
                controller.observe(counts, &self.recall_config);
            }
            if let Some(controller) = &mut self.length {
                controller.observe(counts, &self.config.length);
            }
        }
        let metrics = self.measure(&rollout, &report, seconds);
        let stop = self.guard(&metrics, emit)?;
        if let (Some(controller), Some(kl)) = (&mut self.kl, metrics.kl) {
            controller.update(kl, metrics.responses);
        }
        self.follow_recall()?;
        self.iteration += 1;
        emit(AlignEvent::IterationFinished { metrics: Box::new(metrics.clone()) });
        match stop {
            Some((message, hint)) => {
                Err(AlignError::Unrecoverable { iteration: self.iteration, message, hint })
            }
            None => Ok(metrics),
        }
    }

    /// What must hold before anything is learned: rewards that are not all zero, and a trainer that finds the sampler's
    /// responses as likely as the sampler did.
    fn check_first(&self, rollout: &Rollout) -> Result<(), AlignError> {
        if self.config.objective.data() != Data::Sampled {
            return Ok(());
        }
        let limit = self.config.guards.sampler_gap;
        let gap = rollout.sampler_gap();
        if gap.is_nan() || gap > limit {
            let (gap, limit) = (format!("{gap:.4}"), limit.to_string());
            return Err(AlignError::SamplerMismatch { gap, limit });
        }
        let earns = rollout.rewards.iter().flatten().any(|&reward| reward != 0.0);
        if earns || self.config.guards.reward_std == 0.0 {
            return Ok(());
        }
        let responses = rollout.captions.len();
        let mentions: usize = rollout.captions.iter().map(|caption| caption.mentions.len()).sum();
        let mentions = format!("{:.1}", mentions as f64 / responses.max(1) as f64);
        Err(AlignError::RewardZero { responses, mentions })
    }

    /// The validation tasks.
    pub fn validation_tasks(&self) -> &[Task] {
        self.validation.as_ref().map_or(&[], |validation| &validation.tasks)
    }

    /// The object mentions of a response.
    pub fn verdicts(&self, caption: &ScoredResponse) -> Vec<WordVerdict> {
        let words = caption.mentions.iter().zip(&caption.scores);
        words
            .map(|(mention, &score)| WordVerdict {
                span: mention.span.clone(),
                category: self.scorer.vocabulary.category(mention.category).to_owned(),
                score,
                reward: self.rule.mention_reward(score),
            })
            .collect()
    }

    /// Reward and recall on the validation tasks, greedily captioned; warnings go to `emit`.
    ///
    /// # Errors
    /// See [`caption`](crate::captions::caption).
    pub fn run_validation(
        &mut self,
        emit: &mut dyn FnMut(AlignEvent),
    ) -> Result<Option<ValidationResult>, AlignError> {
        let Some(validation) = self.validation.clone() else { return Ok(None) };
        // Numbers behind those of the tasks that are trained on.
        let first = self.tasks.count();
        let numbers: Vec<usize> = (first..first + validation.tasks.len()).collect();
        let sampling = self.sampling(0.0);
        let Self { learner, scorer, features, stop, .. } = self;
        let (encoded, _) = features.encode(
            &learner.policy,
            &scorer.verifier,
            &numbers,
            &validation.tasks,
            true,
        )?;
        let tasks = (validation.tasks.as_slice(), 0);
        let control = RunControl::new(&|_| {}).until(stop);
        let captions = answer(&learner.policy, scorer, tasks, &encoded, &sampling, control)?;
        let mut reward = 0.0;
        for caption in &captions {
            reward += response_reward(&token_rewards(&self.rule, &self.scorer, &encoded, caption)?);
        }
        reward /= captions.len().max(1) as f64;
        let recall = validation.truth.as_ref().map(|truth| recall(&captions, truth, &self.scorer));
        if self.base_recall.is_none() {
            self.base_recall = recall;
        }
        let expected = self.correctness.as_ref().map(|correctness| {
            let counts = captions.iter().map(|caption| expected_correct(caption, correctness));
            counts.sum::<f64>() / captions.len().max(1) as f64
        });
        if self.base_correct.is_none() {
            self.base_correct = expected;
        }
        let (mut correct, mut wrong) = (Vec::new(), Vec::new());
        for caption in &captions {
            let Some(truth) = &validation.truth else { break };
            if self.rule.needs_sentence_score() {
                break;
            }
            for (mention, &score) in caption.mentions.iter().zip(&caption.scores) {
                let name = self.scorer.vocabulary.category(mention.category);
                let reward = self.rule.mention_reward(score);
                if truth[caption.task].contains(name) {
                    correct.push(reward);
                } else {
                    wrong.push(reward);
                }
            }
        }
        let mean = |rewards: &[f64]| {
            (!rewards.is_empty()).then(|| rewards.iter().sum::<f64>() / rewards.len() as f64)
        };
        let both = !correct.is_empty() && !wrong.is_empty();
        let reward_auc = both.then(|| auc(&correct, &wrong));
        let fewest = correct.len().min(wrong.len()).max(1) as f64;
        let health = SplitHealth {
            reward,
            recall,
            base_recall: self.base_recall,
            expected_correct: expected,
            base_expected_correct: self.base_correct,
            reward_auc,
            reward_correct: mean(&correct),
            reward_hallucinated: mean(&wrong),
            reward_auc_error: reward_auc.map_or(0.0, |auc| (auc * (1.0 - auc) / fewest).sqrt()),
            reward_correct_error: standard_error(&correct),
            reward_hallucinated_error: standard_error(&wrong),
        };
        let noise = self.correctness.as_ref().map_or(0.0, Correctness::noise);
        let mut warnings = check_split(&health, &self.config.guards);
        if self.recall.is_some() {
            warnings.extend(check_recall_estimate(&health, &self.config.guards, noise));
        }
        for warning in warnings {
            emit(AlignEvent::Warning(warning));
        }
        Ok(Some(ValidationResult { health, captions }))
    }

    /// Captions tasks with the current policy.
    ///
    /// # Errors
    /// See [`caption`](crate::captions::caption).
    pub fn describe(
        &mut self,
        tasks: &[Task],
        temperature: f64,
    ) -> Result<(Vec<ScoredResponse>, EncodedImages), AlignError> {
        let sampling = self.sampling(temperature);
        let Self { learner: Learner { policy, .. }, scorer, stop, .. } = self;
        describe_from(policy, scorer, (tasks, 0), &sampling, RunControl::new(&|_| {}).until(stop))
    }

    /// Everything that changes.
    pub fn state(&self) -> TrainerState {
        let mut parameters = BTreeMap::new();
        self.learner.clone().visit_mut("", &mut |name, parameter| {
            parameters.insert(name.to_owned(), parameter.values());
        });
        let moments = self.optimiser.moments.iter();
        TrainerState {
            iteration: self.iteration,
            parameters,
            moments: moments
                .clone()
                .map(|(name, m)| (name.clone(), (m.first.clone(), m.second.clone())))
                .collect(),
            optimiser_steps: self.optimiser.step,
            parameter_steps: moments.map(|(name, m)| (name.clone(), m.steps)).collect(),
            kl: self.kl.clone(),
            baseline: self.baseline,
            base_recall: self.base_recall,
            base_correct: self.base_correct,
            recall: self.recall,
            length: self.length,
            unrecoverable: self.unrecoverable,
        }
    }

    /// Restores a saved state.
    ///
    /// # Errors
    /// [`AlignError::State`] when tensors are missing, have another size or hold NaN or infinite values. The run is as before then.
    pub fn restore(&mut self, state: TrainerState) -> Result<(), AlignError> {
        state.check()?;
        self.check_parameters(&state)?;
        self.learner.visit_mut("", &mut |name, mut parameter| {
            if let Some(values) = state.parameters.get(name) {
                parameter.set_values(values.clone());
            }
        });
        self.optimiser.step = state.optimiser_steps;
        self.optimiser.moments = state
            .moments
            .into_iter()
            .map(|(name, (first, second))| {
                let steps = state.parameter_steps.get(&name).copied();
                let steps = steps.unwrap_or(state.optimiser_steps);
                (name, Moments { first, second, steps })
            })
            .collect();
        self.iteration = state.iteration;
        self.kl = state.kl;
        self.baseline = state.baseline;
        self.base_recall = state.base_recall;
        self.base_correct = state.base_correct;
        self.unrecoverable = state.unrecoverable;
        if let (Some(controller), Some(saved)) = (&mut self.recall, state.recall) {
            *controller = saved;
        }
        // A run of an earlier version goes on without the constraint, as it began.
        if self.length.is_some() {
            self.length = state.length;
        }
        self.follow_recall()
    }

    /// That a state holds the parameters of this run, each of its size, and no others.
    fn check_parameters(&self, state: &TrainerState) -> Result<(), AlignError> {
        let mut wrong = None;
        let mut found = 0;
        self.learner.clone().visit_mut("", &mut |name, parameter| {
            let expected: usize = parameter.shape().iter().product();
            match state.parameters.get(name).map(Vec::len) {
                Some(values) if values == expected => found += 1,
                Some(values) => {
                    wrong = Some(format!("tensor `{name}` has {values} values for {expected}"));
                }
                None => wrong = Some(format!("tensor `{name}` is missing")),
            }
        });
        if let Some(wrong) = wrong {
            return Err(AlignError::State(wrong));
        }
        if found != state.parameters.len() {
            return Err(AlignError::State("it holds tensors this run does not have".to_owned()));
        }
        Ok(())
    }

    /// Rewards by the break-even precision that the recall constraint asks for.
    fn follow_recall(&mut self) -> Result<(), AlignError> {
        let Some(controller) = &self.recall else { return Ok(()) };
        let precision = controller.break_even(&self.recall_config);
        let moved = self.rule.set_break_even(precision);
        moved.map_err(|error| AlignError::State(error.to_string()))
    }

    fn sampling(&self, temperature: f64) -> Sampling {
        let seed = self.config.seed;
        Sampling { max_new_tokens: self.config.max_new_tokens, temperature, seed }
    }

    /// The tasks of this iteration with the numbers of their random streams: position by position of
    /// an endless sequence of reshuffled passes over all tasks.
    fn draw_tasks(&mut self) -> Result<TaskBatch, AlignError> {
        let (count, per_iteration) = (self.tasks.count(), self.config.align.images_per_iteration);
        let first = self.iteration * per_iteration;
        let mut tasks = Vec::with_capacity(per_iteration);
        let mut numbers = Vec::with_capacity(per_iteration);
        for position in first..first + per_iteration {
            let pass = position / count;
            let order = match self.order.take().filter(|(known, _)| *known == pass) {
                Some((_, order)) => order,
                None => self.order_of(pass),
            };
            let index = order[position % count] as usize;
            self.order = Some((pass, order));
            tasks.push(self.tasks.task(index)?);
            numbers.push(index);
        }
        let streams = (first as u64..(first + per_iteration) as u64).collect();
        Ok(TaskBatch { tasks, numbers, streams })
    }

    /// Whether another pass over the tasks begins after this iteration's.
    fn has_another_pass(&self) -> bool {
        let (count, per_iteration) = (self.tasks.count(), self.config.align.images_per_iteration);
        let pass = self.iteration * per_iteration / count;
        (pass + 1) * count < self.config.align.iterations * per_iteration
    }

    /// The order of a pass over all tasks.
    fn order_of(&self, pass: usize) -> Vec<u32> {
        let mut rng = Purpose::TaskOrder.stream(self.config.seed, pass as u64);
        let own = self.tasks.order(rng.next_u64());
        own.unwrap_or_else(|| {
            let mut order: Vec<u32> = (0..self.tasks.count() as u32).collect();
            order.shuffle(&mut rng);
            order
        })
    }

    /// Passes warnings on. Returns evidence and hint where they are reason to stop.
    fn guard(
        &mut self,
        metrics: &IterationMetrics,
        emit: &mut dyn FnMut(AlignEvent),
    ) -> Result<Option<(String, String)>, AlignError> {
        let baseline = *self.baseline.get_or_insert(Baseline {
            length_mean: metrics.length_mean,
            eos_rate: metrics.eos_rate,
            entropy: metrics.entropy,
            repeated_fraction: metrics.repeated_fraction.unwrap_or(0.0),
        });
        let mut warnings = check_iteration(metrics, &baseline, &self.config.guards);
        warnings.extend(check_recall_bound(metrics, &self.recall_config, &self.config.guards));
        if let Some(broken) = warnings.iter().find(|one| one.code == WarningCode::NotFinite) {
            let message = broken.message.clone();
            return Err(AlignError::Broken { iteration: self.iteration, message });
        }
        let limits = &self.config.guards;
        let lost = unrecoverable(metrics, &baseline, limits, &warnings);
        self.unrecoverable = if lost.is_some() { self.unrecoverable + 1 } else { 0 };
        let stop = lost.filter(|_| limits.patience > 0 && self.unrecoverable >= limits.patience);
        let stop = stop.map(|lost| {
            let times = self.unrecoverable;
            (format!("{} ({times} iterations in a row)", lost.message), lost.hint.clone())
        });
        for warning in warnings {
            emit(AlignEvent::Warning(warning));
        }
        Ok(stop)
    }

    fn measure(
        &self,
        rollout: &Rollout,
        report: &UpdateReport,
        seconds: PhaseSeconds,
    ) -> IterationMetrics {
        let responses = rollout.captions.len();
        let tokens: usize = rollout.captions.iter().map(|caption| caption.tokens.len()).sum();
        let per_response = |total: f64| total / responses.max(1) as f64;
        let sums: Vec<f64> = rollout.rewards.iter().map(|row| response_reward(row)).collect();
        let mean = per_response(sums.iter().sum());
        let variance = per_response(sums.iter().map(|sum| (sum - mean).powi(2)).sum());
        let scores: Vec<f64> =
            rollout.captions.iter().flat_map(|caption| caption.scores.iter().copied()).collect();
        // One reward for the whole response says nothing about single words.
        let of_words = !self.rule.needs_sentence_score();
        let fraction = |test: fn(f64) -> bool| {
            let hits =
                scores.iter().filter(|&&score| test(self.rule.mention_reward(score))).count();
            (of_words && !scores.is_empty()).then(|| hits as f64 / scores.len() as f64)
        };
        let repeated: usize = rollout.captions.iter().map(ScoredResponse::repeated).sum();
        let stopped = rollout.captions.iter().filter(|c| c.finish == FinishReason::Stop).count();
        let rates = self.config.learning_rates(self.iteration);
        let credit = rollout.credit.as_ref();
        let critic = credit.and_then(|credit| credit.critic.as_ref());
        let own = |value: f64| rollout.sampled.then_some(value);
        let correct = rollout.correct.as_ref();
        let surplus = correct.and(self.recall.as_ref()).map(RecallController::estimate);
        let paired = matches!(self.config.objective, Objective::Dpo(_));
        IterationMetrics {
            iteration: self.iteration,
            responses,
            tokens,
            reward_mean: mean,
            reward_std: variance.sqrt(),
            mentions_per_caption: per_response(scores.len() as f64),
            rewarded_fraction: fraction(|reward| reward > 0.0),
            penalised_fraction: fraction(|reward| reward < 0.0),
            neutral_fraction: fraction(|reward| reward == 0.0),
            repeated_fraction: (!scores.is_empty()).then(|| repeated as f64 / scores.len() as f64),
            break_even: of_words.then(|| self.rule.break_even()),
            expected_correct: correct.map(|counts| counts.policy),
            expected_correct_base: correct.map(|counts| counts.base),
            recall_surplus: surplus.map(|estimate| estimate.surplus),
            recall_surplus_error: surplus.map(|estimate| estimate.error),
            length_ratio: correct.and(self.length).and_then(|controller| controller.ratio()),
            length_bonus: rollout.length_bonus,
            length_mean: per_response(tokens as f64),
            eos_rate: per_response(stopped as f64),
            entropy: rollout.entropy,
            kl: own(per_response(rollout.divergence(KlEstimator::K1))),
            kl_per_token: own(rollout.divergence(KlEstimator::K3) / tokens.max(1) as f64),
            kl_coefficient: self.kl.as_ref().map(KlController::coefficient),
            advantage_mean: credit.map(|credit| credit.whitening.mean),
            advantage_std: credit.map(|credit| credit.whitening.standard_deviation),
            value_explained_variance: critic.and_then(|critic| {
                explained_variance(&critic.values.concat(), &critic.returns.concat())
            }),
            pairs: paired.then_some(rollout.items.len()),
            pair_accuracy: report.preference.accuracy(),
            pair_margin: report.preference.mean_margin(),
            policy_loss: report.policy_loss,
            value_loss: report.value_loss,
            clip_fraction: credit.map(|_| report.policy.clip_fraction()),
            approx_kl: report.policy.approx_kl(),
            ratio_max: report.policy.ratio_max(),
            sampler_gap: rollout.sampler_gap(),
            epochs_done: report.epochs,
            steps: report.steps,
            grad_norm: report.grad_norm,
            learning_rate: rates.policy,
            value_learning_rate: critic.map(|_| rates.value),
            images_encoded: rollout.images_encoded,
            seconds,
        }
    }
}

/// The tasks of an iteration.
struct TaskBatch {
    tasks: Vec<Task>,
    /// Of each among all tasks.
    numbers: Vec<usize>,
    /// Of its random streams.
    streams: Vec<u64>,
}

/// Fraction of the objects present that the captions name.
fn recall(captions: &[ScoredResponse], truth: &[BTreeSet<String>], scorer: &MentionScorer) -> f64 {
    let (mut named, mut present) = (0, 0);
    for caption in captions {
        let said: BTreeSet<&str> = caption
            .mentions
            .iter()
            .map(|mention| scorer.vocabulary.category(mention.category))
            .collect();
        let truth = &truth[caption.task];
        present += truth.len();
        named += truth.iter().filter(|name| said.contains(name.as_str())).count();
    }
    named as f64 / present.max(1) as f64
}
