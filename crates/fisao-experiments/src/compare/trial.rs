//! Training and measuring one method with one seed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fisao_align::captions::{best_of, describe};
use fisao_align::error::AlignError;
use fisao_align::mentions::{MentionScorer, ScoredResponse};
use fisao_align::objective::Data;
use fisao_align::tasks::Task;
use fisao_align::team::Team;
use fisao_align::token_rewards::AdditionalRewards;
use fisao_align::trainer::Trainer;
use fisao_align::{AlignConfig, RunControl, StopFlag};
use fisao_formats::FormatError;
use fisao_formats::documents::{read_json, write_json};
use fisao_formats::run_folder::RunFolder;
use fisao_models::generation::Sampling;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_runs::calibrations::{self, CALIBRATION};
use fisao_runs::device::OpenDevice;
use fisao_runs::failure::told;
use fisao_runs::response_file::{self, ResponseFile};
use fisao_runs::training::{Surroundings, Training};
use fisao_runs::world::{DemoSetup, Sizes, evaluate_captions, validation};
use fisao_runs::{Reporter, locks, settings};
use fisao_scenes::{Split, WorldKind};
use fisao_verifier::calibration::Calibration;
use fisao_verifier::regions::RegionWeights;
use fisao_verifier::rewards::RewardRule;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::{Measurements, SeedRow};
use super::measure::Yardsticks;
use super::methods::{Kind, Trial};

/// What one trial gave, in its folder.
const RESULT: &str = "result.json";

/// What a trained trial was asked, in its folder from the start.
const ASKED: &str = "asked.json";

/// How an interrupted comparison goes on.
const AGAIN: &str = "the same command";

/// Parts of a trial whose responses are kept beside its folder until it has its result.
const CALIBRATED: &str = "calibration";
const GREEDY: &str = "greedy";
const SAMPLED: &str = "sampled";
const CANDIDATES: &str = "candidates";

/// What the responses of a part are kept under: a name beside the trial's folder, which is there only once the calibration is.
fn beside(folder: &Path, part: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!("{name}.{part}"))
}

/// Temperature of the responses that the best is chosen from, and of sampled captions.
const TEMPERATURE: f64 = 1.0;

/// Everything that trials have in common.
pub(crate) struct Bench<'a> {
    pub(crate) opened: &'a OpenDevice,
    pub(crate) reporter: &'a Reporter,
    pub(crate) stop: &'a Arc<AtomicBool>,
    pub(crate) sizes: Sizes,
    /// Where the models and scenes come from.
    pub(crate) world: WorldKind,
}

/// What was trained and measured, and how long an iteration took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// [`TrialRecord`], or the text that earlier versions wrote for it.
    pub(crate) asked: Value,
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
        self.measured(trial, folder).map_err(|error| {
            told(error, || {
                let (label, seed) = (&trial.label, trial.config.seed);
                format!(
                    "stopped in {label}, seed {seed}; what was finished is kept. Continue with:\n  {AGAIN}"
                )
            })
        })
    }

    fn measured(&self, trial: &Trial, folder: &Path) -> anyhow::Result<Outcome> {
        if let Some(known) = self.known(trial, folder)? {
            return Ok(known);
        }
        let seed = trial.config.seed;
        self.reporter.note(format!("{}, seed {seed}", trial.label));
        let mut setup = DemoSetup::open(&trial.config, self.world, self.opened, self.reporter)?;
        let mut full = setup.scorer()?;
        // Finds names; its scores are not used.
        full.verifier.set_weights(RegionWeights::default());
        setup.words = setup.words.part(trial.surroundings.vocabulary_fraction, seed);
        let known = setup.tasks(Split::Calibration, seed, self.sizes.calibration).labelled()?;
        let known = (known.0.as_slice(), known.1.as_slice());
        let stop = StopFlag::new(Arc::clone(self.stop));
        let calibrate = || {
            let (labels, output) = (trial.surroundings.labels, beside(folder, CALIBRATED));
            let control = (Some(output.as_path()), &stop);
            setup.calibrate(&trial.config, labels, known, control, self.reporter)
        };
        let (test, truth) = setup.tasks(Split::Test, seed, self.sizes.test).labelled()?;
        let sampling = |temperature| Sampling {
            max_new_tokens: trial.config.max_new_tokens,
            temperature,
            seed,
        };
        let measured = Measured {
            yardsticks: Yardsticks::of_scenes(&setup.world, Split::Test, seed, test.len())?,
            tasks: &test,
            truth: &truth,
            scorer: full,
            sampling: [sampling(0.0), sampling(TEMPERATURE)],
            reporter: self.reporter,
            setup: &setup,
            folder,
            stop: &stop,
            team: setup.policy.team(trial.config.align.exact),
        };
        let (row, iterations) = match trial.kind {
            Kind::Untrained => (measured.policy(&setup.policy.model, seed)?, 0),
            Kind::BestOf(count) => {
                let calibration = calibrate()?;
                let rule = RewardRule::new(&trial.config.reward, &calibration)?;
                let scorer = setup.calibrated_scorer(&calibration)?;
                let additional = AdditionalRewards::new(&trial.config.additional_rewards)?;
                let rewards = (&rule, &additional);
                (measured.best_of(&setup.policy.model, scorer, rewards, count, seed)?, 0)
            }
            Kind::Trained => {
                let run = TrainedRun { bench: self, trial, setup: &setup, known };
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
        let outcome = Outcome { asked: asked(trial)?, row, iterations };
        write_json(&folder.join(RESULT), &outcome)?;
        for part in [CALIBRATED, GREEDY, SAMPLED, CANDIDATES] {
            response_file::discard(&beside(folder, part));
        }
        Ok(outcome)
    }

    /// What a trial gave before. A folder that was neither finished nor begun by this trial is moved aside, not removed: it took
    /// its time, and what it holds may be wanted.
    fn known(&self, trial: &Trial, folder: &Path) -> anyhow::Result<Option<Outcome>> {
        if !folder.exists() {
            return Ok(None);
        }
        let result = folder.join(RESULT);
        if result.exists() {
            let known = read_json::<Outcome>("result of a trial", &result);
            if let Some(known) = known.ok().filter(|known| is_same(&known.asked, trial)) {
                return Ok(Some(known));
            }
        } else if folder.join(RunFolder::CONFIG).exists() {
            let begun = read_json::<Value>("what a trial was asked", &folder.join(ASKED));
            if begun.is_ok_and(|begun| is_same(&begun, trial)) {
                return Ok(None);
            }
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let aside = |number: usize| folder.with_file_name(format!("{name}.earlier-{number}"));
        let mut number = 1;
        while aside(number).exists() {
            number += 1;
        }
        let aside = aside(number);
        std::fs::rename(folder, &aside)
            .map_err(|error| FormatError::io("rename", folder, error))?;
        self.reporter.note(format!(
            "{} is of other settings or cannot be read: kept as {}",
            folder.display(),
            aside.display()
        ));
        Ok(None)
    }
}

/// What captions are measured on.
struct Measured<'a> {
    yardsticks: Yardsticks,
    tasks: &'a [Task],
    truth: &'a [BTreeSet<String>],
    /// Knows all names, whatever the rewards know.
    scorer: MentionScorer,
    /// Greedy and sampled.
    sampling: [Sampling; 2],
    reporter: &'a Reporter,
    setup: &'a DemoSetup,
    /// Of the trial; responses are kept beside it until it has its result.
    folder: &'a Path,
    stop: &'a StopFlag,
    /// How the work is shared.
    team: Option<Team<'a>>,
}

impl Measured<'_> {
    /// A model's captions; nothing is said of what they cost.
    fn policy(mut self, policy: &VisionLanguageModel, seed: u64) -> anyhow::Result<SeedRow> {
        let phase = self.reporter.phase("evaluate", 2 * self.tasks.len() as u64);
        let advance = |done| phase.advance(done as u64);
        let [greedy, sampled] = self.sampling.clone();
        let mut written = |part, sampling: &Sampling| {
            let kept = self.kept(part, policy, sampling)?;
            let control = RunControl {
                kept: Some(&kept),
                ..RunControl::new(&advance).until(self.stop).shared(self.team)
            };
            let written = describe(policy, &mut self.scorer, self.tasks, sampling, control);
            anyhow::Ok(written?.0)
        };
        let (greedy, sampled) = (written(GREEDY, &greedy)?, written(SAMPLED, &sampled)?);
        let (greedy, sampled) = (self.measure(greedy)?, self.measure(sampled)?);
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
        policy: &VisionLanguageModel,
        mut scorer: MentionScorer,
        rewards: (&RewardRule, &AdditionalRewards),
        count: usize,
        seed: u64,
    ) -> anyhow::Result<SeedRow> {
        let phase = self.reporter.phase("evaluate", (count * self.tasks.len()) as u64);
        let advance = |done| phase.advance(done as u64);
        let started = Instant::now();
        let [_, sampling] = &self.sampling;
        let kept = self.kept(CANDIDATES, policy, sampling)?;
        let control = RunControl {
            kept: Some(&kept),
            ..RunControl::new(&advance).until(self.stop).shared(self.team)
        };
        let (captions, tokens) =
            best_of(policy, &mut scorer, rewards, (self.tasks, 0), count, sampling, control)?;
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

    /// Where responses to the tasks are kept.
    fn kept(
        &self,
        part: &str,
        policy: &VisionLanguageModel,
        sampling: &Sampling,
    ) -> anyhow::Result<ResponseFile> {
        let (output, what) = (beside(self.folder, part), (policy, self.tasks));
        self.setup.response_file(&output, what, sampling, self.reporter)
    }

    fn measure(&self, captions: Vec<ScoredResponse>) -> anyhow::Result<Measurements> {
        let evaluation = evaluate_captions(captions, self.tasks, self.truth)?;
        self.yardsticks.measure(&evaluation)
    }
}

/// A run in its own folder, which goes on where an earlier comparison left it.
struct TrainedRun<'a> {
    bench: &'a Bench<'a>,
    trial: &'a Trial,
    setup: &'a DemoSetup,
    known: (&'a [Task], &'a [BTreeSet<String>]),
}

struct Trained {
    policy: VisionLanguageModel,
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
        // Another trial's folder has been moved aside.
        let resume = path.join(RunFolder::CONFIG).exists();
        let (folder, calibration) = if resume {
            let folder = locks::go_on(path, self.bench.reporter)?;
            let calibration = calibrations::read(&folder.path(CALIBRATION))?;
            (folder, calibration)
        } else {
            let (calibration, asked) = (calibrate()?, asked(self.trial)?);
            let folder = RunFolder::create_with(path, |folder| {
                folder.write_json(ASKED, &asked)?;
                calibrations::write(&folder.path(CALIBRATION), &calibration)?;
                settings::write(folder, config)
            })?;
            (folder, calibration)
        };
        let mut tasks = self.setup.training(config);
        if let Some(count) = self.trial.surroundings.prompts {
            tasks.count = count;
        }
        let validation = validation(self.known.0, self.known.1, self.bench.sizes.validation_tasks);
        let mut trainer = Trainer::new(
            config.clone(),
            self.setup.policy.model.clone(),
            self.setup.scorer()?,
            &calibration,
            &tasks,
            Some(validation),
        )?;
        trainer.share_with(self.setup.policy.processes.clone());
        let bench = self.bench;
        let surroundings = Surroundings {
            folder: &folder,
            reporter: bench.reporter,
            config,
            calibration: &calibration,
            processor: &self.setup.policy.processor,
            base_model: &self.setup.policy.name,
        };
        let mut training = Training::new(surroundings, Arc::clone(bench.stop), AGAIN.to_owned());
        let mut warnings = Vec::new();
        match training.run(&mut trainer, resume) {
            // A method that collapses is a result, too; an image that cannot be read is none.
            Err(error) if trainer.iteration() > 0 && is_unrecoverable(&error) => {
                bench.reporter.warn(&error, None);
                warnings.push(error.to_string());
            }
            outcome => outcome?,
        }
        warnings.extend(training.warnings.iter().cloned());
        let own = config.objective.definition().data() == Data::Sampled;
        let tokens: usize = training.metrics.iter().map(|metrics| metrics.tokens).sum();
        Ok(Trained {
            policy: trainer.policy().clone(),
            seconds: training.seconds()?,
            sampled_tokens: if own { tokens as u64 } else { 0 },
            warnings,
        })
    }
}

/// Whether training ended as the policy is lost: it gave reason to stop again and again, its logits are not finite, or no
/// longer depends on its image, which is noticed where an interrupted trial is resumed.
fn is_unrecoverable(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<AlignError>(),
        Some(
            AlignError::Unrecoverable { .. }
                | AlignError::Broken { .. }
                | AlignError::NotFinite { .. }
                | AlignError::ImageIgnored { .. }
        )
    )
}

/// Versions of [`TrialRecord`]: trials on which the length constraint acts, and the others, which are as they were before there
/// was one.
const WITH_LENGTH: u32 = 2;
const WITHOUT_LENGTH: u32 = 1;

/// Everything that a trial's result depends on, to notice that something else is asked for now. Settings that are not in the file
/// have their defaults.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrialRecord {
    version: u32,
    config: AlignConfig,
    surroundings: super::methods::Surroundings,
    kind: Kind,
}

impl TrialRecord {
    fn of(trial: &Trial) -> Self {
        let Trial { config, surroundings, kind, .. } = trial.clone();
        let constrained = kind == Kind::Trained && config.constrains_length();
        let version = if constrained { WITH_LENGTH } else { WITHOUT_LENGTH };
        Self { version, config, surroundings, kind }
    }
}

fn asked(trial: &Trial) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(TrialRecord::of(trial))?)
}

/// Whether what a folder says it was asked is this trial.
fn is_same(asked: &Value, trial: &Trial) -> bool {
    if let Value::String(text) = asked {
        // As earlier versions wrote it.
        return *text == format!("{:?} {:?} {:?}", trial.config, trial.surroundings, trial.kind);
    }
    TrialRecord::deserialize(asked).is_ok_and(|asked| asked == TrialRecord::of(trial))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fisao_verifier::calibration::Labels;

    #[test]
    fn trial_records_compare_by_value() {
        let mut trial = Trial {
            key: "fisao".to_owned(),
            label: "FiSAO".to_owned(),
            description: "",
            uses_external_data: false,
            budget: None,
            kind: Kind::BestOf(8),
            config: AlignConfig::default(),
            surroundings: super::super::methods::Surroundings {
                labels: Labels::None,
                prompts: Some(32),
                vocabulary_fraction: 0.1 + 0.2,
            },
        };
        trial.config.align.learning_rate = Some(0.1 + 0.2);
        let mut stored: Value =
            serde_json::from_str(&asked(&trial).unwrap().to_string()).expect("JSON");
        assert!(is_same(&stored, &trial));
        // A setting that is not there has its default; one that nobody knows makes it another trial.
        stored["config"]["recall"].as_object_mut().unwrap().remove("gain");
        assert!(is_same(&stored, &trial));
        stored["config"]["later"] = Value::from(1);
        assert!(!is_same(&stored, &trial));
        // Best of N is what it was before there was a length constraint, a trained policy is not.
        assert_eq!(asked(&trial).unwrap()["version"], WITHOUT_LENGTH);
        let trained = Trial { kind: Kind::Trained, ..trial.clone() };
        let mut earlier = asked(&trained).unwrap();
        assert!(is_same(&earlier, &trained));
        earlier["version"] = Value::from(WITHOUT_LENGTH);
        assert!(!is_same(&earlier, &trained));
        let text = format!("{:?} {:?} {:?}", trial.config, trial.surroundings, trial.kind);
        assert!(is_same(&Value::String(text.clone()), &trial));
        let mut renamed = Trial { key: "fisao[noise=0]".to_owned(), ..trial.clone() };
        assert!(renamed.is_equal(&trial));
        renamed.config.score.noise = 0.1;
        assert!(!renamed.is_equal(&trial));
        trial.kind = Kind::BestOf(4);
        assert!(!is_same(&Value::String(text), &trial));
        assert!(!is_same(&asked(&Trial { kind: Kind::Trained, ..trial.clone() }).unwrap(), &trial));
    }
}
