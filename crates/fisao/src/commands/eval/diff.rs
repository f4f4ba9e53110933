//! `fisao eval diff`: two models on the same images.

mod arguments;

use std::collections::{BTreeMap, HashMap};
use std::ops::Add;
use std::path::Path;

use anyhow::{Context as _, bail};
use fisao_eval::answers::QuestionId;
use fisao_eval::captions::{CaptionOptions, CaptionScores, CaptionSums, read_references};
use fisao_eval::chair::{ChairCounts, read_captions};
use fisao_eval::pope::{Judged, Label, read_questions, score_split};
use fisao_eval::rates::Accuracy;
use fisao_eval::statistics::{Bootstrap, PairedTest, paired_test};
use fisao_runs::vocabulary::chair_vocabulary;
use fisao_runs::{Refusal, Reporter};
use serde::Serialize;
use serde_json::{Map, json};

pub(super) use arguments::DiffArguments;

use super::chair;
use super::inputs::{name, names, read, read_answers};
use super::{captions, report};
use crate::arguments::ReportFormat;
use crate::output;
use fisao_report::table::Table;

/// Seed of the bootstrap.
const SEED: u64 = 0;

/// One number of two models.
#[derive(Debug, Serialize)]
struct Compared {
    first: f64,
    second: f64,
    #[serde(flatten)]
    test: PairedTest,
}

/// All numbers of two models, on the images that both answered about.
struct Comparison {
    numbers: Vec<(&'static str, Option<Compared>)>,
    /// Images that both answered about.
    images: usize,
    /// Images that only one of them did.
    unpaired: usize,
}

pub(crate) fn run(arguments: &DiffArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let comparison = if let Some(questions) = &arguments.questions {
        of_answers(arguments, questions)?
    } else if let Some(references) = &arguments.references {
        of_likeness(arguments, references)?
    } else {
        of_objects(arguments, reporter)?
    };
    if comparison.images == 0 {
        bail!(
            Refusal::new("the two files have no image in common")
                .hint("are they answers to the same questions, or captions of the same images?")
        );
    }
    if comparison.unpaired > 0 {
        let count = comparison.unpaired;
        reporter.warn(
            format!("{count} images or questions are in one of the files only and are left out"),
            None,
        );
    }
    print(arguments, &comparison)
}

/// Counts of each image, of the first and of the second.
#[derive(Debug)]
struct Pairs<Counts> {
    both: Vec<(Counts, Counts)>,
    /// Images that only one of them has.
    alone: usize,
}

impl<Counts: Copy + Default + Add<Output = Counts>> Pairs<Counts> {
    /// Brings together images by the names that the truth has for them. What one file has of one image is summed.
    fn of_images(first: Vec<(String, Counts)>, second: Vec<(String, Counts)>) -> Self {
        let (first, mut second) = (summed(first), summed(second));
        let mut pairs = Self { both: Vec::new(), alone: 0 };
        for (id, counts) in first {
            match second.remove(&id) {
                Some(others) => pairs.both.push((counts, others)),
                None => pairs.alone += 1,
            }
        }
        pairs.alone += second.len();
        pairs
    }
}

fn summed<Counts: Copy + Default + Add<Output = Counts>>(
    images: Vec<(String, Counts)>,
) -> BTreeMap<String, Counts> {
    let mut sums = BTreeMap::<String, Counts>::new();
    for (id, counts) in images {
        let sum = sums.entry(id).or_default();
        *sum = *sum + counts;
    }
    sums
}

/// Compares a number: of all images, and of each alone.
fn compare<Counts: Copy + Default + Add<Output = Counts> + Sync>(
    both: &[(Counts, Counts)],
    resamples: usize,
    number: impl Fn(&Counts) -> Option<f64> + Sync,
) -> Option<Compared> {
    let alone = |counts| number(counts).unwrap_or(0.0);
    let values: Vec<(f64, f64)> = both.iter().map(|(a, b)| (alone(a), alone(b))).collect();
    let sides = |drawn: &[usize]| {
        let none = (Counts::default(), Counts::default());
        let sum = |(a, b): (Counts, Counts), &at: &usize| (a + both[at].0, b + both[at].1);
        let (first, second) = drawn.iter().fold(none, sum);
        number(&first).zip(number(&second))
    };
    let all: Vec<usize> = (0..both.len()).collect();
    let (first, second) = sides(&all)?;
    let test = paired_test(&values, Bootstrap { resamples, seed: SEED }, sides)?;
    Some(Compared { first, second, test })
}

/// A rate of CHAIR.
type Rate = fn(&ChairCounts) -> Option<f64>;

fn of_objects(arguments: &DiffArguments, reporter: &Reporter) -> anyhow::Result<Comparison> {
    let vocabulary =
        chair_vocabulary(arguments.truth.vocabulary.as_deref(), arguments.truth.rules.into())?;
    let truth = chair::truth_of(
        &arguments.truth.ground_truth,
        arguments.truth.rules,
        &vocabulary,
        reporter,
    )?;
    let counts = |file: &Path| -> anyhow::Result<Vec<(String, ChairCounts)>> {
        let captions = read("captions", file, read_captions)?;
        Ok(chair::score(&arguments.truth, file, captions, false, &truth, &vocabulary)?.counts)
    };
    let pairs = Pairs::of_images(counts(&arguments.first)?, counts(&arguments.second)?);
    let rates: [(&str, Rate); 4] = [
        ("chair_s", ChairCounts::chair_s),
        ("chair_i", ChairCounts::chair_i),
        ("recall", ChairCounts::recall),
        ("mean_length", ChairCounts::mean_length_words),
    ];
    let numbers = rates.map(|(name, rate)| (name, compare(&pairs.both, arguments.resamples, rate)));
    Ok(Comparison { numbers: numbers.into(), images: pairs.both.len(), unpaired: pairs.alone })
}

/// Answers to questions are summed by image, since answers about one image go together.
fn of_answers(arguments: &DiffArguments, questions: &Path) -> anyhow::Result<Comparison> {
    let questions = read("questions of POPE", questions, read_questions)?;
    let images: HashMap<&QuestionId, &str> =
        questions.iter().map(|asked| (&asked.question_id, asked.image.0.as_str())).collect();
    let counts = |file: &Path| -> anyhow::Result<BTreeMap<QuestionId, Accuracy>> {
        let answers = read_answers(file, &arguments.field)?;
        let split = score_split(&name(file), &questions, &answers)
            .with_context(|| format!("the answers of {} cannot be scored", file.display()))?;
        let right = |judged: &Judged| judged.said_yes == (judged.label == Label::Yes);
        let judged = split.per_question.iter();
        Ok(judged.map(|j| (j.question_id.clone(), [right(j)].into_iter().collect())).collect())
    };
    let (first, mut second) = (counts(&arguments.first)?, counts(&arguments.second)?);
    let mut pairs = BTreeMap::<&str, (Accuracy, Accuracy)>::new();
    let mut alone = 0;
    for (id, counts) in &first {
        let Some(others) = second.remove(id) else {
            alone += 1;
            continue;
        };
        let image = images.get(id).copied().unwrap_or_default();
        let sums = pairs.entry(image).or_default();
        *sums = (sums.0 + *counts, sums.1 + others);
    }
    let both: Vec<(Accuracy, Accuracy)> = pairs.into_values().collect();
    let number = compare(&both, arguments.resamples, |sum| sum.accuracy);
    let unpaired = alone + second.len();
    Ok(Comparison { numbers: vec![("accuracy", number)], images: both.len(), unpaired })
}

fn of_likeness(arguments: &DiffArguments, references: &Path) -> anyhow::Result<Comparison> {
    let references = read("references", references, read_references)?;
    let sums = |file: &Path| -> anyhow::Result<Vec<(String, CaptionSums)>> {
        let report = captions::score(file, &references, None, &CaptionOptions::default())?;
        let images = report.per_image.iter();
        Ok(images.map(|image| (image.reference_id.clone(), image.into())).collect())
    };
    let pairs = Pairs::of_images(sums(&arguments.first)?, sums(&arguments.second)?);
    let names = CaptionScores::NAMES.into_iter().enumerate();
    let numbers = names.map(|(at, name)| {
        let metric = |sums: &CaptionSums| Some(sums.scores().values()[at]);
        (name, compare(&pairs.both, arguments.resamples, metric))
    });
    let numbers = numbers.collect();
    Ok(Comparison { numbers, images: pairs.both.len(), unpaired: pairs.alone })
}

fn print(arguments: &DiffArguments, comparison: &Comparison) -> anyhow::Result<()> {
    let mut value = Map::new();
    for (name, compared) in &comparison.numbers {
        value.insert((*name).to_owned(), json!(compared));
    }
    value.insert("images".to_owned(), comparison.images.into());
    value.insert("unpaired".to_owned(), comparison.unpaired.into());
    match arguments.report.format {
        ReportFormat::Json => output::json(&value),
        format => {
            let names = names(&[arguments.first.clone(), arguments.second.clone()]);
            report::table(format, &table(comparison, &names, format), &[])
        }
    }
}

/// A row for each number; intervals in one column for people, in two for programs.
fn table(comparison: &Comparison, names: &[String], format: ReportFormat) -> Table {
    let of_interval: &[&str] = match format {
        ReportFormat::Csv => &["95 % from", "95 % to"],
        _ => &["95 % interval"],
    };
    let columns = [&["number", &names[0], &names[1], "difference"], of_interval];
    let rest = ["higher", "lower", "equal", "sign test p"];
    let mut table = Table::new(&[&columns.concat()[..], &rest].concat());
    for (name, compared) in &comparison.numbers {
        let Some(Compared { first, second, test }) = compared else { continue };
        let ends = test
            .interval
            .map(|interval| [interval.low, interval.high].map(|end| format!("{end:+.4}")));
        let interval = match (format, ends) {
            (ReportFormat::Csv, ends) => ends.unwrap_or_default().to_vec(),
            (_, Some([low, high])) => vec![format!("{low} … {high}")],
            (_, None) => vec![String::new()],
        };
        let numbers = [
            (*name).to_owned(),
            format!("{first:.4}"),
            format!("{second:.4}"),
            format!("{:+.4}", test.difference),
        ];
        let counts = [test.higher, test.lower, test.equal].map(|count| count.to_string());
        let p = format!("{:.4}", test.sign_test_p);
        table.row(numbers.into_iter().chain(interval).chain(counts).chain([p]));
    }
    table
}
