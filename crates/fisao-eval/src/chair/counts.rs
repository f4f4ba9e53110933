//! What the rates are made of, for choices of captions: intervals over images, and comparisons.

use serde::Serialize;

use super::ChairReport;
use crate::rates::rate;
use crate::statistics::{Bootstrap, Interval};

/// Counts of one caption, or sums over several; below 2³² each, which is 20 GB of text.
#[derive(derive_more::Add, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChairCounts {
    /// Captions.
    pub captions: u32,
    /// Those with a hallucinated mention.
    pub captions_with_hallucination: u32,
    /// Those without a mention.
    pub captions_without_object: u32,
    /// Mentions.
    pub mentions: u32,
    /// Hallucinated ones.
    pub hallucinated: u32,
    /// Ground-truth categories.
    pub ground_truth: u32,
    /// Those mentioned.
    pub recalled: u32,
    /// Words.
    pub words: u32,
}

impl ChairCounts {
    /// Captions with at least one hallucinated mention / captions.
    pub fn chair_s(&self) -> Option<f64> {
        rate(self.captions_with_hallucination as usize, self.captions as usize)
    }

    /// Hallucinated mentions / mentions.
    pub fn chair_i(&self) -> Option<f64> {
        rate(self.hallucinated as usize, self.mentions as usize)
    }

    /// Ground-truth categories mentioned / ground-truth categories.
    pub fn recall(&self) -> Option<f64> {
        rate(self.recalled as usize, self.ground_truth as usize)
    }

    /// Harmonic mean of precision, which is 1 − `CHAIR_I`, and recall; 0 where both are.
    pub fn f1(&self) -> Option<f64> {
        let (precision, recall) = (1.0 - self.chair_i()?, self.recall()?);
        let sum = precision + recall;
        Some(if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 })
    }

    /// Words / captions.
    pub fn mean_length_words(&self) -> Option<f64> {
        rate(self.words as usize, self.captions as usize)
    }
}

/// Bootstrap intervals over images of `CHAIR_S`, `CHAIR_I`, recall, F1 and length, averaged over runs.
pub fn intervals(reports: &[&ChairReport], bootstrap: Bootstrap) -> [Option<Interval>; 5] {
    let runs: Vec<&[(String, ChairCounts)]> =
        reports.iter().map(|report| report.counts.as_slice()).collect();
    bootstrap.intervals(&runs, |sums| {
        [sums.chair_s(), sums.chair_i(), sums.recall(), sums.f1(), sums.mean_length_words()]
    })
}

/// 95 % bootstrap intervals of how rates change between two models on the same images, fractions; `None` where a rate is of nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ChairChanges {
    /// Of `CHAIR_I`.
    pub chair_i: Option<Interval>,
    /// Of `CHAIR_S`.
    pub chair_s: Option<Interval>,
    /// Of recall.
    pub recall: Option<Interval>,
}

/// Intervals of the changes from one model to another. Images are drawn with the captions of both, so that what makes an image
/// hard for both does not count.
pub fn changes(before: &ChairReport, after: &ChairReport, bootstrap: Bootstrap) -> ChairChanges {
    let none = ChairCounts::default();
    let first = before.counts.iter().map(|(name, counts)| (name, Pair(*counts, none)));
    let second = after.counts.iter().map(|(name, counts)| (name, Pair(none, *counts)));
    let images: Vec<(&String, Pair)> = first.chain(second).collect();
    let [chair_i, chair_s, recall] = bootstrap.intervals(&[images], |Pair(before, after)| {
        [ChairCounts::chair_i, ChairCounts::chair_s, ChairCounts::recall]
            .map(|rate| Some(rate(after)? - rate(before)?))
    });
    ChairChanges { chair_i, chair_s, recall }
}

/// Counts of an image before and after.
#[derive(derive_more::Add, Clone, Copy, Default)]
struct Pair(ChairCounts, ChairCounts);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chair::{ChairInput, ChairOptions, GroundTruth, ObjectVocabulary, evaluate};

    const IMAGES: usize = 400;

    /// Captions of images of a dog, on some of which a cat is named, too.
    fn report(cat: impl Fn(usize) -> bool) -> ChairReport {
        let id = |at: usize| format!("{at}");
        let dog = BTreeSet::from(["dog".to_owned()]);
        let truth: GroundTruth = (0..IMAGES).map(|at| (id(at), dog.clone())).collect();
        let caption = |at: usize| if cat(at) { "A dog and a cat." } else { "A dog." };
        let inputs =
            (0..IMAGES).map(|at| ChairInput { image_id: id(at), caption: caption(at).to_owned() });
        let category = |name: &str| (name.to_owned(), vec![name.to_owned()]);
        let vocabulary =
            ObjectVocabulary::new(vec![category("dog"), category("cat")]).expect("two categories");
        evaluate(inputs.collect(), &truth, &vocabulary, &ChairOptions::default())
            .expect("every image has a truth")
    }

    #[test]
    fn f1_is_the_harmonic_mean_of_precision_and_recall() {
        let counts = |mentions, hallucinated, ground_truth, recalled| ChairCounts {
            mentions,
            hallucinated,
            ground_truth,
            recalled,
            ..ChairCounts::default()
        };
        // Precision 3/4, recall 1/2: 2 · 3/8 / (5/4).
        assert!((counts(8, 2, 10, 5).f1().unwrap() - 0.6).abs() < 1e-12);
        assert_eq!(counts(8, 8, 10, 0).f1(), Some(0.0));
        assert_eq!((counts(0, 0, 10, 0).f1(), counts(3, 1, 0, 0).f1()), (None, None));
    }

    #[test]
    fn intervals_of_changes_are_those_of_pairs() {
        let bootstrap = Bootstrap { resamples: 4000, seed: 1 };
        let (before, after) = (report(|at| at % 2 == 0), report(|at| at % 4 == 0));
        let found = changes(&before, &after, bootstrap);
        let chair_s = found.chair_s.expect("there are captions");
        // Of each image −1 with probability ¼: −0.25 ± 1.96 · √(0.25 · 0.75 / 400).
        assert!((chair_s.low + 0.292).abs() < 0.004, "{chair_s:?}");
        assert!((chair_s.high + 0.208).abs() < 0.004, "{chair_s:?}");
        assert!(found.chair_i.is_some_and(|interval| interval.high < 0.0));
        // The dog is named everywhere.
        assert_eq!(found.recall, Some(Interval { low: 0.0, high: 0.0 }));
        let same = changes(&before, &before, bootstrap);
        assert_eq!(same.chair_i, Some(Interval { low: 0.0, high: 0.0 }));
        // As many of other images.
        let other = changes(&before, &report(|at| at % 2 == 1), bootstrap);
        assert!(other.chair_s.is_some_and(|interval| interval.low < 0.0 && interval.high > 0.0));
    }
}
