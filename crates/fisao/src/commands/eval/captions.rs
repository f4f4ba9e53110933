//! `fisao eval captions`: how like people's captions a model's are.

mod arguments;

use std::path::Path;

use anyhow::{Context as _, bail};
use fisao_eval::captions::{
    self, CaptionInput, CaptionOptions, CaptionReport, CaptionScores, MeteorStage, MeteorTables,
    References, intervals, read_caption_rows, read_references,
};
use fisao_eval::statistics::Bootstrap;
use fisao_formats::documents::open_text;
use fisao_runs::{Refusal, Reporter};

pub(super) use arguments::CaptionMetricsArguments;

use super::chair::caption_images;
use super::inputs::{files_in, names, read, warn_of_other_images};
use super::runs::{Layout, Number, Run};

const LAYOUT: Layout<7> = Layout {
    names: "captions of",
    numbers: [
        Number::decimals(CaptionScores::NAMES[0], "BLEU-1", 4),
        Number::decimals(CaptionScores::NAMES[1], "BLEU-2", 4),
        Number::decimals(CaptionScores::NAMES[2], "BLEU-3", 4),
        Number::decimals(CaptionScores::NAMES[3], "BLEU-4", 4),
        Number::decimals(CaptionScores::NAMES[4], "ROUGE-L", 4),
        Number::decimals(CaptionScores::NAMES[5], "CIDEr", 4),
        Number::decimals(CaptionScores::NAMES[6], "METEOR", 4),
    ],
    counts: &["images"],
};

pub(crate) fn run(arguments: &CaptionMetricsArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let file = match (&arguments.references, &arguments.answering.data) {
        (Some(file), _) => file.clone(),
        (None, Some(data)) => {
            let what = "references (captions* or references*.json)";
            let known = |name: &str, _: &str| {
                name.starts_with("captions") || name.starts_with("references")
            };
            let mut files = files_in(data, what, known)?;
            if files.len() > 1 {
                let all: Vec<String> =
                    files.iter().map(|file| file.display().to_string()).collect();
                bail!(
                    Refusal::new(format!("these could all be the references: {}", all.join(", ")))
                        .hint("name one with --references")
                );
            }
            files.swap_remove(0)
        }
        (None, None) => bail!(Refusal::new("--references names no file")),
    };
    let references = read("references", &file, read_references)?;
    let mut files = arguments.captions.clone();
    let mut names = names(&files);
    if files.is_empty() {
        let images = references.images().iter();
        let images = images.map(|(id, _)| (id.as_str(), references.file_of(id)));
        let (answering, prompt) = (&arguments.answering, &arguments.prompt);
        files.push(caption_images(answering, images, prompt, "captions", reporter)?);
        names.push("model".to_owned());
    }
    let options = CaptionOptions {
        skip_images_without_references: arguments.skip_unknown_images,
        tokens: arguments.tokens,
    };
    let mut reports = Vec::with_capacity(files.len());
    for (name, file) in names.into_iter().zip(&files) {
        let data = arguments.meteor_data.as_deref();
        let report = score(file, &references, data, &options)?;
        warn(file, &report, reporter);
        reports.push((name, report));
    }
    print(arguments, reports, reporter)
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

fn print(
    arguments: &CaptionMetricsArguments,
    reports: Vec<(String, CaptionReport)>,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let intervals = intervals(
        &reports.iter().map(|(_, report)| report).collect::<Vec<_>>(),
        Bootstrap::default(),
    );
    let digests = reports.iter().map(|(_, report)| report.image_ids_sha256.as_str());
    warn_of_other_images(digests, reporter);
    let partial = !reports[0].1.meteor_stages.contains(&MeteorStage::Paraphrase);
    let note = "METEOR without synonyms and paraphrases is not comparable with published values; see \
                --meteor-data";
    let notes: Vec<String> = partial.then(|| note.to_owned()).into_iter().collect();
    let run = |(name, mut report): (String, CaptionReport)| {
        if !arguments.report.per_image {
            report.per_image.clear();
        }
        let values = report.scores.values().map(Some);
        Run::new(name, values, &[report.images], &report, &arguments.report)
    };
    let runs = reports.into_iter().map(run).collect::<anyhow::Result<Vec<_>>>()?;
    LAYOUT.print(&arguments.report, runs, &intervals, &notes)
}
