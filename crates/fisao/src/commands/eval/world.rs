//! Captions of the built-in synthetic dataset.

use fisao_align::RunControl;
use fisao_align::objective::Data;
use fisao_align::sampling::{generate, tasks_at_once};
use fisao_align::tasks::TaskSource;
use fisao_eval::chair::{
    self, ChairInput, ChairOptions, ChairReport, GroundTruth, ObjectVocabulary,
};
use fisao_models::generation::{FinishReason, Sampling};
use fisao_runs::Reporter;
use fisao_runs::bundle::Policy;
use fisao_runs::device::warn_of_batches_left_to_cpu;
use fisao_runs::world::SceneTasks;
use fisao_scenes::{PROMPTS, Split, World, WorldKind};
use serde_json::{Value, json};

use super::chair::ChairArguments;
use super::inputs::dtype;
use crate::commands::chooser::{Chooser, ChooserSource, open_answerer};

/// A model's captions of one split of the built-in synthetic dataset, and what they scored.
#[derive(Debug)]
pub(super) struct WorldEvaluation {
    /// Rates and verdicts; its captions are in the order of the scenes.
    pub(super) chair: ChairReport,
    /// Tokens of each caption, the end token not counted.
    pub(super) tokens: Vec<usize>,
    /// Captions whose number of tokens was used up.
    pub(super) cut_off: usize,
    /// How the captions were made.
    pub(super) made_with: Value,
}

/// The scenes of a split, from the first to `count`.
#[derive(Clone, Copy, Debug)]
struct Scenes {
    /// Of which world.
    world: WorldKind,
    /// Which part of the world.
    split: Split,
    /// Which scenes of it.
    seed: u64,
    /// How many.
    count: usize,
    /// Whether captions are to be the same for any number of processes and threads.
    exact: bool,
}

/// Lets a model caption a split, and scores the captions.
pub(super) fn evaluate(
    arguments: &ChairArguments,
    split: Split,
    vocabulary: &ObjectVocabulary,
    options: ChairOptions,
    reporter: &Reporter,
) -> anyhow::Result<WorldEvaluation> {
    let answerer = &arguments.answering.answerer;
    let (sampling, world) = (answerer.sampling.resolve()?, answerer.world.kind());
    let chooser = ChooserSource::of(&answerer.choosing, world, None)?;
    let described = chooser.as_ref().map(ChooserSource::settings);
    let model = &answerer.model;
    let opened = model.device.open(reporter)?;
    let answering = (&model.source(), world);
    let (policy, chooser) = open_answerer(chooser.as_ref(), answering, &opened, reporter)?;
    let exact = answerer.sharing.exact;
    let scenes = Scenes { world, split, seed: sampling.seed, count: arguments.count, exact };
    let mut found = caption((&policy, chooser), scenes, &sampling, vocabulary, options, reporter)?;
    for (key, value) in described.into_iter().flatten() {
        found.made_with[key] = value;
    }
    if let Some(adapter) = &model.adapter {
        found.made_with["adapter"] = adapter.to_string().into();
    }
    if let Some(adapter) = policy.adapter_identity(reporter)? {
        found.made_with["adapter_sha256"] = adapter.sha256.into();
    }
    found.made_with["dtype"] = dtype(model).into();
    Ok(found)
}

/// Captions scenes of the built-in synthetic dataset and scores the captions against what is in the scenes.
fn caption(
    (policy, mut chooser): (&Policy, Option<Chooser>),
    scenes: Scenes,
    sampling: &Sampling,
    vocabulary: &ObjectVocabulary,
    options: ChairOptions,
    reporter: &Reporter,
) -> anyhow::Result<WorldEvaluation> {
    let Scenes { world, split, seed, count, exact } = scenes;
    let world = World::of(world);
    let views = chooser.as_ref().and_then(|chooser| chooser.views().cloned());
    let tasks = SceneTasks {
        world: &world,
        split,
        seed,
        count,
        policy,
        views: views.as_ref(),
        all_prompts: false,
        answers: Data::Sampled,
    };
    let prompt = tasks.task(0)?.prompt.len();
    policy.check_length(prompt, sampling.max_new_tokens)?;
    let length = prompt + sampling.max_new_tokens;
    let progress = reporter.phase("captioning scenes", count as u64);
    let advance = |done| progress.advance(done as u64);
    let team = policy.team(exact);
    let captions = match &mut chooser {
        None => {
            let control = RunControl::new(&advance).shared(team);
            generate(&policy.model, &tasks, 0..count, 1, length, sampling, control)?
        }
        Some(chooser) => {
            let at_once = tasks_at_once(&policy.model, length, team);
            let mut captions = Vec::with_capacity(count);
            for start in (0..count).step_by(at_once) {
                let range = start..count.min(start + at_once);
                let written = chooser.choose((policy, team), &tasks, range, sampling)?;
                advance(written.len());
                captions.extend(written.into_iter().map(|(response, _)| response));
            }
            captions
        }
    };
    progress.finish();
    warn_of_batches_left_to_cpu(&policy.model, reporter);

    let image_id = |index: usize| world.image_id(split, index as u64);
    let mut inputs = Vec::with_capacity(count);
    for (index, written) in captions.iter().enumerate() {
        let text = policy.tokenizer.decode(written.text_tokens())?.text;
        inputs.push(ChairInput { image_id: image_id(index), caption: text });
    }
    let truth: GroundTruth =
        (0..count).map(|index| (image_id(index), tasks.truth(index))).collect();
    let cut_off = captions.iter().filter(|written| written.finish == FinishReason::Length).count();
    Ok(WorldEvaluation {
        chair: chair::evaluate(inputs, &truth, vocabulary, &options)?,
        tokens: captions.iter().map(|written| written.text_tokens().len()).collect(),
        cut_off,
        made_with: json!({
            "model": policy.name,
            "model_digest": policy.sample()?,
            "prompt": PROMPTS[0],
            "temperature": sampling.temperature,
            "seed": sampling.seed,
            "max_new_tokens": sampling.max_new_tokens,
        }),
    })
}
