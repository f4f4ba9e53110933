//! The demo: calibrate → align → evaluate on the built-in synthetic dataset, and one report.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fisao_align::events::IterationMetrics;
use fisao_align::guards::SplitHealth;
use fisao_align::mentions::{MentionScorer, ScoredResponse};
use fisao_align::tasks::Task;
use fisao_align::trainer::Trainer;
use fisao_align::{AlignConfig, RunControl, StopFlag};
use fisao_eval::chair::{self, ChairChanges, ChairReport, ImageVerdict};
use fisao_eval::statistics::Bootstrap;
use fisao_formats::documents::read_toml;
use fisao_formats::run_folder::RunFolder;
use fisao_models::generation::Sampling;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_scenes::{Split, World, WorldKind};
use fisao_verifier::calibration::{Calibration, Labels, ProbabilityModel};
use fisao_verifier::rewards::RewardRule;
use image::ExtendedColorType;
use serde::{Deserialize, Serialize};

use crate::calibrations::{self, CALIBRATION};
use crate::demo_config::demo_config;
use crate::device::{self, DeviceChoice, OpenDevice};
use crate::failure::told;
use crate::reporter::Reporter;
use crate::settings::{self, SettingsChanges};
use crate::stop::StopSource;
use crate::training::{Surroundings, Training};
use crate::world::{DemoSetup, Evaluation, Sizes, evaluate, validation};
use crate::{locks, response_file};
use fisao_report::{
    ColouredCaption, Curve, GalleryItem, Report, ReportRow, Scores, VerifierFacts, WordVerdict,
    png, render,
};

/// Images of the report's gallery.
const GALLERY: usize = 16;

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

/// Seconds of the demo's parts.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Seconds {
    calibrate: f64,
    align: f64,
    evaluate: f64,
    total: f64,
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
    verifier: VerifierSummary,
    seconds: Seconds,
    peak_rss_mb: f64,
    warnings: Vec<String>,
}

/// Greedy and sampled captions of one model.
struct Both {
    greedy: Evaluation,
    sampled: Evaluation,
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
    let OpenDevice { device, record, .. } = if request.resume {
        device::of_run(&RunFolder::open(&request.output)?, request.device, reporter)?
    } else {
        request.device.unwrap_or_default().open(reporter)?
    };
    let setup = DemoSetup::open(&config, options.world, &device, reporter)?;
    let folder = if request.resume {
        locks::go_on(&request.output, reporter)?
    } else {
        RunFolder::create_with(&request.output, |folder| {
            folder.write_toml(OPTIONS, &options)?;
            settings::write(folder, &config)?;
            folder.write_json(device::FILE, &record)
        })?
    };
    let (resume, resumed) = (request.resume_command.clone(), request.resume);
    let begun = Begun { options, config, setup, folder, resume, resumed, reporter };
    begun.finish(start, &stop).map_err(|error| {
        told(error, || {
            let resume = &begun.resume;
            format!("stopped; what was finished is saved. Continue with:\n  {resume}")
        })
    })
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
        let calibrating = Instant::now();
        let known = setup.tasks(Split::Calibration, options.seed, sizes.calibration).labelled()?;
        let calibration =
            self.calibration((&known.0, &known.1), &StopFlag::new(Arc::clone(stop)))?;
        let seconds =
            Seconds { calibrate: calibrating.elapsed().as_secs_f64(), ..Seconds::default() };
        let surroundings = Surroundings {
            folder,
            reporter,
            config,
            calibration: &calibration,
            processor: &setup.policy.processor,
            base_model: &setup.policy.name,
        };
        let training = Training::new(surroundings, Arc::clone(stop), self.resume.clone());
        let mut demo = Demo {
            world: options.world,
            config: config.clone(),
            setup,
            folder,
            reporter,
            scorer: setup.calibrated_scorer(&calibration)?,
            training,
            stop: StopFlag::new(Arc::clone(stop)),
            seconds,
        };
        let (test, test_truth) = setup.tasks(Split::Test, options.seed, sizes.test).labelled()?;
        let model = &setup.policy.model;
        let base = demo.evaluate(MODELS[0], model, &test, &test_truth)?;
        let validation = validation(&known.0, &known.1, sizes.validation_tasks);
        let train = setup.training(config);
        // A scorer without cached embeddings, as `fisao align --demo` has: those of others would change last bits.
        let mut trainer = Trainer::new(
            config.clone(),
            model.clone(),
            setup.scorer()?,
            &calibration,
            &train,
            Some(validation),
        )?;
        let aligned_policy = demo.align(&mut trainer, self.resumed)?;
        let aligned = demo.evaluate(MODELS[1], &aligned_policy, &test, &test_truth)?;
        demo.seconds.total = start.elapsed().as_secs_f64();
        let images: Vec<Vec<u8>> = (0..sizes.test.min(GALLERY * 8))
            .map(|index| image(&setup.world, options.seed, index as u64))
            .collect();
        let report = demo.publish(&calibration, &base, &aligned, &test, &test_truth, &images)?;
        demo.discard_captions();
        Ok(DemoResult { report, page: self.folder.path(RunFolder::REPORT) })
    }

    /// The run's own calibration: a run that is resumed keeps the rewards that it was begun with.
    fn calibration(
        &self,
        known: (&[Task], &[BTreeSet<String>]),
        stop: &StopFlag,
    ) -> anyhow::Result<Calibration> {
        let path = self.folder.path(CALIBRATION);
        if self.resumed && path.exists() {
            return calibrations::read(&path);
        }
        let (labels, control) = (self.options.labels, (Some(path.as_path()), stop));
        let calibration =
            self.setup.calibrate(&self.config, labels, known, control, self.reporter)?;
        calibrations::write(&self.folder.path(CALIBRATION), &calibration)?;
        response_file::discard(&path);
        Ok(calibration)
    }
}

/// What captions of a model are kept under until the demo is done, by the model's name and how they were chosen.
fn captions_of(folder: &RunFolder, model: &str, how: &str) -> PathBuf {
    folder.path(format!("captions-{model}-{how}"))
}

/// The models and how captions of them are chosen: at which temperature.
const MODELS: [&str; 2] = ["base", "aligned"];
const CHOICES: [(&str, f64); 2] = [("greedy", 0.0), ("sampled", 1.0)];

struct Demo<'a> {
    world: WorldKind,
    config: AlignConfig,
    setup: &'a DemoSetup,
    folder: &'a RunFolder,
    reporter: &'a Reporter,
    scorer: MentionScorer,
    training: Training<'a>,
    stop: StopFlag,
    seconds: Seconds,
}

impl Demo<'_> {
    fn sampling(&self, temperature: f64) -> Sampling {
        let (max_new_tokens, seed) = (self.config.max_new_tokens, self.config.seed);
        Sampling { max_new_tokens, temperature, seed }
    }

    fn evaluate(
        &mut self,
        name: &str,
        policy: &VisionLanguageModel,
        tasks: &[Task],
        truth: &[BTreeSet<String>],
    ) -> anyhow::Result<Both> {
        let start = Instant::now();
        let phase = self.reporter.phase(&format!("evaluate {name}"), 2 * tasks.len() as u64);
        let advance = |done| phase.advance(done as u64);
        let mut chosen = |(how, temperature)| {
            let (sampling, output) =
                (self.sampling(temperature), captions_of(self.folder, name, how));
            let what = (policy, tasks);
            let kept = self.setup.response_file(&output, what, &sampling, self.reporter)?;
            let control =
                RunControl { kept: Some(&kept), ..RunControl::new(&advance).until(&self.stop) };
            evaluate(policy, &mut self.scorer, tasks, truth, &sampling, control)
        };
        let both = Both { greedy: chosen(CHOICES[0])?, sampled: chosen(CHOICES[1])? };
        phase.finish();
        self.seconds.evaluate += start.elapsed().as_secs_f64();
        Ok(both)
    }

    /// Removes the captions that were kept to go on with.
    fn discard_captions(&self) {
        for model in MODELS {
            for (how, _) in CHOICES {
                response_file::discard(&captions_of(self.folder, model, how));
            }
        }
    }

    /// Trains the adapter on scenes without looking at what is in them.
    fn align(
        &mut self,
        trainer: &mut Trainer<'_>,
        resume: bool,
    ) -> anyhow::Result<VisionLanguageModel> {
        let start = Instant::now();
        self.training.run(trainer, resume)?;
        self.seconds.align = start.elapsed().as_secs_f64();
        Ok(trainer.policy().clone())
    }

    /// Writes summary and report.
    fn publish(
        &mut self,
        calibration: &Calibration,
        base: &Both,
        aligned: &Both,
        tasks: &[Task],
        truth: &[BTreeSet<String>],
        images: &[Vec<u8>],
    ) -> anyhow::Result<Report> {
        let peak_rss_mb = crate::memory::peak_rss_mb();
        let row = |decoding: &str, base: &Evaluation, aligned: &Evaluation| ReportRow {
            decoding: decoding.to_owned(),
            base: scores(base),
            aligned: scores(aligned),
            changes: chair::changes(&base.chair, &aligned.chair, Bootstrap::default()),
        };
        let rows = vec![
            row("greedy", &base.greedy, &aligned.greedy),
            row("sampled T=1", &base.sampled, &aligned.sampled),
        ];
        let summary = Summary {
            schema: 1,
            seed: self.config.seed,
            base: rows[0].base,
            aligned: rows[0].aligned,
            base_sampled: rows[1].base,
            aligned_sampled: rows[1].aligned,
            change_interval: rows[0].changes,
            change_interval_sampled: rows[1].changes,
            verifier: VerifierSummary {
                auc: calibration.auc,
                mu_correct: calibration.mu_correct,
                mu_hallucinated: calibration.mu_hallucinated,
            },
            seconds: self.seconds,
            peak_rss_mb,
            warnings: self.training.warnings.clone(),
        };
        let report = Report {
            title: title(self.world).to_owned(),
            seed: self.config.seed,
            before_after: rows,
            verifier: self.verifier_facts(calibration)?,
            curves: curves(&self.training.metrics, &self.training.health),
            gallery: self.gallery(calibration, base, aligned, tasks, truth, images),
            facts: self.facts(peak_rss_mb),
            warnings: self.training.warnings.clone(),
            attribution: World::sprite_attribution().to_owned(),
        };
        self.folder.write_bytes(RunFolder::REPORT, render(&report).as_bytes())?;
        self.folder.write_json(RunFolder::SUMMARY, &summary)?;
        Ok(report)
    }

    fn verifier_facts(&self, calibration: &Calibration) -> anyhow::Result<VerifierFacts> {
        let rule = RewardRule::new(&self.config.reward, calibration)?;
        let marks = rule.score_marks();
        let histograms = &calibration.histograms;
        Ok(VerifierFacts {
            auc: calibration.auc,
            mu_correct: calibration.mu_correct,
            sigma_correct: calibration.sigma_correct,
            mu_hallucinated: calibration.mu_hallucinated,
            sigma_hallucinated: calibration.sigma_hallucinated,
            tau_plus: marks.thresholds.map(|(plus, _)| plus),
            tau_minus: marks.thresholds.map(|(_, minus)| minus),
            full_reward: marks.full_reward,
            full_penalty: marks.full_penalty,
            boundary: marks.boundary,
            correct_hist: histograms.correct.counts.clone(),
            hallucinated_hist: histograms.hallucinated.counts.clone(),
            hist_range: (histograms.correct.low, histograms.correct.high),
        })
    }

    fn facts(&self, peak_rss_mb: f64) -> Vec<(String, String)> {
        let seconds = |value: f64| format!("{value:.0} s");
        vec![
            ("calibrate".into(), seconds(self.seconds.calibrate)),
            ("align".into(), seconds(self.seconds.align)),
            ("evaluate".into(), seconds(self.seconds.evaluate)),
            ("total".into(), seconds(self.seconds.total)),
            ("peak memory".into(), format!("{peak_rss_mb:.0} MB")),
            ("iterations".into(), self.config.align.iterations.to_string()),
            ("images per iteration".into(), self.config.align.images_per_iteration.to_string()),
            ("version".into(), env!("CARGO_PKG_VERSION").to_owned()),
        ]
    }

    /// Test images, those first whose base caption hallucinated, in the order of the split.
    fn gallery(
        &self,
        calibration: &Calibration,
        base: &Both,
        aligned: &Both,
        tasks: &[Task],
        truth: &[BTreeSet<String>],
        images: &[Vec<u8>],
    ) -> Vec<GalleryItem> {
        let wrong = |index: usize| {
            base.greedy.chair.per_image[index].mentions.iter().any(|mention| mention.hallucinated)
        };
        let mut order: Vec<usize> = (0..images.len()).collect();
        // Three of four show the disease, the fourth whatever comes next.
        order.sort_by_key(|&index| (!wrong(index), index));
        let sick = order.iter().filter(|&&index| wrong(index)).count().min(GALLERY * 3 / 4);
        let healthy: Vec<usize> =
            order.iter().copied().filter(|&index| !wrong(index)).take(GALLERY - sick).collect();
        let mut shown: Vec<usize> = order.into_iter().take(sick).chain(healthy).collect();
        shown.sort_unstable();
        let coloured = |evaluation: &Evaluation, index: usize| {
            coloured(
                &evaluation.captions[index],
                &evaluation.chair.per_image[index],
                &self.scorer,
                calibration,
            )
        };
        shown
            .into_iter()
            .map(|index| GalleryItem {
                image_png: images[index].clone(),
                image_id: tasks[index].id.clone(),
                truth: truth[index].iter().cloned().collect(),
                before: coloured(&base.greedy, index),
                after: coloured(&aligned.greedy, index),
            })
            .collect()
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

/// What training recorded, as charts.
fn curves(metrics: &[IterationMetrics], health: &[(usize, SplitHealth)]) -> Vec<Curve> {
    let over = |name: &str, unit: &str, value: fn(&IterationMetrics) -> Option<f64>| Curve {
        name: name.to_owned(),
        unit: unit.to_owned(),
        points: metrics
            .iter()
            .filter_map(|m| value(m).map(|value| (m.iteration as f64, value)))
            .collect(),
    };
    let validation_tasks = |name: &str, unit: &str, value: fn(&SplitHealth) -> Option<f64>| Curve {
        name: name.to_owned(),
        unit: unit.to_owned(),
        points: health
            .iter()
            .filter_map(|(at, health)| value(health).map(|value| (*at as f64, value)))
            .collect(),
    };
    vec![
        over("Reward", "per caption", |m| Some(m.reward_mean)),
        over("KL from the reference", "nats per caption", |m| m.kl),
        over("Penalised mentions", "fraction", |m| m.penalised_fraction),
        over("Repeated mentions", "fraction", |m| m.repeated_fraction),
        over("Length", "tokens", |m| Some(m.length_mean)),
        validation_tasks("Recall on the calibration split", "fraction", |health| health.recall),
        over("Correct objects named, estimated", "per caption", |m| m.expected_correct),
        over("Correct objects named by the base model", "per caption", |m| m.expected_correct_base),
        over("Estimated recall against the base model", "relative change", |m| m.recall_surplus),
        over("Length against the base model", "ratio, greedy", |m| m.length_ratio),
        over("Length bonus", "reward per token", |m| m.length_bonus),
        over("Break-even precision", "probability", |m| m.break_even),
    ]
}

/// A rate over nothing, as of captions that name no object, is shown as 0.
fn scores(evaluation: &Evaluation) -> Scores {
    let ChairReport { chair_i, chair_s, recall, .. } = evaluation.chair;
    Scores {
        chair_i: chair_i.unwrap_or(0.0),
        chair_s: chair_s.unwrap_or(0.0),
        recall: recall.unwrap_or(0.0),
        mean_length: evaluation.mean_length,
        captions: evaluation.chair.captions,
    }
}

fn coloured(
    caption: &ScoredResponse,
    verdict: &ImageVerdict,
    scorer: &MentionScorer,
    calibration: &Calibration,
) -> ColouredCaption {
    let words = caption
        .mentions
        .iter()
        .zip(&caption.scores)
        .map(|(unit, &score)| WordVerdict {
            start: unit.span.start,
            end: unit.span.end,
            category: scorer.vocabulary.category(unit.category).to_owned(),
            score,
            probability: calibration.probability(score, ProbabilityModel::default()),
            hallucinated: verdict
                .mentions
                .iter()
                .find(|mention| mention.start == unit.span.start)
                .map(|mention| mention.hallucinated),
        })
        .collect();
    ColouredCaption { text: caption.text.clone(), words }
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
