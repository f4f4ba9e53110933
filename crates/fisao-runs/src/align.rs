//! An alignment run from its beginning or from where it stopped: checks, data, training, adapter.

mod announcement;
mod defaults;
mod estimate;
mod files;
mod outlook;
mod prompts;
mod publishing;
pub mod record;
mod scenes;
mod splitting;

use std::path::{Path, PathBuf};

use anyhow::bail;
use fisao_align::config::BestBy;
use fisao_align::trainer::Trainer;
use fisao_align::{AlignConfig, StopFlag};
use fisao_formats::FormatError;
use fisao_formats::data_record::DataRecord;
use fisao_formats::documents::check_output_folder;
use fisao_formats::run_folder::RunFolder;
use fisao_report::Report;
use fisao_verifier::calibration::Calibration;

use crate::calibrations::{self, CALIBRATION};
use crate::data_check;
use crate::demo_config::demo_config;
use crate::device::{self, DeviceChoice, OpenDevice};
use crate::failure::{Interrupted, Refusal, told};
use crate::pipeline::Pipeline;
use crate::reporter::Reporter;
use crate::settings::{self, SettingsChanges};
use crate::stop::StopSource;
use crate::{locks, pipeline, prospects};

use record::{Amendment, RECORD, RunRecord, Source};

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
        /// What a run that has no calibration yet is given in another way.
        amendment: Amendment,
    },
}

/// What came of it.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Outcome {
    /// The run is done.
    Trained {
        /// The adapter's folder.
        adapter: PathBuf,
        /// What was measured on held-out images, if there are any.
        published: Option<Published>,
    },
    /// What a dry run found, line by line.
    Checked(Vec<String>),
    /// It was announced, and not confirmed: nothing was written.
    Declined,
}

/// What a run found on held-out images.
#[derive(Clone, Debug)]
pub struct Published {
    /// What was measured.
    pub report: Report,
    /// The same as a page.
    pub page: PathBuf,
}

/// Asks whether a run that has been announced is to begin.
pub type Confirm<'a> = &'a dyn Fn() -> anyhow::Result<bool>;

/// Begins every run that is announced.
pub fn always() -> anyhow::Result<bool> {
    Ok(true)
}

/// A run that is to begin or to go on.
struct Run<'a> {
    config: AlignConfig,
    record: RunRecord,
    opened: OpenDevice,
    /// Folder of a run that is resumed.
    begun: Option<RunFolder>,
    /// What of it is given in another way.
    amendment: Amendment,
    /// Folder of a run that begins; none in a dry run.
    output: Option<PathBuf>,
    request: &'a AlignRequest,
    confirm: Confirm<'a>,
    stop: StopSource<'a>,
    reporter: &'a Reporter,
}

/// Trains an adapter with token rewards, or checks what a run would take. A run that calibrates itself says what it is going to
/// do and begins once that is confirmed. A raised flag ends the run after its current step.
///
/// # Errors
/// [`Interrupted`] where the flag was raised; the state is saved then. Otherwise what cannot be used, or what failed.
pub fn align(
    request: &AlignRequest,
    confirm: Confirm<'_>,
    stop: StopSource<'_>,
    reporter: &Reporter,
) -> anyhow::Result<Outcome> {
    let run = Run::prepare(request, confirm, stop, reporter)?;
    match run.record.source.clone() {
        Source::World { labels, world } => run.train_on_scenes(labels, world),
        Source::Files(files) => run.train_on_files(&files),
    }
}

impl<'a> Run<'a> {
    /// Everything that can be refused before a model is loaded.
    fn prepare(
        request: &'a AlignRequest,
        confirm: Confirm<'a>,
        stop: StopSource<'a>,
        reporter: &'a Reporter,
    ) -> anyhow::Result<Self> {
        let run = |config, record, opened| Self {
            config,
            record,
            opened,
            begun: None,
            amendment: Amendment::default(),
            output: None,
            request,
            confirm,
            stop,
            reporter,
        };
        let (source, output) = match &request.start {
            Start::New { source, output } => (source, output.clone()),
            Start::Resumed { folder, source, amendment } => {
                let folder = locks::go_on(folder, reporter)?;
                let mut record = RunRecord::of_run(&folder, source.as_ref())?;
                record.amend(amendment, &folder)?;
                let mut settings = request.settings.clone();
                settings.set.extend(request.seed.map(|seed| format!("seed={seed}")));
                let config = settings::of_run(&folder, &settings, reporter)?;
                let opened = device::of_run(&folder, request.device, reporter)?;
                let (begun, amendment) = (Some(folder), amendment.clone());
                return Ok(Self { begun, amendment, ..run(config, record, opened) });
            }
        };
        let record = RunRecord::new(source.clone());
        let seed = request.seed.unwrap_or_default();
        let base = match record.source {
            Source::World { .. } => demo_config(seed, false),
            Source::Files(_) => AlignConfig { seed, ..AlignConfig::default() },
        };
        let config = settings::resolve(&base, &request.settings, reporter)?;
        let Source::Files(files) = &record.source else {
            Self::check_output(output.as_deref())?;
            let opened = request.device.unwrap_or_default().open(reporter)?;
            return Ok(Self { output, ..run(config, record, opened) });
        };
        if config.checkpoint.best == BestBy::ValidationRecall {
            bail!(
                Refusal::new(
                    "checkpoint.best = \"validation-recall\" needs labelled validation images, which prompts do not have"
                )
                .hint("write --set checkpoint.best=validation-reward")
            );
        }
        Self::check_output(output.as_deref())?;
        files.merge.as_deref().map_or(Ok(()), check_output_folder)?;
        let opened = request.device.unwrap_or_default().open(reporter)?;
        Ok(Self { output, ..run(config, record, opened) })
    }

    fn check_output(output: Option<&Path>) -> Result<(), FormatError> {
        output.map_or(Ok(()), RunFolder::check_free)
    }

    /// The calibration that a resumed run was started with or has made; none where it was stopped before that was done.
    fn own_calibration(&self) -> Option<PathBuf> {
        let path = self.begun.as_ref()?.path(CALIBRATION);
        path.exists().then_some(path)
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

    /// The one step of a dry run, and what follows from it.
    fn dry_run(
        &self,
        pipeline: &Pipeline<'_>,
        trainer: &mut Trainer<'_>,
        calibration: Option<&Calibration>,
    ) -> anyhow::Result<Outcome> {
        let config = pipeline.config;
        let captions = config.responses_per_iteration() * config.align.iterations;
        let lines = calibration
            .map(|calibration| prospects::lines(calibration, &config.reward, Some(captions)));
        let mut lines = lines.transpose()?.unwrap_or_default();
        trainer.stop_on(StopFlag::new(pipeline.stop.clone()));
        let checked = estimate::dry_run(trainer, config, self.reporter);
        lines.push(checked.map_err(|error| pipeline.told(error))?);
        Ok(Outcome::Checked(lines))
    }

    /// Says what is trained.
    fn note_objective(&self, config: &AlignConfig, trainer: &Trainer<'_>) {
        self.reporter.note(format!(
            "objective {}: {} adapter matrices are trained, {} parameters in all",
            config.objective.definition().name(),
            trainer.adapter_matrices(),
            trainer.trainable(),
        ));
    }

    /// The result of a run whose adapter is written.
    fn trained(&self, folder: &RunFolder, published: Option<Published>) -> Outcome {
        let adapter = folder.path(RunFolder::ADAPTER);
        self.reporter.note(format!("adapter: {}", adapter.display()));
        Outcome::Trained { adapter, published }
    }

    /// An error of work in a run's folder in the user's words. The folder of a run that begins and was refused before anything
    /// was learned is removed: nothing of it is worth keeping, and the same folder can be tried again.
    fn ended(&self, folder: Option<&RunFolder>, error: anyhow::Error) -> anyhow::Error {
        let error = told(error, || self.stopped(folder));
        let Some(folder) = folder else { return error };
        let metrics = std::fs::metadata(folder.path(RunFolder::METRICS));
        let learned = metrics.is_ok_and(|file| file.len() > 0);
        // Captions of scenes are made again in no time.
        let keeps = match &self.record.source {
            Source::World { .. } => false,
            Source::Files(files) => pipeline::keeps_captions(folder, files.calibration.is_none()),
        };
        if self.begun.is_none() && !learned && !keeps && !error.is::<Interrupted>() {
            let _ = std::fs::remove_dir_all(folder.root());
        }
        error
    }

    /// What the user is told after asking for a stop outside of training.
    fn stopped(&self, folder: Option<&RunFolder>) -> String {
        pipeline::stopped(folder, &self.request.resume_command)
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
