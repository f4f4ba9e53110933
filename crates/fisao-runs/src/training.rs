//! The part that `fisao align`, `fisao demo` and `fisao compare` share: running a trainer inside a run folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use fisao_align::config::BestBy;
use fisao_align::error::AlignError;
use fisao_align::events::{AlignEvent, IterationMetrics, PhaseSeconds, Warning, WarningCode};
use fisao_align::guards::SplitHealth;
use fisao_align::mentions::ScoredResponse;
use fisao_align::trainer::{Trainer, TrainerState, ValidationResult};
use fisao_align::{AlignConfig, StopFlag};
use fisao_formats::FormatError;
use fisao_formats::adapter::Adapter;
use fisao_formats::documents::{read_json, read_toml};
use fisao_formats::run_folder::{MetricsWriter, RunFolder};
use fisao_formats::tensorboard::EventWriter;
use fisao_models::image::ImageProcessor;
use fisao_verifier::calibration::{Calibration, ProbabilityModel};
use image::ExtendedColorType;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checkpoints::Checkpoints;
use crate::duration::duration;
use crate::failure::{Interrupted, Refusal};
use crate::prospects;
use crate::reporter::Reporter;
use fisao_report::png;
use fisao_report::samples::{Sample, samples_page};
use fisao_report::verdicts::VerdictWord;

/// Folder of the resumable states inside a run folder.
const CHECKPOINT: &str = "checkpoint";
/// Results on the validation tasks, one JSON object per validation.
const VALIDATION: &str = "validation.jsonl";
/// What earlier versions called it.
const FORMER_VALIDATION: &str = "watch.jsonl";
/// Which state was the best so far.
const BEST: &str = "best.json";
/// The adapter of that state, PEFT layout.
const BEST_ADAPTER: &str = "adapter-best";

/// What the policy says of some validation tasks, one JSON object per task and validation.
const SAMPLES: &str = "samples.jsonl";
/// The same as pages, one per validation.
const SAMPLE_PAGES: &str = "samples";
/// Validation tasks whose responses are kept.
const SAMPLED: usize = 8;
/// Folder of the event files that TensorBoard reads.
const TENSORBOARD: &str = "tensorboard";

/// Seconds of a training from which on it is told how long it takes.
const WORTH_TELLING: f64 = 60.0;

/// Key of the number of a record.
const ITERATION: &str = "iteration";

/// One line of [`VALIDATION`].
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ValidationRecord {
    /// Iterations done.
    iteration: usize,
    #[serde(flatten)]
    health: SplitHealth,
}

/// One line of [`RunFolder::TIMINGS`].
#[derive(Debug, Clone, Serialize)]
struct TimingRecord {
    /// Iteration, from 1.
    iteration: usize,
    #[serde(flatten)]
    seconds: PhaseSeconds,
    /// Response tokens written per second of sampling; absent where the data gave the responses.
    tokens_per_second: Option<f64>,
    /// Images that went through the encoders.
    images_encoded: usize,
}

/// One line of [`SAMPLES`].
#[derive(Debug, Clone, Serialize)]
struct SampleRecord<'a> {
    /// Iterations done.
    iteration: usize,
    image: &'a str,
    caption: &'a str,
    words: Vec<SampleWord>,
}

/// An object mention of a [`SampleRecord`].
#[derive(Debug, Clone, Serialize)]
struct SampleWord {
    /// Where it stands in the caption, characters.
    start: usize,
    end: usize,
    category: String,
    score: f64,
    /// Probability that it is not there.
    p_hallucinated: f64,
    reward: f64,
}

/// Content of [`BEST`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Best {
    /// Iterations done.
    iteration: usize,
    by: BestBy,
    value: f64,
}

/// What a run is made in and of.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where it is written.
    pub folder: &'a RunFolder,
    /// What is told on the way.
    pub reporter: &'a Reporter,
    /// Its settings.
    pub config: &'a AlignConfig,
    /// What its rewards are calibrated by.
    pub calibration: &'a Calibration,
    /// How the policy's images were prepared.
    pub processor: &'a ImageProcessor,
    /// What the adapter's configuration names as its base.
    pub base_model: &'a str,
}

/// A trainer's surroundings, and what it reported.
pub struct Training<'a> {
    surroundings: Surroundings<'a>,
    /// Raised by Ctrl-C.
    stop: Arc<AtomicBool>,
    /// Command that continues an interrupted run.
    resume_command: String,
    /// What the user was warned about, one text per kind.
    pub warnings: Vec<String>,
    /// Kind of each of the warnings, how often it came up, and when it last did, in iterations done.
    warned: Vec<(WarningCode, usize, usize)>,
    /// What each iteration measured.
    pub metrics: Vec<IterationMetrics>,
    /// Results of validations, by iterations done.
    pub health: Vec<(usize, SplitHealth)>,
}

/// The files that grow.
struct Records {
    metrics: MetricsWriter,
    timings: MetricsWriter,
    validation: MetricsWriter,
    samples: MetricsWriter,
    events: EventWriter,
}

impl<'a> Training<'a> {
    /// A training that has not begun; a raised flag ends it, and the command resumes it.
    pub fn new(
        surroundings: Surroundings<'a>,
        stop: Arc<AtomicBool>,
        resume_command: String,
    ) -> Self {
        Self {
            surroundings,
            stop,
            resume_command,
            warnings: Vec::new(),
            warned: Vec::new(),
            metrics: Vec::new(),
            health: Vec::new(),
        }
    }

    /// Runs the trainer to its end, from the newest saved state with `resume`, and writes its adapter.
    ///
    /// # Errors
    /// [`Interrupted`] when the user asked to stop, [`AlignError::Unrecoverable`] when a guard did; the state is saved then.
    pub fn run(&mut self, trainer: &mut Trainer<'_>, resume: bool) -> anyhow::Result<()> {
        trainer.stop_on(StopFlag::new(Arc::clone(&self.stop)));
        if resume {
            self.restore_saved(trainer)?;
        }
        match self.train(trainer) {
            // In an iteration or a validation, which the trainer has rolled back.
            Err(error) if matches!(error.downcast_ref(), Some(AlignError::Stopped)) => {
                Err(self.stopped(trainer)?.into())
            }
            outcome => outcome,
        }
    }

    /// From wherever the trainer is to the end.
    fn train(&mut self, trainer: &mut Trainer<'_>) -> anyhow::Result<()> {
        trainer.keep_features_in(self.surroundings.folder.root());
        trainer.check_image_matters()?;
        let mut records = Records {
            metrics: self.surroundings.folder.records(RunFolder::METRICS)?,
            timings: self.surroundings.folder.records(RunFolder::TIMINGS)?,
            validation: self.surroundings.folder.records(VALIDATION)?,
            samples: self.surroundings.folder.records(SAMPLES)?,
            events: self.events(trainer.iteration())?,
        };
        if let Some(warning) =
            prospects::silence(self.surroundings.calibration, self.surroundings.config)
        {
            self.surroundings.reporter.warn(warning, None);
        }
        let (done, all) = (trainer.iteration(), self.surroundings.config.align.iterations);
        let phase = self.surroundings.reporter.phase_from("align", done as u64, all as u64);
        // After an interruption the state may have been saved without the validation that belongs to it.
        let validated = self.health.last().is_some_and(|&(at, _)| at == done);
        if self.validation_is_due(done) && !validated {
            self.validate(trainer, &mut records)?;
        }
        while !trainer.is_finished() {
            let (mut warnings, mut finished) = (Vec::new(), None);
            let outcome = trainer.iterate(&mut |event| match event {
                AlignEvent::Warning(warning) => warnings.push(warning),
                AlignEvent::IterationFinished { metrics } => finished = Some(metrics),
                _ => {}
            });
            self.warn(trainer.iteration(), warnings);
            if let Some(measured) = finished {
                let speed = measured.tokens as f64 / measured.seconds.sample;
                let tokens_per_second = measured.is_own().then_some(speed);
                let timing = TimingRecord {
                    iteration: measured.iteration,
                    seconds: measured.seconds,
                    tokens_per_second,
                    images_encoded: measured.images_encoded,
                };
                records.metrics.write(&measured)?;
                records.timings.write(&timing)?;
                let step = measured.iteration as u64;
                let now = SystemTime::now();
                records.events.scalars(step, now, named(&scalars("align", &*measured)?))?;
                records.events.scalars(step, now, named(&scalars("time", &timing)?))?;
                if measured.iteration == 1 {
                    self.tell_length(measured.seconds.total());
                }
                phase.message(progress(&measured, speed));
                phase.advance(1);
                self.metrics.push(*measured);
            }
            match outcome {
                Ok(_) => self.after_iteration(trainer, &mut records)?,
                Err(error @ AlignError::Unrecoverable { .. }) => {
                    self.save(trainer, &records)?;
                    self.write_adapter(trainer)?;
                    return Err(error.into());
                }
                Err(AlignError::Stopped) => return Err(AlignError::Stopped.into()),
                Err(error) => {
                    // The trainer is as after the last iteration, and that is worth keeping.
                    if trainer.iteration() > 0 {
                        self.save(trainer, &records)?;
                        let done = trainer.iteration();
                        self.surroundings
                            .reporter
                            .note(format!("the state after iteration {done} is saved"));
                    }
                    return Err(error.into());
                }
            }
        }
        phase.finish();
        self.settle();
        self.write_adapter(trainer)
    }

    /// Says how long the whole training takes by its first iteration, where that is worth a line.
    fn tell_length(&self, first: f64) {
        let iterations = self.surroundings.config.align.iterations;
        let all = first * iterations as f64;
        if all >= WORTH_TELLING {
            self.surroundings.reporter.note(format!(
                "the first iteration took {first:.1} s: about {} for all {iterations}",
                duration(all)
            ));
        }
    }

    /// Seconds that all iterations so far have taken, by whichever process.
    pub fn seconds(&self) -> anyhow::Result<f64> {
        let mut seconds = 0.0;
        self.surroundings.folder.each_record(RunFolder::TIMINGS, |line, _| {
            seconds += PhaseSeconds::deserialize(line).map_or(0.0, |phases| phases.total());
        })?;
        Ok(seconds)
    }

    /// Restores the newest state and drops what was recorded after it.
    fn restore_saved(&mut self, trainer: &mut Trainer<'_>) -> anyhow::Result<()> {
        self.surroundings.folder.rename_former(FORMER_VALIDATION, VALIDATION)?;
        self.check_length()?;
        let validation_tasks = trainer.validation_tasks().len();
        let complete = |state: &TrainerState| self.check_records(state.iteration, validation_tasks);
        match self.checkpoints().load(self.surroundings.reporter, complete)? {
            Some(state) => {
                trainer.restore(state)?;
                if self.surroundings.config.constrains_length() && !trainer.constrains_length() {
                    self.surroundings.reporter.note(
                        "this run was started without the length constraint and goes on without it",
                    );
                }
            }
            None => self
                .surroundings
                .reporter
                .note("no state was saved yet: beginning at the first iteration"),
        }
        self.write_extended_config()?;
        let done = trainer.iteration();
        if trainer.is_finished() {
            self.surroundings.reporter.note(format!("all {done} iterations are done"));
        } else if done > 0 {
            let all = self.surroundings.config.align.iterations;
            self.surroundings.reporter.note(format!("resuming after iteration {done} of {all}"));
        }
        // Where no state was saved, the first validation is repeated: the trainer does not have its result.
        let known = |at: usize| at <= done && done > 0;
        // The curves of the report begin where the run began.
        self.metrics = self.kept(RunFolder::METRICS, known)?;
        self.retain(RunFolder::TIMINGS, known, |_| {})?;
        self.retain(SAMPLES, known, |_| {})?;
        let validations: Vec<ValidationRecord> = self.kept(VALIDATION, known)?;
        self.health = validations
            .into_iter()
            .map(|validation| (validation.iteration, validation.health))
            .collect();
        Ok(())
    }

    /// Refuses to shorten a run below what it has done: its last iterations cannot be undone.
    fn check_length(&self) -> anyhow::Result<()> {
        let Surroundings { folder, config, .. } = self.surroundings;
        let (mut done, iterations) = (0, config.align.iterations);
        folder.each_record(RunFolder::METRICS, |_, _| done += 1)?;
        if done > iterations {
            bail!(
                Refusal::new(format!(
                    "{done} iterations are done, more than align.iterations = {iterations}"
                ))
                .hint(format!("write --set align.iterations=N with an N of at least {done}"))
            );
        }
        Ok(())
    }

    /// Writes the settings down where the run was extended or shortened, for whoever resumes it next.
    fn write_extended_config(&self) -> anyhow::Result<()> {
        let Surroundings { folder, config, .. } = self.surroundings;
        let known: AlignConfig = read_toml("configuration", &folder.path(RunFolder::CONFIG))?;
        if known.align.iterations != config.align.iterations {
            folder.write_toml(RunFolder::CONFIG, config)?;
        }
        Ok(())
    }

    /// The records of a file whose number passes; the others are dropped.
    fn kept<T: DeserializeOwned>(
        &self,
        name: &str,
        keep: impl Fn(usize) -> bool,
    ) -> anyhow::Result<Vec<T>> {
        let mut kept = Vec::new();
        self.retain(name, keep, |line| kept.push(line.clone()))?;
        let kept = kept.into_iter().map(serde_json::from_value).collect::<Result<_, _>>();
        kept.with_context(|| format!("{name} is of another version"))
    }

    /// Drops the records of a file whose number does not pass, and shows the others; all count from 1 then.
    fn retain(
        &self,
        name: &str,
        keep: impl Fn(usize) -> bool,
        mut see: impl FnMut(&serde_json::Value),
    ) -> anyhow::Result<()> {
        let shift = self.shift(name)?;
        self.surroundings.folder.retain_records(name, |line| {
            let Some(at) = number(line).map(|at| at + shift) else { return false };
            line[ITERATION] = at.into();
            let keep = keep(at);
            if keep {
                see(line);
            }
            keep
        })?;
        Ok(())
    }

    /// What the numbers in a file lack: earlier versions counted the iterations of metrics and timings from 0.
    fn shift(&self, name: &str) -> anyhow::Result<usize> {
        let mut from_zero = false;
        if [RunFolder::METRICS, RunFolder::TIMINGS].contains(&name) {
            self.surroundings
                .folder
                .each_record(name, |line, _| from_zero |= number(line) == Some(0))?;
        }
        Ok(usize::from(from_zero))
    }

    fn after_iteration(
        &mut self,
        trainer: &mut Trainer<'_>,
        records: &mut Records,
    ) -> anyhow::Result<()> {
        let done = trainer.iteration();
        if self.surroundings.config.checkpoint.best == BestBy::Reward {
            let value = self.metrics.last().map(|metrics| metrics.reward_mean);
            self.offer(trainer, value)?;
        }
        if self.validation_is_due(done) {
            self.validate(trainer, records)?;
        }
        let stopping = self.stop.load(Ordering::Relaxed);
        if done.is_multiple_of(self.surroundings.config.checkpoint.every)
            || stopping
            || trainer.is_finished()
        {
            self.save(trainer, records)?;
        }
        if stopping && !trainer.is_finished() {
            return Err(self.stopped(trainer)?.into());
        }
        Ok(())
    }

    /// Whether a validation is due after so many iterations.
    fn validation_is_due(&self, done: usize) -> bool {
        let AlignConfig { validation_every, align, .. } = self.surroundings.config;
        let due = *validation_every > 0 && done.is_multiple_of(*validation_every);
        due || done == 0 || done >= align.iterations
    }

    /// What the user is told after asking for a stop; the state after the last iteration is saved if it was not.
    fn stopped(&self, trainer: &Trainer<'_>) -> anyhow::Result<Interrupted> {
        let (done, all) = (trainer.iteration(), self.surroundings.config.align.iterations);
        if done > 0 && self.checkpoints().newest() != Some(done) {
            self.save_state(trainer)?;
        }
        let command = &self.resume_command;
        let message = if done == 0 {
            format!("stopped before the first iteration was done. Run it again:\n  {command}")
        } else {
            format!(
                "stopped after iteration {done} of {all}; the state is saved. Continue with:\n  {command}"
            )
        };
        Ok(Interrupted { message })
    }

    /// Refuses records that lack an iteration or a validation which a state after so many iterations comes after. The validation at that
    /// state itself is made again where it is missing.
    fn check_records(&self, done: usize, validation_tasks: usize) -> anyhow::Result<()> {
        let validations = (0..done).filter(|&at| self.validation_is_due(at));
        let sampled = validation_tasks.min(SAMPLED);
        let validations = validations
            .map(|at| (at, usize::from(validation_tasks > 0), sampled))
            .collect::<Vec<_>>();
        for (name, expected) in [
            (RunFolder::METRICS, (1..=done).map(|at| (at, 1)).collect::<Vec<_>>()),
            (RunFolder::TIMINGS, (1..=done).map(|at| (at, 1)).collect()),
            (VALIDATION, validations.iter().map(|&(at, validation, _)| (at, validation)).collect()),
            (SAMPLES, validations.iter().map(|&(at, _, samples)| (at, samples)).collect()),
        ] {
            let shift = self.shift(name)?;
            let mut found: BTreeMap<usize, usize> = BTreeMap::new();
            self.surroundings.folder.each_record(name, |line, _| {
                if let Some(at) = number(line) {
                    *found.entry(at + shift).or_default() += 1;
                }
            })?;
            let count = |at: &usize| found.get(at).copied().unwrap_or(0);
            let wrong = expected.iter().find(|(at, expected)| count(at) != *expected);
            if let Some((at, expected)) = wrong {
                let (path, found) = (self.path(name), count(at));
                let message = format!(
                    "{} has {found} records of iteration {at}, not {expected}",
                    path.display()
                );
                let hint = "put the file back as it was, or start again in another folder";
                return Err(Refusal::new(message).hint(hint).into());
            }
        }
        Ok(())
    }

    fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.path(CHECKPOINT))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.surroundings.folder.path(name)
    }

    /// Saves the state after the records that it comes after are on the disk.
    fn save(&self, trainer: &Trainer<'_>, records: &Records) -> anyhow::Result<()> {
        for writer in [&records.metrics, &records.timings, &records.validation, &records.samples] {
            writer.sync()?;
        }
        self.save_state(trainer)
    }

    fn save_state(&self, trainer: &Trainer<'_>) -> anyhow::Result<()> {
        let checkpoints = self.checkpoints();
        let saved = checkpoints.save(&trainer.state(), self.surroundings.config.checkpoint.keep);
        saved.map_err(|error| {
            let done = trainer.iteration();
            let message = format!("the state after iteration {done} could not be saved: {error}");
            let whole = checkpoints.newest().map_or_else(
                || "no state was saved before".to_owned(),
                |saved| format!("the state after iteration {saved} is whole"),
            );
            let hint =
                format!("{whole}; free some space, then resume with: {}", self.resume_command);
            Refusal::new(message).hint(hint).into()
        })
    }

    /// Looks at the validation tasks and notes what they show.
    fn validate(&mut self, trainer: &mut Trainer<'_>, records: &mut Records) -> anyhow::Result<()> {
        let mut warnings = Vec::new();
        let validation = trainer.run_validation(&mut |event| {
            if let AlignEvent::Warning(warning) = event {
                warnings.push(warning);
            }
        })?;
        let done = trainer.iteration();
        self.warn(done, warnings);
        let Some(ValidationResult { health, captions }) = validation else { return Ok(()) };
        records.validation.write(&ValidationRecord { iteration: done, health })?;
        let scalars = scalars("validation", &health)?;
        records.events.scalars(done as u64, SystemTime::now(), named(&scalars))?;
        self.show_samples(trainer, &captions[..captions.len().min(SAMPLED)], records)?;
        self.health.push((done, health));
        match self.surroundings.config.checkpoint.best {
            BestBy::ValidationReward => self.offer(trainer, Some(health.reward)),
            BestBy::ValidationRecall => self.offer(trainer, health.recall),
            BestBy::None | BestBy::Reward => Ok(()),
        }
    }

    /// Event files of a run after so many iterations; those of iterations that are repeated are taken back.
    fn events(&self, done: usize) -> anyhow::Result<EventWriter> {
        let (folder, now) = (self.path(TENSORBOARD), SystemTime::now());
        Ok(if folder.exists() {
            EventWriter::resume(&folder, done as u64 + 1, now)?
        } else {
            EventWriter::create(&folder, now)?
        })
    }

    /// Writes down what the policy says of the first validation tasks, with the words that it is paid for.
    fn show_samples(
        &self,
        trainer: &Trainer<'_>,
        captions: &[ScoredResponse],
        records: &mut Records,
    ) -> anyhow::Result<()> {
        let (done, now) = (trainer.iteration(), SystemTime::now());
        let mut shown = Vec::with_capacity(captions.len());
        for caption in captions {
            let task = &trainer.validation_tasks()[caption.task];
            let (mut words, mut coloured) = (Vec::new(), Vec::new());
            for word in trainer.verdicts(caption) {
                let there = self
                    .surroundings
                    .calibration
                    .probability(word.score, ProbabilityModel::default());
                let characters = |byte: usize| caption.text[..byte].chars().count();
                words.push(SampleWord {
                    start: characters(word.span.start),
                    end: characters(word.span.end),
                    category: word.category.clone(),
                    score: word.score,
                    p_hallucinated: 1.0 - there,
                    reward: word.reward,
                });
                coloured.push(VerdictWord {
                    bytes: word.span,
                    category: word.category,
                    negated: false,
                    score: word.score,
                    p_hallucinated: Some(1.0 - there),
                    hallucinated: Some(there < 0.5),
                    heat_map: None,
                });
            }
            let (image, text) = (task.id.as_str(), caption.text.as_str());
            records.samples.write(&SampleRecord {
                iteration: done,
                image,
                caption: text,
                words,
            })?;
            records.events.text(&format!("samples/{image}"), done as u64, now, text)?;
            let pixels = self.surroundings.processor.image(&task.image);
            let png = png(pixels.as_raw(), pixels.dimensions(), ExtendedColorType::Rgb8);
            shown.push(Sample {
                image_png: Some(png),
                prompt: image.to_owned(),
                caption: caption.text.clone(),
                words: coloured,
            });
        }
        let name = format!("{SAMPLE_PAGES}/iteration-{done:05}.html");
        Ok(self.surroundings.folder.write_bytes(&name, samples_page(done, &shown).as_bytes())?)
    }

    /// Keeps the adapter if its value is the best so far. What equals the best is not better, so that iterations which are
    /// repeated after an interruption change nothing.
    fn offer(&self, trainer: &Trainer<'_>, value: Option<f64>) -> anyhow::Result<()> {
        let (Some(value), done) = (value, trainer.iteration()) else { return Ok(()) };
        let path = self.path(BEST);
        let best: Option<Best> =
            if path.exists() { Some(read_json("best state", &path)?) } else { None };
        if best.is_some_and(|best| best.value >= value) {
            return Ok(());
        }
        self.write_adapter_to(trainer, BEST_ADAPTER)?;
        let best = Best { iteration: done, by: self.surroundings.config.checkpoint.best, value };
        Ok(self.surroundings.folder.write_json(BEST, &best)?)
    }

    /// Shows a warning when its kind comes up for the first time; after that it is counted, and the
    /// latest figures are kept. `done` iterations were done when it came up.
    fn warn(&mut self, done: usize, warnings: Vec<Warning>) {
        for Warning { code, message, hint } in warnings {
            let message = match done {
                0 => format!("before training: {message}"),
                done => format!("after iteration {done}: {message}"),
            };
            let known = self.warned.iter().position(|(known, ..)| *known == code);
            if let Some(index) = known {
                let (_, count, last) = &mut self.warned[index];
                (*count, *last) = (*count + 1, done);
                self.warnings[index] = format!("{message} ({count} times, last shown; {hint})");
            } else {
                self.surroundings.reporter.warn(&message, Some(&hint));
                self.warnings.push(format!("{message} ({hint})"));
                self.warned.push((code, 1, done));
            }
        }
    }

    /// Says of what the calibration split gave rise to, and no longer does, that it is over.
    fn settle(&mut self) {
        let Some(&(end, _)) = self.health.last() else { return };
        for ((code, _, last), text) in self.warned.iter().zip(&mut self.warnings) {
            let validation_tasks = [
                WarningCode::SeparationLost,
                WarningCode::RecallDropped,
                WarningCode::RecallMisestimated,
            ]
            .contains(code);
            if validation_tasks && *last < end {
                text.push_str("; over at the last validation");
            }
        }
    }

    /// Writes the trained adapter into the run folder.
    fn write_adapter(&self, trainer: &Trainer<'_>) -> anyhow::Result<()> {
        self.write_adapter_to(trainer, RunFolder::ADAPTER)
    }

    fn write_adapter_to(&self, trainer: &Trainer<'_>, name: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        std::fs::create_dir_all(&path).map_err(|error| FormatError::io("create", &path, error))?;
        Adapter::of(
            trainer.policy(),
            &self.surroundings.config.lora,
            Some(self.surroundings.base_model),
        )
        .write(&path)?;
        Ok(())
    }
}

/// The numbers of a record under names for TensorBoard.
fn scalars(group: &str, record: &impl Serialize) -> anyhow::Result<Vec<(String, f64)>> {
    let serde_json::Value::Object(fields) = serde_json::to_value(record)? else {
        return Ok(Vec::new());
    };
    let numbers = fields.iter().filter(|(name, _)| *name != ITERATION);
    Ok(numbers
        .filter_map(|(name, value)| Some((format!("{group}/{name}"), value.as_f64()?)))
        .collect())
}

fn named(scalars: &[(String, f64)]) -> impl Iterator<Item = (&str, f64)> {
    scalars.iter().map(|(name, value)| (name.as_str(), *value))
}

/// The number of a record.
fn number(record: &serde_json::Value) -> Option<usize> {
    record.get(ITERATION)?.as_u64().map(|number| number as usize)
}

/// What a progress line says of an iteration.
fn progress(metrics: &IterationMetrics, tokens_per_second: f64) -> String {
    let IterationMetrics { reward_mean, length_mean, policy_loss, .. } = metrics;
    match metrics.kl {
        Some(kl) => format!(
            "reward {reward_mean:+.2}, KL {kl:.2}, {length_mean:.1} tokens, {tokens_per_second:.0}/s"
        ),
        None => format!("loss {policy_loss:.3}, {length_mean:.1} tokens"),
    }
}
