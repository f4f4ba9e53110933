//! The embedded models in the built-in synthetic dataset: what `fisao demo`, `fisao align --demo` and `fisao compare` train.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use fisao_align::mentions::MentionScorer;
use fisao_align::objective::Data;
use fisao_align::tasks::{Task, TaskList, TaskSource as _};
use fisao_align::trainer::ValidationSet;
use fisao_align::{AlignConfig, AlignError, StopFlag};
use fisao_models::generation::Sampling;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_scenes::{PROMPTS, Split, World, WorldKind};
use fisao_verifier::calibration::{Calibration, Labels};
use serde::{Deserialize, Serialize};

use super::SceneTasks;
use crate::bundle::{LoadedVerifier, PairSource, Policy, Views, Wanted, embedded};
use crate::device::OpenDevice;
use crate::models::{ImageSet, Models, response_file};
use crate::processes::Opening;
use crate::reporter::Reporter;
use crate::response_file::ResponseFile;
use crate::score_settings::ScoreSettings;
use crate::vocabulary::Vocabulary;

/// Training scenes that a run may draw from; far more than it uses.
const TRAIN_SCENES: usize = 1 << 20;

/// How many scenes a run calibrates, validates and is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Scenes that calibration captions.
    pub calibration: usize,
    /// Those of them for validation during training.
    pub validation_tasks: usize,
    /// Held-out scenes that are captioned.
    pub test: usize,
}

impl Sizes {
    /// The usual ones, or those of a shorter and rougher run.
    pub fn of(quick: bool) -> Self {
        if quick {
            Self { calibration: 128, validation_tasks: 32, test: 64 }
        } else {
            Self { calibration: 512, validation_tasks: 128, test: 500 }
        }
    }
}

/// The embedded models and the world they live in.
pub struct DemoSetup {
    /// What draws scenes.
    pub world: World,
    /// The model.
    pub policy: Policy,
    /// Its verifier.
    pub verifier: LoadedVerifier,
    /// What the verifier sees besides the model's own pixels.
    pub views: Option<Views>,
    /// The objects' names.
    pub words: Vocabulary,
}

impl DemoSetup {
    /// Unpacks and loads the models of a world.
    pub fn open(
        config: &AlignConfig,
        world: WorldKind,
        opened: &OpenDevice,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let source = PairSource { world, ..PairSource::default() };
        let wanted = Wanted::Pair(source, ScoreSettings::of_run(config));
        let opening = Opening::begin(&wanted, opened)?;
        let models = embedded(world)?;
        let device = &opened.device;
        let mut policy = models.policy(None, device, reporter)?;
        opened.copy_model(&mut policy.model, reporter)?;
        let mut verifier = models.verifier(ScoreSettings::of_run(config), device, reporter)?;
        let views = verifier.views_beside(&policy, false, reporter)?;
        verifier.use_card(Some(&policy), opened, reporter)?;
        policy.processes = opening.finish()?;
        let world = World::of(world);
        let setup = Self { world, policy, verifier, views, words: Vocabulary::of_world() };
        setup.check_length(config)?;
        Ok(setup)
    }

    /// Refuses responses that the model's positions leave no room for.
    pub fn check_length(&self, config: &AlignConfig) -> Result<(), AlignError> {
        let tasks = self.tasks(Split::Calibration, config.seed, PROMPTS.len());
        let prompts = (0..PROMPTS.len()).map(|at| Ok(tasks.task(at)?.prompt.len()));
        let longest =
            prompts.collect::<Result<Vec<_>, AlignError>>()?.into_iter().max().unwrap_or(0);
        let context = self.policy.model.language_model().config().max_position_embeddings;
        let room = context.saturating_sub(longest);
        if config.max_new_tokens <= room {
            return Ok(());
        }
        Err(AlignError::OutOfRange {
            key: "max-new-tokens".to_owned(),
            found: config.max_new_tokens.to_string(),
            allowed: format!(
                "at most {room}, as the prompt with its image takes {longest} of the model's {context} positions"
            ),
        })
    }

    /// What reads responses.
    pub fn scorer(&self) -> anyhow::Result<MentionScorer> {
        Ok(MentionScorer {
            tokenizer: Arc::clone(&self.policy.tokenizer) as _,
            vocabulary: self.words.for_mentions()?,
            verifier: self.verifier.verifier.clone(),
        })
    }

    /// The model and its verifier, as any run has them.
    pub(crate) fn models(&self) -> anyhow::Result<Models<'_>> {
        let (policy, verifier, words) = (&self.policy, &self.verifier, &self.words);
        Ok(Models { policy, verifier, words, measured_words: words, scorer: self.scorer()? })
    }

    /// The same on a calibration's scale.
    pub fn calibrated_scorer(&self, calibration: &Calibration) -> anyhow::Result<MentionScorer> {
        let mut scorer = self.scorer()?;
        scorer.verifier.apply_calibration(calibration);
        Ok(scorer)
    }

    /// Scenes of a split, under all prompts in turn but for the test scenes.
    pub fn tasks(&self, split: Split, seed: u64, count: usize) -> SceneTasks<'_> {
        SceneTasks {
            world: &self.world,
            split,
            seed,
            count,
            policy: &self.policy,
            views: self.views.as_ref(),
            all_prompts: split != Split::Test,
            answers: Data::Sampled,
        }
    }

    /// Scenes to train on, with the answers that the objective learns from.
    pub fn training(&self, config: &AlignConfig) -> SceneTasks<'_> {
        let answers = config.objective.definition().data();
        SceneTasks { answers, ..self.tasks(Split::Train, config.seed, TRAIN_SCENES) }
    }

    /// A file beside `output` in which responses of a model to some tasks are kept until that is there: of the base model, or
    /// of one that an adapter was put on.
    pub fn response_file(
        &self,
        output: &Path,
        (model, tasks): (&VisionLanguageModel, &[Task]),
        sampling: &Sampling,
        reporter: &Reporter,
    ) -> anyhow::Result<ResponseFile> {
        let tasks = TaskList(tasks);
        Ok(response_file(&self.policy, output, (model, &tasks), sampling, reporter)?.0)
    }

    /// Estimates the thresholds from the policy's own sampled captions of labelled tasks. Responses are kept beside `output`,
    /// which is where the calibration will be, if it is given; a raised flag ends the work with [`AlignError::Stopped`].
    pub fn calibrate(
        &self,
        config: &AlignConfig,
        labels: Labels,
        (tasks, truth): (&[Task], &[BTreeSet<String>]),
        control: (Option<&Path>, &StopFlag),
        reporter: &Reporter,
    ) -> anyhow::Result<Calibration> {
        let tasks = TaskList(tasks);
        let images = ImageSet { tasks: &tasks, truth: known_truth(truth, labels) };
        self.models()?.calibrate(config, (&images, None), control, reporter)
    }
}

/// The objects of labelled scenes, as far as a calibration may know them.
pub(crate) fn known_truth(
    truth: &[BTreeSet<String>],
    labels: Labels,
) -> Option<Vec<Option<BTreeSet<String>>>> {
    (labels == Labels::Annotations).then(|| truth.iter().cloned().map(Some).collect())
}

/// The first of some labelled tasks, for validation during training.
pub fn validation(tasks: &[Task], truth: &[BTreeSet<String>], count: usize) -> ValidationSet {
    ValidationSet { tasks: tasks[..count].to_vec(), truth: Some(truth[..count].to_vec()) }
}
