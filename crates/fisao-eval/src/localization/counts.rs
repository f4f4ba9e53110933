//! Counts of images, from which every number is made: of all, or of a resample.

use std::ops::AddAssign;

use super::spans::SpanMatches;
use crate::detection::{Step, Sweep};
use crate::rates::{Confusion, mean, rate};

/// What the numbers of tokens are called, in order.
pub(super) const TOKEN_NUMBERS: [&str; 9] = [
    "roc_auc",
    "roc_auc_with_opinion",
    "average_precision",
    "f1",
    "precision",
    "recall",
    "best_f1",
    "aurc",
    "without_opinion",
];

/// What the numbers of spans are called, in order.
pub(super) const SPAN_NUMBERS: [&str; 10] = [
    "exact_f1",
    "exact_precision",
    "exact_recall",
    "overlap_f1",
    "overlap_precision",
    "overlap_recall",
    "character_f1",
    "character_precision",
    "character_recall",
    "without_opinion",
];

/// What the numbers of a type are called, in order.
pub(super) const TYPE_NUMBERS: [&str; 4] = ["recall", "roc_auc", "span_recall", "without_opinion"];

/// What means over types are called, in order.
pub(super) const MACRO_NUMBERS: [&str; 2] = ["recall", "roc_auc"];

/// A token that the detector has an opinion on.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScoredToken {
    pub(super) score: f64,
    /// One bit for each type that it is hallucinated in.
    pub(super) types: u64,
    /// Position of its image.
    pub(super) image: usize,
}

/// Counts of an image, or sums of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) tokens: Confusion,
    /// Hallucinated tokens, and others, without an opinion.
    pub(super) no_opinion: [usize; 2],
    pub(super) spans: SpanMatches,
    /// Labelled spans in which nothing has an opinion.
    pub(super) spans_no_opinion: usize,
    pub(super) types: Vec<TypeCounts>,
}

/// Counts of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TypeCounts {
    /// Hallucinated tokens.
    pub(super) tokens: usize,
    /// Of them, flagged.
    pub(super) found: usize,
    /// Of them, without an opinion.
    pub(super) no_opinion: usize,
    /// Labelled spans.
    pub(super) spans: usize,
    /// Of them, sharing a character with a flagged span.
    pub(super) spans_found: usize,
}

impl Counts {
    pub(super) fn of_types(types: usize) -> Self {
        Self { types: vec![TypeCounts::default(); types], ..Self::default() }
    }

    /// Adds an image so many times.
    fn add(&mut self, other: &Self, times: usize) {
        let add = |sum: &mut usize, count: usize| sum.add_assign(times * count);
        let (sum, of) = (&mut self.tokens, &other.tokens);
        add(&mut sum.true_positive, of.true_positive);
        add(&mut sum.false_positive, of.false_positive);
        add(&mut sum.true_negative, of.true_negative);
        add(&mut sum.false_negative, of.false_negative);
        add(&mut self.no_opinion[0], other.no_opinion[0]);
        add(&mut self.no_opinion[1], other.no_opinion[1]);
        let (sum, of) = (&mut self.spans, &other.spans);
        add(&mut sum.predicted, of.predicted);
        add(&mut sum.labelled, of.labelled);
        add(&mut sum.exact, of.exact);
        add(&mut sum.predicted_overlapping, of.predicted_overlapping);
        add(&mut sum.labelled_overlapping, of.labelled_overlapping);
        add(&mut sum.predicted_characters, of.predicted_characters);
        add(&mut sum.labelled_characters, of.labelled_characters);
        add(&mut sum.shared_characters, of.shared_characters);
        add(&mut self.spans_no_opinion, other.spans_no_opinion);
        for (sum, of) in self.types.iter_mut().zip(&other.types) {
            add(&mut sum.tokens, of.tokens);
            add(&mut sum.found, of.found);
            add(&mut sum.no_opinion, of.no_opinion);
            add(&mut sum.spans, of.spans);
            add(&mut sum.spans_found, of.spans_found);
        }
    }
}

/// Everything that is counted.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    pub(super) images: Vec<Counts>,
    /// By score, from the highest down.
    pub(super) scored: Vec<ScoredToken>,
    pub(super) types: usize,
    /// Whether the detector decides.
    pub(super) decides: bool,
}

/// Sums over images, each taken so many times.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    pub(super) counts: Counts,
    /// Hallucinated tokens against others.
    pub(super) sweep: Sweep,
    /// Tokens of each type against those that are not hallucinated.
    type_sweeps: Vec<Sweep>,
    decides: bool,
}

impl Counted {
    pub(super) fn totals(&self, times: &[usize]) -> Totals {
        let mut counts = Counts::of_types(self.types);
        for (image, &times) in self.images.iter().zip(times).filter(|(_, times)| **times > 0) {
            counts.add(image, times);
        }
        let mut steps = Vec::new();
        let mut type_steps = vec![Vec::new(); self.types];
        let mut of_types = vec![0; self.types];
        for tied in self.scored.chunk_by(|a, b| a.score <= b.score) {
            let score = tied[0].score;
            let (mut positive, mut negative) = (0, 0);
            of_types.fill(0);
            for token in tied {
                let times = times[token.image];
                if token.types == 0 {
                    negative += times;
                    continue;
                }
                positive += times;
                let mut types = token.types;
                while types > 0 {
                    of_types[types.trailing_zeros() as usize] += times;
                    types &= types - 1;
                }
            }
            steps.push(Step { score, positive, negative });
            for (steps, &positive) in type_steps.iter_mut().zip(&of_types) {
                steps.push(Step { score, positive, negative });
            }
        }
        let score = f64::NEG_INFINITY;
        let [positive, negative] = counts.no_opinion;
        steps.push(Step { score, positive, negative });
        for (steps, of) in type_steps.iter_mut().zip(&counts.types) {
            steps.push(Step { score, positive: of.no_opinion, negative });
        }
        let type_sweeps = type_steps.into_iter().map(Sweep::of_steps).collect();
        Totals { counts, sweep: Sweep::of_steps(steps), type_sweeps, decides: self.decides }
    }
}

impl Totals {
    /// All numbers: those of tokens, of spans, of each type, means over types. `None` where one is undefined.
    pub(super) fn numbers(&self) -> Vec<Option<f64>> {
        let Self { counts, sweep, type_sweeps, decides } = self;
        let decided = |number: Option<f64>| number.filter(|_| *decides);
        let scored = |steps: &Sweep| {
            Sweep::of_steps(
                steps.steps().iter().copied().filter(|step| step.score > f64::NEG_INFINITY),
            )
        };
        let hallucinated = counts.tokens.truly_positive();
        let tokens = [
            sweep.roc_auc(),
            scored(sweep).roc_auc(),
            sweep.average_precision(),
            // Of no hallucinated token there is no F1, as of scores.
            decided(counts.tokens.f1()).filter(|_| hallucinated > 0),
            decided(counts.tokens.precision()),
            decided(counts.tokens.recall()),
            sweep.best_f1().map(|best| best.f1),
            sweep.risk_coverage().map(|curve| curve.aurc()),
            rate(counts.no_opinion[0], hallucinated),
        ];
        let spans = [counts.spans.exact(), counts.spans.overlap(), counts.spans.characters()]
            .map(|[precision, recall, f1]| {
                [f1.filter(|_| counts.spans.labelled > 0), precision, recall]
            })
            .concat();
        let no_opinion = rate(counts.spans_no_opinion, counts.spans.labelled);
        let types: Vec<[Option<f64>; 4]> = counts
            .types
            .iter()
            .zip(type_sweeps)
            .map(|(of, sweep)| {
                [
                    decided(rate(of.found, of.tokens)),
                    sweep.roc_auc(),
                    decided(rate(of.spans_found, of.spans)),
                    rate(of.no_opinion, of.tokens),
                ]
            })
            .collect();
        let there = || {
            types
                .iter()
                .zip(&counts.types)
                .filter(|(_, of)| of.tokens > 0)
                .map(|(numbers, _)| numbers)
        };
        let means = [mean(there().map(|of| of[0])), mean(there().map(|of| of[1]))];
        let mut numbers = tokens.to_vec();
        numbers.extend(spans.into_iter().map(decided));
        numbers.push(no_opinion);
        numbers.extend(types.iter().flatten());
        numbers.extend(means);
        numbers
    }
}

impl Counts {
    /// Adds a text of the same image.
    pub(super) fn absorb(&mut self, text: &Self) {
        self.add(text, 1);
    }
}
