//! A run in the built-in synthetic dataset.

use fisao_align::tasks::TaskList;
use fisao_formats::run_folder::RunFolder;
use fisao_scenes::{Split, WorldKind};
use fisao_verifier::calibration::Labels;

use super::{Outcome, Run};
use crate::models::ImageSet;
use crate::pipeline::{Pipeline, TrainingData};
use crate::world::{DemoSetup, Sizes, known_truth, validation};

impl Run<'_> {
    /// Calibrates and trains in the built-in synthetic dataset. The folder is there before the calibration, whose responses are
    /// kept in it until that is done.
    pub(super) fn train_on_scenes(
        &self,
        labels: Labels,
        world: WorldKind,
    ) -> anyhow::Result<Outcome> {
        let setup = DemoSetup::open(&self.config, world, &self.opened, self.reporter)?;
        let folder = match (&self.begun, &self.output) {
            (Some(folder), _) => Some(folder.clone()),
            (None, Some(output)) => Some(self.begin(output, &self.config, None, None)?),
            (None, None) => None,
        };
        self.train_on_scenes_in(folder.as_ref(), &setup, labels)
            .map_err(|error| self.ended(folder.as_ref(), error))
    }

    fn train_on_scenes_in(
        &self,
        folder: Option<&RunFolder>,
        setup: &DemoSetup,
        labels: Labels,
    ) -> anyhow::Result<Outcome> {
        let (config, sizes) = (&self.config, Sizes::of(false));
        let pipeline = Pipeline {
            config,
            models: setup.models()?,
            folder,
            resumed: self.begun.is_some(),
            stop: (self.stop)()?,
            resume_command: &self.request.resume_command,
            reporter: self.reporter,
        };
        let known = setup.tasks(Split::Calibration, config.seed, sizes.calibration).labelled()?;
        let truth = known_truth(&known.1, labels);
        let calibration =
            pipeline.own_calibration(&ImageSet { tasks: &TaskList(&known.0), truth }, None)?;
        let tasks = setup.training(config);
        let validation = Some(validation(&known.0, &known.1, sizes.validation_tasks));
        let data = TrainingData { tasks: &tasks, validation };
        let mut trainer = pipeline.trainer(&calibration, data)?;
        self.note_objective(config, &trainer);
        let Some(folder) = folder else {
            return self.dry_run(&pipeline, &mut trainer, Some(&calibration));
        };
        pipeline.train(&mut trainer, &calibration, folder)?;
        Ok(self.trained(folder, None))
    }
}
