//! The steps of a run, in their order: calibrate → caption held-out images → align → caption them again → publish.
//!
//! `fisao demo` and both forms of `fisao align` are this over their own images: scenes, or files. Every step keeps what it has
//! done in the run's folder, so that a run that was ended in any of them goes on there.

pub(crate) mod estimates;
pub(crate) mod evaluation;
pub(crate) mod publication;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fisao_align::events::IterationMetrics;
use fisao_align::features::FeatureCache;
use fisao_align::guards::SplitHealth;
use fisao_align::mentions::MentionScorer;
use fisao_align::tasks::TaskSource;
use fisao_align::trainer::{Trainer, ValidationSet};
use fisao_align::{AlignConfig, AlignError, StopFlag};
use fisao_formats::run_folder::RunFolder;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::calibration::Calibration;
use fisao_verifier::rewards::RewardRule;
use serde::Serialize;

use crate::calibrations::{self, CALIBRATION};
use crate::failure::told;
use crate::models::{ImageSet, Models};
use crate::reporter::Reporter;
use crate::response_file;
use crate::scored_captions::ScoredCaptions;
use crate::training::{Surroundings, Training};

use evaluation::{DECODINGS, Decodings, EvaluatedCaptions};

/// The models whose captions are compared.
const MODELS: [&str; 2] = ["base", "aligned"];

/// A run in its folder.
pub(crate) struct Pipeline<'a> {
    /// Its settings.
    pub config: &'a AlignConfig,
    /// What it is made with.
    pub models: Models<'a>,
    /// Where everything is written; none in a dry run.
    pub folder: Option<&'a RunFolder>,
    /// Whether it was begun before.
    pub resumed: bool,
    /// Raised by Ctrl-C.
    pub stop: Arc<AtomicBool>,
    /// Command that resumes it.
    pub resume_command: &'a str,
    /// What is told on the way.
    pub reporter: &'a Reporter,
}

/// What a trainer learns from.
pub(crate) struct TrainingData<'a> {
    /// Images to train on.
    pub tasks: &'a dyn TaskSource,
    /// Images for validation during training.
    pub validation: Option<ValidationSet>,
}

/// Seconds of a run's parts.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Seconds {
    pub calibrate: f64,
    pub align: f64,
    pub evaluate: f64,
    pub total: f64,
}

/// What training has recorded, and what it gave reason to warn of.
pub(crate) struct TrainingRecord {
    pub metrics: Vec<IterationMetrics>,
    pub health: Vec<(usize, SplitHealth)>,
    pub warnings: Vec<String>,
}

/// Captions of held-out images before and after, and what training recorded.
pub(crate) struct Results {
    pub base: Decodings,
    pub aligned: Decodings,
    pub training: TrainingRecord,
    pub seconds: Seconds,
    /// On the calibration's scale.
    pub scorer: MentionScorer,
}

impl Pipeline<'_> {
    /// What the user is told after asking for a stop outside of training.
    pub(crate) fn stopped(&self) -> String {
        stopped(self.folder, self.resume_command)
    }

    /// An error in the user's words: a stop that was asked for is an interruption.
    pub(crate) fn told(&self, error: anyhow::Error) -> anyhow::Error {
        told(error, || self.stopped())
    }

    /// The run's own calibration, which a run that is resumed keeps, or one that is made now and written. Responses are kept
    /// until it is there; one that the reward cannot use is not. Captions that are there already are not made again.
    ///
    /// # Errors
    /// [`AlignError::Stopped`] where that was asked for. Otherwise what cannot be calibrated.
    pub(crate) fn own_calibration(
        &self,
        images: &ImageSet<'_>,
        captioned: Option<ScoredCaptions>,
    ) -> anyhow::Result<Calibration> {
        let path = self.folder.map(|folder| folder.path(CALIBRATION));
        if let Some(path) = path.as_ref().filter(|path| path.exists()) {
            return calibrations::read(path);
        }
        let control = (path.as_deref(), &StopFlag::new(Arc::clone(&self.stop)));
        let made =
            self.models.calibrate(self.config, (images, captioned), control, self.reporter)?;
        RewardRule::new(&self.config.reward, &made).map_err(AlignError::from)?;
        self.models.verifier.check_auc(&made, self.config.guards.verifier_auc)?;
        if let Some(path) = path {
            calibrations::write(&path, &made)?;
            response_file::discard(&path);
        }
        Ok(made)
    }

    /// A trainer of these models.
    pub(crate) fn trainer<'a>(
        &self,
        calibration: &Calibration,
        data: TrainingData<'a>,
    ) -> anyhow::Result<Trainer<'a>> {
        let (config, model) = (self.config.clone(), self.models.policy.model.clone());
        // A scorer without the embeddings of an evaluation: those of names that come up together differ in their last bits.
        let scorer = self.models.scorer.clone();
        let mut trainer =
            Trainer::new(config, model, scorer, calibration, data.tasks, data.validation)?;
        trainer.share_with(self.models.policy.processes.clone());
        Ok(trainer)
    }

    /// Trains to the end, from the newest saved state where the run is resumed, and writes the adapter.
    pub(crate) fn train(
        &self,
        trainer: &mut Trainer<'_>,
        calibration: &Calibration,
        folder: &RunFolder,
    ) -> anyhow::Result<TrainingRecord> {
        let surroundings = Surroundings {
            folder,
            reporter: self.reporter,
            config: self.config,
            calibration,
            processor: &self.models.policy.processor,
            base_model: &self.models.policy.name,
        };
        let command = self.resume_command.to_owned();
        let mut training = Training::new(surroundings, Arc::clone(&self.stop), command);
        training.run(trainer, self.resumed)?;
        let Training { metrics, health, warnings, .. } = training;
        Ok(TrainingRecord { metrics, health, warnings })
    }

    /// Captions held-out images, trains, and captions them again.
    pub(crate) fn train_and_evaluate(
        &self,
        calibration: &Calibration,
        data: TrainingData<'_>,
        test: &ImageSet<'_>,
        folder: &RunFolder,
    ) -> anyhow::Result<Results> {
        let mut seconds = Seconds::default();
        let mut scorer = self.models.calibrated_scorer(calibration);
        // Four captions are written of each held-out image; nothing of an encoder is trained.
        let mut cache = FeatureCache::in_memory(self.config.align.feature_cache_mb);
        // First, as it refuses what cannot be trained.
        let mut trainer = self.trainer(calibration, data)?;
        let mut evaluate = |name, model: &VisionLanguageModel, seconds: &mut Seconds| {
            let started = Instant::now();
            let kept = (&mut scorer, &mut cache);
            let captions = self.captions((name, model), kept, test, folder)?;
            seconds.evaluate += started.elapsed().as_secs_f64();
            anyhow::Ok(captions)
        };
        let base = evaluate(MODELS[0], &self.models.policy.model, &mut seconds)?;
        let started = Instant::now();
        let training = self.train(&mut trainer, calibration, folder)?;
        seconds.align = started.elapsed().as_secs_f64();
        let aligned = evaluate(MODELS[1], trainer.policy(), &mut seconds)?;
        Ok(Results { base, aligned, training, seconds, scorer })
    }

    /// Greedy and sampled captions of one model.
    fn captions(
        &self,
        (name, model): (&str, &VisionLanguageModel),
        (scorer, cache): (&mut MentionScorer, &mut FeatureCache),
        images: &ImageSet<'_>,
        folder: &RunFolder,
    ) -> anyhow::Result<Decodings> {
        let total = DECODINGS.len() * images.tasks.count();
        let phase = self.reporter.phase(&format!("evaluate {name}"), total as u64);
        let stop = StopFlag::new(Arc::clone(&self.stop));
        let mut decoded = |(how, temperature)| {
            let work = evaluation::Work {
                models: &self.models,
                model,
                config: self.config,
                images,
                sampling: evaluation::sampling(self.config, temperature),
                output: captions_of(folder, name, how),
                stop: &stop,
                reporter: self.reporter,
            };
            work.captions((&mut *scorer, &mut *cache), &|done| phase.advance(done as u64))
        };
        let [greedy, sampled] = DECODINGS;
        let decodings = Decodings { greedy: decoded(greedy)?, sampled: decoded(sampled)? };
        phase.finish();
        Ok(decodings)
    }
}

/// See [`Pipeline::stopped`].
pub(crate) fn stopped(folder: Option<&RunFolder>, resume_command: &str) -> String {
    match folder {
        Some(_) => {
            format!("stopped; what was finished is saved. Continue with:\n  {resume_command}")
        }
        None => "stopped; a dry run keeps nothing".to_owned(),
    }
}

/// What captions of a model are kept under until the run is done, by the model's name and how they were decoded.
fn captions_of(folder: &RunFolder, model: &str, how: &str) -> PathBuf {
    folder.path(format!("captions-{model}-{how}"))
}

/// Whether captions of the base model are kept in a run's folder, or the calibration that a run made of them.
pub(crate) fn keeps_captions(folder: &RunFolder, calibrates: bool) -> bool {
    let calibration = folder.path(CALIBRATION);
    let base = DECODINGS.map(|(how, _)| captions_of(folder, MODELS[0], how));
    (calibrates && calibration.exists())
        || response_file::is_kept(&calibration)
        || base.iter().any(|output| response_file::is_kept(output))
}

/// Removes the captions that were kept to resume with.
pub(crate) fn discard_captions(folder: &RunFolder) {
    for model in MODELS {
        for (how, _) in DECODINGS {
            response_file::discard(&captions_of(folder, model, how));
        }
    }
}

impl Results {
    /// Both models' captions by how they were decoded, each way with its name.
    pub(crate) fn pairs(&self) -> [(&'static str, &EvaluatedCaptions, &EvaluatedCaptions); 2] {
        [
            ("greedy", &self.base.greedy, &self.aligned.greedy),
            ("sampled T=1", &self.base.sampled, &self.aligned.sampled),
        ]
    }
}
