//! The loop: rollout → update, what it checks on the way, and what it restores after an error.

mod metrics;
mod state;
mod task_order;
mod validation;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use fisao_models::adamw::AdamW;
use fisao_models::generation::Sampling;
use fisao_models::linear::ActivationDtype;
use fisao_models::parameters::Parameters;
use fisao_models::random::Purpose;
use fisao_models::value_head::ValueHead;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::calibration::{Calibration, Correctness};
use fisao_verifier::rewards::RewardRule;

use crate::captions::describe_from;
use crate::config::AlignConfig;
use crate::credit::RewardTerms;
use crate::encoding::EncodedImages;
use crate::error::AlignError;
use crate::events::{AlignEvent, IterationMetrics, Phase, Warning, WarningCode};
use crate::features::{FeatureCache, bytes};
use crate::guards::{Baseline, check_iteration, check_recall_bound, unrecoverable};
use crate::length::LengthController;
use crate::mentions::{MentionScorer, ScoredResponse};
use crate::objective::Data;
use crate::phase_clock::PhaseClock;
use crate::ppo::KlController;
use crate::recall::{RecallConfig, RecallController};
use crate::rollout::{Rollout, RolloutPlan, roll_out};
use crate::run_control::{RunControl, StopFlag};
use crate::tasks::{Task, TaskSource};
use crate::team::{Processes, Team};
use crate::token_rewards::{AdditionalRewards, TokenReward};
use crate::update::{Learner, optimiser, update};

pub use state::TrainerState;
pub use validation::{ValidationResult, ValidationSet, WordVerdict};

use task_order::TaskBatch;

/// Captions compared with those of a blank image before training.
const ABLATED: usize = 8;

/// A run.
pub struct Trainer<'a> {
    config: AlignConfig,
    learner: Learner,
    scorer: MentionScorer,
    rule: RewardRule,
    /// Rewards beside that of mentions.
    additional: AdditionalRewards,
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
    /// Tasks whose features are kept, without their pixels.
    tasks_without_pixels: HashMap<usize, Task>,
    /// The order of one pass over the tasks, and which.
    order: Option<(usize, Vec<u32>)>,
    validation: Option<ValidationSet>,
    iteration: usize,
    baseline: Option<Baseline>,
    base_recall: Option<f64>,
    base_correct: Option<f64>,
    unrecoverable: usize,
    /// Whether a guard has ended sampling with int8 weights.
    int8_sampling_left: bool,
    stop: StopFlag,
    /// That work with this one.
    processes: Option<Arc<Processes>>,
}

/// Of work that can be stopped and shared, without progress.
fn control<'b>(
    stop: &'b StopFlag,
    processes: Option<&'b Processes>,
    exact: bool,
) -> RunControl<'b> {
    RunControl::new(&|_| {}).until(stop).shared(Team::of(processes, exact))
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
    int8_sampling_left: bool,
}

impl<'a> Trainer<'a> {
    /// Attaches a fresh adapter to `policy` and binds the reward to its calibration. Without a learning rate the policy gets
    /// that of its size.
    ///
    /// # Errors
    /// [`AlignError`] when a setting is out of range, the reward does not fit the calibration, or
    /// there are no tasks.
    pub fn new(
        config: AlignConfig,
        mut policy: VisionLanguageModel,
        mut scorer: MentionScorer,
        calibration: &Calibration,
        tasks: &'a dyn TaskSource,
        validation: Option<ValidationSet>,
    ) -> Result<Self, AlignError> {
        config.validate()?;
        let config = config.for_decoder(policy.language_model().config().matrix_elements());
        if tasks.count() == 0 {
            return Err(AlignError::NoTasks);
        }
        let activations = config.align.activation_dtype;
        let concerned = policy.set_activation_dtype(activations);
        if activations == ActivationDtype::Bf16 && concerned == 0 {
            return Err(AlignError::NothingInBf16);
        }
        if config.align.int8_sampling && !policy.decodes_on_cpu() {
            return Err(AlignError::Int8OnCard);
        }
        let rule = RewardRule::new(&config.reward, calibration)?;
        let statistic = config.reward.form.statistic().unwrap_or_default();
        let additional = AdditionalRewards::new(&config.additional_rewards)?;
        let correctness = Correctness::new(calibration, statistic).ok();
        let noise = correctness.as_ref().map_or(0.0, Correctness::noise);
        let recall_config = config.recall.for_noise(noise);
        let recall = config.constrains_recall().then(|| RecallController::new(rule.break_even()));
        let length = config.constrains_length().then(LengthController::default);
        scorer.verifier.apply_calibration(calibration);
        // All names at once and in one order: embedded as they come up, their last bits would depend on what came up
        // with them, and a resumed run would part from an uninterrupted one.
        scorer.verifier.learn(&scorer.vocabulary)?;
        let adapted = policy.add_lora(&config.lora, config.seed)?;
        let hidden = policy.language_model().config().hidden_size;
        let critic = config.objective.definition().critic();
        let value_head = critic.map(|_| ValueHead::new(hidden, &policy.device()));
        let optimiser = optimiser(&config.align);
        let kl = config.objective.definition().kl().map(KlController::new);
        let features = FeatureCache::new(
            bytes(config.align.feature_cache_mb),
            bytes(config.align.feature_cache_disk_mb),
            &std::env::temp_dir(),
        );
        Ok(Self {
            config,
            learner: Learner { policy, value_head },
            scorer,
            rule,
            additional,
            correctness,
            recall,
            recall_config,
            length,
            optimiser,
            kl,
            adapted,
            tasks,
            features,
            tasks_without_pixels: HashMap::new(),
            order: None,
            validation,
            iteration: 0,
            baseline: None,
            base_recall: None,
            base_correct: None,
            unrecoverable: 0,
            int8_sampling_left: false,
            stop: StopFlag::default(),
            processes: None,
        })
    }

    /// Adds a reward that is written in code to those of the configuration.
    pub fn add_reward(&mut self, reward: Arc<dyn TokenReward>) {
        self.additional.push(reward);
    }

    /// A flag that ends whatever the trainer does with [`AlignError::Stopped`] once it is raised.
    pub fn stop_on(&mut self, stop: StopFlag) {
        self.stop = stop;
    }

    /// Shares work with other processes, which have opened the same model and verifier.
    pub fn share_with(&mut self, processes: Option<Arc<Processes>>) {
        self.processes = processes;
    }

    /// How many tasks it learns from.
    pub fn tasks(&self) -> usize {
        self.tasks.count()
    }

    /// The policy with its adapter.
    pub fn policy(&self) -> &VisionLanguageModel {
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

    /// Whether a reward per token keeps the length; not in runs that an earlier version began without it.
    pub fn constrains_length(&self) -> bool {
        self.length.is_some()
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
            int8_sampling_left: self.int8_sampling_left,
        };
        let left = self.learner.policy.language_model().batches_left_to_cpu();
        let outcome = self.attempt(emit);
        let warning = Warning::of_batches_left_to_cpu(&self.learner.policy, left);
        warning.map(AlignEvent::Warning).map(emit);
        if outcome.as_ref().is_err_and(|error| !matches!(error, AlignError::Unrecoverable { .. })) {
            self.roll_back(snapshot)?;
        }
        outcome
    }

    fn roll_back(&mut self, snapshot: IterationSnapshot) -> Result<(), AlignError> {
        let IterationSnapshot {
            learner,
            optimiser,
            kl,
            recall,
            length,
            baseline,
            unrecoverable,
            int8_sampling_left,
        } = snapshot;
        (self.learner, self.optimiser, self.kl) = (learner, optimiser, kl);
        (self.recall, self.length) = (recall, length);
        (self.baseline, self.unrecoverable) = (baseline, unrecoverable);
        self.int8_sampling_left = int8_sampling_left;
        self.follow_recall()
    }

    /// One iteration, after whose error the learner may be between two steps.
    fn attempt(
        &mut self,
        emit: &mut dyn FnMut(AlignEvent),
    ) -> Result<IterationMetrics, AlignError> {
        let TaskBatch { tasks, numbers, streams } = self.draw_tasks()?;
        let processes = self.processes.clone();
        let exact = self.config.align.exact;
        let sampling = self.sampling(self.config.align.temperature);
        let measured =
            self.recall.is_some() && self.iteration.is_multiple_of(self.recall_config.every);
        let in_int8 = self.config.align.int8_sampling && !self.int8_sampling_left;
        let sampler = in_int8.then(|| self.learner.policy.decoding_in_int8());
        let plan = RolloutPlan {
            policy: &self.learner.policy,
            sampler: sampler.as_ref().unwrap_or(&self.learner.policy),
            value_head: self.learner.value_head.as_ref(),
            rule: &self.rule,
            additional: &self.additional,
            config: &self.config,
            terms: RewardTerms {
                kl_coefficient: self.kl.as_ref().map_or(0.0, KlController::coefficient),
                length_bonus: self.length.map(|controller| controller.bonus(&self.config.length)),
            },
            sampling: &sampling,
            streams: &streams,
            numbers: &numbers,
            again: self.has_another_pass(),
            correctness: self.correctness.as_ref().filter(|_| measured),
            control: control(&self.stop, processes.as_deref(), exact),
        };
        let mut clock = PhaseClock::new(self.iteration + 1);
        let (scorer, features) = (&mut self.scorer, &mut self.features);
        let rollout = roll_out(&plan, scorer, features, tasks, &mut clock, emit)?;
        self.keep_tasks(&numbers, &rollout.tasks);

        if self.iteration == 0 {
            self.check_first(&rollout)?;
        }
        clock.start(Phase::Update, self.config.align.epochs * self.config.align.minibatches, emit);
        let rates = self.config.learning_rates(self.iteration);
        let mut rng = Purpose::Minibatches.stream(self.config.seed, self.iteration as u64);
        let report = update(
            &mut self.learner,
            &mut self.optimiser,
            &rollout,
            (&self.config, rates),
            &mut rng,
            control(&self.stop, processes.as_deref(), exact),
        )?;
        let seconds = clock.finish(emit);
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
        if self.config.objective.definition().data() != Data::Sampled {
            return Ok(());
        }
        let limit = self.config.guards.sampler_gap;
        let gap = rollout.sampler_gap();
        if gap.is_nan() || (gap > limit && !rollout.in_int8) {
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
        let Self { learner: Learner { policy, .. }, scorer, stop, processes, config, .. } = self;
        let control = control(stop, processes.as_deref(), config.align.exact);
        describe_from(policy, scorer, (tasks, 0), &sampling, control)
    }

    /// Rewards by the break-even precision that the recall constraint asks for.
    fn follow_recall(&mut self) -> Result<(), AlignError> {
        let Some(controller) = &self.recall else { return Ok(()) };
        let precision = controller.break_even(&self.recall_config);
        Ok(self.rule.set_break_even(precision)?)
    }

    fn sampling(&self, temperature: f64) -> Sampling {
        let seed = self.config.seed;
        Sampling { max_new_tokens: self.config.max_new_tokens, temperature, seed }
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
        let AlignConfig { guards, objective, .. } = &self.config;
        let mut warnings = check_iteration(metrics, &baseline, guards);
        warnings.extend(objective.definition().warnings(metrics));
        warnings.extend(check_recall_bound(metrics, &self.recall_config, guards));
        if let Some(broken) = warnings.iter().find(|one| one.code == WarningCode::NotFinite) {
            let message = broken.message.clone();
            return Err(AlignError::Broken { iteration: metrics.iteration, message });
        }
        self.int8_sampling_left |=
            warnings.iter().any(|one| one.code == WarningCode::Int8SamplingLeft);
        let lost = unrecoverable(metrics, &baseline, guards, &warnings);
        self.unrecoverable = if lost.is_some() { self.unrecoverable + 1 } else { 0 };
        let stop = lost.filter(|_| guards.patience > 0 && self.unrecoverable >= guards.patience);
        let stop = stop.map(|lost| {
            let times = self.unrecoverable;
            (format!("{} ({times} iterations in a row)", lost.message), lost.hint.clone())
        });
        for warning in warnings {
            emit(AlignEvent::Warning(warning));
        }
        Ok(stop)
    }
}
