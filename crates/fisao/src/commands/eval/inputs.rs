//! Files that scorers read, and questions put to a model where no file of answers is given.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fisao_align::tasks::TaskSource;
use fisao_eval::answers::{self, Answer};
use fisao_formats::documents::{check_output_folder, open_text, read_json};
use fisao_runs::answering::{ANSWERS, Answering, Choosing, Question, SETTINGS, WriteAnswers};
use fisao_runs::image_directory::ImageDirectory;
use fisao_runs::{Refusal, Reporter};
use serde_json::{Value, json};

use crate::arguments::{
    Activations, AnswerFieldArguments, AnswererArguments, AnsweringArguments, BenchmarkAnswering,
    BenchmarkArguments, ModelArguments,
};
use crate::commands::chooser::{ChooserSource, open_answerer};
use crate::interrupt;

/// Opens a file, unpacked if it is gzipped, and hands it to a reader; what the reader finds wrong is said
/// with the name of the file. `what` is what the user would call it.
pub(super) fn read<T, E>(
    what: &'static str,
    path: &Path,
    reader: impl FnOnce(Box<dyn BufRead>) -> Result<T, E>,
) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let file = open_text(what, path)?;
    reader(file).with_context(|| format!("{} cannot be read as {what}", path.display()))
}

/// The answers of a file, from the field that was named or the one that can be told.
pub(super) fn read_answers(
    file: &Path,
    field: &AnswerFieldArguments,
) -> anyhow::Result<Vec<Answer>> {
    read("answers", file, |reader| answers::read_answers(reader, field.answer_field.as_deref()))
}

/// A name for what a file holds: its own, without folder and the endings of its format.
pub(super) fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let bare = [".jsonl", ".json", ".txt", ".tsv"].iter().find_map(|end| name.strip_suffix(end));
    bare.unwrap_or(name).to_owned()
}

/// Names for files, by which they can be told: their own, or with their folders where two have the same.
pub(super) fn names(files: &[PathBuf]) -> Vec<String> {
    let short: Vec<String> = files.iter().map(|file| name(file)).collect();
    let all: BTreeSet<&String> = short.iter().collect();
    if all.len() == short.len() {
        return short;
    }
    files.iter().map(|file| file.display().to_string()).collect()
}

/// Says what was left out of the numbers of a run, or counts otherwise than it seems; nothing of what there is none.
pub(super) fn warn_of(name: &str, counts: &[(usize, &str)], reporter: &Reporter) {
    for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
        reporter.warn(format!("{name}: {count} {what}"), None);
    }
}

/// Warns where runs are about different images, by the digests of those that each is about.
pub(super) fn warn_of_other_images<'a>(
    digests: impl IntoIterator<Item = &'a str>,
    reporter: &Reporter,
) {
    let different: BTreeSet<&str> = digests.into_iter().collect();
    if different.len() > 1 {
        reporter.warn(
            "the files describe different images",
            Some("their mean compares like with like only where the images are the same"),
        );
    }
}

/// What a model is asked, and what its answers are called.
pub(super) struct Asking<'a> {
    /// What it is asked for.
    pub(super) benchmark: &'a str,
    /// Name of the field that holds an answer.
    pub(super) field: &'static str,
    /// The prompt, where there is one for all questions.
    pub(super) prompt: Option<&'a str>,
    /// Folder of the answers.
    pub(super) folder: &'a Path,
}

/// Lets a model answer questions about images; returns the file of answers.
pub(super) fn answer(
    arguments: &AnswererArguments,
    asking: &Asking,
    questions: &[Question],
    reporter: &Reporter,
) -> anyhow::Result<PathBuf> {
    let Asking { benchmark, field, prompt, folder } = *asking;
    if questions.is_empty() {
        bail!(Refusal::new(format!("there is no question of {benchmark} to ask")));
    }
    check_output_folder(folder)?;
    let sampling = arguments.sampling.resolve()?;
    let world = arguments.world.kind();
    let chooser = ChooserSource::of(&arguments.choosing, world, None)?;
    let opened = arguments.model.device.open(reporter)?;
    let choice = chooser.as_ref().map(ChooserSource::identity).transpose()?;
    let model = (&arguments.model.source(), world);
    let (policy, mut chooser) = open_answerer(chooser.as_ref(), model, &opened, reporter)?;
    let adapter = arguments.model.adapter.as_ref().map(ToString::to_string);
    let dtype = dtype(&arguments.model);
    let mut settings = json!({ "benchmark": benchmark, "adapter": adapter, "dtype": dtype });
    if arguments.model.activation_dtype == Activations::Bf16 {
        settings["activation_dtype"] = "bf16".into();
    }
    if let Some(prompt) = prompt {
        settings["prompt"] = prompt.into();
    }
    for (key, value) in choice.into_iter().flatten() {
        settings[key] = value;
    }
    let views = chooser.as_ref().and_then(|chooser| chooser.views().cloned());
    let (policy, sampling, damaged) = (&policy, &sampling, arguments.damaged.images());
    let exact = arguments.sharing.exact;
    let mut write = chooser.as_mut().map(|chooser| {
        |tasks: &dyn TaskSource, range| {
            let written = chooser.choose((policy, policy.team(exact)), tasks, range, sampling)?;
            anyhow::Ok(written.into_iter().map(|(answer, _)| answer).collect())
        }
    });
    let write = write.as_mut().map(|write| write as &mut WriteAnswers<'_>);
    let choosing = write.map(|write| Choosing { views: views.as_ref(), write });
    let stop = &interrupt::flag;
    let answering = Answering { policy, sampling, settings, field, folder, damaged, exact, stop };
    answering.run(questions, choosing, reporter)
}

/// Type of a model's weights, as the option names it.
pub(super) fn dtype(model: &ModelArguments) -> String {
    format!("{:?}", model.dtype).to_lowercase()
}

/// What is known of how the answers of a file were made: the settings that a model's answers lie beside.
pub(super) fn made_with(file: &Path) -> Option<Value> {
    let settings = file.parent()?.join(SETTINGS);
    (file.file_name()? == ANSWERS && settings.is_file())
        .then(|| read_json("settings", &settings).ok())?
}

/// The answers to a benchmark: the files that were given, or those of a model that is asked now.
pub(super) fn answers(
    arguments: &BenchmarkArguments,
    benchmark: &str,
    field: &'static str,
    questions: impl FnOnce() -> anyhow::Result<Vec<Question>>,
    reporter: &Reporter,
) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let BenchmarkAnswering { output, answerer, .. } = &arguments.answering;
    let Some(folder) = output else {
        let files = &arguments.answers;
        return Ok(names(files).into_iter().zip(files.iter().cloned()).collect());
    };
    let asking = Asking { benchmark, field, prompt: None, folder };
    let file = answer(answerer, &asking, &questions()?, reporter)?;
    Ok(vec![("model".to_owned(), file)])
}

/// The first of some files that a benchmark's folder holds, or the benchmark itself where it is a file.
pub(super) fn file_of(data: &Path, names: &[&str]) -> anyhow::Result<PathBuf> {
    match optional_file_of(data, names) {
        Some(file) => Ok(file),
        None if data.exists() => bail!(
            Refusal::new(format!("{} has no {}", data.display(), names[0]))
                .hint("give the benchmark's folder with --data, as its makers publish it")
        ),
        None => bail!(Refusal::new(format!("there is no {}", data.display()))),
    }
}

/// The same where the benchmark can do without.
pub(super) fn optional_file_of(data: &Path, names: &[&str]) -> Option<PathBuf> {
    if data.is_file() {
        return Some(data.to_owned());
    }
    let packed = |name: &&str| [data.join(name), data.join(format!("{name}.gz"))];
    names.iter().flat_map(packed).find(|file| file.is_file())
}

/// Files of JSON in a data set's folder that are wanted by name and ending, where none were named on the command
/// line.
pub(super) fn files_in(
    data: &Path,
    what: &str,
    wanted: impl Fn(&str, &str) -> bool,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = listed(data)?;
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        let (stem, ending) = name.rsplit_once('.').unwrap_or_default();
        matches!(ending, "json" | "jsonl") && wanted(stem, ending)
    });
    if files.is_empty() {
        bail!(
            Refusal::new(format!("{} holds no {what}", data.display()))
                .hint("name the files on the command line")
        );
    }
    Ok(files)
}

/// What a folder holds, sorted.
pub(super) fn listed(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let failed = |error| Refusal::new(format!("{} cannot be read: {error}", folder.display()));
    let entries = fs::read_dir(folder).map_err(failed)?;
    let paths: Result<Vec<PathBuf>, _> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// Where a benchmark's images are: where the user says, or in the first folder that there is.
pub(super) fn images_of(
    arguments: &BenchmarkAnswering,
    data: &Path,
    names: &[&str],
) -> ImageDirectory {
    let beside = if data.is_file() { data.parent().unwrap_or(data) } else { data };
    let folder = || names.iter().map(|name| beside.join(name)).find(|folder| folder.is_dir());
    let folder = arguments.images.clone().or_else(folder);
    ImageDirectory::open(&folder.unwrap_or_else(|| beside.to_owned()))
}

/// The folders of images and of answers.
pub(super) fn folders(arguments: &AnsweringArguments) -> anyhow::Result<(PathBuf, &Path)> {
    let within = |data: &PathBuf| {
        let images = data.join("images");
        if images.is_dir() { images } else { data.clone() }
    };
    let images = arguments.images.clone().or_else(|| arguments.data.as_ref().map(within));
    match (images, &arguments.output) {
        (Some(images), Some(output)) => Ok((images, output)),
        _ => bail!(Refusal::new("there are no answers to score").hint(
            "give --answers, or let a model answer: --images DIR --output DIR, with --model"
        )),
    }
}
