//! `fisao eval diff`: two models on the same images.

mod arguments;
mod length;

use std::collections::{BTreeMap, HashMap};
use std::ops::Add;
use std::path::Path;

use anyhow::{Context as _, bail};
use fisao_eval::answers::QuestionId;
use fisao_eval::captions::{CaptionOptions, CaptionScores, CaptionSums, read_references};
use fisao_eval::chair::length::LengthUnit;
use fisao_eval::chair::{ChairCounts, ChairInput, ChairReport, read_made_captions};
use fisao_eval::pope::{Judged, Label, read_questions, score_split};
use fisao_eval::rates::Accuracy;
use fisao_eval::statistics::{Bootstrap, PairedTest, paired_test};
use fisao_runs::vocabulary::chair_vocabulary;
use fisao_runs::{Refusal, Reporter};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub(super) use arguments::DiffArguments;

use self::length::AtEqualLength;
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

/// Numbers by their names.
type Numbers = Vec<(&'static str, Option<Compared>)>;

/// All numbers of two models, on the images that both answered about.
struct Comparison {
    numbers: Numbers,
    /// Images that both answered about.
    images: usize,
    /// Images that only one of them did.
    unpaired: usize,
    /// The same at equal length of captions, where it is about objects.
    at_equal_length: Option<AtEqualLength>,
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
    let list = arguments.ids.as_deref().map(chair::image_list).transpose()?;
    let scored = |file: &Path| -> anyhow::Result<ChairReport> {
        let mut made = read("captions", file, read_made_captions)?;
        if let Some(list) = &list {
            chair::restrict(&mut made, list, file, reporter)?;
        }
        chair::score(&arguments.truth, file, made.captions, true, &truth, &vocabulary)
    };
    let (first, second) = (scored(&arguments.first)?, scored(&arguments.second)?);
    let pairs = Pairs::of_images(first.counts.clone(), second.counts.clone());
    let numbers = rates(&pairs.both, arguments.resamples);
    let cut = |unit| -> anyhow::Result<Numbers> {
        let (captions, others) = length::truncated(&first, &second, unit);
        let counts = |file: &Path, captions: Vec<ChairInput>| -> anyhow::Result<_> {
            if captions.is_empty() {
                return Ok(Vec::new());
            }
            Ok(chair::score(&arguments.truth, file, captions, false, &truth, &vocabulary)?.counts)
        };
        let pairs = Pairs::of_images(
            counts(&arguments.first, captions)?,
            counts(&arguments.second, others)?,
        );
        Ok(rates(&pairs.both, arguments.resamples))
    };
    let at_equal_length = AtEqualLength {
        words: cut(LengthUnit::Words)?,
        sentences: cut(LengthUnit::Sentences)?,
        regression: length::regression(&pairs.both, arguments.resamples),
    };
    Ok(Comparison {
        numbers,
        images: pairs.both.len(),
        unpaired: pairs.alone,
        at_equal_length: Some(at_equal_length),
    })
}

/// The numbers of CHAIR, each compared.
fn rates(both: &[(ChairCounts, ChairCounts)], resamples: usize) -> Numbers {
    let rates: [(&str, Rate); 5] = [
        ("chair_s", ChairCounts::chair_s),
        ("chair_i", ChairCounts::chair_i),
        ("recall", ChairCounts::recall),
        ("f1", ChairCounts::f1),
        ("mean_length", ChairCounts::mean_length_words),
    ];
    rates.map(|(name, rate)| (name, compare(both, resamples, rate))).into()
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
    let numbers = vec![("accuracy", number)];
    Ok(Comparison { numbers, images: both.len(), unpaired, at_equal_length: None })
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
    let (images, unpaired) = (pairs.both.len(), pairs.alone);
    Ok(Comparison { numbers, images, unpaired, at_equal_length: None })
}

fn print(arguments: &DiffArguments, comparison: &Comparison) -> anyhow::Result<()> {
    let format = arguments.report.format;
    if format == ReportFormat::Json {
        let mut value = keyed(&comparison.numbers);
        value.insert("images".to_owned(), comparison.images.into());
        value.insert("unpaired".to_owned(), comparison.unpaired.into());
        if let Some(equal) = &comparison.at_equal_length {
            let found = json!({
                "truncated_words": keyed(&equal.words),
                "truncated_sentences": keyed(&equal.sentences),
                "regression": keyed(&equal.regression),
            });
            value.insert("at_equal_length".to_owned(), found);
        }
        return output::json(&value);
    }
    let names = names(&[arguments.first.clone(), arguments.second.clone()]);
    let mut table = headings(&names, format);
    rows(&mut table, &comparison.numbers, "", format);
    let mut notes = Vec::new();
    if let Some(equal) = &comparison.at_equal_length {
        rows(&mut table, &equal.words, " (equal words)", format);
        rows(&mut table, &equal.sentences, " (equal sentences)", format);
        notes = length::notes(&equal.regression);
    }
    report::table(format, &table, &notes)
}

fn keyed(numbers: &[(&'static str, impl Serialize)]) -> Map<String, Value> {
    numbers.iter().map(|(name, found)| ((*name).to_owned(), json!(found))).collect()
}

/// The table without rows; intervals are in one column for people, in two for programs.
fn headings(names: &[String], format: ReportFormat) -> Table {
    let of_interval: &[&str] = match format {
        ReportFormat::Csv => &["95 % from", "95 % to"],
        _ => &["95 % interval"],
    };
    let columns = [&["number", &names[0], &names[1], "difference"], of_interval];
    let rest = ["higher", "lower", "equal", "sign test p"];
    Table::new(&[&columns.concat()[..], &rest].concat())
}

/// Adds a row for each number; what it is of follows its name.
fn rows(table: &mut Table, numbers: &Numbers, of: &str, format: ReportFormat) {
    for (name, compared) in numbers {
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
            format!("{name}{of}"),
            format!("{first:.4}"),
            format!("{second:.4}"),
            format!("{:+.4}", test.difference),
        ];
        let counts = [test.higher, test.lower, test.equal].map(|count| count.to_string());
        let p = format!("{:.4}", test.sign_test_p);
        table.row(numbers.into_iter().chain(interval).chain(counts).chain([p]));
    }
}
