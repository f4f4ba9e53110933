//! The demo: calibrate → align → evaluate on the built-in synthetic dataset, and one report.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fisao_align::AlignConfig;
use fisao_align::tasks::TaskList;
use fisao_eval::chair::{ChairChanges, Protocol};
use fisao_formats::documents::read_toml;
use fisao_formats::run_folder::RunFolder;
use fisao_report::{Report, Scores, png, render};
use fisao_scenes::{PROMPTS, Split, World, WorldKind};
use fisao_verifier::calibration::Labels;
use image::ExtendedColorType;
use serde::{Deserialize, Serialize};

use crate::demo_config::demo_config;
use crate::device::{self, DeviceChoice};
use crate::failure::told;
use crate::locks;
use crate::models::ImageSet;
use crate::pipeline::publication::{Publication, ShownImage};
use crate::pipeline::{self, Pipeline, Seconds, TrainingData};
use crate::reporter::Reporter;
use crate::settings::{self, SettingsChanges};
use crate::stop::StopSource;
use crate::vocabulary;
use crate::world::{DemoSetup, Sizes, known_truth, validation};

/// File of a run's [`DemoOptions`].
pub const OPTIONS: &str = "demo.toml";

/// What a run of the demo is asked for; kept in its folder, so that it can be resumed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DemoOptions {
    /// Seed of the run.
    pub seed: u64,
    /// Whether it is a shorter and rougher run.
    pub quick: bool,
    /// What the calibration knows of its images.
    pub labels: Labels,
    /// Which built-in synthetic dataset.
    #[serde(default)]
    pub world: WorldKind,
}

/// A demo that is to begin or to go on.
#[derive(Clone, Debug)]
pub struct DemoRequest {
    /// Folder for the report and everything else.
    pub output: PathBuf,
    /// What is asked for; a run that is resumed has its own.
    pub options: DemoOptions,
    /// Whether the folder holds a run, which goes on.
    pub resume: bool,
    /// Changes to the settings, which a run that is resumed must agree with.
    pub settings: SettingsChanges,
    /// Where to compute; the CPU, or where the run was begun, unless it is said.
    pub device: Option<DeviceChoice>,
    /// What the user is told to do to resume the run.
    pub resume_command: String,
}

/// A demo that is done.
#[derive(Clone, Debug)]
pub struct DemoResult {
    /// What was measured.
    pub report: Report,
    /// The same as a page.
    pub page: PathBuf,
}

/// What was asked for, or, of a run to be resumed, what had been asked for when it was begun.
fn options_and_settings(
    request: &DemoRequest,
    reporter: &Reporter,
) -> anyhow::Result<(DemoOptions, AlignConfig)> {
    if request.resume {
        let folder = RunFolder::open(&request.output)?;
        let options = read_toml("options of the demo", &folder.path(OPTIONS))?;
        return Ok((options, settings::of_run(&folder, &request.settings, reporter)?));
    }
    RunFolder::check_free(&request.output)?;
    let options = request.options;
    let base = demo_config(options.seed, options.quick);
    Ok((options, settings::resolve(&base, &request.settings, reporter)?))
}

#[derive(Serialize)]
struct VerifierSummary {
    auc: f64,
    mu_correct: f64,
    mu_hallucinated: f64,
}

#[derive(Serialize)]
struct Summary {
    schema: u32,
    seed: u64,
    base: Scores,
    aligned: Scores,
    base_sampled: Scores,
    aligned_sampled: Scores,
    /// Paired 95 % intervals of aligned less base.
    change_interval: ChairChanges,
    change_interval_sampled: ChairChanges,
    /// What the rates before and after depend on.
    protocols: Option<Box<[Protocol; 2]>>,
    protocols_sampled: Option<Box<[Protocol; 2]>>,
    verifier: VerifierSummary,
    seconds: Seconds,
    peak_rss_mb: f64,
    warnings: Vec<String>,
}

/// Runs the demo. A raised flag ends it after its current step.
///
/// # Errors
/// [`Interrupted`](crate::failure::Interrupted) where the flag was raised. Otherwise what cannot be used, or what failed.
pub fn demo(
    request: &DemoRequest,
    stop: StopSource<'_>,
    reporter: &Reporter,
) -> anyhow::Result<DemoResult> {
    let start = Instant::now();
    let stop = stop()?;
    let (options, config) = options_and_settings(request, reporter)?;
    // What can refuse comes before the folder, so that a refusal leaves none behind.
    let opened = if request.resume {
        device::of_run(&RunFolder::open(&request.output)?, request.device, reporter)?
    } else {
        request.device.unwrap_or_default().open(reporter)?
    };
    let setup = DemoSetup::open(&config, options.world, &opened, reporter)?;
    let folder = if request.resume {
        locks::go_on(&request.output, reporter)?
    } else {
        RunFolder::create_with(&request.output, |folder| {
            folder.write_toml(OPTIONS, &options)?;
            settings::write(folder, &config)?;
            folder.write_json(device::FILE, &opened.record)
        })?
    };
    let (resume, resumed) = (request.resume_command.clone(), request.resume);
    let begun = Begun { options, config, setup, folder, resume, resumed, reporter };
    begun
        .finish(start, &stop)
        .map_err(|error| told(error, || pipeline::stopped(Some(&begun.folder), &begun.resume)))
}

/// A demo that has its folder.
struct Begun<'a> {
    options: DemoOptions,
    config: AlignConfig,
    setup: DemoSetup,
    folder: RunFolder,
    /// Command that continues it.
    resume: String,
    /// Whether it goes on.
    resumed: bool,
    reporter: &'a Reporter,
}

impl Begun<'_> {
    /// Everything from the calibration to the report.
    fn finish(&self, start: Instant, stop: &Arc<AtomicBool>) -> anyhow::Result<DemoResult> {
        let Self { options, config, setup, folder, reporter, .. } = self;
        let sizes = Sizes::of(options.quick);
        let pipeline = Pipeline {
            config,
            models: setup.models()?,
            folder: Some(folder),
            resumed: self.resumed,
            stop: Arc::clone(stop),
            resume_command: &self.resume,
            reporter,
        };
        let calibrating = Instant::now();
        let known = setup.tasks(Split::Calibration, options.seed, sizes.calibration).labelled()?;
        let truth = known_truth(&known.1, options.labels);
        let images = ImageSet { tasks: &TaskList(&known.0), truth };
        let calibration = pipeline.own_calibration(&images, None)?;
        let calibrate = calibrating.elapsed().as_secs_f64();
        let (test, truth) = setup.tasks(Split::Test, options.seed, sizes.test).labelled()?;
        let truth = Some(truth.into_iter().map(Some).collect());
        let test = ImageSet { tasks: &TaskList(&test), truth };
        let data = TrainingData {
            tasks: &setup.training(config),
            validation: Some(validation(&known.0, &known.1, sizes.validation_tasks)),
        };
        let mut results = pipeline.train_and_evaluate(&calibration, data, &test, folder)?;
        results.seconds.calibrate = calibrate;
        results.seconds.total = start.elapsed().as_secs_f64();
        let publication = Publication {
            config,
            policy: &setup.policy,
            adapter: folder.path(RunFolder::ADAPTER),
            prompt: Some(PROMPTS[0].to_owned()),
            vocabulary: vocabulary::WORLD.to_owned(),
            calibration: &calibration,
            results: &results,
            test: &test,
            estimate: false,
            peak_rss_mb: crate::memory::peak_rss_mb(),
            reporter,
        };
        let report = self.publish(&publication)?;
        pipeline::discard_captions(folder);
        Ok(DemoResult { report, page: folder.path(RunFolder::REPORT) })
    }

    /// Writes summary and report.
    fn publish(&self, publication: &Publication<'_>) -> anyhow::Result<Report> {
        let (world, seed) = (&self.setup.world, self.options.seed);
        let show = |index| {
            let image = image(world, seed, index as u64);
            Ok(ShownImage { image, view: None })
        };
        let attribution = World::sprite_attribution();
        let report = publication.report(title(self.options.world), attribution, &show)?;
        let (rows, calibration) = (&report.before_after, publication.calibration);
        let summary = Summary {
            schema: 1,
            seed: self.config.seed,
            base: rows[0].base,
            aligned: rows[0].aligned,
            base_sampled: rows[1].base,
            aligned_sampled: rows[1].aligned,
            change_interval: rows[0].changes,
            change_interval_sampled: rows[1].changes,
            protocols: rows[0].protocols.clone(),
            protocols_sampled: rows[1].protocols.clone(),
            verifier: VerifierSummary {
                auc: calibration.auc,
                mu_correct: calibration.mu_correct,
                mu_hallucinated: calibration.mu_hallucinated,
            },
            seconds: publication.results.seconds,
            peak_rss_mb: publication.peak_rss_mb,
            warnings: publication.results.training.warnings.clone(),
        };
        self.folder.write_bytes(RunFolder::REPORT, render(&report).as_bytes())?;
        self.folder.write_json(RunFolder::SUMMARY, &summary)?;
        Ok(report)
    }
}

/// Headline of the report.
const fn title(world: WorldKind) -> &'static str {
    match world {
        WorldKind::Clear => "FiSAO demo: a small vision-language model learns to say what it sees",
        WorldKind::Hard => {
            "FiSAO demo, hard world: a small vision-language model learns to say what it sees"
        }
    }
}

fn image(world: &World, seed: u64, index: u64) -> Vec<u8> {
    let image = world.render(&world.scene(Split::Test, seed, index));
    png(image.as_raw(), image.dimensions(), ExtendedColorType::Rgb8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_options_without_a_dataset_choice_mean_the_clear_one() {
        let old = "seed = 3\nquick = true\nlabels = \"none\"\n";
        let options: DemoOptions = toml::from_str(old).unwrap();
        assert_eq!((options.seed, options.world), (3, WorldKind::Clear));
    }

    #[test]
    fn the_world_of_a_run_is_kept() {
        let (labels, world) = (Labels::None, WorldKind::Hard);
        let options = DemoOptions { seed: 1, quick: false, labels, world };
        let text = toml::to_string(&options).unwrap();
        let read: DemoOptions = toml::from_str(&text).unwrap();
        assert_eq!(read.world, WorldKind::Hard, "{text}");
    }
}
