//! `fisao eval mm-vet` and `fisao eval mm-hal`: requests for a judge are written, and what it said is summed up.

mod arguments;

use std::array;
use std::collections::HashMap;
use std::ops::Add;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fisao_eval::answers::{Answer, PairingError, QuestionId, pair};
use fisao_eval::judged::{
    JudgeRequest, Template,
    mm_hal::{self, MmHalReport, Record},
    mm_vet::{self, Grades, MmVetReport},
    read_verdicts,
};
use fisao_eval::statistics::{Bootstrap, Interval};
use fisao_formats::documents::{check_output_file, read_text};
use fisao_formats::json_lines::write_json_lines;
use fisao_runs::answering::Question;
use fisao_runs::image_directory::ImageDirectory;
use fisao_runs::{Refusal, Reporter};
use serde_json::{Map, Value, json};

pub(super) use arguments::{JudgedArguments, MM_HAL_FILES, MM_VET_FILES};

use super::inputs::{Asking, answer, file_of, images_of, names, read, read_answers, warn_of};
use super::runs::{Layout, Number, Run};
use crate::arguments::AnswerFieldArguments;
use crate::output;

const MM_VET: Layout<1> = Layout {
    names: "verdicts",
    numbers: [Number::decimals("score", "score", 1)],
    counts: &["questions"],
};

const MM_HAL: Layout<2> = Layout {
    names: "verdicts",
    numbers: [
        Number::decimals("average_score", "score", 2),
        Number::percent("hallucination_rate", "hallucinated %"),
    ],
    counts: &["rated"],
};

pub(crate) fn mm_vet(arguments: &JudgedArguments, reporter: &Reporter) -> anyhow::Result<()> {
    arguments.requests.as_deref().map_or(Ok(()), check_output_file)?;
    let file = file_of(&arguments.data, &["mm-vet.json"])?;
    let questions = read("questions of MM-Vet", &file, mm_vet::read_questions)?;
    if arguments.verdicts.is_empty() {
        let asked = || {
            let images = images_of(&arguments.answering, &arguments.data, &["images"]);
            let question = |asked: &mm_vet::Question| {
                let fields = [("question_id", json!(asked.id))];
                let image = images.file(&asked.image)?;
                Ok(Question::new(fields, image, mm_vet::prompt(&asked.question)))
            };
            questions.iter().map(question).collect()
        };
        let template = template(arguments, mm_vet::TEMPLATE, &mm_vet::PLACES)?;
        let file = answers(arguments, "mm-vet", asked, reporter)?;
        let answers = vet_answers(&file, &arguments.field)?;
        let requests = mm_vet::requests(&questions, &answers, &template)
            .with_context(|| format!("the answers of {} cannot be judged", file.display()))?;
        return write(arguments, &requests, questions.len(), reporter);
    }
    let mut reports = Vec::new();
    for (name, file) in names(&arguments.verdicts).into_iter().zip(&arguments.verdicts) {
        let (grades, unclear) = grades(file)?;
        let report = mm_vet::evaluate(&questions, &grades)
            .with_context(|| format!("the verdicts of {} cannot be summed up", file.display()))?;
        let counts = [
            (unclear, "verdicts are not numbers from 0 to 1 and count as 0"),
            (report.ungraded, "questions have no verdict and count nowhere"),
            (report.unknown, "verdicts are on none of the questions"),
        ];
        warn_of(&name, &counts, reporter);
        reports.push((name, report));
    }
    let images: HashMap<&QuestionId, &String> =
        questions.iter().map(|question| (&question.id, &question.image)).collect();
    // Questions about one image are drawn together.
    let grade = |report: &MmVetReport| -> Vec<(String, Sum)> {
        let grades = report.per_question.iter();
        let image = |id| images.get(id).map_or_else(String::new, |image| (*image).clone());
        grades.map(|(id, &grade)| (image(id), Sum::of([100.0 * grade]))).collect()
    };
    let runs: Vec<_> = reports.iter().map(|(_, report)| grade(report)).collect();
    let intervals = intervals(&runs);
    let run = |(name, mut report): (String, MmVetReport)| {
        if !arguments.report.per_image {
            report.per_question.clear();
        }
        Run::new(name, [report.total.score], &[report.total.questions], &report, &arguments.report)
    };
    let runs = reports.into_iter().map(run).collect::<anyhow::Result<Vec<_>>>()?;
    MM_VET.print(&arguments.report, runs, &intervals, &[])
}

pub(crate) fn mm_hal(arguments: &JudgedArguments, reporter: &Reporter) -> anyhow::Result<()> {
    arguments.requests.as_deref().map_or(Ok(()), check_output_file)?;
    let file = file_of(&arguments.data, &["response_template.json"])?;
    let mut records = read("questions of MMHal-Bench", &file, mm_hal::read_records)?;
    if arguments.verdicts.is_empty() {
        let asked = || {
            let images = images_of(&arguments.answering, &arguments.data, &["images"]);
            let question = |(place, record): (usize, &Record)| {
                let fields = [("question_id", json!(place.to_string()))];
                let image = hal_image(&images, place, record)?;
                Ok(Question::new(fields, image, mm_hal::prompt(&record.question)))
            };
            records.iter().enumerate().map(question).collect()
        };
        let template = template(arguments, mm_hal::TEMPLATE, &mm_hal::PLACES)?;
        let file = answers(arguments, "mm-hal", asked, reporter)?;
        hal_answers(&file, &arguments.field, &mut records)
            .with_context(|| format!("the answers of {} cannot be judged", file.display()))?;
        let requests = mm_hal::requests(&records, &template)?;
        return write(arguments, &requests, records.len(), reporter);
    }
    let mut reports = Vec::new();
    for (name, file) in names(&arguments.verdicts).into_iter().zip(&arguments.verdicts) {
        let verdicts = read("verdicts", file, read_verdicts)?;
        let report = mm_hal::evaluate(&records, &verdicts)
            .with_context(|| format!("the verdicts of {} cannot be summed up", file.display()))?;
        let counts = [
            (report.unclear, "verdicts hold no rating or several and count as 0"),
            (report.unrated, "questions have no verdict and count nowhere"),
        ];
        warn_of(&name, &counts, reporter);
        reports.push((name, report));
    }
    let ratings = |report: &MmHalReport| -> Vec<(String, Sum<2>)> {
        let rated = report.ratings.iter().enumerate();
        let rating = |(at, rating): (usize, &Option<u8>)| {
            let rating = (*rating)?;
            let hallucinated = f64::from(u8::from(rating < 3));
            Some((at.to_string(), Sum::of([f64::from(rating), hallucinated])))
        };
        rated.filter_map(rating).collect()
    };
    let runs: Vec<_> = reports.iter().map(|(_, report)| ratings(report)).collect();
    let intervals = intervals(&runs);
    let run = |(name, mut report): (String, MmHalReport)| {
        if !arguments.report.per_image {
            report.ratings.clear();
        }
        let values = [report.average_score, report.hallucination_rate];
        Run::new(name, values, &[report.rated], &report, &arguments.report)
    };
    let runs = reports.into_iter().map(run).collect::<anyhow::Result<Vec<_>>>()?;
    MM_HAL.print(&arguments.report, runs, &intervals, &[])
}

/// The file of answers: given, or of a model that is asked now.
fn answers(
    arguments: &JudgedArguments,
    benchmark: &str,
    questions: impl FnOnce() -> anyhow::Result<Vec<Question>>,
    reporter: &Reporter,
) -> anyhow::Result<PathBuf> {
    match (&arguments.answers, &arguments.answering.output) {
        (None, Some(folder)) => {
            let asking = Asking { benchmark, field: "text", prompt: None, folder };
            answer(&arguments.answering.answerer, &asking, &questions()?, reporter)
        }
        (answers, _) => {
            Ok(answers.clone().ok_or_else(|| Refusal::new("there are no answers to be judged"))?)
        }
    }
}

/// Answers in the benchmark's own form, one object of id and text, or as rows. LLaVA numbers MM-Vet's questions
/// without their "v1_".
fn vet_answers(file: &Path, field: &AnswerFieldArguments) -> anyhow::Result<Vec<Answer>> {
    if field.answer_field.is_none() && is_keyed("answers", file)? {
        return read("answers", file, mm_vet::read_results);
    }
    let mut answers = read_answers(file, field)?;
    for QuestionId(id) in answers.iter_mut().filter_map(|answer| answer.question_id.as_mut()) {
        if id.bytes().all(|byte| byte.is_ascii_digit()) {
            *id = format!("v1_{id}");
        }
    }
    Ok(answers)
}

/// Fills in the model's answers: from the benchmark's own form, the records themselves, or from rows by the place of
/// the record.
fn hal_answers(
    file: &Path,
    field: &AnswerFieldArguments,
    records: &mut [Record],
) -> anyhow::Result<()> {
    let is_record =
        field.answer_field.is_none() && read_text("answers", file)?.contains("\"gt_answer\"");
    let answers = if is_record {
        let answered = read("answers", file, mm_hal::read_records)?;
        let text = |record: Record| Answer { question_id: None, text: record.model_answer };
        answered.into_iter().map(text).collect()
    } else {
        read_answers(file, field)?
    };
    let ids: Vec<QuestionId> = (0..records.len()).map(|at| QuestionId(at.to_string())).collect();
    let paired = pair(&ids.iter().collect::<Vec<_>>(), &answers)?;
    for (record, text) in records.iter_mut().zip(&paired.texts) {
        let text =
            text.ok_or(PairingError::Counts { questions: ids.len(), answers: answers.len() })?;
        text.clone_into(&mut record.model_answer);
    }
    Ok(())
}

/// The image of a record: by the name in its address, by its id, or by its place.
fn hal_image(images: &ImageDirectory, place: usize, record: &Record) -> anyhow::Result<PathBuf> {
    let address = record.image_src.as_deref().and_then(|address| address.rsplit('/').next());
    let id = record.image_id.as_ref().map(|id| id.0.as_str());
    let place = format!("{place:02}");
    let names = address.into_iter().chain(id).chain([place.as_str()]);
    let mut last = None;
    for name in names {
        match images.file(name) {
            Ok(file) => return Ok(file),
            Err(error) => last = last.or(Some(error)),
        }
    }
    Err(last.unwrap_or_else(|| Refusal::new("a record names no image").into()))
}

/// The judge's prompt, which has all its places.
fn template(
    arguments: &JudgedArguments,
    ours: &str,
    places: &[&'static str],
) -> anyhow::Result<String> {
    let Some(file) = &arguments.judge_prompt else { return Ok(ours.to_owned()) };
    let text = read_text("judge's prompt", file)?;
    Template::new(&text, places)
        .with_context(|| format!("{} cannot be the judge's prompt", file.display()))?;
    Ok(text)
}

/// Whether a file is one object by the ids of questions, the benchmark's own form, rather than rows.
fn is_keyed(what: &'static str, file: &Path) -> anyhow::Result<bool> {
    let row = ["question_id", "id", "text", "score", "choices"];
    let object: Result<Map<String, Value>, _> = serde_json::from_str(&read_text(what, file)?);
    Ok(object.is_ok_and(|object| !row.iter().any(|key| object.contains_key(*key))))
}

/// Writes the requests, and says what to do with them.
fn write(
    arguments: &JudgedArguments,
    requests: &[JudgeRequest],
    questions: usize,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let beside = || arguments.answering.output.as_ref().map(|folder| folder.join("requests.jsonl"));
    let file = arguments.requests.clone().or_else(beside);
    let file = file.ok_or_else(|| Refusal::new("--requests names no file"))?;
    write_json_lines(&file, requests)?;
    if requests.len() < questions {
        let missing = questions - requests.len();
        reporter.warn(format!("{missing} questions have no answer and are left out"), None);
    }
    output::line(format!("{} requests: {}", requests.len(), file.display()))?;
    reporter.note("put each \"prompt\" to the judge, write what it says as {\"question_id\": …, \"text\": …}, and give that with --verdicts");
    Ok(())
}

/// Grades in the benchmark's own form, or verdicts as rows; and how many verdicts were no grade.
fn grades(file: &Path) -> anyhow::Result<(Grades, usize)> {
    if is_keyed("grades", file)? {
        return Ok((read("grades", file, mm_vet::read_grades)?, 0));
    }
    let verdicts = read("verdicts", file, read_verdicts)?;
    mm_vet::grade(&verdicts)
        .with_context(|| format!("the verdicts of {} cannot be summed up", file.display()))
}

/// Sums of which means are made.
#[derive(Clone, Copy, Debug)]
struct Sum<const N: usize = 1> {
    values: [f64; N],
    count: usize,
}

impl<const N: usize> Default for Sum<N> {
    fn default() -> Self {
        Self { values: [0.0; N], count: 0 }
    }
}

impl<const N: usize> Sum<N> {
    fn of(values: [f64; N]) -> Self {
        Self { values, count: 1 }
    }
}

impl<const N: usize> Add for Sum<N> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let values = array::from_fn(|at| self.values[at] + other.values[at]);
        Self { values, count: self.count + other.count }
    }
}

fn intervals<const N: usize>(runs: &[Vec<(String, Sum<N>)>]) -> [Option<Interval>; N] {
    Bootstrap::default().intervals(runs, |sum| {
        sum.values.map(|value| (sum.count > 0).then(|| value / sum.count as f64))
    })
}
