//! Training and measuring one method with one seed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::Device;
use fisao_align::captions::{Captioned, Judge, best_of, describe};
use fisao_align::error::AlignError;
use fisao_align::objective::Data;
use fisao_align::tasks::Task;
use fisao_align::trainer::Trainer;
use fisao_formats::documents::{read_json, write_json};
use fisao_formats::{FormatError, RunFolder};
use fisao_models::generation::Sampling;
use fisao_models::llava::Llava;
use fisao_scenes::{Split, WorldKind};
use fisao_verifier::calibration::Calibration;
use fisao_verifier::rewards::RewardRule;
use fisao_verifier::scorer::RegionWeights;
use serde::{Deserialize, Serialize};

use super::methods::{Kind, Trial};
use crate::calibrations::{self, CALIBRATION};
use crate::compare::document::{Measurements, SeedRow};
use crate::compare::measure::Yardsticks;
use crate::reporter::Reporter;
use crate::training::{Surroundings, Training};
use crate::world::{Sizes, WorldLab, evaluate_captions, watch};

/// What one trial gave, in its folder.
const RESULT: &str = "result.json";

/// What a trained trial was asked, in its folder from the start.
const ASKED: &str = "asked.json";

/// How an interrupted comparison goes on.
const AGAIN: &str = "the same command";

/// Temperature of the responses that the best is chosen from, and of sampled captions.
const TEMPERATURE: f64 = 1.0;

/// Everything that trials have in common.
pub(crate) struct Bench<'a> {
    pub(crate) device: &'a Device,
    pub(crate) reporter: &'a Reporter,
    pub(crate) stop: &'a Arc<AtomicBool>,
    pub(crate) sizes: Sizes,
    /// Where the models and scenes come from.
    pub(crate) world: WorldKind,
}

/// What was trained and measured, and how long an iteration took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Settings, to notice that others are asked for now.
    pub(crate) asked: String,
    pub(crate) row: SeedRow,
    pub(crate) iterations: usize,
}

impl Outcome {
    /// Seconds of training per iteration.
    pub(crate) fn seconds_per_iteration(&self) -> f64 {
        self.row.seconds / self.iterations.max(1) as f64
    }
}

impl Bench<'_> {
    /// Runs a trial in its folder, or reads what it gave before.
    pub(crate) fn run(&self, trial: &Trial, folder: &Path) -> anyhow::Result<Outcome> {
        let asked = asked(trial);
        let result = folder.join(RESULT);
        if result.exists() {
            let known: Outcome = read_json("result of a trial", &result)?;
            if known.asked == asked {
                return Ok(known);
            }
        }
        let seed = trial.config.seed;
        self.reporter.note(format!("{}, seed {seed}", trial.label));
        let mut lab = WorldLab::open(&trial.config, self.world, self.device, self.reporter)?;
        let mut full = lab.judge()?;
        // Finds names; its scores are not looked at.
        full.verifier.set_weights(RegionWeights::default());
        lab.words = lab.words.part(trial.surroundings.vocabulary_share, seed);
        let known = lab.tasks(Split::Calibration, seed, self.sizes.calibration).labelled()?;
        let known = (known.0.as_slice(), known.1.as_slice());
        let calibrate =
            || lab.calibrate(&trial.config, trial.surroundings.labels.into(), known, self.reporter);
        let (test, truth) = lab.tasks(Split::Test, seed, self.sizes.test).labelled()?;
        let sampling = |temperature| Sampling {
            max_new_tokens: trial.config.max_new_tokens,
            temperature,
            seed,
        };
        let measured = Measured {
            yardsticks: Yardsticks::of_scenes(&lab.world, Split::Test, seed, test.len())?,
            tasks: &test,
            truth: &truth,
            judge: full,
            sampling: [sampling(0.0), sampling(TEMPERATURE)],
            reporter: self.reporter,
        };
        let (row, iterations) = match trial.kind {
            Kind::Untrained => (measured.policy(&lab.policy.model, seed)?, 0),
            Kind::BestOf(count) => {
                let calibration = calibrate()?;
                let rule = RewardRule::new(&trial.config.reward, &calibration)?;
                let judge = lab.calibrated_judge(&calibration)?;
                (measured.best_of(&lab.policy.model, judge, &rule, count, seed)?, 0)
            }
            Kind::Trained => {
                let run = TrainedRun { bench: self, trial, lab: &lab, known };
                let trained = run.train(folder, calibrate)?;
                let row = measured.policy(&trained.policy, seed)?;
                let row = SeedRow {
                    seconds: trained.seconds,
                    sampled_tokens: trained.sampled_tokens,
                    warnings: trained.warnings,
                    ..row
                };
                (row, trial.config.align.iterations)
            }
        };
        let outcome = Outcome { asked, row, iterations };
        write_json(&result, &outcome)?;
        Ok(outcome)
    }
}

/// What captions are measured on.
struct Measured<'a> {
    yardsticks: Yardsticks,
    tasks: &'a [Task],
    truth: &'a [BTreeSet<String>],
    /// Knows all names, whatever the rewards know.
    judge: Judge,
    /// Greedy and sampled.
    sampling: [Sampling; 2],
    reporter: &'a Reporter,
}

impl Measured<'_> {
    /// A model's captions; nothing is said of what they cost.
    fn policy(mut self, policy: &Llava, seed: u64) -> anyhow::Result<SeedRow> {
        let phase = self.reporter.phase("evaluate", 2 * self.tasks.len() as u64);
        let advance = |done| phase.advance(done as u64);
        let (tasks, judge) = (self.tasks, &mut self.judge);
        let [greedy, sampled] = self.sampling.clone().map(|sampling| {
            describe(policy, judge, tasks, &sampling, &advance).map(|(captions, _)| captions)
        });
        let (greedy, sampled) = (self.measure(greedy?)?, self.measure(sampled?)?);
        phase.finish();
        Ok(SeedRow {
            seed,
            greedy,
            sampled: Some(sampled),
            seconds: 0.0,
            sampled_tokens: 0,
            warnings: Vec::new(),
        })
    }

    /// The best of several sampled captions by the verifier, with what it takes to choose them.
    fn best_of(
        self,
        policy: &Llava,
        mut judge: Judge,
        rule: &RewardRule,
        count: usize,
        seed: u64,
    ) -> anyhow::Result<SeedRow> {
        let phase = self.reporter.phase("evaluate", (count * self.tasks.len()) as u64);
        let advance = |done| phase.advance(done as u64);
        let started = Instant::now();
        let [_, sampling] = &self.sampling;
        let (captions, tokens) =
            best_of(policy, &mut judge, rule, (self.tasks, 0), count, sampling, &advance)?;
        let seconds = started.elapsed().as_secs_f64();
        phase.finish();
        Ok(SeedRow {
            seed,
            greedy: self.measure(captions)?,
            sampled: None,
            seconds,
            sampled_tokens: tokens as u64,
            warnings: Vec::new(),
        })
    }

    fn measure(&self, captions: Vec<Captioned>) -> anyhow::Result<Measurements> {
        let evaluation = evaluate_captions(captions, self.tasks, self.truth)?;
        self.yardsticks.measure(&evaluation)
    }
}

/// A run in its own folder, which goes on where an earlier comparison left it.
struct TrainedRun<'a> {
    bench: &'a Bench<'a>,
    trial: &'a Trial,
    lab: &'a WorldLab,
    known: (&'a [Task], &'a [BTreeSet<String>]),
}

struct Trained {
    policy: Llava,
    seconds: f64,
    sampled_tokens: u64,
    warnings: Vec<String>,
}

impl TrainedRun<'_> {
    fn train(
        &self,
        path: &Path,
        calibrate: impl Fn() -> anyhow::Result<Calibration>,
    ) -> anyhow::Result<Trained> {
        let config = &self.trial.config;
        let resume = self.is_begun(path)?;
        let (folder, calibration) = if resume {
            let folder = RunFolder::open(path)?;
            let calibration = calibrations::read(&folder.path(CALIBRATION))?;
            (folder, calibration)
        } else {
            let calibration = calibrate()?;
            let folder = RunFolder::create_with(path, |folder| {
                folder.write_json(ASKED, &asked(self.trial))?;
                folder.write_json(CALIBRATION, &calibration)?;
                folder.write_toml(RunFolder::CONFIG, config)
            })?;
            (folder, calibration)
        };
        let mut tasks = self.lab.training(config);
        if let Some(count) = self.trial.surroundings.prompts {
            tasks.count = count;
        }
        let watch = watch(self.known.0, self.known.1, self.bench.sizes.watched);
        let mut trainer = Trainer::new(
            config.clone(),
            self.lab.policy.model.clone(),
            self.lab.judge()?,
            &calibration,
            &tasks,
            Some(watch),
        )?;
        let bench = self.bench;
        let surroundings = Surroundings {
            folder: &folder,
            reporter: bench.reporter,
            config,
            calibration: &calibration,
            processor: &self.lab.policy.processor,
            base_model: &self.lab.policy.name,
        };
        let mut training = Training::new(surroundings, Arc::clone(bench.stop), AGAIN.to_owned());
        let mut warnings = Vec::new();
        match training.run(&mut trainer, resume) {
            Err(error) if error.is::<AlignError>() && trainer.iteration() > 0 => {
                // A method that collapses is a result, too.
                bench.reporter.warn(&error, None);
                warnings.push(error.to_string());
            }
            outcome => outcome?,
        }
        warnings.extend(training.warnings.iter().cloned());
        let own = config.objective.data() == Data::Sampled;
        let tokens: usize = training.metrics.iter().map(|metrics| metrics.tokens).sum();
        Ok(Trained {
            policy: trainer.policy().clone(),
            seconds: training.seconds()?,
            sampled_tokens: if own { tokens as u64 } else { 0 },
            warnings,
        })
    }

    /// Whether this trial was begun in the folder; another one gives way.
    fn is_begun(&self, path: &Path) -> anyhow::Result<bool> {
        if !path.join(RunFolder::CONFIG).exists() {
            return Ok(false);
        }
        let begun: Result<String, FormatError> =
            read_json("what a trial was asked", &path.join(ASKED));
        if begun.is_ok_and(|begun| begun == asked(self.trial)) {
            return Ok(true);
        }
        std::fs::remove_dir_all(path).map_err(|error| FormatError::io("remove", path, error))?;
        Ok(false)
    }
}

/// Everything that a trial's result depends on, to notice that something else is asked for now.
fn asked(trial: &Trial) -> String {
    format!("{:?} {:?} {:?}", trial.config, trial.surroundings, trial.kind)
}
