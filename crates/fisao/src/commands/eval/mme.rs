//! `fisao eval mme`.

mod arguments;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use anyhow::bail;
use fisao_eval::mme::{
    self, MmeError, MmeReport, Reading, Row, read_questions, read_task, score_task,
};
use fisao_eval::statistics::{Bootstrap, Interval};
use serde_json::json;

pub(super) use arguments::MmeArguments;
use arguments::MmeReading;
use fisao_runs::answering::Question;
use fisao_runs::image_directory::ImageDirectory;
use fisao_runs::{Refusal, Reporter};

use super::inputs::{Asking, answer, folders, listed, name, names, read, read_answers};
use super::report;
use super::runs::{Layout, Number, Run};
use crate::arguments::{AnswerFieldArguments, ReportFormat};
use fisao_report::table::{NONE, Table, percent};

pub(crate) fn run(arguments: &MmeArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let reading = match arguments.rules {
        MmeReading::Official => Reading::Official,
        MmeReading::LmmsEval => Reading::LmmsEval,
    };
    let score = |tasks: BTreeMap<String, Vec<Row>>| {
        let scored = tasks.into_iter().map(|(name, rows)| (name, score_task(rows, reading)));
        mme::evaluate(scored.collect())
    };
    let mut reports = Vec::new();
    for (name, folder) in names(&arguments.answers).into_iter().zip(&arguments.answers) {
        reports.push((name, score(tasks(folder, read_task)?)));
    }
    if reports.is_empty() {
        reports.push(("model".to_owned(), score(asked(arguments, reporter)?)));
    }
    print(arguments, reports, reporter)
}

/// What reads a task's file: with answers, or questions only.
type ReadRows = fn(&str, Box<dyn BufRead>) -> Result<Vec<Row>, MmeError>;

/// The tasks of a folder, a text file each.
fn tasks(folder: &Path, read_rows: ReadRows) -> anyhow::Result<BTreeMap<String, Vec<Row>>> {
    let mut tasks = BTreeMap::new();
    let files = listed(folder)?.into_iter();
    for file in files.filter(|file| file.extension().is_some_and(|ending| ending == "txt")) {
        let task = name(&file);
        let rows = read("a task of MME", &file, |reader| read_rows(&task, reader))?;
        tasks.insert(task, rows);
    }
    if tasks.is_empty() {
        bail!(
            Refusal::new(format!("{} holds no TASK.txt", folder.display()))
                .hint("name the folder that holds existence.txt, count.txt and so on")
        );
    }
    Ok(tasks)
}

/// Puts the questions of all tasks to a model. The folder holds a TASK.txt for each task and its images in TASK/images,
/// in TASK or beside it.
fn asked(
    arguments: &MmeArguments,
    reporter: &Reporter,
) -> anyhow::Result<BTreeMap<String, Vec<Row>>> {
    let (images, folder) = folders(&arguments.answering)?;
    let mut tasks = tasks(&images, read_questions)?;
    let images = ImageDirectory::open(&images);
    let mut questions = Vec::new();
    for (task, rows) in &tasks {
        let own = images.within(&format!("{task}/images")).or_else(|| images.within(task));
        let images = own.as_ref().unwrap_or(&images);
        for (index, row) in rows.iter().enumerate() {
            let id = format!("{task}/{index}");
            let fields = [("question_id", json!(id)), ("image", json!(row.image))];
            let image = images.file(&row.image)?;
            questions.push(Question::new(fields, image, mme::prompt(&row.question)));
        }
    }
    let asking = Asking { benchmark: "mme", field: "text", prompt: None, folder };
    let answers = answer(&arguments.answering.answerer, &asking, &questions, reporter)?;
    let answers = read_answers(&answers, &AnswerFieldArguments::default())?;
    let rows = tasks.values_mut().flatten();
    for (row, answer) in rows.zip(answers) {
        row.answer = answer.text;
    }
    Ok(tasks)
}

const LAYOUT: Layout<2> = Layout {
    names: "answers",
    numbers: [
        Number::decimals("perception", "perception", 2),
        Number::decimals("cognition", "cognition", 2),
    ],
    counts: &["tasks", "questions"],
};

fn print(
    arguments: &MmeArguments,
    reports: Vec<(String, MmeReport)>,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    for (name, found) in &reports {
        warn(name, found, reporter);
    }
    let all: Vec<&MmeReport> = reports.iter().map(|(_, report)| report).collect();
    let intervals = mme::intervals(&all, Bootstrap::default());
    if let ([found], false) = (&all[..], arguments.report.format == ReportFormat::Json) {
        let format = arguments.report.format;
        return report::table(format, &of_tasks(found, &intervals, format), &[]);
    }
    let run = |(name, mut report): (String, MmeReport)| {
        if !arguments.report.per_image {
            report.tasks.values_mut().for_each(|task| task.per_question.clear());
        }
        let questions = report.tasks.values().map(|task| task.questions).sum();
        let values = [report.perception, report.cognition];
        Run::new(name, values, &[report.tasks.len(), questions], &report, &arguments.report)
    };
    let runs = reports.into_iter().map(run).collect::<anyhow::Result<Vec<_>>>()?;
    LAYOUT.print(&arguments.report, runs, &intervals, &[])
}

/// Says what the numbers lack.
fn warn(name: &str, found: &MmeReport, reporter: &Reporter) {
    let sums = [
        ("perception", found.perception, &found.perception_missing),
        ("cognition", found.cognition, &found.cognition_missing),
    ];
    for (sum, value, missing) in sums {
        if value.is_some() && !missing.is_empty() {
            reporter.warn(
                format!("{name}: {sum} lacks {}", missing.join(", ")),
                Some("the sum is not comparable with a published one"),
            );
        }
    }
    if !found.unknown_tasks.is_empty() {
        let tasks = found.unknown_tasks.join(", ");
        reporter.warn(format!("{name}: {tasks} belong to neither sum"), None);
    }
}

/// One run, task by task; intervals in one column for people, in two for programs.
fn of_tasks(found: &MmeReport, intervals: &[Option<Interval>; 2], format: ReportFormat) -> Table {
    let of_interval: &[&str] = match format {
        ReportFormat::Csv => &["95 % from", "95 % to"],
        _ => &["95 % interval"],
    };
    let columns = [&["task", "acc %", "acc+ %", "score"], of_interval, &["questions", "neither"]];
    let mut table = Table::new(&columns.concat());
    let number =
        |score: Option<f64>| score.map_or_else(|| NONE.to_owned(), |score| format!("{score:.2}"));
    for (name, task) in &found.tasks {
        let numbers = [name.clone(), percent(task.acc), percent(task.acc_plus), number(task.score)];
        let counts = [task.questions.to_string(), task.other.to_string()];
        let no_interval = vec![String::new(); of_interval.len()];
        table.row(numbers.into_iter().chain(no_interval).chain(counts));
    }
    let none = || NONE.to_owned();
    let sums = [("perception", found.perception), ("cognition", found.cognition)];
    for ((name, sum), interval) in sums.into_iter().zip(intervals) {
        let ends =
            interval.map(|interval| [interval.low, interval.high].map(|end| format!("{end:.2}")));
        let interval = match (format, ends) {
            (ReportFormat::Csv, ends) => ends.unwrap_or_default().to_vec(),
            (_, Some([low, high])) => vec![format!("{low} … {high}")],
            (_, None) => vec![String::new()],
        };
        let numbers = [name.to_owned(), none(), none(), number(sum)];
        table.row(numbers.into_iter().chain(interval).chain([none(), none()]));
    }
    table
}
