//! `fisao eval chair`: which objects captions name that are not in the picture.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fisao_eval::chair::{
    self, ChairOptions, ChairReport, GroundTruth, GroundTruthReader, MissingGroundTruth,
    ObjectVocabulary, Rules, read_captions,
};
use fisao_eval::statistics::Spread;
use serde_json::{Map, Value, json};

use super::inputs::{answer, folders, image_file, name, read};
use super::rates::intervals;
use super::{report, world};
use crate::answering::Question;
use crate::arguments::{ChairArguments, ChairRules, TruthArguments};
use crate::failure::Refusal;
use crate::reporter::Reporter;
use crate::table::{NONE, Table, percent};
use crate::vocabulary::{Vocabulary, chair_vocabulary};

pub(crate) fn run(arguments: &ChairArguments, reporter: &Reporter) -> anyhow::Result<()> {
    if let Some(split) = arguments.world {
        let vocabulary = match &arguments.truth.vocabulary {
            Some(path) => chair_vocabulary(Some(path))?,
            None => Vocabulary::of_world().for_chair()?,
        };
        let options =
            ChairOptions { rules: rules(arguments.truth.rules), ..ChairOptions::default() };
        let found = world::evaluate(arguments, split.into(), &vocabulary, options, reporter)?;
        return print(arguments, &[("world".to_owned(), found.chair)], Some(found.mean_length));
    }
    let vocabulary = chair_vocabulary(arguments.truth.vocabulary.as_deref())?;
    let truth = ground_truth(&arguments.truth, &vocabulary, reporter)?;
    let mut files = arguments.captions.clone();
    if files.is_empty() {
        files.push(caption(arguments, &truth, reporter)?);
    }
    let mut reports = Vec::with_capacity(files.len());
    for file in &files {
        let report = score(&arguments.truth, file, &truth, &vocabulary)?;
        warn(file, &report, reporter);
        reports.push((name(file), report));
    }
    print(arguments, &reports, None)
}

/// What is really in the pictures.
pub(super) fn ground_truth(
    arguments: &TruthArguments,
    vocabulary: &ObjectVocabulary,
    reporter: &Reporter,
) -> anyhow::Result<GroundTruth> {
    if arguments.ground_truth.is_empty() {
        bail!(
            Refusal::new("there is nothing to compare captions with")
                .hint("give the objects of the images with --ground-truth")
        );
    }
    let mut gathered = GroundTruthReader::new(vocabulary, rules(arguments.rules));
    for file in &arguments.ground_truth {
        read("ground truth", file, |reader| gathered.read(reader))?;
    }
    let (truth, summary) = gathered.finish();
    let unknown = &summary.unknown_categories;
    if let Some((category, _)) = unknown.first_key_value() {
        let (count, total) = (unknown.len(), unknown.values().sum::<usize>());
        reporter.warn(
            format!(
                "{count} categories of the ground truth are not in the vocabulary, first \
                 `{category}`: {total} annotations are left out"
            ),
            Some("no caption can name them; a vocabulary with their names is given with --vocabulary"),
        );
    }
    Ok(truth)
}

fn rules(rules: ChairRules) -> Rules {
    match rules {
        ChairRules::Strict => Rules::Strict,
        ChairRules::Reference => Rules::Reference,
    }
}

/// Scores the captions of a file.
pub(super) fn score(
    arguments: &TruthArguments,
    file: &Path,
    truth: &GroundTruth,
    vocabulary: &ObjectVocabulary,
) -> anyhow::Result<ChairReport> {
    let captions = read("captions", file, read_captions)?;
    let missing = if arguments.skip_unknown_images {
        MissingGroundTruth::Skip
    } else {
        MissingGroundTruth::Refuse
    };
    let options = ChairOptions { rules: rules(arguments.rules), missing };
    chair::evaluate(&captions, truth, vocabulary, &options)
        .with_context(|| format!("the captions of {} cannot be scored", file.display()))
}

/// Says what was left out of the numbers, or matched in another way than by name.
fn warn(file: &Path, report: &ChairReport, reporter: &Reporter) {
    let file = file.display();
    let left_out = report.captions_without_ground_truth;
    if left_out > 0 {
        reporter.warn(format!("{file}: {left_out} captions of images without ground truth"), None);
    }
    let counts = [
        (report.matched.by_number, "images were found by their number"),
        (report.matched.by_file_name, "images were found by their name without folder and ending"),
        (report.repeated_captions, "captions describe an image that an earlier one describes too"),
        (report.empty_captions, "captions are empty"),
    ];
    for (count, what) in counts.into_iter().filter(|&(count, _)| count > 0) {
        reporter.note(format!("{file}: {count} {what}"));
    }
}

/// Lets the model caption the pictures that there is ground truth for.
fn caption(
    arguments: &ChairArguments,
    truth: &GroundTruth,
    reporter: &Reporter,
) -> anyhow::Result<PathBuf> {
    caption_images(&arguments.answering, truth.keys(), &arguments.prompt, "chair", reporter)
}

/// Lets a model caption pictures of a folder.
pub(super) fn caption_images<'a>(
    arguments: &crate::arguments::AnsweringArguments,
    ids: impl Iterator<Item = &'a String>,
    prompt: &str,
    benchmark: &str,
    reporter: &Reporter,
) -> anyhow::Result<PathBuf> {
    let (images, output) = folders(arguments)?;
    let question = |id: &String| {
        let mut row = Map::new();
        row.insert("image_id".to_owned(), json!(id));
        Ok(Question { row, image: image_file(images, id)?, prompt: prompt.to_owned() })
    };
    let questions = ids.map(question).collect::<anyhow::Result<Vec<_>>>()?;
    answer(arguments, benchmark, "caption", output, &questions, reporter)
}

/// A report as JSON: with `mean_length` in tokens where they are known, else in words.
fn as_json(report: &ChairReport, tokens: Option<f64>) -> anyhow::Result<Map<String, Value>> {
    let mut value = report::fields(report)?;
    value.insert("mean_length".to_owned(), json!(tokens.or(report.mean_length_words)));
    let unit = if tokens.is_some() { "tokens" } else { "words" };
    value.insert("mean_length_unit".to_owned(), unit.into());
    value.insert("intervals".to_owned(), intervals(report).into());
    Ok(value)
}

fn print(
    arguments: &ChairArguments,
    reports: &[(String, ChairReport)],
    tokens: Option<f64>,
) -> anyhow::Result<()> {
    let length = if tokens.is_some() { "tokens" } else { "words" };
    let mut table = Table::new(&[
        "captions of",
        "CHAIR_S %",
        "CHAIR_I %",
        "recall %",
        length,
        "captions",
        "mentions",
        "hallucinated",
    ]);
    for (name, report) in reports {
        let mean = tokens.or(report.mean_length_words);
        let rates = [report.chair_s, report.chair_i, report.recall].map(percent);
        let counts = [report.captions, report.mentions, report.hallucinated];
        let mean = mean.map_or_else(|| NONE.to_owned(), |mean| format!("{mean:.1}"));
        let cells = [name.clone()].into_iter().chain(rates).chain([mean]);
        table.row(cells.chain(counts.map(|count| count.to_string())));
    }
    let (_, first) = &reports[0];
    let rules = match first.rules {
        Rules::Strict => "strict",
        Rules::Reference => "reference",
    };
    let note = format!(
        "rules {rules}, vocabulary {}, images {}",
        &first.vocabulary_sha256[..12],
        &first.image_ids_sha256[..12]
    );
    if let [(_, report)] = reports {
        let value = as_json(report, tokens)?;
        return report::print(&arguments.report, &value, &["per_image"], &table, &[note]);
    }
    let mut spreads = Map::new();
    let mut row = vec!["mean ± s.d.".to_owned()];
    let rate = |report: &ChairReport, name: &str| match name {
        "chair_s" => report.chair_s,
        "chair_i" => report.chair_i,
        "recall" => report.recall,
        _ => report.mean_length_words,
    };
    for (name, factor) in
        [("chair_s", 100.0), ("chair_i", 100.0), ("recall", 100.0), ("mean_length", 1.0)]
    {
        let values: Vec<f64> =
            reports.iter().filter_map(|(_, report)| rate(report, name)).collect();
        let spread = Spread::of(&values);
        row.push(spread.map_or_else(
            || NONE.to_owned(),
            |spread| {
                format!("{:.1} ± {:.1}", factor * spread.mean, factor * spread.standard_deviation)
            },
        ));
        spreads.insert(name.to_owned(), json!(spread));
    }
    row.extend([(); 3].map(|()| NONE.to_owned()));
    table.row(row);
    let files = reports
        .iter()
        .map(|(name, report)| {
            let mut value = as_json(report, None)?;
            value.insert("name".to_owned(), name.clone().into());
            Ok(Value::Object(value))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let value = json!({ "mean": spreads, "files": files });
    report::print(&arguments.report, &value, &["per_image"], &table, &[note])
}
