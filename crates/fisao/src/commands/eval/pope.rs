//! `fisao eval pope`: is there a … in the image?

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use fisao_eval::answers::read_answers;
use fisao_eval::chair::read_ground_truth;
use fisao_eval::pope::{
    self, BuildOptions, Negatives, Picture, PopeReport, Scores, SplitReport, read_questions,
    score_split,
};
use fisao_formats::documents::write_bytes;
use fisao_scenes::{Split, World};
use serde_json::{Map, json};

use super::inputs::{self, answer, folders, image_file, read};
use super::report;
use crate::answering::Question;
use crate::arguments::{NegativeKind, PopeArguments, PopeBuildArguments, WorldSplit};
use crate::failure::Refusal;
use crate::output;
use crate::reporter::Reporter;
use crate::table::{Table, percent};

pub(crate) fn run(arguments: &PopeArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let (files, answers) = (&arguments.questions, &arguments.answers);
    if !answers.is_empty() && answers.len() != files.len() {
        bail!(
            Refusal::new(format!(
                "{} files of questions but {} of answers",
                files.len(),
                answers.len()
            ))
            .hint("give one file of answers for each file of questions, in the same order")
        );
    }
    let mut splits = Vec::with_capacity(files.len());
    for (index, file) in files.iter().enumerate() {
        let questions = read("questions of POPE", file, read_questions)?;
        let name = inputs::name(file);
        let answers = match answers.get(index) {
            Some(answers) => answers.clone(),
            None => ask(arguments, &name, &questions, reporter)?,
        };
        let answers = read("answers", &answers, read_answers)?;
        let split = score_split(&name, &questions, &answers)
            .with_context(|| format!("the answers to {} cannot be scored", file.display()))?;
        warn(&split, reporter);
        splits.push(split);
    }
    print(arguments, &pope::evaluate(splits))
}

/// Puts the questions of a split to the model.
fn ask(
    arguments: &PopeArguments,
    name: &str,
    questions: &[pope::Question],
    reporter: &Reporter,
) -> anyhow::Result<std::path::PathBuf> {
    let (images, output) = folders(&arguments.answering)?;
    let question = |question: &pope::Question| {
        let mut row = Map::new();
        row.insert("question_id".to_owned(), json!(question.question_id));
        row.insert("image".to_owned(), json!(question.image));
        let image = image_file(images, &question.image.0)?;
        Ok(Question { row, image, prompt: pope::prompt(&question.text) })
    };
    let asked = questions.iter().map(question).collect::<anyhow::Result<Vec<_>>>()?;
    answer(&arguments.answering, "pope", "text", &output.join(name), &asked, reporter)
}

/// Says what was left out of the numbers.
fn warn(split: &SplitReport, reporter: &Reporter) {
    let SplitReport { name, unanswered, unknown_answers, questions, .. } = split;
    if let Some(first) = unanswered.first() {
        let count = unanswered.len();
        reporter.warn(
            format!("{name}: {count} questions have no answer, first {}", first.0),
            Some(&format!("the numbers are about the other {questions}")),
        );
    }
    if *unknown_answers > 0 {
        reporter
            .warn(format!("{name}: {unknown_answers} answers are to none of the questions"), None);
    }
}

fn print(arguments: &PopeArguments, report: &PopeReport) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "split",
        "accuracy %",
        "precision %",
        "recall %",
        "F1 %",
        "yes %",
        "questions",
    ]);
    let mut row = |name: &str, scores: &Scores, questions: usize| {
        let Scores { accuracy, precision, recall, f1, yes_ratio } = *scores;
        let rates = [accuracy, precision, recall, f1, yes_ratio].map(percent);
        table.row([name.to_owned()].into_iter().chain(rates).chain([questions.to_string()]));
    };
    let questions = report.splits.iter().map(|split| split.questions).sum();
    for split in &report.splits {
        row(&split.name, &split.scores, split.questions);
    }
    if report.splits.len() > 1 {
        row("mean", &report.mean, questions);
    }
    let mut value = report::fields(&report.mean)?;
    value.insert("questions".to_owned(), questions.into());
    value.insert("splits".to_owned(), json!(report.splits));
    report::print(&arguments.report, &value, &["per_question"], &table, &[])
}

/// Makes questions.
pub(crate) fn build(arguments: &PopeBuildArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let negatives = match arguments.negatives {
        NegativeKind::Random => Negatives::Random,
        NegativeKind::Popular => Negatives::Popular,
        NegativeKind::Adversarial => Negatives::Adversarial,
    };
    let options = BuildOptions {
        pictures: arguments.pictures,
        objects: arguments.objects,
        ..BuildOptions::new(negatives, arguments.seed)
    };
    let (questions, file) = match (&arguments.ground_truth, arguments.world) {
        (Some(truth), _) => {
            let truth = read("ground truth", truth, read_ground_truth)?;
            (pope::build(&Picture::all(&truth), &options)?, arguments.output.clone())
        }
        (None, Some(split)) => {
            let questions = of_world(split, arguments, &options, reporter)?;
            let kind = format!("{negatives:?}").to_lowercase();
            (questions, arguments.output.join(format!("{kind}.jsonl")))
        }
        (None, None) => bail!(Refusal::new("give --ground-truth or --world")),
    };
    let mut lines = Vec::new();
    for question in &questions {
        serde_json::to_writer(&mut lines, question).context("a question is plain data")?;
        lines.push(b'\n');
    }
    write_bytes(&file, &lines)?;
    output::line(format!("{} questions: {}", questions.len(), file.display()))
}

/// Questions about scenes of the embedded world, whose pictures are written into `images`.
fn of_world(
    split: WorldSplit,
    arguments: &PopeBuildArguments,
    options: &BuildOptions,
    reporter: &Reporter,
) -> anyhow::Result<Vec<pope::Question>> {
    let (world, split) = (World::new(), Split::from(split));
    // Some scenes hold too few objects; so many more are looked at.
    let scenes: Vec<_> = (0..4 * arguments.pictures as u64)
        .map(|index| (index, world.scene(split, arguments.seed, index)))
        .filter(|(_, scene)| scene.categories().len() >= arguments.objects)
        .take(arguments.pictures)
        .collect();
    let picture = |index: u64| format!("{}.png", world.image_id(split, index));
    let pictures: Vec<Picture> = scenes
        .iter()
        .map(|(index, scene)| Picture {
            image: picture(*index),
            objects: scene.categories().into_iter().map(str::to_owned).collect(),
        })
        .collect();
    let questions = pope::build(&pictures, options)?;
    let folder = arguments.output.join("images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let asked: BTreeSet<&str> =
        questions.iter().map(|question| question.image.0.as_str()).collect();
    let progress = reporter.phase("drawing pictures", scenes.len() as u64);
    for (index, scene) in &scenes {
        let name = picture(*index);
        if asked.contains(name.as_str()) {
            save(&folder.join(name), &world.render(scene))?;
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(questions)
}

fn save(path: &Path, picture: &image::RgbImage) -> anyhow::Result<()> {
    picture.save(path).with_context(|| format!("cannot write {}", path.display()))
}
