//! `fisao eval chair`: which objects captions name that are not in the picture.

use std::path::Path;

use anyhow::{Context, bail};
use fisao_align::captions::generate;
use fisao_align::tasks::TaskSource;
use fisao_eval::chair::{
    self, ChairInput, ChairReport, GroundTruth, ObjectVocabulary, read_captions, read_ground_truth,
};
use fisao_formats::documents::read_text;
use fisao_models::generation::Sampling;
use fisao_scenes::{Split, World};
use serde_json::{Value, json};

use crate::arguments::{ChairArguments, Format, WorldSplit};
use crate::bundle::Policy;
use crate::failure::Refusal;
use crate::output;
use crate::reporter::Reporter;
use crate::vocabulary::Vocabulary;
use crate::world::SceneTasks;

/// A model's captions of one split of the embedded world, and what they scored.
#[derive(Debug)]
pub(crate) struct WorldEvaluation {
    /// Rates and verdicts; its captions are in the order of the scenes.
    pub(crate) chair: ChairReport,
    /// Tokens per caption, the end token not counted.
    pub(crate) mean_length: f64,
}

/// The scenes of a split, from the first to `count`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenes {
    /// Which part of the world.
    pub(crate) split: Split,
    /// Which scenes of it.
    pub(crate) seed: u64,
    /// How many.
    pub(crate) count: usize,
}

pub(crate) fn run(arguments: &ChairArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let vocabulary = Vocabulary::from_arguments(&arguments.vocabulary)?.for_chair()?;
    let (report, mean_length) = match (&arguments.world, &arguments.captions) {
        (Some(split), _) => {
            let evaluation = run_world(arguments, *split, &vocabulary, reporter)?;
            (evaluation.chair, Some(evaluation.mean_length))
        }
        (None, Some(captions)) => {
            let truth = arguments.ground_truth.as_deref();
            let truth = truth.context("clap asks for --ground-truth with --captions")?;
            (from_files(captions, truth, &vocabulary)?, None)
        }
        (None, None) => bail!(Refusal::new("give --captions or --world")),
    };
    match arguments.format {
        Format::Text => output::line(in_words(&report, mean_length)),
        Format::Json => output::json(&as_json(&report, mean_length, arguments.per_image)?),
    }
}

/// Scores the captions of a file.
fn from_files(
    captions: &Path,
    ground_truth: &Path,
    vocabulary: &ObjectVocabulary,
) -> anyhow::Result<ChairReport> {
    let inputs = read_captions(&read_text("captions", captions)?)
        .with_context(|| format!("{} holds no captions", captions.display()))?;
    let truth = read_ground_truth(&read_text("ground truth", ground_truth)?)
        .with_context(|| format!("{} holds no ground truth", ground_truth.display()))?;
    Ok(chair::evaluate(&inputs, &truth, vocabulary)?)
}

fn run_world(
    arguments: &ChairArguments,
    split: WorldSplit,
    vocabulary: &ObjectVocabulary,
    reporter: &Reporter,
) -> anyhow::Result<WorldEvaluation> {
    let sampling = arguments.sampling.resolve()?;
    let device = arguments.model.device.open(reporter)?.device;
    let policy = Policy::from_arguments(&arguments.model, &device, reporter)?;
    let scenes =
        Scenes { split: split.into(), seed: arguments.sampling.seed, count: arguments.count };
    evaluate_world(&policy, &World::new(), scenes, &sampling, vocabulary, reporter)
}

/// Captions scenes of the embedded world and scores the captions against what is in the scenes.
pub(crate) fn evaluate_world(
    policy: &Policy,
    world: &World,
    scenes: Scenes,
    sampling: &Sampling,
    vocabulary: &ObjectVocabulary,
    reporter: &Reporter,
) -> anyhow::Result<WorldEvaluation> {
    let Scenes { split, seed, count } = scenes;
    if count == 0 {
        bail!(Refusal::new("--count is 0, but must be at least 1"));
    }
    let tasks = SceneTasks {
        world,
        split,
        seed,
        count,
        processor: &policy.processor,
        tokenizer: policy.tokenizer.as_ref(),
        config: policy.model.config(),
        all_prompts: false,
    };
    let prompt = tasks.task(0)?.prompt.len();
    policy.check_length(prompt, sampling.max_new_tokens)?;
    let length = prompt + sampling.max_new_tokens;
    let progress = reporter.phase("captioning scenes", count as u64);
    let advance = |done| progress.advance(done as u64);
    let captions = generate(&policy.model, &tasks, 0..count, length, sampling, &advance)?;
    progress.finish();

    let image_id = |index: usize| world.image_id(split, index as u64);
    let mut inputs = Vec::with_capacity(count);
    for (index, written) in captions.iter().enumerate() {
        let text = policy.tokenizer.decode(written.text_tokens())?.text;
        inputs.push(ChairInput { image_id: image_id(index), caption: text });
    }
    let truth: GroundTruth =
        (0..count).map(|index| (image_id(index), tasks.truth(index))).collect();
    let tokens: usize = captions.iter().map(|written| written.text_tokens().len()).sum();
    Ok(WorldEvaluation {
        chair: chair::evaluate(&inputs, &truth, vocabulary)?,
        mean_length: tokens as f64 / count as f64,
    })
}

fn in_words(report: &ChairReport, mean_length: Option<f64>) -> String {
    let rate = |name: &str, rate: f64, part: usize, whole: usize, what: &str| {
        format!("{name:<12}{:>6.1} %   {part} of {whole} {what}", 100.0 * rate)
    };
    let (length, unit) =
        mean_length.map_or((report.mean_length_words, "words"), |tokens| (tokens, "tokens"));
    [
        rate(
            "CHAIR_I",
            report.chair_i,
            report.hallucinated,
            report.mentions,
            "object words name something absent",
        ),
        rate(
            "CHAIR_S",
            report.chair_s,
            report.captions_with_hallucination,
            report.captions,
            "captions hold such a word",
        ),
        rate(
            "recall",
            report.recall,
            report.recalled,
            report.ground_truth,
            "objects present are named",
        ),
        format!("{:<12}{length:>6.1}     {unit} in a caption", "mean length"),
    ]
    .join("\n")
}

fn as_json(
    report: &ChairReport,
    mean_length: Option<f64>,
    per_image: bool,
) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(report).context("a report is plain data")?;
    if let (Value::Object(fields), false) = (&mut value, per_image) {
        fields.remove("per_image");
    }
    if let Some(tokens) = mean_length {
        value["mean_length"] = json!(tokens);
    }
    Ok(value)
}
