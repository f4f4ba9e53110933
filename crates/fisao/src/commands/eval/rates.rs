//! CHAIR's rates of any choice of captions, for intervals and comparisons.

use std::collections::BTreeSet;

use fisao_eval::chair::{ChairReport, ImageVerdict};
use fisao_eval::statistics::bootstrap;
use serde_json::{Map, Value, json};

/// Resamples of the bootstrap.
const RESAMPLES: usize = 1000;

/// A rate of some captions; `None` over nothing.
pub(super) type Rate = fn(&[Sums]) -> Option<f64>;

/// The rates of a report, as JSON names them.
pub(super) const RATES: [(&str, Rate); 3] =
    [("chair_s", chair_s), ("chair_i", chair_i), ("recall", recall)];

/// What rates are made of, for one caption.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    hallucinated: usize,
    mentions: usize,
    recalled: usize,
    truth: usize,
}

impl From<&ImageVerdict> for Sums {
    fn from(verdict: &ImageVerdict) -> Self {
        let there = verdict.mentions.iter().filter(|mention| !mention.hallucinated);
        let named: BTreeSet<&str> = there.map(|mention| mention.category.as_str()).collect();
        Self {
            hallucinated: verdict.mentions.iter().filter(|mention| mention.hallucinated).count(),
            mentions: verdict.mentions.len(),
            recalled: named.len(),
            truth: named.len() + verdict.missed.len(),
        }
    }
}

fn rate(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn chair_s(captions: &[Sums]) -> Option<f64> {
    rate(captions.iter().filter(|sums| sums.hallucinated > 0).count(), captions.len())
}

fn chair_i(captions: &[Sums]) -> Option<f64> {
    let sum = |part: fn(&Sums) -> usize| captions.iter().map(part).sum();
    rate(sum(|sums| sums.hallucinated), sum(|sums| sums.mentions))
}

fn recall(captions: &[Sums]) -> Option<f64> {
    let sum = |part: fn(&Sums) -> usize| captions.iter().map(part).sum();
    rate(sum(|sums| sums.recalled), sum(|sums| sums.truth))
}

impl Sums {
    /// What this caption alone says to a rate, for counting on which images one model is better.
    pub(super) fn share(self, rate: Rate) -> f64 {
        rate(&[self]).unwrap_or(0.0)
    }
}

/// 95 % bootstrap intervals over captions.
pub(super) fn intervals(report: &ChairReport) -> Map<String, Value> {
    let sums: Vec<Sums> = report.per_image.iter().map(Sums::from).collect();
    let interval = |rate: Rate| {
        bootstrap(sums.len(), RESAMPLES, 0, |drawn| {
            rate(&drawn.iter().map(|&at| sums[at]).collect::<Vec<_>>())
        })
    };
    RATES.into_iter().map(|(name, rate)| (name.to_owned(), json!(interval(rate)))).collect()
}
