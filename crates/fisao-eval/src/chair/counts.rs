//! What the rates are made of, for choices of captions: intervals over images, and comparisons.

use std::ops::Add;

use super::ChairReport;
use crate::rates::rate;
use crate::statistics::{Bootstrap, Interval};

/// Counts of one caption, or sums over several; below 2³² each, which is 20 GB of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

impl Add for ChairCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            captions: self.captions + other.captions,
            captions_with_hallucination: self.captions_with_hallucination
                + other.captions_with_hallucination,
            captions_without_object: self.captions_without_object + other.captions_without_object,
            mentions: self.mentions + other.mentions,
            hallucinated: self.hallucinated + other.hallucinated,
            ground_truth: self.ground_truth + other.ground_truth,
            recalled: self.recalled + other.recalled,
            words: self.words + other.words,
        }
    }
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

    /// Words / captions.
    pub fn mean_length_words(&self) -> Option<f64> {
        rate(self.words as usize, self.captions as usize)
    }
}

/// Bootstrap intervals over images of `CHAIR_S`, `CHAIR_I`, recall and length, averaged over runs.
pub fn intervals(reports: &[&ChairReport], bootstrap: Bootstrap) -> [Option<Interval>; 4] {
    let runs: Vec<&[(String, ChairCounts)]> =
        reports.iter().map(|report| report.counts.as_slice()).collect();
    bootstrap.intervals(&runs, |sums| {
        [sums.chair_s(), sums.chair_i(), sums.recall(), sums.mean_length_words()]
    })
}
