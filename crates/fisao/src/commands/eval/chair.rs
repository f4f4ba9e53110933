//! `fisao eval chair`: which objects captions name that are not in the image.

mod arguments;
mod check;
mod protocol;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use fisao_eval::chair::{
    self, ChairInput, ChairOptions, ChairReport, GroundTruth, ImageList, ImageListError, Lack,
    Lengths, MadeCaptions, MissingGroundTruth, ObjectVocabulary, OtherReport, Protocol, Rules,
    read_made_captions,
};
use fisao_eval::statistics::Bootstrap;
use fisao_runs::answering::Question;
use fisao_runs::image_directory::ImageDirectory;
use fisao_runs::vocabulary::{Vocabulary, chair_vocabulary};
use fisao_runs::{Refusal, Reporter, ground_truth};
use serde::Serialize;
use serde_json::{Value, json};

pub(super) use arguments::ChairArguments;

use self::check::Comparison;
use super::inputs::{
    Asking, answer, files_in, folders, made_with, name, names, read, warn_of_other_images,
};
use super::runs::{Layout, Number, Run};
use super::world::{self, WorldEvaluation};
use crate::arguments::{ChairRules, ReportFormat, TruthArguments, WorldSplit};

pub(crate) fn run(arguments: &ChairArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let other = arguments.check.as_deref().map(|file| check::read(file, arguments)).transpose()?;
    if let Some(split) = arguments.world {
        return run_world(arguments, split, other.as_deref(), reporter);
    }
    let list = arguments.ids.as_deref().map(image_list).transpose()?;
    let vocabulary =
        chair_vocabulary(arguments.truth.vocabulary.as_deref(), arguments.truth.rules.into())?;
    let truth_files = truth_files(arguments, reporter)?;
    // Captions are read beside the ground truth; a file is held at a time.
    let files = &arguments.captions;
    let started = Instant::now();
    let (truth, first) = rayon::join(
        || truth_of(&truth_files, arguments.truth.rules, &vocabulary, reporter),
        || files.first().map(|file| read("captions", file, read_made_captions)),
    );
    let truth = truth?;
    let (file, captions) = if let (Some(file), Some(captions)) = (files.first(), first) {
        (file.clone(), captions?)
    } else {
        let file = caption(arguments, &truth, list.as_ref(), reporter)?;
        let captions = read("captions", &file, read_made_captions)?;
        (file, captions)
    };
    tracing::debug!(seconds = started.elapsed().as_secs_f64(), "captions and ground truth read");
    let names = names(files);
    let judge = Judge { arguments, list, truth, vocabulary, reporter };
    let name = names.first().map_or("model", String::as_str);
    let mut reports = vec![judge.captions(name, &file, captions)?];
    for (name, file) in names.iter().zip(files).skip(1) {
        reports.push(judge.captions(name, file, read("captions", file, read_made_captions)?)?);
    }
    print(arguments, reports, None, other.as_deref(), reporter)
}

/// Lets a model caption a split of the built-in synthetic dataset.
fn run_world(
    arguments: &ChairArguments,
    split: WorldSplit,
    other: Option<&[OtherReport]>,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let rules = arguments.truth.rules.into();
    let vocabulary = match &arguments.truth.vocabulary {
        Some(named) => chair_vocabulary(Some(named), rules)?,
        None => Vocabulary::of_world().for_chair()?,
    };
    let options = ChairOptions { verdicts: verdicts(arguments), rules, ..ChairOptions::default() };
    let found = world::evaluate(arguments, split.into(), &vocabulary, options, reporter)?;
    let WorldEvaluation { chair, tokens, cut_off, made_with } = found;
    let mut protocol = protocol::of(&chair, arguments, Some(&made_with));
    protocol.tokens = Lengths::of(&tokens);
    protocol.cut_off = Some(cut_off);
    let tokens = protocol.tokens.map(|tokens| tokens.mean);
    let made_with = Some(made_with);
    let judged = Judged { name: "world".to_owned(), chair, protocol, made_with };
    print(arguments, vec![judged], tokens, other, reporter)
}

/// Whether the verdict on every mention is printed.
fn verdicts(arguments: &ChairArguments) -> bool {
    arguments.report.per_image && arguments.report.format == ReportFormat::Json
}

/// Files with what is in the images: those that were named, or those of the data set's folder.
fn truth_files(arguments: &ChairArguments, reporter: &Reporter) -> anyhow::Result<Vec<PathBuf>> {
    let data = arguments.answering.data.as_ref();
    let Some(data) = data.filter(|_| arguments.truth.ground_truth.is_empty()) else {
        return Ok(arguments.truth.ground_truth.clone());
    };
    let what = "ground truth (instances*, captions* or objects*.json)";
    let files = files_in(data, what, |name, _| {
        ["instances", "captions", "objects"].iter().any(|known| name.starts_with(known))
    })?;
    let taken: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    reporter.note(format!("ground truth: {}", taken.join(", ")));
    Ok(files)
}

/// What captions are judged by.
struct Judge<'a> {
    arguments: &'a ChairArguments,
    list: Option<ImageList>,
    truth: GroundTruth,
    vocabulary: ObjectVocabulary,
    reporter: &'a Reporter,
}

impl Judge<'_> {
    /// Judges the captions of one file.
    fn captions(&self, name: &str, file: &Path, mut made: MadeCaptions) -> anyhow::Result<Judged> {
        let Self { arguments, list, truth, vocabulary, reporter } = self;
        let started = Instant::now();
        if let Some(list) = list {
            restrict(&mut made, list, file, reporter)?;
        }
        let captions = std::mem::take(&mut made.captions);
        let verdicts = verdicts(arguments);
        let chair = score(&arguments.truth, file, captions, verdicts, truth, vocabulary)?;
        tracing::debug!(seconds = started.elapsed().as_secs_f64(), "captions scored");
        warn(file, &chair, reporter);
        let made_with = made_with(file);
        let mut protocol = protocol::of(&chair, arguments, made_with.as_ref());
        protocol::add_rows(&mut protocol, &made, &chair);
        if let Some(list) = list {
            protocol.image_list = Some(list.name.clone());
        }
        Ok(Judged { name: name.to_owned(), chair, protocol, made_with })
    }
}

/// A list of images: the fixed one, or a file of ids.
pub(super) fn image_list(named: &str) -> anyhow::Result<ImageList> {
    if named == ImageList::CHAIR_500 {
        return Ok(ImageList::chair_500());
    }
    let path = Path::new(named);
    if !path.exists() {
        bail!(
            Refusal::new(format!("--ids: there is no file {named}"))
                .hint("give chair-500, or a file of ids, one a line")
        );
    }
    read("image ids", path, |reader| ImageList::read(&name(path), reader))
}

/// Leaves the captions of a list's images.
pub(super) fn restrict(
    made: &mut MadeCaptions,
    list: &ImageList,
    file: &Path,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let kept = list.captions(&made.captions).map_err(|error| incomplete(&error, Some(file)))?;
    let left_out = kept.iter().filter(|kept| !**kept).count();
    if left_out > 0 {
        let (file, list) = (file.display(), &list.name);
        reporter.note(format!("{file}: {left_out} captions of images outside {list} are left out"));
    }
    made.retain(&kept);
    Ok(())
}

/// A list whose images something lacks.
fn incomplete(error: &ImageListError, file: Option<&Path>) -> Refusal {
    let of = file.map_or_else(String::new, |file| format!("{}: ", file.display()));
    let hint = match error {
        ImageListError::Missing { lack: Lack::GroundTruth, .. } => {
            "add their annotations (chair-500 is of COCO's val2014 and val2017), or leave out --ids"
        }
        _ => {
            "caption the missing images too, or leave out --ids: a rate of fewer images is another number"
        }
    };
    Refusal::new(format!("{of}{error}")).hint(hint)
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
    list: Option<&ImageList>,
    reporter: &Reporter,
) -> anyhow::Result<PathBuf> {
    let ids: Vec<&str> = match list {
        Some(list) => list.names(truth).map_err(|error| incomplete(&error, None))?,
        None => truth.keys().map(String::as_str).collect(),
    };
    let images = ids.into_iter().map(|id| (id, truth.file_of(id)));
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
    /// What the numbers depend on.
    protocol: Protocol,
    /// How the captions were made, where that is known.
    made_with: Option<Value>,
}

/// A report with the length that it is about.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    chair: ChairReport,
    mean_length_unit: &'static str,
    /// What the numbers depend on.
    protocol: Protocol,
    /// How they stand beside another report.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Vec<Comparison>>,
    /// How the captions were made, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_with: Option<Value>,
}

fn print(
    arguments: &ChairArguments,
    reports: Vec<Judged>,
    tokens: Option<f64>,
    other: Option<&[OtherReport]>,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let length = if tokens.is_some() { "tokens" } else { "words" };
    let layout = Layout {
        names: "captions of",
        numbers: [
            Number::percent("chair_s", "CHAIR_S %"),
            Number::percent("chair_i", "CHAIR_I %"),
            Number::percent("recall", "recall %"),
            Number::percent("f1", "F1 %"),
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
        intervals[4] = None;
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
    let comparisons: Vec<Comparison> = match (other, &reports[..]) {
        (Some(others), [judged]) => {
            let numbers = [first.chair_s, first.chair_i, first.recall, first.f1];
            others.iter().map(|other| Comparison::of(numbers, &judged.protocol, other)).collect()
        }
        _ => Vec::new(),
    };
    let run = |Judged { name, chair, protocol, made_with }: Judged| {
        let ChairReport { chair_s, chair_i, recall, f1, mean_length_words, .. } = chair;
        let values = [chair_s, chair_i, recall, f1, tokens.or(mean_length_words)];
        let counts = [chair.captions, chair.mentions, chair.hallucinated];
        let check = other.is_some().then(|| comparisons.clone());
        let measured = Measured { chair, mean_length_unit: length, protocol, check, made_with };
        Run::new(name, values, &counts, &measured, &arguments.report)
    };
    let runs = reports.into_iter().map(run).collect::<anyhow::Result<Vec<_>>>()?;
    layout.print(&arguments.report, runs, &intervals, &notes)?;
    check::print(arguments, &comparisons)
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
