//! An alignment run from its beginning or from where it stopped: checks, data, training, adapter.

mod estimate;
mod prompts;
pub mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use fisao_align::config::BestBy;
use fisao_align::mentions::MentionScorer;
use fisao_align::tasks::TaskSource;
use fisao_align::trainer::{Trainer, ValidationSet};
use fisao_align::{AlignConfig, StopFlag};
use fisao_formats::FormatError;
use fisao_formats::data_record::DataRecord;
use fisao_formats::digest::sha256_bytes;
use fisao_formats::prompts::PromptSet;
use fisao_formats::run_folder::RunFolder;
use fisao_models::image::ImageProcessor;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_scenes::{Split, WorldKind};
use fisao_verifier::calibration::{Calibration, Labels};

use crate::bundle::{LoadedVerifier, Pair, Policy};
use crate::calibrations::{self, CALIBRATION, Setting};
use crate::data_check;
use crate::demo_config::demo_config;
use crate::device::{self, DeviceChoice, OpenDevice};
use crate::failure::{Interrupted, Refusal, told};
use crate::reporter::Reporter;
use crate::score_settings::ScoreSettings;
use crate::settings::{self, SettingsChanges};
use crate::stop::StopSource;
use crate::training::{Surroundings, Training};
use crate::verifier_choice::check_auc;
use crate::vocabulary::Vocabulary;
use crate::world::{DemoSetup, Sizes, validation};
use crate::{locks, prospects, response_file, text_cache};

use prompts::{PassedOver, PromptTasks};
use record::{Files, RECORD, RunRecord, Source};

/// Prompts of files for validation at most: their pixels stay in memory.
const VALIDATION_IMAGES: usize = 32;

/// What a run is to begin with, or to go on with.
#[derive(Clone, Debug)]
pub struct AlignRequest {
    /// Whether it begins.
    pub start: Start,
    /// Seed of the run, below the settings.
    pub seed: Option<u64>,
    /// Changes to the default settings, which a run that is resumed must agree with.
    pub settings: SettingsChanges,
    /// Where to compute; the CPU, or where the run was begun, unless it is said.
    pub device: Option<DeviceChoice>,
    /// What the user is told to do to resume the run.
    pub resume_command: String,
}

/// Where a run begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// At its first iteration.
    New {
        /// What it is trained from.
        source: Source,
        /// Folder of the run; without one everything is checked, one step is made, and nothing is written.
        output: Option<PathBuf>,
    },
    /// Where it stopped.
    Resumed {
        /// Folder of the run.
        folder: PathBuf,
        /// What it was begun with, as far as that was said; the folder must agree.
        source: Option<Source>,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The adapter's folder.
    Trained(PathBuf),
    /// What a dry run found, line by line.
    Checked(Vec<String>),
}

/// A run that is to begin or to go on.
struct Run<'a> {
    config: AlignConfig,
    record: RunRecord,
    opened: OpenDevice,
    /// Folder of a run that is resumed.
    begun: Option<RunFolder>,
    /// Folder of a run that begins; none in a dry run.
    output: Option<PathBuf>,
    resume_command: &'a str,
    stop: StopSource<'a>,
    reporter: &'a Reporter,
}

/// What a trainer is made of.
struct Parts<'a> {
    model: VisionLanguageModel,
    processor: &'a ImageProcessor,
    /// What the adapter's configuration names as its base.
    base_model: &'a str,
    scorer: MentionScorer,
    calibration: &'a Calibration,
    tasks: &'a dyn TaskSource,
    validation: Option<ValidationSet>,
    /// What the tasks are made of; the built-in synthetic dataset needs no record.
    data: Option<DataRecord>,
    passed_over: PassedOver,
    /// The folder of the run, where it is there already.
    folder: Option<RunFolder>,
}

/// Trains an adapter with token rewards, or checks what a run would take. A raised flag ends the run after its current step.
///
/// # Errors
/// [`Interrupted`] where the flag was raised; the state is saved then. Otherwise what cannot be used, or what failed.
pub fn align(
    request: &AlignRequest,
    stop: StopSource<'_>,
    reporter: &Reporter,
) -> anyhow::Result<Outcome> {
    let run = Run::prepare(request, stop, reporter)?;
    match run.record.source.clone() {
        Source::World { labels, world } => run.train_on_scenes(labels, world),
        Source::Files(files) => run.train_on_files(&files),
    }
}

impl<'a> Run<'a> {
    /// Everything that can be refused before a model is loaded.
    fn prepare(
        request: &'a AlignRequest,
        stop: StopSource<'a>,
        reporter: &'a Reporter,
    ) -> anyhow::Result<Self> {
        let resume_command = &request.resume_command;
        let (source, output) = match &request.start {
            Start::New { source, output } => (source, output.clone()),
            Start::Resumed { folder, source } => {
                let folder = locks::go_on(folder, reporter)?;
                let record = RunRecord::of_run(&folder, source.as_ref())?;
                let mut settings = request.settings.clone();
                settings.set.extend(request.seed.map(|seed| format!("seed={seed}")));
                let config = settings::of_run(&folder, &settings, reporter)?;
                let opened = device::of_run(&folder, request.device, reporter)?;
                let (begun, output) = (Some(folder), None);
                return Ok(Self {
                    config,
                    record,
                    opened,
                    begun,
                    output,
                    resume_command,
                    stop,
                    reporter,
                });
            }
        };
        let record = RunRecord::new(source.clone());
        let seed = request.seed.unwrap_or_default();
        let base = match record.source {
            Source::World { .. } => demo_config(seed, false),
            Source::Files(_) => AlignConfig { seed, ..AlignConfig::default() },
        };
        let config = settings::resolve(&base, &request.settings, reporter)?;
        let unlabelled = matches!(record.source, Source::Files(_));
        if unlabelled && config.checkpoint.best == BestBy::ValidationRecall {
            bail!(
                Refusal::new(
                    "checkpoint.best = \"validation-recall\" needs labelled validation images, which prompts do not have"
                )
                .hint("write --set checkpoint.best=validation-reward")
            );
        }
        if let Some(output) = &output {
            RunFolder::check_free(output)?;
        }
        let opened = request.device.unwrap_or_default().open(reporter)?;
        Ok(Self { config, record, opened, begun: None, output, resume_command, stop, reporter })
    }

    /// The calibration that a resumed run was started with.
    fn own_calibration(&self) -> Option<PathBuf> {
        self.begun.as_ref().map(|folder| folder.path(CALIBRATION))
    }

    /// Calibrates and trains in the built-in synthetic dataset. The folder is there before the calibration, whose responses are
    /// kept in it until that is done.
    fn train_on_scenes(&self, labels: Labels, world: WorldKind) -> anyhow::Result<Outcome> {
        let stop = StopFlag::new((self.stop)()?);
        let setup = DemoSetup::open(&self.config, world, &self.opened.device, self.reporter)?;
        let folder = match (&self.begun, &self.output) {
            (Some(folder), _) => Some(folder.clone()),
            (None, Some(output)) => Some(self.begin(output, &self.config, None, None)?),
            (None, None) => None,
        };
        let outcome = self.train_on_scenes_in(folder.as_ref(), &setup, labels, &stop);
        outcome.map_err(|error| {
            let error = told(error, || self.stopped(folder.as_ref()));
            if let Some(folder) = &folder {
                self.discard_unlearned(folder, &error);
            }
            error
        })
    }

    fn train_on_scenes_in(
        &self,
        folder: Option<&RunFolder>,
        setup: &DemoSetup,
        labels: Labels,
        stop: &StopFlag,
    ) -> anyhow::Result<Outcome> {
        let (config, sizes) = (&self.config, Sizes::of(false));
        let known = setup.tasks(Split::Calibration, config.seed, sizes.calibration).labelled()?;
        let known = (known.0.as_slice(), known.1.as_slice());
        // None where the run was stopped before its calibration was done.
        let own = self.own_calibration().filter(|path| path.exists());
        let calibration = if let Some(path) = own {
            calibrations::read(&path)?
        } else {
            let path = folder.map(|folder| folder.path(CALIBRATION));
            let control = (path.as_deref(), stop);
            let made = setup.calibrate(config, labels, known, control, self.reporter)?;
            if let Some(path) = path {
                calibrations::write(&path, &made)?;
                response_file::discard(&path);
            }
            made
        };
        self.train(Parts {
            model: setup.policy.model.clone(),
            processor: &setup.policy.processor,
            base_model: &setup.policy.name,
            scorer: setup.scorer()?,
            calibration: &calibration,
            tasks: &setup.training(config),
            validation: Some(validation(known.0, known.1, sizes.validation_tasks)),
            data: None,
            passed_over: PassedOver::default(),
            folder: folder.cloned(),
        })
    }

    /// What the user is told after asking for a stop outside of training.
    fn stopped(&self, folder: Option<&RunFolder>) -> String {
        match folder {
            Some(_) => {
                let resume = self.resume_command;
                format!("stopped; what was finished is saved. Continue with:\n  {resume}")
            }
            None => "stopped; a dry run keeps nothing".to_owned(),
        }
    }

    fn train_on_files(&self, files: &Files) -> anyhow::Result<Outcome> {
        let reporter = self.reporter;
        let own = self.own_calibration();
        let calibration = calibrations::read(own.as_deref().unwrap_or(&files.calibration))?;
        let vocabulary = Vocabulary::named(&files.vocabulary)?;
        let (set, passed_over) = prompts::open(files, reporter)?;
        let data = self.data(&set, &vocabulary)?;
        let seed = self.config.seed;
        let (training, validation) = prompts::split(&set, &passed_over, files, seed, reporter)?;
        let device = &self.opened.device;
        let score = ScoreSettings::of_run(&self.config).or_as_in(&calibration);
        let Pair { policy, verifier: loaded, views } =
            Pair::open(&files.pair(), score, device, reporter)?;
        check_auc(&loaded, &calibration, self.config.guards.verifier_auc)?;
        let data = self.with_models(data, (&policy, &loaded), &calibration)?;
        let setting = Setting { verifier: &loaded, vocabulary: &vocabulary };
        setting.check(&calibration, Some(&policy), reporter)?;
        let vocabulary = vocabulary.for_mentions()?;
        let mut verifier = loaded.verifier.clone();
        text_cache::learn(&loaded, &mut verifier, &vocabulary, reporter)?;
        let scorer =
            MentionScorer { tokenizer: Arc::clone(&policy.tokenizer) as _, vocabulary, verifier };
        let rows = |rows| PromptTasks::new(&policy, &set, rows, views.as_ref(), &self.config);
        let tasks = rows(training);
        // Without any held out, some that are trained on show how the policy speaks.
        let validation_tasks =
            if validation.is_empty() { tasks.rows().to_vec() } else { validation };
        let validation_tasks =
            rows(validation_tasks.into_iter().take(VALIDATION_IMAGES).collect()).all()?;
        self.train(Parts {
            model: policy.model.clone(),
            processor: &policy.processor,
            base_model: &policy.name,
            scorer,
            calibration: &calibration,
            tasks: &tasks,
            validation: Some(ValidationSet { tasks: validation_tasks, truth: None }),
            data,
            passed_over,
            folder: self.begun.clone(),
        })
    }

    /// What the run is trained on, which must be what it was begun with. A dry run needs no record.
    fn data(&self, set: &PromptSet, vocabulary: &Vocabulary) -> anyhow::Result<Option<DataRecord>> {
        if self.begun.is_none() && self.output.is_none() {
            return Ok(None);
        }
        let progress = self.reporter.phase("reading images", set.len() as u64);
        let record = set.digests(&|done| progress.reach(done as u64, set.len() as u64))?;
        progress.finish();
        let record = record.with_input("vocabulary", vocabulary.identity().sha256);
        self.check_data(&record, |at| match set.row(at) {
            Ok(row) => format!("row {} ({})", at + 1, row.id),
            Err(_) => format!("row {}", at + 1),
        })?;
        Ok(Some(record))
    }

    /// The same with what it is trained on and by.
    fn with_models(
        &self,
        data: Option<DataRecord>,
        (policy, verifier): (&Policy, &LoadedVerifier),
        calibration: &Calibration,
    ) -> anyhow::Result<Option<DataRecord>> {
        let Some(record) = data else { return Ok(None) };
        let record = record
            .with_input("model", policy.sample()?)
            .with_input("verifier", verifier.sample()?)
            .with_input("calibration", sha256_bytes(&serde_json::to_vec(calibration)?));
        let named = |folder: &RunFolder| folder.path(data_check::DATA).exists();
        if self.begun.as_ref().is_some_and(named) {
            // Rows have been compared before.
            self.check_data(&record, |at| format!("row {}", at + 1))?;
        }
        Ok(Some(record))
    }

    /// Refuses what a run that is resumed was not begun with.
    fn check_data(
        &self,
        record: &DataRecord,
        name: impl Fn(usize) -> String,
    ) -> anyhow::Result<()> {
        match &self.begun {
            Some(folder) => data_check::check(folder.root(), record, name, self.reporter),
            None => Ok(()),
        }
    }

    /// Trains in the run's folder, or makes the one step of a dry run.
    fn train(&self, parts: Parts<'_>) -> anyhow::Result<Outcome> {
        let Parts { model, processor, base_model, scorer, calibration, tasks, validation, .. } =
            parts;
        let (data, passed_over) = (parts.data, parts.passed_over);
        let reporter = self.reporter;
        let elements = model.language_model().config().matrix_elements();
        let config = &self.config.clone().for_decoder(elements);
        if let (None, Some(rate)) = (self.config.align.learning_rate, config.align.learning_rate) {
            reporter.note(format!("learning rate {rate:e}, by the model's size"));
        }
        let mut trainer =
            Trainer::new(config.clone(), model, scorer, calibration, tasks, validation)?;
        reporter.note(format!(
            "objective {}: {} adapter matrices are trained, {} parameters in all",
            config.objective.definition().name(),
            trainer.adapter_matrices(),
            trainer.trainable(),
        ));
        let stop = (self.stop)()?;
        let folder = match (parts.folder, &self.output) {
            (Some(folder), _) => folder,
            (None, Some(output)) => self.begin(output, config, Some(calibration), data.as_ref())?,
            (None, None) => {
                let captions = config.responses_per_iteration() * config.align.iterations;
                let mut lines = prospects::lines(calibration, &config.reward, Some(captions))?;
                trainer.stop_on(StopFlag::new(stop));
                let checked = estimate::dry_run(&mut trainer, config, reporter);
                lines.push(checked.map_err(|error| told(error, || self.stopped(None)))?);
                return Ok(Outcome::Checked(lines));
            }
        };
        passed_over.write(&folder)?;
        let surroundings =
            Surroundings { folder: &folder, reporter, config, calibration, processor, base_model };
        let mut training = Training::new(surroundings, stop, self.resume_command.to_owned());
        training
            .run(&mut trainer, self.begun.is_some())
            .inspect_err(|error| self.discard_unlearned(&folder, error))?;
        let adapter = folder.path(RunFolder::ADAPTER);
        if let Some(summary) = passed_over.summary(&folder) {
            reporter.note(summary);
        }
        reporter.note(format!("adapter: {}", adapter.display()));
        Ok(Outcome::Trained(adapter))
    }

    /// Removes the folder of a run that begins and was refused before anything was learned: nothing of it is worth keeping, and
    /// the same folder can be tried again.
    fn discard_unlearned(&self, folder: &RunFolder, error: &anyhow::Error) {
        let metrics = std::fs::metadata(folder.path(RunFolder::METRICS));
        let learned = metrics.is_ok_and(|file| file.len() > 0);
        if self.begun.is_none() && !learned && !error.is::<Interrupted>() {
            let _ = std::fs::remove_dir_all(folder.root());
        }
    }

    /// The folder of a run that begins, with all it takes to go on; a calibration that is not there yet is made by whoever
    /// goes on.
    fn begin(
        &self,
        output: &Path,
        config: &AlignConfig,
        calibration: Option<&Calibration>,
        data: Option<&DataRecord>,
    ) -> Result<RunFolder, FormatError> {
        RunFolder::create_with(output, |folder| {
            folder.write_toml(RECORD, &self.record)?;
            settings::write(folder, config)?;
            folder.write_json(device::FILE, &self.opened.record)?;
            if let Some(calibration) = calibration {
                calibrations::write(&folder.path(CALIBRATION), calibration)?;
            }
            data.map_or(Ok(()), |data| data_check::write(folder.root(), data))
        })
    }
}
