//! The built-in synthetic dataset as a source of tasks and truth.

mod setup;

use std::collections::BTreeSet;

use fisao_align::RunControl;
use fisao_align::captions::describe;
use fisao_align::encoding::encode_images;
use fisao_align::error::AlignError;
use fisao_align::mentions::{MentionScorer, ScoredResponse, mean_length};
use fisao_align::objective::Data;
use fisao_align::tasks::{Answer, Task, TaskSource};
use fisao_eval::captions::References;
use fisao_eval::chair::{self, ChairInput, ChairOptions, ChairReport};
use fisao_models::generation::Sampling;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_scenes::recipe::conversation;
use fisao_scenes::{
    CATEGORIES, Category, Insertion, PROMPTS, Scene, Split, World, biased_caption, clean_caption,
};
use fisao_verifier::calibration::auc;
use fisao_verifier::scorer::Verifier;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::bundle::{Policy, Views};
use crate::failure::OrInternal as _;
use crate::prompt::EncodedPrompt;

pub(crate) use setup::known_truth;
pub use setup::{DemoSetup, Sizes, validation};

/// Sets the random numbers of answers apart from those of everything else.
const ANSWERS: u64 = 0xA45E_3500;

/// Scenes of one split with the prompts they are shown under.
pub struct SceneTasks<'a> {
    /// What draws them.
    pub world: &'a World,
    /// Of which split.
    pub split: Split,
    /// Seed of the scenes.
    pub seed: u64,
    /// How many.
    pub count: usize,
    /// Who is shown them.
    pub policy: &'a Policy,
    /// What the verifier sees besides the model's own pixels.
    pub views: Option<&'a Views>,
    /// Whether all of the world's prompts take turns, or only the first is used.
    pub all_prompts: bool,
    /// Which answers they come with, from what is known to be in them: data that alignment without labels does not have.
    pub answers: Data,
}

impl SceneTasks<'_> {
    /// Categories in the scene at `index`.
    pub fn truth(&self, index: usize) -> BTreeSet<String> {
        let scene = self.world.scene(self.split, self.seed, index as u64);
        scene.categories().into_iter().map(str::to_owned).collect()
    }

    /// The answers that an objective learns from: a caption of what is there, and beside it one that also mentions what is
    /// not, as the world's biased captions do, but always.
    fn answer(&self, scene: &Scene, index: usize) -> Result<Answer, AlignError> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ ANSWERS);
        rng.set_stream(index as u64);
        let tokens = |text: &str| self.policy.response(text);
        if self.answers == Data::Sampled {
            return Ok(Answer::None);
        }
        let chosen = tokens(&clean_caption(scene, &mut rng.clone()).text)?;
        if self.answers == Data::Responses {
            return Ok(Answer::Response(chosen));
        }
        let always = Insertion { other_rate: 1.0, ..Insertion::default() };
        let rejected = tokens(&biased_caption(scene, &mut rng, &always).text)?;
        Ok(Answer::Pair { chosen, rejected })
    }

    /// All tasks with the truth about them.
    pub fn labelled(&self) -> Result<(Vec<Task>, Vec<BTreeSet<String>>), AlignError> {
        let tasks = (0..self.count).map(|index| self.task(index)).collect::<Result<_, _>>()?;
        Ok((tasks, (0..self.count).map(|index| self.truth(index)).collect()))
    }
}

impl TaskSource for SceneTasks<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn task(&self, index: usize) -> Result<Task, AlignError> {
        let scene = self.world.scene(self.split, self.seed, index as u64);
        let instruction = PROMPTS[if self.all_prompts { index % PROMPTS.len() } else { 0 }];
        let ids = self.policy.tokenizer.encode(&conversation(instruction), true)?;
        let prompt = EncodedPrompt { ids, ..EncodedPrompt::default() };
        let image = self.world.render(&scene);
        let id = self.world.image_id(self.split, index as u64);
        let verifier_images = self.views.map_or_else(Vec::new, |views| views.of(&image));
        let answer = self.answer(&scene, index)?;
        Ok(Task { verifier_images, answer, ..self.policy.task(id, &image, &prompt)? })
    }
}

/// Captions of a labelled set with what CHAIR says about them.
pub struct Evaluation {
    /// The captions.
    pub captions: Vec<ScoredResponse>,
    /// Of the captions.
    pub chair: ChairReport,
    /// Tokens per caption, the end token not counted.
    pub mean_length: f64,
}

/// Captions the tasks and scores the captions against the truth. `control` is told how many more
/// captions are done.
pub fn evaluate(
    policy: &VisionLanguageModel,
    scorer: &mut MentionScorer,
    tasks: &[Task],
    truth: &[BTreeSet<String>],
    sampling: &Sampling,
    control: RunControl<'_>,
) -> anyhow::Result<Evaluation> {
    let (captions, _) = describe(policy, scorer, tasks, sampling, control)?;
    evaluate_captions(captions, tasks, truth)
}

/// Scores captions of the tasks against the truth.
pub fn evaluate_captions(
    captions: Vec<ScoredResponse>,
    tasks: &[Task],
    truth: &[BTreeSet<String>],
) -> anyhow::Result<Evaluation> {
    let inputs: Vec<ChairInput> = captions
        .iter()
        .map(|caption| ChairInput {
            image_id: tasks[caption.task].id.clone(),
            caption: caption.text.clone(),
        })
        .collect();
    let ground_truth: chair::GroundTruth =
        tasks.iter().map(|task| task.id.clone()).zip(truth.iter().cloned()).collect();
    let vocabulary = chair::ObjectVocabulary::new(fisao_scenes::vocabulary())
        .or_internal("the built-in synthetic dataset's vocabulary")?;
    let chair = chair::evaluate(inputs, &ground_truth, &vocabulary, &ChairOptions::default())?;
    let mean_length = mean_length(&captions);
    Ok(Evaluation { captions, chair, mean_length })
}

/// Truthful captions of each scene that a model's are compared with.
const REFERENCES: usize = 5;

/// Truthful captions of the first scenes of a split, by the names of their images: always the same ones.
pub fn references(world: &World, split: Split, seed: u64, count: usize) -> References {
    let mut references = References::default();
    for index in 0..count as u64 {
        let captions = reference_captions(world, split, seed, index);
        references.add(&world.image_id(split, index), captions);
    }
    references
}

/// Truthful captions of a scene: always the same ones.
pub fn reference_captions(world: &World, split: Split, seed: u64, index: u64) -> Vec<String> {
    let scene = world.scene(split, seed, index);
    let mut rng = ChaCha8Rng::seed_from_u64(index);
    (0..REFERENCES).map(|_| clean_caption(&scene, &mut rng).text).collect()
}

/// How well a verifier tells what is in a scene from what is only typical of it: AUC of its scores on
/// the names of present objects against those of absent objects of the same theme.
pub fn separation(tasks: &SceneTasks<'_>, verifier: &mut Verifier) -> anyhow::Result<f64> {
    verifier.embed_names(CATEGORIES.iter().map(Category::name))?;
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    for first in (0..tasks.count).step_by(SEPARATION_BATCH) {
        let indices = first..tasks.count.min(first + SEPARATION_BATCH);
        let batch = indices.clone().map(|i| tasks.task(i)).collect::<Result<Vec<_>, _>>()?;
        let images = encode_images(verifier, &batch)?;
        for (index, image) in indices.zip(&images) {
            let scene = tasks.world.scene(tasks.split, tasks.seed, index as u64);
            let there = scene.categories();
            let score = |name: &str| verifier.score(image, name);
            for name in &there {
                present.push(score(name)?);
            }
            let typical = scene.theme.members().map(|(category, _)| CATEGORIES[category].name());
            for name in typical.filter(|name| !there.contains(name)) {
                absent.push(score(name)?);
            }
        }
    }
    Ok(auc(&present, &absent))
}

/// Images embedded at once by [`separation`].
const SEPARATION_BATCH: usize = 64;
