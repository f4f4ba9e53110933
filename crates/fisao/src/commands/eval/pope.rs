//! `fisao eval pope`: is there a … in the image?

mod arguments;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fisao_eval::chair::{ObjectVocabulary, Rules};
use fisao_eval::pope::{
    self, BuildOptions, ImageObjects, Negatives, PopeReport, Scores, SplitReport, read_questions,
    score_split,
};
use fisao_eval::statistics::Bootstrap;
use fisao_formats::documents::{check_output_file, check_output_folder};
use fisao_formats::json_lines::write_json_lines;
use fisao_scenes::{Split, World};
use serde::Serialize;
use serde_json::json;

pub(super) use arguments::PopeArguments;
use arguments::{NegativeKind, PopeBuildArguments, PopeCommand};
use fisao_runs::answering::Question;
use fisao_runs::image_directory::ImageDirectory;
use fisao_runs::{Refusal, Reporter, ground_truth, locks};

use super::inputs::{self, Asking, answer, files_in, folders, read, read_answers};
use super::report;
use super::runs::{Layout, Number, Run};
use crate::arguments::{ReportFormat, WorldSplit};
use crate::output;

pub(crate) fn run(arguments: &PopeArguments, reporter: &Reporter) -> anyhow::Result<()> {
    if let Some(PopeCommand::Build(arguments)) = &arguments.command {
        return build(arguments, reporter);
    }
    let found = match &arguments.answering.data {
        Some(data) if arguments.questions.is_empty() => {
            files_in(data, "questions of POPE (*.jsonl or *pope*.json)", |name, ending| {
                ending == "jsonl" || name.contains("pope")
            })?
        }
        _ => arguments.questions.clone(),
    };
    let (files, answers) = (&found, &arguments.answers);
    if answers.len() % files.len() != 0 {
        bail!(
            Refusal::new(format!(
                "{} files of questions but {} of answers",
                files.len(),
                answers.len()
            ))
            .hint("give one file of answers for each file of questions, in the same order")
        );
    }
    let questions = files
        .iter()
        .map(|file| read("questions of POPE", file, read_questions))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let splits: Vec<(String, &[pope::Question])> = files
        .iter()
        .map(|file| inputs::name(file))
        .zip(questions.iter().map(Vec::as_slice))
        .collect();
    let mut runs: Vec<Vec<PathBuf>> =
        answers.chunks(files.len()).map(<[PathBuf]>::to_vec).collect();
    if runs.is_empty() {
        let asked =
            splits.iter().map(|(name, questions)| ask(arguments, name, questions, reporter));
        runs.push(asked.collect::<anyhow::Result<_>>()?);
    }
    let names = inputs::names(&runs.concat());
    let mut reports = Vec::with_capacity(runs.len());
    for (run, names) in runs.iter().zip(names.chunks(files.len())) {
        let mut reported = Vec::with_capacity(splits.len());
        for ((name, questions), file) in splits.iter().zip(run) {
            let answers = read_answers(file, &arguments.field)?;
            let split = score_split(name, questions, &answers)
                .with_context(|| format!("the answers of {} cannot be scored", file.display()))?;
            warn(&split, reporter);
            reported.push(split);
        }
        reports.push((names.join(", "), pope::evaluate(reported)));
    }
    print(arguments, reports)
}

/// Puts the questions of a split to the model.
fn ask(
    arguments: &PopeArguments,
    name: &str,
    questions: &[pope::Question],
    reporter: &Reporter,
) -> anyhow::Result<PathBuf> {
    let (images, output) = folders(&arguments.answering)?;
    let images = ImageDirectory::open(&images);
    let question = |question: &pope::Question| {
        let fields =
            [("question_id", json!(question.question_id)), ("image", json!(question.image))];
        let image = images.file(&question.image.0)?;
        Ok(Question::new(fields, image, pope::prompt(&question.text)))
    };
    let asked = questions.iter().map(question).collect::<anyhow::Result<Vec<_>>>()?;
    let folder = &output.join(name);
    let asking = Asking { benchmark: "pope", field: "text", prompt: None, folder };
    answer(&arguments.answering.answerer, &asking, &asked, reporter)
}

/// Says what counts as wrong without having been answered wrongly.
fn warn(split: &SplitReport, reporter: &Reporter) {
    let SplitReport { name, unanswered, unknown_answers, yes_by_default, .. } = split;
    if let Some(first) = unanswered.first() {
        let count = unanswered.len();
        reporter.warn(
            format!(
                "{name}: {count} questions have no answer and count as wrong, first {}",
                first.0
            ),
            Some("JSON has the numbers over the others too, as `scores_of_answered`"),
        );
    }
    if *yes_by_default > 0 {
        reporter.warn(
            format!(
                "{name}: {yes_by_default} answers do not say yes and count as yes, as in POPE's own script"
            ),
            Some("a model that explains itself instead of answering is not measured by this"),
        );
    }
    if *unknown_answers > 0 {
        reporter
            .warn(format!("{name}: {unknown_answers} answers are to none of the questions"), None);
    }
}

const LAYOUT: Layout<5> = Layout {
    names: "split",
    numbers: [
        Number::percent("accuracy", "accuracy %"),
        Number::percent("precision", "precision %"),
        Number::percent("recall", "recall %"),
        Number::percent("f1", "F1 %"),
        Number::percent("yes_ratio", "yes %"),
    ],
    counts: &["questions"],
};

/// A report with all its questions.
#[derive(Serialize)]
struct Measured<'a> {
    questions: usize,
    unanswered: usize,
    splits: &'a [SplitReport],
}

fn print(arguments: &PopeArguments, reports: Vec<(String, PopeReport)>) -> anyhow::Result<()> {
    let all: Vec<&PopeReport> = reports.iter().map(|(_, report)| report).collect();
    let intervals = pope::intervals(&all, Bootstrap::default());
    if let ([found], false) = (&all[..], arguments.report.format == ReportFormat::Json) {
        let mut table = LAYOUT.headings();
        let mut row = |name: &str, scores: &Scores, splits: &[SplitReport]| {
            LAYOUT.row(&mut table, name, &scores.values(), &counts(splits)[..1]);
        };
        for split in &found.splits {
            row(&split.name, &split.scores, std::slice::from_ref(split));
        }
        if found.splits.len() > 1 {
            row("mean", &found.mean, &found.splits);
        }
        LAYOUT.interval(&mut table, &intervals, arguments.report.format);
        return report::table(arguments.report.format, &table, &[]);
    }
    let run = |(name, mut report): (String, PopeReport)| {
        if !arguments.report.per_image {
            report.splits.iter_mut().for_each(|split| split.per_question.clear());
        }
        let [questions, unanswered] = counts(&report.splits);
        let measured = Measured { questions, unanswered, splits: &report.splits };
        Run::new(name, report.mean.values(), &[questions], &measured, &arguments.report)
    };
    let runs = reports.into_iter().map(run).collect::<anyhow::Result<Vec<_>>>()?;
    Layout { names: "answers", ..LAYOUT }.print(&arguments.report, runs, &intervals, &[])
}

/// Questions, and those without an answer.
fn counts(splits: &[SplitReport]) -> [usize; 2] {
    let sum = |count: fn(&SplitReport) -> usize| splits.iter().map(count).sum();
    [sum(|split| split.questions), sum(|split| split.unanswered.len())]
}

/// Makes questions.
fn build(arguments: &PopeBuildArguments, reporter: &Reporter) -> anyhow::Result<()> {
    match arguments.world {
        None => check_output_file(&arguments.output)?,
        Some(_) => check_output_folder(&arguments.output)?,
    }
    let negatives = match arguments.negatives {
        NegativeKind::Random => Negatives::Random,
        NegativeKind::Popular => Negatives::Popular,
        NegativeKind::Adversarial => Negatives::Adversarial,
    };
    let options = BuildOptions {
        images: arguments.images,
        objects: arguments.objects,
        ..BuildOptions::new(negatives, arguments.seed)
    };
    let (questions, file) = match (&arguments.ground_truth, arguments.world) {
        (Some(truth), _) => {
            // COCO's categories are called as COCO calls them; lists call theirs what they like.
            let (files, vocabulary) = (std::slice::from_ref(truth), ObjectVocabulary::coco());
            let truth = ground_truth::read(files, Rules::Strict, &vocabulary, reporter)?;
            let mut images = ImageObjects::all(&truth);
            for image in &mut images {
                image.image = truth.file_of(&image.image).to_owned();
            }
            (pope::build(&images, &options)?, arguments.output.clone())
        }
        (None, Some(split)) => {
            let questions = of_world(split, arguments, &options, reporter)?;
            let kind = format!("{negatives:?}").to_lowercase();
            (questions, arguments.output.join(format!("{kind}.jsonl")))
        }
        (None, None) => bail!(Refusal::new("give --annotations or --world")),
    };
    write_json_lines(&file, &questions)?;
    output::line(format!("{} questions: {}", questions.len(), file.display()))
}

/// Questions about scenes of the built-in synthetic dataset, whose images are written into `images`.
fn of_world(
    split: WorldSplit,
    arguments: &PopeBuildArguments,
    options: &BuildOptions,
    reporter: &Reporter,
) -> anyhow::Result<Vec<pope::Question>> {
    let (world, split) = (World::of(arguments.kind.kind()), Split::from(split));
    // Some scenes hold too few objects; so many more are looked at.
    let scenes: Vec<_> = (0..4 * arguments.images as u64)
        .map(|index| (index, world.scene(split, arguments.seed, index)))
        .filter(|(_, scene)| scene.categories().len() >= arguments.objects)
        .take(arguments.images)
        .collect();
    let image = |index: u64| format!("{}.png", world.image_id(split, index));
    let images: Vec<ImageObjects> = scenes
        .iter()
        .map(|(index, scene)| ImageObjects {
            image: image(*index),
            objects: scene.categories().into_iter().map(str::to_owned).collect(),
        })
        .collect();
    let questions = pope::build(&images, options)?;
    let folder = arguments.output.join("images");
    let _lock = locks::lock(&arguments.output, reporter)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let asked: BTreeSet<&str> =
        questions.iter().map(|question| question.image.0.as_str()).collect();
    let progress = reporter.phase("drawing images", scenes.len() as u64);
    for (index, scene) in &scenes {
        let name = image(*index);
        if asked.contains(name.as_str()) {
            save(&folder.join(name), &world.render(scene))?;
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(questions)
}

fn save(path: &Path, image: &image::RgbImage) -> anyhow::Result<()> {
    image.save(path).with_context(|| format!("cannot write {}", path.display()))
}
