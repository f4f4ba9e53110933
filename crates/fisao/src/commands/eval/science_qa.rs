//! `fisao eval science-qa`.

mod arguments;

use anyhow::{Context as _, bail};
use fisao_eval::rates::Accuracy;
use fisao_eval::science_qa::{
    self, Judged, ScienceQaError, ScienceQaReport, read_problems, read_splits,
};
use fisao_runs::answering::Question;
use fisao_runs::{Refusal, Reporter};
use serde_json::json;

pub(super) use arguments::{SCIENCE_QA_FILES, ScienceQaArguments};

use super::accuracy::{self, Scored};
use super::inputs::{answers, file_of, images_of, read, read_answers, warn_of};
use super::runs::{Layout, Number};

const LAYOUT: Layout<2> = Layout {
    names: "answers",
    numbers: [
        Number::percent("accuracy", "accuracy %"),
        Number::percent("accuracy_with_image", "with image %"),
    ],
    counts: &["questions"],
};

pub(crate) fn run(arguments: &ScienceQaArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let benchmark = &arguments.benchmark;
    let problems = read(
        "problems of ScienceQA",
        &file_of(&benchmark.data, &["problems.json"])?,
        read_problems,
    )?;
    let splits = file_of(&benchmark.data, &["pid_splits.json"])?;
    let mut splits = read("splits of ScienceQA", &splits, read_splits)?;
    let Some(mut split) = splits.remove(&arguments.split) else {
        let names: Vec<String> = splits.into_keys().collect();
        bail!(
            Refusal::new(format!("ScienceQA has no split `{}`", arguments.split))
                .hint(format!("pid_splits.json has {}", names.join(", ")))
        );
    };
    if benchmark.answering.output.is_some() {
        let all = split.len();
        split.retain(|id| problems.get(id).is_none_or(|problem| problem.image.is_some()));
        if split.len() < all {
            let count = all - split.len();
            reporter.warn(
                format!("{count} of {all} problems have no image and are not asked"),
                Some("the numbers are about the others"),
            );
        }
    }
    let folder = format!("images/{}", arguments.split);
    let images =
        images_of(&benchmark.answering, &benchmark.data, &[&folder, &arguments.split, "images"]);
    let questions = || {
        let question = |id: &String| {
            let problem = problems.get(id);
            let problem = problem.ok_or_else(|| ScienceQaError::NoProblem { id: id.clone() })?;
            let name = problem.image.as_deref().unwrap_or_default();
            let image = images.within(id).as_ref().unwrap_or(&images).file(name)?;
            Ok(Question::new([("question_id", json!(id))], image, science_qa::prompt(problem)))
        };
        split.iter().map(question).collect()
    };
    let mut scored = Vec::new();
    for (name, file) in answers(benchmark, "science-qa", "text", questions, reporter)? {
        let answers = read_answers(&file, &benchmark.field)?;
        let report = science_qa::evaluate(&problems, &split, &answers)
            .with_context(|| format!("the answers of {} cannot be scored", file.display()))?;
        warn(&name, &report, reporter);
        scored.push(summary(name, report, benchmark.report.per_image));
    }
    accuracy::print(&benchmark.report, &LAYOUT, &scored)
}

fn summary(name: String, mut report: ScienceQaReport, details: bool) -> Scored<ScienceQaReport, 2> {
    let answers = |wanted: fn(&Judged) -> bool| -> Vec<(String, Accuracy)> {
        let judged = report.per_question.iter().filter(|judged| wanted(judged));
        let right = |judged: &Judged| judged.picked == Some(judged.answer);
        judged.map(|j| (j.question_id.0.clone(), [right(j)].into_iter().collect())).collect()
    };
    let answers = [answers(|_| true), answers(|judged| judged.with_image)];
    let parts =
        [("", &report.subjects), ("context: ", &report.contexts), ("grades ", &report.grades)];
    let parts = parts.into_iter().flat_map(|(kind, parts)| {
        parts.iter().map(move |(name, part)| (format!("{kind}{name}"), *part))
    });
    let parts = parts.collect();
    if !details {
        report.per_question.clear();
    }
    Scored { name, numbers: [report.accuracy, report.image_accuracy], answers, parts, report }
}

/// Says what counts as wrong without having been answered wrongly.
fn warn(name: &str, report: &ScienceQaReport, reporter: &Reporter) {
    let counts = [
        (report.unanswered, "problems have no answer and count as wrong"),
        (report.unclear, "answers mean none of the options and count as wrong"),
        (report.unknown_answers, "answers are to problems that are not in the split"),
    ];
    warn_of(name, &counts, reporter);
}
