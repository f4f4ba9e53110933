//! `fisao eval amber`.

mod arguments;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::Context as _;
use fisao_eval::amber::{
    self, AmberData, AmberReport, Kind, NAMES, Plurals, Query, read_annotations, read_associations,
    read_queries, read_safe_words, read_starts,
};
use fisao_eval::statistics::Bootstrap;
use serde_json::json;

pub(super) use arguments::{AMBER_FILES, AmberArguments};
use arguments::{AmberPart, AmberPlurals};
use fisao_runs::answering::Question;
use fisao_runs::{Refusal, Reporter};

use super::inputs::{answers, file_of, images_of, optional_file_of, read, read_answers};
use super::runs::{Layout, Number, Run};

const LAYOUT: Layout<8> = Layout {
    names: "answers",
    numbers: [
        Number::percent(NAMES[0], "CHAIR %"),
        Number::percent(NAMES[1], "Cover %"),
        Number::percent(NAMES[2], "Hal %"),
        Number::percent(NAMES[3], "Cog %"),
        Number::percent(NAMES[4], "accuracy %"),
        Number::percent(NAMES[5], "precision %"),
        Number::percent(NAMES[6], "recall %"),
        Number::percent(NAMES[7], "F1 %"),
    ],
    counts: &["descriptions", "questions"],
};

pub(crate) fn run(arguments: &AmberArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let benchmark = &arguments.benchmark;
    let data = data(&benchmark.data)?;
    let plurals = match arguments.plurals {
        AmberPlurals::Official => Plurals::Official,
        AmberPlurals::All => Plurals::All,
    };
    let questions = || questions(arguments, &data);
    let mut reports = Vec::new();
    for (name, file) in answers(benchmark, "amber", "response", questions, reporter)? {
        let responses = read_answers(&file, &arguments.benchmark.field)?;
        let report = amber::evaluate(&data, &responses, plurals)
            .with_context(|| format!("the answers of {} cannot be scored", file.display()))?;
        warn(&name, &report, reporter);
        reports.push((name, report));
    }
    let all: Vec<&AmberReport> = reports.iter().map(|(_, report)| report).collect();
    let intervals = amber::intervals(&all, Bootstrap::default());
    let run = |(name, mut report): (String, AmberReport)| {
        if !benchmark.report.per_image {
            report.generative.per_description.clear();
            report.discriminative.per_question.clear();
        }
        let counts = [report.generative.descriptions, report.discriminative.all.questions];
        Run::new(name, report.values(), &counts, &report, &benchmark.report)
    };
    let runs = reports.into_iter().map(run).collect::<anyhow::Result<Vec<_>>>()?;
    let note = "nouns and synonyms are found without a tagger and word vectors: compare the first four with each \
                other, not with published values";
    LAYOUT.print(&benchmark.report, runs, &intervals, &[note.to_owned()])
}

/// Reads what scoring needs.
fn data(folder: &Path) -> anyhow::Result<AmberData> {
    let file = |name: &str| file_of(folder, &[name, &format!("data/{name}")]);
    let starts = optional_file_of(folder, &["metrics.txt", "data/metrics.txt"]);
    let starts = starts.map(|file| read("counters of AMBER", &file, read_starts)).transpose()?;
    Ok(AmberData {
        annotations: read("annotations of AMBER", &file("annotations.json")?, read_annotations)?,
        associations: read("associations of AMBER", &file("relation.json")?, read_associations)?,
        safe_words: read("safe words of AMBER", &file("safe_words.txt")?, read_safe_words)?,
        starts: starts.unwrap_or_default(),
    })
}

/// The queries of the parts that are wanted.
fn questions(arguments: &AmberArguments, data: &AmberData) -> anyhow::Result<Vec<Question>> {
    let folder = &arguments.benchmark.data;
    let kinds: HashMap<String, Kind> =
        data.annotations.iter().map(|known| (known.id.to_string(), known.kind)).collect();
    let file = |name: &str| {
        let places = ["", "query/", "data/query/", "data/"].map(|place| format!("{place}{name}"));
        optional_file_of(folder, &places.each_ref().map(String::as_str))
    };
    let files: Vec<_> = match file("query_all.json") {
        Some(all) => vec![all],
        None => ["query_generative.json", "query_discriminative.json"]
            .into_iter()
            .map(|name| file(name).map_or_else(|| file_of(folder, &[name]), Ok))
            .collect::<anyhow::Result<_>>()?,
    };
    let images =
        images_of(&arguments.benchmark.answering, folder, &["image", "images", "data/image"]);
    let (mut questions, mut seen) = (Vec::new(), BTreeSet::new());
    for file in files {
        for Query { id, image, query } in read("queries of AMBER", &file, read_queries)? {
            let kind = kinds.get(&id.0).copied();
            let kind = kind.ok_or_else(|| {
                Refusal::new(format!("query {} of {} has no annotation", id.0, file.display()))
                    .hint("annotations and queries are to be of the same version")
            })?;
            let wanted = match arguments.part {
                AmberPart::All => true,
                AmberPart::Generative => kind == Kind::Generative,
                AmberPart::Discriminative => kind != Kind::Generative,
            };
            if wanted && seen.insert(id.0.clone()) {
                let fields = [("id", json!(id)), ("image", json!(image))];
                let prompt = amber::prompt(&query, kind);
                questions.push(Question::new(fields, images.file(&image)?, prompt));
            }
        }
    }
    Ok(questions)
}

/// Says what was left out of the numbers.
fn warn(name: &str, report: &AmberReport, reporter: &Reporter) {
    if let Some(first) = report.unknown.first() {
        let count = report.unknown.len();
        reporter
            .warn(format!("{name}: {count} responses have no annotation, first {}", first.0), None);
    }
    if report.unanswered > 0 {
        reporter.note(format!("{name}: {} queries have no response", report.unanswered));
    }
    let all = &report.discriminative.all;
    if all.neither > 0 {
        reporter.warn(
            format!("{name}: {} answers are neither \"Yes\" nor \"No\"", all.neither),
            Some("they count as wrong, as in the official script"),
        );
    }
}
