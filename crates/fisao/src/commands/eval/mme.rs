//! `fisao eval mme`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fisao_eval::answers::read_answers;
use fisao_eval::mme::{self, MmeReport, Reading, Row, read_task, score_task};
use serde_json::{Map, json};

use super::inputs::{answer, folders, image_file, name, read};
use super::report;
use crate::answering::Question;
use crate::arguments::{MmeArguments, MmeReading};
use crate::failure::Refusal;
use crate::reporter::Reporter;
use crate::table::{NONE, Table, percent};

pub(crate) fn run(arguments: &MmeArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let reading = match arguments.rules {
        MmeReading::Official => Reading::Official,
        MmeReading::LmmsEval => Reading::LmmsEval,
    };
    let tasks = match &arguments.answers {
        Some(folder) => tasks(folder)?,
        None => asked(arguments, reporter)?,
    };
    let tasks = tasks.into_iter().map(|(name, rows)| (name, score_task(rows, reading))).collect();
    print(arguments, &mme::evaluate(tasks), reporter)
}

/// The tasks of a folder, a text file each.
fn tasks(folder: &Path) -> anyhow::Result<BTreeMap<String, Vec<Row>>> {
    let mut tasks = BTreeMap::new();
    for file in text_files(folder)? {
        let task = name(&file);
        let rows = read("a task of MME", &file, |reader| read_task(&task, reader))?;
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

fn text_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .map_err(|error| Refusal::new(format!("{} cannot be read: {error}", folder.display())))?;
    let files = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = files.collect::<Result<_, _>>().context("listing the tasks")?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "txt"));
    files.sort();
    Ok(files)
}

/// Puts the questions of all tasks to a model. The folder of pictures holds a folder for each task, with its
/// pictures and, as a text file beside them or above them, its questions.
fn asked(
    arguments: &MmeArguments,
    reporter: &Reporter,
) -> anyhow::Result<BTreeMap<String, Vec<Row>>> {
    let (images, output) = folders(&arguments.answering)?;
    let mut tasks = tasks(images)?;
    let mut questions = Vec::new();
    for (task, rows) in &tasks {
        let folder = images.join(task);
        let folder = if folder.is_dir() { folder } else { images.to_owned() };
        for (index, row) in rows.iter().enumerate() {
            let mut fields = Map::new();
            fields.insert("question_id".to_owned(), json!(format!("{task}/{index}")));
            fields.insert("image".to_owned(), json!(row.image));
            let image = image_file(&folder, &row.image)?;
            questions.push(Question { row: fields, image, prompt: mme::prompt(&row.question) });
        }
    }
    let answers = answer(&arguments.answering, "mme", "text", output, &questions, reporter)?;
    let answers = read("answers", &answers, read_answers)?;
    let rows = tasks.values_mut().flatten();
    for (row, answer) in rows.zip(answers) {
        row.answer = answer.text;
    }
    Ok(tasks)
}

fn print(arguments: &MmeArguments, found: &MmeReport, reporter: &Reporter) -> anyhow::Result<()> {
    let mut table = Table::new(&["task", "acc %", "acc+ %", "score", "questions", "neither"]);
    let number =
        |score: Option<f64>| score.map_or_else(|| NONE.to_owned(), |score| format!("{score:.2}"));
    for (name, task) in &found.tasks {
        table.row([
            name.clone(),
            percent(task.acc),
            percent(task.acc_plus),
            number(task.score),
            task.questions.to_string(),
            task.other.to_string(),
        ]);
    }
    let none = || NONE.to_owned();
    let sums = [
        ("perception", found.perception, &found.perception_missing),
        ("cognition", found.cognition, &found.cognition_missing),
    ];
    for (name, sum, missing) in sums {
        table.row([name.to_owned(), none(), none(), number(sum), none(), none()]);
        if sum.is_some() && !missing.is_empty() {
            reporter.warn(
                format!("{name} lacks {}", missing.join(", ")),
                Some("the sum is not comparable with a published one"),
            );
        }
    }
    report::print(&arguments.report, found, &["per_question"], &table, &[])
}
