//! The part that `fisao align` and `fisao demo` share: running a trainer inside a run folder.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use fisao_align::events::{AlignEvent, IterationMetrics, Warning, WarningCode};
use fisao_align::guards::SplitHealth;
use fisao_align::trainer::Trainer;
use fisao_formats::{Adapter, RunFolder};
use fisao_models::lora::LoraConfig;

use crate::failure::Interrupted;
use crate::reporter::Reporter;
use crate::state_files;

/// Folder of the resumable state inside a run folder.
const CHECKPOINT: &str = "checkpoint";

/// Iterations between two saved states.
const SAVE_EVERY: usize = 10;

/// A trainer's surroundings, and what it reported.
pub(crate) struct Training<'a> {
    pub(crate) folder: &'a RunFolder,
    pub(crate) reporter: &'a Reporter,
    /// Raised by Ctrl-C.
    pub(crate) stop: Arc<AtomicBool>,
    /// Command that continues an interrupted run.
    pub(crate) resume_command: String,
    /// Iterations in all, and between two looks at the calibration split (0: never).
    pub(crate) iterations: usize,
    pub(crate) check_every: usize,
    /// What the user was warned about, one text per kind.
    pub(crate) warnings: Vec<String>,
    /// Kind of each of the warnings, how often it came up, and when it last did, in iterations done.
    pub(crate) warned: Vec<(WarningCode, usize, usize)>,
    pub(crate) metrics: Vec<IterationMetrics>,
    /// What the looks at the calibration split showed, by iterations done.
    pub(crate) health: Vec<(usize, SplitHealth)>,
}

impl Training<'_> {
    /// Runs the trainer to its end, from the saved state with `resume`.
    ///
    /// # Errors
    /// [`Interrupted`] when the user asked to stop; the state is saved then.
    pub(crate) fn run(&mut self, trainer: &mut Trainer<'_>, resume: bool) -> anyhow::Result<()> {
        if resume {
            trainer.restore(state_files::load(&self.checkpoint())?)?;
            let done = trainer.iteration();
            let kept = RefCell::new(Vec::new());
            self.folder.retain_metrics(|line| {
                let iteration = line.get("iteration").and_then(serde_json::Value::as_u64);
                let keep = iteration.is_some_and(|at| at < done as u64);
                if keep {
                    kept.borrow_mut().push(line.clone());
                }
                keep
            })?;
            // The curves of the report begin where the run began.
            let before = kept.into_inner().into_iter().map(serde_json::from_value);
            self.metrics = before
                .collect::<Result<_, _>>()
                .with_context(|| format!("{} is of another version", RunFolder::METRICS))?;
        }
        trainer.check_image_matters()?;
        let mut metrics = self.folder.metrics()?;
        let done = trainer.iteration() as u64;
        let phase = self.reporter.phase_from("align", done, self.iterations as u64);
        self.look(trainer)?;
        while !trainer.is_finished() {
            let mut warnings = Vec::new();
            let measured = trainer.iterate(&mut |event| {
                if let AlignEvent::Warning(warning) = event {
                    warnings.push(warning);
                }
            })?;
            self.warn(trainer.iteration(), warnings);
            metrics.write(&measured)?;
            phase.message(format!(
                "reward {:+.2}, KL {:.2}, {:.1} tokens",
                measured.reward_mean, measured.kl, measured.length_mean
            ));
            phase.advance(1);
            self.metrics.push(measured);
            self.after_iteration(trainer)?;
        }
        phase.finish();
        self.settle();
        Ok(())
    }

    fn after_iteration(&mut self, trainer: &mut Trainer<'_>) -> anyhow::Result<()> {
        let done = trainer.iteration();
        let due = self.check_every > 0 && done.is_multiple_of(self.check_every);
        if due || trainer.is_finished() {
            self.look(trainer)?;
        }
        let stopping = self.stop.load(Ordering::Relaxed);
        if done.is_multiple_of(SAVE_EVERY) || stopping {
            state_files::save(&self.checkpoint(), &trainer.state())?;
        }
        if stopping && !trainer.is_finished() {
            let message = format!(
                "stopped after iteration {done} of {}; the state is saved. Continue with:\n  {}",
                self.iterations, self.resume_command
            );
            return Err(Interrupted { message }.into());
        }
        Ok(())
    }

    fn checkpoint(&self) -> PathBuf {
        self.folder.path(CHECKPOINT)
    }

    /// Looks at the calibration split and notes what it shows.
    fn look(&mut self, trainer: &mut Trainer<'_>) -> anyhow::Result<()> {
        let mut warnings = Vec::new();
        let health = trainer.check_watch(&mut |event| {
            if let AlignEvent::Warning(warning) = event {
                warnings.push(warning);
            }
        })?;
        self.warn(trainer.iteration(), warnings);
        if let Some(health) = health {
            self.health.push((trainer.iteration(), health));
        }
        Ok(())
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
                self.reporter.warn(&message, Some(&hint));
                self.warnings.push(format!("{message} ({hint})"));
                self.warned.push((code, 1, done));
            }
        }
    }

    /// Says of what the calibration split gave rise to, and no longer does, that it is over.
    fn settle(&mut self) {
        let Some(&(end, _)) = self.health.last() else { return };
        for ((code, _, last), text) in self.warned.iter().zip(&mut self.warnings) {
            let watched = [WarningCode::SeparationLost, WarningCode::RecallDropped].contains(code);
            if watched && *last < end {
                text.push_str("; over at the last look");
            }
        }
    }

    /// Writes the trained adapter into the run folder.
    pub(crate) fn write_adapter(
        &self,
        trainer: &Trainer<'_>,
        config: &LoraConfig,
        base_model: &str,
    ) -> anyhow::Result<()> {
        let path = self.folder.path(RunFolder::ADAPTER);
        std::fs::create_dir_all(&path).map_err(|source| fisao_formats::FormatError::Io {
            action: "create",
            path: path.clone(),
            source,
        })?;
        Adapter::of(trainer.policy(), config, Some(base_model)).write(&path)?;
        Ok(())
    }
}
