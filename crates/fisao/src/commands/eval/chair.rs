//! `fisao eval chair`: which objects captions name that are not in the image.

mod arguments;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use fisao_eval::chair::{
    self, ChairInput, ChairOptions, ChairReport, GroundTruth, MissingGroundTruth, ObjectVocabulary,
    Rules, read_captions,
};
use fisao_eval::statistics::Bootstrap;
use fisao_runs::answering::Question;
use fisao_runs::image_directory::ImageDirectory;
use fisao_runs::vocabulary::{Vocabulary, chair_vocabulary};
use fisao_runs::{Refusal, Reporter, ground_truth};
use serde::Serialize;
use serde_json::{Value, json};

pub(super) use arguments::ChairArguments;

use super::inputs::{
    Asking, answer, files_in, folders, made_with, names, read, warn_of_other_images,
};
use super::runs::{Layout, Number, Run};
use super::world::{self, WorldEvaluation};
use crate::arguments::{ChairRules, ReportFormat, TruthArguments};

pub(crate) fn run(arguments: &ChairArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let verdicts = arguments.report.per_image && arguments.report.format == ReportFormat::Json;
    if let Some(split) = arguments.world {
        let vocabulary = match &arguments.truth.vocabulary {
            Some(_) => chair_vocabulary(
                arguments.truth.vocabulary.as_deref(),
                arguments.truth.rules.into(),
            )?,
            None => Vocabulary::of_world().for_chair()?,
        };
        let options = ChairOptions {
            verdicts,
            rules: arguments.truth.rules.into(),
            ..ChairOptions::default()
        };
        let found = world::evaluate(arguments, split.into(), &vocabulary, options, reporter)?;
        let WorldEvaluation { chair, mean_length, made_with } = found;
        let judged = Judged { name: "world".to_owned(), chair, made_with: Some(made_with) };
        return print(arguments, vec![judged], Some(mean_length), reporter);
    }
    let vocabulary =
        chair_vocabulary(arguments.truth.vocabulary.as_deref(), arguments.truth.rules.into())?;
    let truth_files = match &arguments.answering.data {
        Some(data) if arguments.truth.ground_truth.is_empty() => {
            let what = "ground truth (instances*, captions* or objects*.json)";
            let files = files_in(data, what, |name, _| {
                ["instances", "captions", "objects"].iter().any(|known| name.starts_with(known))
            })?;
            let taken: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            reporter.note(format!("ground truth: {}", taken.join(", ")));
            files
        }
        _ => arguments.truth.ground_truth.clone(),
    };
    // Captions are read beside the ground truth; a file is held at a time.
    let files = &arguments.captions;
    let started = Instant::now();
    let (truth, first) = rayon::join(
        || truth_of(&truth_files, arguments.truth.rules, &vocabulary, reporter),
        || files.first().map(|file| read("captions", file, read_captions)),
    );
    let truth = truth?;
    let (file, captions) = if let (Some(file), Some(captions)) = (files.first(), first) {
        (file.clone(), captions?)
    } else {
        let file = caption(arguments, &truth, reporter)?;
        let captions = read("captions", &file, read_captions)?;
        (file, captions)
    };
    tracing::debug!(seconds = started.elapsed().as_secs_f64(), "captions and ground truth read");
    let names = names(files);
    let mut reports = Vec::with_capacity(files.len());
    let mut add = |name: &str, file: &Path, captions: Vec<ChairInput>| {
        let started = Instant::now();
        let report = score(&arguments.truth, file, captions, verdicts, &truth, &vocabulary)?;
        tracing::debug!(seconds = started.elapsed().as_secs_f64(), "captions scored");
        warn(file, &report, reporter);
        let made_with = made_with(file);
        reports.push(Judged { name: name.to_owned(), chair: report, made_with });
        anyhow::Ok(())
    };
    add(names.first().map_or("model", String::as_str), &file, captions)?;
    for (name, file) in names.iter().zip(files).skip(1) {
        add(name, file, read("captions", file, read_captions)?)?;
    }
    print(arguments, reports, None, reporter)
}

/// What is really in the images.
pub(super) fn truth_of(
    files: &[PathBuf],
    reading: ChairRules,
    vocabulary: &ObjectVocabulary,
    reporter: &Reporter,
) -> anyhow::Result<GroundTruth> {
    if files.is_empty() {
        bail!(
            Refusal::new("there is nothing to compare captions with")
                .hint("give the objects of the images with --annotations")
        );
    }
    ground_truth::read(files, reading.into(), vocabulary, reporter)
}

/// Scores the captions of a file.
pub(super) fn score(
    arguments: &TruthArguments,
    file: &Path,
    captions: Vec<ChairInput>,
    verdicts: bool,
    truth: &GroundTruth,
    vocabulary: &ObjectVocabulary,
) -> anyhow::Result<ChairReport> {
    let missing = if arguments.skip_unknown_images {
        MissingGroundTruth::Skip
    } else {
        MissingGroundTruth::Refuse
    };
    let options = ChairOptions { rules: arguments.rules.into(), missing, verdicts };
    chair::evaluate(captions, truth, vocabulary, &options)
        .with_context(|| format!("the captions of {} cannot be scored", file.display()))
}

/// Says what was left out of the numbers, or matched in another way than by name.
fn warn(file: &Path, report: &ChairReport, reporter: &Reporter) {
    let file = file.display();
    let left_out = report.captions_without_ground_truth;
    if left_out > 0 {
        reporter.warn(format!("{file}: {left_out} captions of images without ground truth"), None);
    }
    let counts = [
        (report.matched.by_number, "images were found by their number"),
        (report.matched.by_file_name, "images were found by their name without folder and ending"),
        (report.repeated_captions, "captions describe an image that an earlier one describes too"),
        (report.empty_captions, "captions are empty"),
    ];
    for (count, what) in counts.into_iter().filter(|&(count, _)| count > 0) {
        reporter.note(format!("{file}: {count} {what}"));
    }
}

/// Lets the model caption the images that there is ground truth for.
fn caption(
    arguments: &ChairArguments,
    truth: &GroundTruth,
    reporter: &Reporter,
) -> anyhow::Result<PathBuf> {
    let images = truth.keys().map(|id| (id.as_str(), truth.file_of(id)));
    caption_images(&arguments.answering, images, &arguments.prompt, "chair", reporter)
}

/// Lets a model caption images of a folder, each given by its id and the name of its file.
pub(super) fn caption_images<'a>(
    arguments: &crate::arguments::AnsweringArguments,
    named: impl Iterator<Item = (&'a str, &'a str)>,
    prompt: &str,
    benchmark: &str,
    reporter: &Reporter,
) -> anyhow::Result<PathBuf> {
    let (images, folder) = folders(arguments)?;
    let images = ImageDirectory::open(&images);
    let question = |(id, file): (&str, &str)| {
        // Where a file of that name is not there, the id may be.
        let image = images.file(file).or_else(|error| images.file(id).map_err(|_| error))?;
        Ok(Question::new([("image_id", json!(id))], image, prompt.to_owned()))
    };
    let questions = named.map(question).collect::<anyhow::Result<Vec<_>>>()?;
    let asking = Asking { benchmark, field: "caption", prompt: Some(prompt), folder };
    answer(&arguments.answerer, &asking, &questions, reporter)
}

/// Captions of one file or model, judged.
struct Judged {
    name: String,
    chair: ChairReport,
    /// How the captions were made, where that is known.
    made_with: Option<Value>,
}

/// A report with the length that it is about.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    chair: ChairReport,
    mean_length_unit: &'static str,
    /// How the captions were made, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_with: Option<Value>,
}

fn print(
    arguments: &ChairArguments,
    reports: Vec<Judged>,
    tokens: Option<f64>,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let length = if tokens.is_some() { "tokens" } else { "words" };
    let layout = Layout {
        names: "captions of",
        numbers: [
            Number::percent("chair_s", "CHAIR_S %"),
            Number::percent("chair_i", "CHAIR_I %"),
            Number::percent("recall", "recall %"),
            Number::decimals("mean_length", length, 1),
        ],
        counts: &["captions", "mentions", "hallucinated"],
    };
    let all: Vec<&ChairReport> = reports.iter().map(|judged| &judged.chair).collect();
    let started = Instant::now();
    let mut intervals = chair::intervals(&all, Bootstrap::default());
    tracing::debug!(seconds = started.elapsed().as_secs_f64(), "intervals drawn");
    if tokens.is_some() {
        // Words were counted, not tokens.
        intervals[3] = None;
    }
    let first = all[0];
    warn_of_other_images(all.iter().map(|report| report.image_ids_sha256.as_str()), reporter);
    let rules = match first.rules {
        Rules::Strict => "strict",
        Rules::Reference => "reference",
    };
    let note = format!(
        "rules {rules}, vocabulary {}, images {}",
        &first.vocabulary_sha256[..12],
        &first.image_ids_sha256[..12]
    );
    let mut notes = vec![note];
    notes.extend(reports.iter().filter_map(|judged| {
        judged.made_with.as_ref().map(|made_with| decoder(&judged.name, made_with))
    }));
    let run = |Judged { name, chair, made_with }: Judged| {
        let ChairReport { chair_s, chair_i, recall, mean_length_words, .. } = chair;
        let values = [chair_s, chair_i, recall, tokens.or(mean_length_words)];
        let counts = [chair.captions, chair.mentions, chair.hallucinated];
        let measured = Measured { chair, mean_length_unit: length, made_with };
        Run::new(name, values, &counts, &measured, &arguments.report)
    };
    let runs = reports.into_iter().map(run).collect::<anyhow::Result<Vec<_>>>()?;
    layout.print(&arguments.report, runs, &intervals, &notes)
}

/// Who wrote captions, and how, in a line.
fn decoder(name: &str, made_with: &Value) -> String {
    let text = |key: &str| made_with.get(key).and_then(Value::as_str);
    let number = |key: &str| made_with.get(key).and_then(Value::as_f64);
    let mut parts = vec![text("model").unwrap_or("a model").to_owned()];
    parts.extend(text("adapter").map(|adapter| format!("adapter {adapter}")));
    parts.push(match number("temperature") {
        Some(temperature) if temperature > 0.0 => {
            format!("temperature {temperature}, seed {}", number("seed").unwrap_or(0.0))
        }
        _ => "greedy".to_owned(),
    });
    parts.extend(number("guided").map(|precision| format!("guided to {precision}")));
    parts.extend(number("max_new_tokens").map(|tokens| format!("at most {tokens} tokens")));
    parts.extend(text("prompt").map(|prompt| format!("prompt \"{prompt}\"")));
    format!("{name} is by {}", parts.join(", "))
}
