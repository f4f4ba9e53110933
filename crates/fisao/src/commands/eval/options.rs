//! `fisao eval seed-bench` and `fisao eval mmbench`: questions with options.

mod arguments;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fisao_eval::answers::QuestionId;
use fisao_eval::options::{
    CircularReport, LetterRule, MmbenchError, OptionQuestion, OptionsReport, Picks, ROTATION,
    circular, pick_by_likelihood, pick_by_text, prompt, read_likelihoods, read_mmbench, read_seed,
    score, visit_mmbench,
};
use fisao_eval::rates::Accuracy;
use fisao_formats::documents::{open_text, write_bytes};
use serde::Serialize;
use serde_json::json;

use arguments::OptionRules;
pub(super) use arguments::{MMBENCH_FILES, OptionsArguments, SEED_BENCH_FILES};
use fisao_runs::answering::Question;
use fisao_runs::image_directory::ImageDirectory;
use fisao_runs::{Refusal, Reporter};

use super::accuracy::{self, Scored};
use super::inputs::{answers, file_of, images_of, listed, read, read_answers, warn_of};
use super::runs::{Layout, Number};
use crate::arguments::{AnswerFieldArguments, ReportFormat};
use crate::output;

const SEED: Layout<1> = Layout {
    names: "answers",
    numbers: [Number::percent("accuracy", "accuracy %")],
    counts: &["questions"],
};

const MMBENCH: Layout<2> = Layout {
    names: "answers",
    numbers: [
        Number::percent("accuracy", "circular %"),
        Number::percent("accuracy_of_rotations", "each alone %"),
    ],
    counts: &["questions"],
};

pub(crate) fn seed_bench(arguments: &OptionsArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let benchmark = &arguments.benchmark;
    let rules = arguments.rules.unwrap_or(OptionRules::Exact);
    let file = file_of(&benchmark.data, &["SEED-Bench.json"])?;
    let mut questions = read("questions of SEED-Bench", &file, read_seed)?;
    if benchmark.answering.output.is_some() {
        let all = questions.len();
        let video = |question: &OptionQuestion| {
            question.categories.get("data_type").is_some_and(|kind| kind == "video")
        };
        questions.retain(|question| !video(question));
        if questions.len() < all {
            let count = all - questions.len();
            reporter.warn(
                format!("{count} of {all} questions are about videos and are not asked"),
                Some("the numbers are about the others"),
            );
        }
    }
    let places = ["SEED-Bench-image", "images"];
    let images = images_of(&benchmark.answering, &benchmark.data, &places);
    let asked = || {
        let question = |question: &OptionQuestion| {
            let name = question.image.as_deref();
            let name = name.ok_or_else(|| no_image(&question.id, "the file names none"))?;
            Ok(put(question, images.file(name)?, rules))
        };
        questions.iter().map(question).collect()
    };
    if let Some(unknown) = without_truth(&questions) {
        return only_answer(
            arguments,
            "seed-bench",
            rules,
            [unknown, questions.len()],
            asked,
            reporter,
        );
    }
    let mut scored = Vec::new();
    for (name, file) in answers(benchmark, "seed-bench", field(rules), asked, reporter)? {
        let picks = picks(&questions, &file, rules, &arguments.benchmark.field)?;
        let mut report = score(&questions, &picks.readings)
            .with_context(|| format!("the answers of {} cannot be scored", file.display()))?;
        warn(&name, &report, picks.unknown, reporter);
        // Questions about one image are drawn together.
        let answers = each_alone(&report, |at| {
            questions[at].image.clone().unwrap_or_else(|| questions[at].id.0.clone())
        });
        let parts = parts(&report.categories);
        if !benchmark.report.per_image {
            report.per_question.clear();
        }
        let numbers = [report.accuracy];
        scored.push(Scored { name, numbers, answers: [answers], parts, report });
    }
    accuracy::print(&benchmark.report, &SEED, &scored)
}

/// MMBench's two ways of counting.
#[derive(Serialize)]
struct MmbenchReport {
    #[serde(flatten)]
    circular: CircularReport,
    /// Every rotation as a question of its own.
    rotations: OptionsReport,
}

pub(crate) fn mmbench(arguments: &OptionsArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let benchmark = &arguments.benchmark;
    let rules = arguments.rules.unwrap_or(OptionRules::Infer);
    let file = table_of(&benchmark.data)?;
    let questions = read("questions of MMBench", &file, read_mmbench)?;
    let asked = || {
        let given = benchmark.answering.images.as_deref().map(ImageDirectory::open);
        let output = benchmark.answering.output.as_deref().unwrap_or(Path::new("."));
        let images = images(&file, given.as_ref(), &output.join("images"), reporter)?;
        let question = |question: &OptionQuestion| {
            let image = images.get(&question.id);
            let image =
                image.ok_or_else(|| no_image(&question.id, "no row of the table has it"))?;
            Ok(put(question, image.clone(), rules))
        };
        questions.iter().map(question).collect()
    };
    if let Some(unknown) = without_truth(&questions) {
        return only_answer(
            arguments,
            "mmbench",
            rules,
            [unknown, questions.len()],
            asked,
            reporter,
        );
    }
    let mut scored = Vec::new();
    for (name, file) in answers(benchmark, "mmbench", field(rules), asked, reporter)? {
        let picks = picks(&questions, &file, rules, &arguments.benchmark.field)?;
        let wrong = || format!("the answers of {} cannot be scored", file.display());
        let mut rotations = score(&questions, &picks.readings).with_context(wrong)?;
        let mut circular = circular(&questions, &picks.readings).with_context(wrong)?;
        warn(&name, &rotations, picks.unknown, reporter);
        if circular.orphans > 0 {
            let count = circular.orphans;
            reporter.warn(
                format!("{name}: {count} rotations are of questions that are not there"),
                None,
            );
        }
        let whole = circular.groups.iter().map(|group| {
            let right = group.correct == group.rotations;
            (group.index.to_string(), [right].into_iter().collect())
        });
        // Rotations of a question show the same image.
        let answers = [
            whole.collect(),
            each_alone(&rotations, |at| {
                let id = &questions[at].id.0;
                id.parse::<u64>().map_or_else(|_| id.clone(), |id| (id % ROTATION).to_string())
            }),
        ];
        let parts = parts(&circular.categories);
        if !benchmark.report.per_image {
            rotations.per_question.clear();
            circular.groups.clear();
        }
        let numbers = [circular.accuracy, rotations.accuracy];
        let report = MmbenchReport { circular, rotations };
        scored.push(Scored { name, numbers, answers, parts, report });
    }
    accuracy::print(&benchmark.report, &MMBENCH, &scored)
}

/// How many questions have no right answer in their file, if there are such.
fn without_truth(questions: &[OptionQuestion]) -> Option<usize> {
    let unknown = questions.iter().filter(|question| question.answer.is_none()).count();
    (unknown > 0).then_some(unknown)
}

/// Lets a model answer questions whose right answers their makers keep back, which is told before the first; what there is in
/// the end are the answers, for them to score.
fn only_answer(
    arguments: &OptionsArguments,
    benchmark: &str,
    rules: OptionRules,
    [unknown, all]: [usize; 2],
    asked: impl FnOnce() -> anyhow::Result<Vec<Question>>,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let OptionsArguments { benchmark: given, .. } = arguments;
    let kept_back = format!(
        "{unknown} of {all} questions have no right answer in {}, so that answers cannot be scored",
        given.data.display()
    );
    if given.answering.output.is_none() {
        bail!(Refusal::new(kept_back).hint("such files are scored by their makers only"));
    }
    reporter.warn(kept_back, Some("the answers are written down for their makers to score"));
    for (_, file) in answers(given, benchmark, field(rules), asked, reporter)? {
        match given.report.format {
            ReportFormat::Json => output::json(&json!({
                "questions": all,
                "accuracy": null,
                "answers": file,
            }))?,
            _ => output::line(format!("answers, not scored: {}", file.display()))?,
        }
    }
    Ok(())
}

fn no_image(question: &QuestionId, reason: &str) -> Refusal {
    Refusal::new(format!("question {} has no image: {reason}", question.0))
}

fn field(rules: OptionRules) -> &'static str {
    if rules == OptionRules::Likelihood { "log_likelihoods" } else { "text" }
}

/// A question as it is put to a model.
fn put(question: &OptionQuestion, image: PathBuf, rules: OptionRules) -> Question {
    let fields = [("question_id", json!(question.id))];
    if rules != OptionRules::Likelihood {
        return Question::new(fields, image, prompt(question));
    }
    let hint = question.hint.iter().map(String::as_str);
    let lines: Vec<&str> = hint.chain([question.question.as_str()]).collect();
    let options = question.options.clone();
    Question { options, ..Question::new(fields, image, lines.join("\n")) }
}

/// The options that answers mean.
fn picks(
    questions: &[OptionQuestion],
    file: &Path,
    rules: OptionRules,
    field: &AnswerFieldArguments,
) -> anyhow::Result<Picks> {
    let wrong = || format!("the answers of {} cannot be scored", file.display());
    let rule = match rules {
        OptionRules::Exact => LetterRule::Exact,
        OptionRules::FirstCharacter => LetterRule::FirstCharacter,
        OptionRules::Infer => LetterRule::Infer,
        OptionRules::Likelihood => {
            let rows = read("log-likelihoods", file, read_likelihoods)?;
            return pick_by_likelihood(questions, &rows).with_context(wrong);
        }
    };
    pick_by_text(questions, &read_answers(file, field)?, rule).with_context(wrong)
}

/// Says what counts as wrong without having been answered wrongly.
fn warn(name: &str, report: &OptionsReport, unknown: usize, reporter: &Reporter) {
    let counts = [
        (unknown, "answers are to none of the questions"),
        (report.unanswered, "questions have no answer; they count as wrong"),
        (report.unclear, "answers mean none of the options; they count as wrong"),
        (report.refused, "answers say that none of the options is right; they count as wrong"),
    ];
    warn_of(name, &counts, reporter);
}

/// Every question's verdict, under the name of what is drawn together with it; `unit` takes its place.
fn each_alone(report: &OptionsReport, unit: impl Fn(usize) -> String) -> Vec<(String, Accuracy)> {
    let judged = report.per_question.iter().enumerate();
    judged.map(|(at, judged)| (unit(at), [judged.correct].into_iter().collect())).collect()
}

/// Kind of category → category → accuracy.
type Categories = BTreeMap<String, BTreeMap<String, Accuracy>>;

fn parts(categories: &Categories) -> Vec<(String, Accuracy)> {
    let named = categories.iter().flat_map(|(kind, names)| {
        names.iter().map(move |(name, part)| (format!("{kind}: {name}"), *part))
    });
    named.collect()
}

/// MMBench's table: the file, or the only table of the folder.
fn table_of(data: &Path) -> anyhow::Result<PathBuf> {
    if !data.is_dir() {
        return file_of(data, &["a table"]);
    }
    let mut files = listed(data)?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "tsv"));
    match files.len() {
        1 => Ok(files.remove(0)),
        count => bail!(
            Refusal::new(format!("{} holds {count} tables, not one", data.display()))
                .hint("name the .tsv file with --data")
        ),
    }
}

/// The image of each question: from a folder, by index, or from the table, whose images are written down
/// first. Questions that show the same image share the file.
fn images(
    table: &Path,
    given: Option<&ImageDirectory>,
    folder: &Path,
    reporter: &Reporter,
) -> anyhow::Result<HashMap<QuestionId, PathBuf>> {
    let mut files = HashMap::new();
    let mut others = Vec::new();
    let progress = reporter.phase("unpacking images", 0);
    let file = open_text("questions of MMBench", table)?;
    visit_mmbench(file, |question, image| {
        let OptionQuestion { id, .. } = question;
        if let Some(given) = given {
            files.insert(id.clone(), given.file(&id.0).map_err(Failure::Other)?);
            return Ok(());
        }
        let image = image.unwrap_or_default();
        // A short cell is the index of the row that has the image.
        if image.len() < 64 {
            others.push((id, QuestionId(image.trim().to_owned())));
            return Ok(());
        }
        let bytes = STANDARD.decode(image.trim()).map_err(|error| {
            let reason = format!("the image of question {} is not base64: {error}", id.0);
            Failure::Other(Refusal::new(reason).into())
        })?;
        // What a table calls its questions becomes a file's name.
        if id.0.is_empty() || id.0.contains(['/', '\\', '\0']) || id.0.starts_with('.') {
            let reason = format!("question id '{}' of an image cannot be a file's name", id.0);
            return Err(Failure::Other(Refusal::new(reason).into()));
        }
        let ending = image::guess_format(&bytes).map_or("jpg", |format| format.extensions_str()[0]);
        let path = folder.join(format!("{}.{ending}", id.0));
        if fs::metadata(&path).map_or(0, |known| known.len()) != bytes.len() as u64 {
            write_bytes(&path, &bytes).map_err(|error| Failure::Other(error.into()))?;
        }
        progress.advance(1);
        files.insert(id, path);
        Ok(())
    })
    .map_err(|failure| match failure {
        Failure::Table(error) => anyhow::Error::new(error),
        Failure::Other(error) => error,
    })
    .with_context(|| format!("{} cannot be read as questions of MMBench", table.display()))?;
    progress.finish();
    for (id, other) in others {
        if let Some(path) = files.get(&other).cloned() {
            files.insert(id, path);
        }
    }
    Ok(files)
}

/// What can go wrong while a table is read.
enum Failure {
    Table(MmbenchError),
    Other(anyhow::Error),
}

impl From<MmbenchError> for Failure {
    fn from(error: MmbenchError) -> Self {
        Self::Table(error)
    }
}
