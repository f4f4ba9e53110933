//! `fisao eval diff`: two models on the same images.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use fisao_eval::answers::read_answers;
use fisao_eval::captions::{
    BleuCounts, CaptionOptions, ImageScores, MeteorCounts, read_references,
};
use fisao_eval::image_id::ImageIndex;
use fisao_eval::pope::{Label, read_questions, score_split};
use fisao_eval::statistics::{PairedTest, paired_test};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::chair;
use super::inputs::{name, read};
use super::rates::{RATES, Sums};
use super::{captions, report};
use crate::arguments::DiffArguments;
use crate::failure::Refusal;
use crate::reporter::Reporter;
use crate::table::Table;
use crate::vocabulary::chair_vocabulary;

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
        reporter
            .warn(format!("{count} images are in one of the files only and are left out"), None);
    }
    print(arguments, &comparison)
}

/// Things of the first that the second has, too, under the same key, and how many either has alone.
fn pairs<T>(first: Vec<(String, T)>, second: Vec<(String, T)>) -> (Vec<(T, T)>, usize) {
    let mut others: HashMap<String, Vec<T>> = HashMap::new();
    for (key, value) in second.into_iter().rev() {
        others.entry(key).or_default().push(value);
    }
    let (mut both, mut alone) = (Vec::new(), 0);
    for (key, value) in first {
        match others.get_mut(&key).and_then(Vec::pop) {
            Some(other) => both.push((value, other)),
            None => alone += 1,
        }
    }
    let left: usize = others.values().map(Vec::len).sum();
    (both, alone + left)
}

/// The same for images, which the second may call something else.
fn image_pairs<T>(first: Vec<(String, T)>, mut second: Vec<(String, T)>) -> (Vec<(T, T)>, usize) {
    let mut index = ImageIndex::default();
    for (position, (id, _)) in first.iter().enumerate() {
        index.insert(id, position);
    }
    for (id, _) in &mut second {
        if let Some((position, _)) = index.find(id) {
            id.clone_from(&first[position].0);
        }
    }
    pairs(first, second)
}

/// Compares a number: of a set of things, and of each alone.
fn compare<T: Copy>(
    both: &[(T, T)],
    resamples: usize,
    alone: impl Fn(T) -> f64,
    number: impl Fn(&[T]) -> Option<f64>,
) -> Option<Compared> {
    let values: Vec<(f64, f64)> = both.iter().map(|&(a, b)| (alone(a), alone(b))).collect();
    let sides = |drawn: &[usize]| {
        let first: Vec<T> = drawn.iter().map(|&at| both[at].0).collect();
        let second: Vec<T> = drawn.iter().map(|&at| both[at].1).collect();
        number(&first).zip(number(&second))
    };
    let all: Vec<usize> = (0..both.len()).collect();
    let (first, second) = sides(&all)?;
    let test = paired_test(&values, resamples, SEED, sides)?;
    Some(Compared { first, second, test })
}

fn of_objects(arguments: &DiffArguments, reporter: &Reporter) -> anyhow::Result<Comparison> {
    let vocabulary = chair_vocabulary(arguments.truth.vocabulary.as_deref())?;
    let truth = chair::ground_truth(&arguments.truth, &vocabulary, reporter)?;
    let sums = |file: &Path| -> anyhow::Result<Vec<(String, Sums)>> {
        let report = chair::score(&arguments.truth, file, &truth, &vocabulary)?;
        let verdicts = report.per_image.iter();
        Ok(verdicts.map(|verdict| (verdict.image_id.clone(), verdict.into())).collect())
    };
    let (both, unpaired) = image_pairs(sums(&arguments.first)?, sums(&arguments.second)?);
    let numbers = RATES.map(|(name, rate)| {
        (name, compare(&both, arguments.resamples, |sums| sums.share(rate), rate))
    });
    Ok(Comparison { numbers: numbers.into(), images: both.len(), unpaired })
}

fn of_answers(arguments: &DiffArguments, questions: &Path) -> anyhow::Result<Comparison> {
    let questions = read("questions of POPE", questions, read_questions)?;
    let right = |file: &Path| -> anyhow::Result<Vec<(String, bool)>> {
        let answers = read("answers", file, read_answers)?;
        let split = score_split(&name(file), &questions, &answers)
            .with_context(|| format!("the answers of {} cannot be scored", file.display()))?;
        let judged = split.per_question.into_iter();
        Ok(judged
            .map(|judged| (judged.question_id.0, judged.said_yes == (judged.label == Label::Yes)))
            .collect())
    };
    let (both, unpaired) = pairs(right(&arguments.first)?, right(&arguments.second)?);
    let accuracy = |answers: &[bool]| {
        let right = answers.iter().filter(|&&right| right).count();
        (!answers.is_empty()).then(|| right as f64 / answers.len() as f64)
    };
    let number = compare(&both, arguments.resamples, |right| f64::from(u8::from(right)), accuracy);
    Ok(Comparison { numbers: vec![("accuracy", number)], images: both.len(), unpaired })
}

fn of_likeness(arguments: &DiffArguments, references: &Path) -> anyhow::Result<Comparison> {
    let references = read("references", references, read_references)?;
    let options = CaptionOptions { resamples: 0, ..CaptionOptions::default() };
    let images = |file: &Path| -> anyhow::Result<Vec<(String, ImageScores)>> {
        let report = captions::score(file, &references, None, &options)?;
        Ok(report.per_image.into_iter().map(|image| (image.image_id.clone(), image)).collect())
    };
    let (both, unpaired) = image_pairs(images(&arguments.first)?, images(&arguments.second)?);
    let borrowed: Vec<(&ImageScores, &ImageScores)> = both.iter().map(|(a, b)| (a, b)).collect();
    let names = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "meteor"];
    let numbers = names.map(|name| {
        let alone = |image: &ImageScores| captions::metric(&image.scores, name);
        let number = |images: &[&ImageScores]| over(images, name);
        (name, compare(&borrowed, arguments.resamples, alone, number))
    });
    Ok(Comparison { numbers: numbers.into(), images: both.len(), unpaired })
}

/// A metric over images: BLEU and METEOR of summed counts, means of the others.
fn over(images: &[&ImageScores], name: &str) -> Option<f64> {
    if let Some(order) = name.strip_prefix("bleu_").and_then(|order| order.parse::<usize>().ok()) {
        let counts: BleuCounts =
            images.iter().fold(BleuCounts::default(), |sum, image| sum + image.bleu_counts);
        return counts.scores().get(order - 1).copied();
    }
    if name == "meteor" {
        let none = MeteorCounts::default();
        let counts = images.iter().fold(none, |sum, image| sum + image.meteor_counts);
        return (!images.is_empty()).then(|| counts.score());
    }
    let sum: f64 = images.iter().map(|image| captions::metric(&image.scores, name)).sum();
    (!images.is_empty()).then(|| sum / images.len() as f64)
}

fn print(arguments: &DiffArguments, comparison: &Comparison) -> anyhow::Result<()> {
    let (first, second) = (name(&arguments.first), name(&arguments.second));
    let (first, second) = if first == second {
        (arguments.first.display().to_string(), arguments.second.display().to_string())
    } else {
        (first, second)
    };
    let mut table = Table::new(&[
        "number",
        &first,
        &second,
        "difference",
        "95 % interval",
        "higher",
        "lower",
        "equal",
        "sign test p",
    ]);
    let mut value = Map::new();
    for (name, compared) in &comparison.numbers {
        value.insert((*name).to_owned(), json!(compared));
        let Some(Compared { first, second, test }) = compared else { continue };
        let interval = test.interval.map_or_else(String::new, |interval| {
            format!("{:+.4} … {:+.4}", interval.low, interval.high)
        });
        table.row([
            (*name).to_owned(),
            format!("{first:.4}"),
            format!("{second:.4}"),
            format!("{:+.4}", test.difference),
            interval,
            test.higher.to_string(),
            test.lower.to_string(),
            test.equal.to_string(),
            format!("{:.4}", test.sign_test_p),
        ]);
    }
    value.insert("images".to_owned(), comparison.images.into());
    value.insert("unpaired".to_owned(), comparison.unpaired.into());
    report::print(&arguments.report, &Value::Object(value), &[], &table, &[])
}
