//! `fisao eval captions`: how like people's captions a model's are.

use std::path::Path;

use anyhow::Context as _;
use fisao_eval::captions::{
    self, CaptionInput, CaptionOptions, CaptionReport, CaptionScores, MeteorStage, MeteorTables,
    References, read_caption_rows, read_references,
};
use fisao_eval::statistics::Spread;
use fisao_formats::documents::open_text;
use serde_json::{Map, Value, json};

use super::chair::caption_images;
use super::inputs::{name, read};
use super::report;
use crate::arguments::CaptionMetricsArguments;
use crate::reporter::Reporter;
use crate::table::Table;

/// The metrics as JSON names them, and as papers do.
const METRICS: [(&str, &str); 7] = [
    ("bleu_1", "BLEU-1"),
    ("bleu_2", "BLEU-2"),
    ("bleu_3", "BLEU-3"),
    ("bleu_4", "BLEU-4"),
    ("rouge_l", "ROUGE-L"),
    ("cider", "CIDEr"),
    ("meteor", "METEOR"),
];

pub(crate) fn run(arguments: &CaptionMetricsArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let references = read("references", &arguments.references, read_references)?;
    let mut files = arguments.captions.clone();
    if files.is_empty() {
        let ids = references.images().iter().map(|(id, _)| id);
        let (answering, prompt) = (&arguments.answering, &arguments.prompt);
        files.push(caption_images(answering, ids, prompt, "captions", reporter)?);
    }
    let options = CaptionOptions {
        skip_images_without_references: arguments.skip_unknown_images,
        tokens: arguments.tokens,
        ..CaptionOptions::default()
    };
    let mut reports = Vec::with_capacity(files.len());
    for file in &files {
        let data = arguments.meteor_data.as_deref();
        let report = score(file, &references, data, &options)?;
        warn(file, &report, reporter);
        reports.push((name(file), report));
    }
    print(arguments, &reports)
}

/// Scores the captions of a file.
pub(super) fn score(
    file: &Path,
    references: &References,
    meteor_data: Option<&Path>,
    options: &CaptionOptions,
) -> anyhow::Result<CaptionReport> {
    let inputs = read("captions", file, read_caption_rows)?;
    let tables = match meteor_data {
        Some(folder) => meteor_tables(folder, &inputs, references)?,
        None => MeteorTables::default(),
    };
    captions::evaluate(&inputs, references, &tables, options)
        .with_context(|| format!("the captions of {} cannot be scored", file.display()))
}

/// Reads what METEOR brings along.
fn meteor_tables(
    folder: &Path,
    inputs: &[CaptionInput],
    references: &References,
) -> anyhow::Result<MeteorTables> {
    let mut tables = MeteorTables::default();
    let words = folder.join("function/english.words");
    read("METEOR's function words", &words, |reader| tables.read_function_words(reader))?;
    let synsets = open_text("METEOR's synsets", &folder.join("synonym/english.synsets"))?;
    let exceptions = folder.join("synonym/english.exceptions");
    read("METEOR's synonyms", &exceptions, |reader| tables.read_synonyms(reader, synsets))?;
    let paraphrases = folder.join("paraphrase-en.gz");
    read("METEOR's paraphrases", &paraphrases, |reader| {
        tables.read_paraphrases(reader, inputs, references)
    })?;
    Ok(tables)
}

/// Says what was left out of the numbers.
fn warn(file: &Path, report: &CaptionReport, reporter: &Reporter) {
    let file = file.display();
    let left_out = report.captions_without_references;
    if left_out > 0 {
        reporter.warn(format!("{file}: {left_out} captions of images without references"), None);
    }
    let counts = [
        (report.references_without_caption, "images with references have no caption"),
        (report.empty_captions, "captions are empty"),
    ];
    for (count, what) in counts.into_iter().filter(|&(count, _)| count > 0) {
        reporter.note(format!("{file}: {count} {what}"));
    }
}

/// One metric of a set or an image.
pub(super) fn metric(scores: &CaptionScores, name: &str) -> f64 {
    match name {
        "bleu_1" => scores.bleu_1,
        "bleu_2" => scores.bleu_2,
        "bleu_3" => scores.bleu_3,
        "bleu_4" => scores.bleu_4,
        "rouge_l" => scores.rouge_l,
        "cider" => scores.cider,
        _ => scores.meteor,
    }
}

fn print(
    arguments: &CaptionMetricsArguments,
    reports: &[(String, CaptionReport)],
) -> anyhow::Result<()> {
    let columns: Vec<&str> = std::iter::once("captions of")
        .chain(METRICS.map(|(_, name)| name))
        .chain(["images"])
        .collect();
    let mut table = Table::new(&columns);
    for (name, report) in reports {
        let scores = METRICS.map(|(key, _)| format!("{:.4}", metric(&report.scores, key)));
        table.row([name.clone()].into_iter().chain(scores).chain([report.images.to_string()]));
    }
    let partial = !reports[0].1.meteor_stages.contains(&MeteorStage::Paraphrase);
    let note = "METEOR without synonyms and paraphrases is not comparable with published values; see \
                --meteor-data";
    let notes: Vec<String> = partial.then(|| note.to_owned()).into_iter().collect();
    if let [(_, report)] = reports {
        return report::print(&arguments.report, report, &["per_image"], &table, &notes);
    }
    let mut spreads = Map::new();
    let mut row = vec!["mean ± s.d.".to_owned()];
    for (key, _) in METRICS {
        let values: Vec<f64> =
            reports.iter().map(|(_, report)| metric(&report.scores, key)).collect();
        let spread = Spread::of(&values).context("at least one file is given")?;
        row.push(format!("{:.4} ± {:.4}", spread.mean, spread.standard_deviation));
        spreads.insert(key.to_owned(), json!(spread));
    }
    row.push(String::new());
    table.row(row);
    let files = reports
        .iter()
        .map(|(name, report)| {
            let mut value = report::fields(report)?;
            value.insert("name".to_owned(), name.clone().into());
            Ok(Value::Object(value))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let value = json!({ "mean": spreads, "files": files });
    report::print(&arguments.report, &value, &["per_image"], &table, &notes)
}
