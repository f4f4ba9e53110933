//! Where a study's images come from: scenes of the built-in synthetic dataset, or a folder with annotations.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::bail;
use fisao_align::AlignError;
use fisao_align::objective::Data;
use fisao_align::tasks::{Task, TaskSource};
use fisao_eval::captions::{References, read_references};
use fisao_eval::chair::Rules;
use fisao_formats::documents::open_text;
use fisao_runs::bundle::{Policy, Views, title};
use fisao_runs::ground_truth::{self, Annotations};
use fisao_runs::tasks::{ImageTasks, checked_images};
use fisao_runs::vocabulary::Vocabulary;
use fisao_runs::world::{self, SceneTasks};
use fisao_runs::{Refusal, Reporter};
use fisao_scenes::{PROMPTS, Split, World};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::StudyRequest;

/// The half of the images a measurement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What thresholds are set on.
    Calibration,
    /// What is measured.
    Test,
}

/// Images with what is in them.
pub(super) enum Source<'a> {
    /// Scenes of the built-in synthetic dataset.
    World { world: World, policy: &'a Policy, calibration: usize, test: usize },
    /// Image files.
    Folder(Box<Folder<'a>>),
}

/// Image files with annotations.
pub(super) struct Folder<'a> {
    tasks: ImageTasks<'a>,
    truth: Vec<BTreeSet<String>>,
    references: Option<References>,
    calibration: usize,
    test: usize,
}

/// Some of a folder's images.
struct Chosen<'a> {
    tasks: &'a ImageTasks<'a>,
    order: Vec<usize>,
    views: Option<&'a Views>,
}

impl TaskSource for Chosen<'_> {
    fn count(&self) -> usize {
        self.order.len()
    }

    fn task(&self, index: usize) -> Result<Task, AlignError> {
        self.tasks.task_with(self.order[index], self.views)
    }
}

impl<'a> Source<'a> {
    /// What was asked for, checked before any work is done.
    pub(super) fn open(
        request: &StudyRequest,
        words: &Vocabulary,
        policy: &'a Policy,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let (calibration, test) = (request.calibration, request.count);
        for (name, count) in [("--calibration", calibration), ("--count", test)] {
            if count < 2 {
                bail!(Refusal::new(format!("{name} is {count}, but must be at least 2")));
            }
        }
        let Some(source) = &request.images else {
            let world = World::of(request.pair.world);
            return Ok(Self::World { world, policy, calibration, test });
        };
        let vocabulary = words.for_chair()?;
        let files = std::slice::from_ref(&source.annotations);
        let truth = ground_truth::read(files, Rules::Strict, &vocabulary, reporter)?;
        let truth = Annotations::new(truth);
        let references = source.references.as_deref().map(references).transpose()?;
        let folder = std::slice::from_ref(&source.folder);
        let images = checked_images(folder, source.damaged, reporter)?;
        let count = images.len();
        if count <= calibration {
            let message =
                format!("{count} images leave none to test after {calibration} to calibrate on");
            bail!(Refusal::new(message).hint(format!("give --calibration {}", count / 2)));
        }
        let tasks = ImageTasks::new(policy, images, &source.prompt)?;
        let truth = (0..count).map(|index| truth.objects_of(&tasks.id(index)));
        let truth = truth.collect::<anyhow::Result<Vec<_>>>()?;
        if let Some(references) = &references {
            let mut ids = (0..count).map(|index| tasks.id(index));
            if let Some(id) = ids.find(|id| references.index().find(id).is_none()) {
                let message = format!("the references hold no caption of the image {id}");
                bail!(Refusal::new(message).hint("leave the image or --references out"));
            }
        }
        let test = test.min(count - calibration);
        Ok(Self::Folder(Box::new(Folder { tasks, truth, references, calibration, test })))
    }

    /// Tokens of the longest prompt, its image included.
    pub(super) fn longest_prompt(&self) -> anyhow::Result<usize> {
        match self {
            Self::World { .. } => Ok(self.tasks(Part::Test, 0, None).task(0)?.prompt.len()),
            Self::Folder(folder) => Ok(folder.tasks.longest_prompt()),
        }
    }

    /// The tasks of a part; `views` are what the verifier sees besides the model's own pixels.
    pub(super) fn tasks<'b>(
        &'b self,
        part: Part,
        seed: u64,
        views: Option<&'b Views>,
    ) -> Box<dyn TaskSource + 'b> {
        match self {
            Self::World { .. } => Box::new(self.scenes(part, seed, views)),
            Self::Folder(folder) => {
                let order = folder.order(part, seed);
                Box::new(Chosen { tasks: &folder.tasks, order, views })
            }
        }
    }

    /// Categories in each image of a part.
    pub(super) fn truth(&self, part: Part, seed: u64) -> Vec<BTreeSet<String>> {
        match self {
            Self::World { .. } => {
                let scenes = self.scenes(part, seed, None);
                (0..scenes.count).map(|index| scenes.truth(index)).collect()
            }
            Self::Folder(folder) => {
                folder.order(part, seed).iter().map(|&at| folder.truth[at].clone()).collect()
            }
        }
    }

    /// What people wrote of the images of a part, by the tasks' ids; `None` where nobody did.
    pub(super) fn references(&self, part: Part, seed: u64) -> Option<References> {
        match self {
            Self::World { .. } => {
                let scenes = self.scenes(part, seed, None);
                let SceneTasks { world, split, count, .. } = scenes;
                Some(world::references(world, split, seed, count))
            }
            Self::Folder(folder) => folder.references.clone(),
        }
    }

    /// The images for people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::World { world, .. } => format!("scenes of the {}", title(world.kind())),
            Self::Folder(folder) => format!("{} image files", folder.truth.len()),
        }
    }

    fn scenes<'b>(&'b self, part: Part, seed: u64, views: Option<&'b Views>) -> SceneTasks<'b> {
        let Self::World { world, policy, calibration, test } = self else {
            unreachable!("only the world has scenes")
        };
        let (split, count) = match part {
            Part::Calibration => (Split::Calibration, *calibration),
            Part::Test => (Split::Test, *test),
        };
        SceneTasks {
            world,
            split,
            seed,
            count,
            policy,
            views,
            // Calibration is to see all the ways of asking, as the demo's does.
            all_prompts: part == Part::Calibration && PROMPTS.len() > 1,
            answers: Data::Sampled,
        }
    }
}

impl Folder<'_> {
    /// Positions of the images of a part, by a shuffle of all.
    fn order(&self, part: Part, seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.truth.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        match part {
            Part::Calibration => order[..self.calibration].to_vec(),
            Part::Test => order[self.calibration..][..self.test].to_vec(),
        }
    }
}

fn references(path: &Path) -> anyhow::Result<References> {
    Ok(read_references(open_text("references", path)?)?)
}
