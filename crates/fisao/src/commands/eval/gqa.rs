//! `fisao eval gqa`.

mod arguments;

use anyhow::Context as _;
use fisao_eval::gqa::{
    self, GqaReport, Judged, Normalisation, Question as GqaQuestion, read_questions,
};
use fisao_eval::rates::Accuracy;
use serde_json::json;

use arguments::GqaRules;
pub(super) use arguments::{GQA_FILES, GqaArguments};
use fisao_runs::Reporter;
use fisao_runs::answering::Question;

use super::accuracy::{self, Scored};
use super::inputs::{answers, file_of, images_of, read, read_answers, warn_of};
use super::runs::{Layout, Number};

const LAYOUT: Layout<3> = Layout {
    names: "answers",
    numbers: [
        Number::percent("accuracy", "accuracy %"),
        Number::percent("accuracy_open", "open %"),
        Number::percent("accuracy_binary", "binary %"),
    ],
    counts: &["questions"],
};

pub(crate) fn run(arguments: &GqaArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let benchmark = &arguments.benchmark;
    let file = file_of(&benchmark.data, &["testdev_balanced_questions.json"])?;
    let questions = read("questions of GQA", &file, read_questions)?;
    let rules = match arguments.rules {
        GqaRules::Llava => Normalisation::Llava,
        GqaRules::LmmsEval => Normalisation::LmmsEval,
    };
    let asked = || {
        let images = images_of(&benchmark.answering, &benchmark.data, &["images"]);
        let question = |asked: &GqaQuestion| {
            let fields = [("question_id", json!(asked.id)), ("image", json!(asked.image_id))];
            let image = images.file(&asked.image_id)?;
            Ok(Question::new(fields, image, gqa::prompt(&asked.question)))
        };
        questions.iter().map(question).collect()
    };
    let mut scored = Vec::new();
    for (name, file) in answers(benchmark, "gqa", "text", asked, reporter)? {
        let answers = read_answers(&file, &benchmark.field)?;
        let report = gqa::evaluate(&questions, &answers, rules)
            .with_context(|| format!("the answers of {} cannot be scored", file.display()))?;
        let counts = [
            (report.unanswered, "questions have no answer and count as wrong"),
            (report.unknown_answers, "answers are to none of the questions"),
        ];
        warn_of(&name, &counts, reporter);
        scored.push(summary(name, report, benchmark.report.per_image));
    }
    accuracy::print(&benchmark.report, &LAYOUT, &scored)
}

fn summary(name: String, mut report: GqaReport, details: bool) -> Scored<GqaReport, 3> {
    let answers = |wanted: fn(&Judged) -> bool| -> Vec<(String, Accuracy)> {
        let judged = report.per_question.iter().filter(|judged| wanted(judged));
        judged.map(|j| (j.image_id.clone(), [j.correct].into_iter().collect())).collect()
    };
    let answers = [
        answers(|_| true),
        answers(|judged| judged.open == Some(true)),
        answers(|judged| judged.open == Some(false)),
    ];
    let parts = report.types.iter().flat_map(|(kind, names)| {
        names.iter().map(move |(name, part)| (format!("{kind}: {name}"), *part))
    });
    let parts = parts.collect();
    if !details {
        report.per_question.clear();
    }
    let numbers = [report.accuracy, report.open, report.binary];
    Scored { name, numbers, answers, parts, report }
}
