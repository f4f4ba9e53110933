//! CHAIR and recall without labels: estimates by the verifier that the calibration made sense of.
//!
//! For the unbiased correctness ẑ(s) of a mention with score s (`fisao_verifier::calibration::Correctness`; 1 on average over
//! correct mentions, 0 over hallucinated ones), the mentions m of all captions, the categories C(c) that a caption c names, and the
//! categories P(i) that any of the captions at hand of the image i names:
//!
//! ```text
//! CHAIR_I = 1 − Σ_m ẑ(s_m) / Σ_m 1
//! CHAIR_S = 1 − mean over captions of Π_m p′(s_m)
//! recall  = Σ_c Σ_{k ∈ C(c)} ẑ(s_k) / Σ_i Σ_{k ∈ P(i)} ẑ(s_k)
//! ```
//!
//! p′ is the calibrated probability p at the fraction π′ = mean ẑ of correct mentions in these captions instead of the
//! calibration's π: logit p′ = logit p + logit π′ − logit π (Saerens, Latinne & Decaestecker, *Adjusting the outputs of a
//! classifier to new a priori probabilities*, Neural Computation 14, 2002). Mentions of a caption count as independent in
//! `CHAIR_S`. A bootstrap resample has a π′ of its own, which `CHAIR_S` follows to first order.
//!
//! Recall is against the pool of what the compared captions name (pooling, as retrieval evaluations at TREC have it): what none of
//! them names is not known to be missing, so that it is higher than recall against annotations. It compares models, and is not
//! comparable with annotated recall.
//!
//! What these estimates cannot see: a policy that has learned to please this verifier where it is wrong. Annotations can.

use std::collections::{BTreeMap, BTreeSet};

use fisao_align::mentions::ScoredResponse;
use fisao_eval::chair::ChairChanges;
use fisao_eval::statistics::Bootstrap;
use fisao_report::RateIntervals;
use fisao_verifier::calibration::{Calibration, Correctness, ProbabilityModel, Statistic};

/// Fractions of correct mentions that p′ is adjusted to at most: beyond, its logit has no end.
const FRACTIONS: (f64, f64) = (0.01, 0.99);

/// Estimated rates of some captions with their 95 % bootstrap intervals over images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EstimatedRates {
    pub chair_i: f64,
    pub chair_s: f64,
    /// Against the pool of what is named by any of the captions that are compared.
    pub recall: f64,
    pub intervals: RateIntervals,
}

/// Sums over the captions of one image, or of several.
#[derive(derive_more::Add, Clone, Copy, Debug, Default)]
struct Sums {
    captions: f64,
    mentions: f64,
    correct: f64,
    /// Captions with a hallucinated mention, by probability: `wrong + slope · π′`, the tangent at the π′ of all captions.
    wrong: f64,
    slope: f64,
    recalled: f64,
    pool: f64,
}

impl Sums {
    /// `CHAIR_I`, `CHAIR_S` and recall.
    fn rates(&self) -> [Option<f64>; 3] {
        let part = |part: f64, of: f64| (of > 0.0).then(|| (part / of).clamp(0.0, 1.0));
        let correct = part(self.correct, self.mentions);
        let fraction = correct.unwrap_or(1.0).clamp(FRACTIONS.0, FRACTIONS.1);
        [
            correct.map(|correct| 1.0 - correct),
            part(self.wrong + self.slope * fraction, self.captions),
            part(self.recalled, self.pool),
        ]
    }
}

/// Sums of an image before and after.
#[derive(derive_more::Add, Clone, Copy, Default)]
struct Pair(Sums, Sums);

/// Estimates the rates of captions that are compared.
pub(crate) struct Estimator<'a> {
    calibration: &'a Calibration,
    correctness: Correctness,
    /// Estimated number of correct categories that are named of each image by any of the captions.
    pool: Vec<f64>,
}

impl<'a> Estimator<'a> {
    /// An estimator for captions of the same images, each list of them by one model in one way of decoding.
    ///
    /// # Errors
    /// The verifier tells next to nothing.
    pub(crate) fn new(
        calibration: &'a Calibration,
        captions: &[&[ScoredResponse]],
    ) -> anyhow::Result<Self> {
        let correctness = Correctness::new(calibration, Statistic::default())?;
        let images = captions.first().map_or(0, |captions| captions.len());
        let pool = (0..images).map(|image| {
            let mut named = BTreeMap::new();
            for captions in captions {
                named.extend(first_mentions(&captions[image]));
            }
            named.values().map(|score| correctness.estimate(*score)).sum()
        });
        let pool = pool.collect();
        Ok(Self { calibration, correctness, pool })
    }

    /// Rates of some captions.
    pub(crate) fn rates(&self, captions: &[ScoredResponse]) -> EstimatedRates {
        let images = self.images(captions);
        let named: Vec<(usize, Sums)> = images.iter().copied().enumerate().collect();
        let [chair_i, chair_s, recall] = Bootstrap::default().intervals(&[named], Sums::rates);
        let all = images.into_iter().fold(Sums::default(), std::ops::Add::add).rates();
        let [value_i, value_s, value_recall] = all.map(|rate| rate.unwrap_or(0.0));
        EstimatedRates {
            chair_i: value_i,
            chair_s: value_s,
            recall: value_recall,
            intervals: RateIntervals { chair_i, chair_s, recall },
        }
    }

    /// Intervals of the changes between two models' captions of the same images.
    pub(crate) fn changes(
        &self,
        before: &[ScoredResponse],
        after: &[ScoredResponse],
    ) -> ChairChanges {
        let pairs = self.images(before).into_iter().zip(self.images(after));
        let pairs: Vec<(usize, Pair)> = pairs.map(|(a, b)| Pair(a, b)).enumerate().collect();
        let change = |Pair(before, after): &Pair| {
            let (before, after) = (before.rates(), after.rates());
            std::array::from_fn(|at| Some(after[at]? - before[at]?))
        };
        let [chair_i, chair_s, recall] = Bootstrap::default().intervals(&[pairs], change);
        ChairChanges { chair_i, chair_s, recall }
    }

    /// Estimated probability that a mention is correct, at the fraction of correct ones that these captions have.
    fn probability(&self, score: f64, fraction: f64) -> f64 {
        let logit = |p: f64| (p / (1.0 - p)).ln();
        let shift = logit(fraction) - logit(self.calibration.prior_correct);
        let adjusted = self.calibration.logit(score, ProbabilityModel::default()) + shift;
        1.0 / (1.0 + (-adjusted).exp())
    }

    /// Sums of each image.
    fn images(&self, captions: &[ScoredResponse]) -> Vec<Sums> {
        let scores = || captions.iter().flat_map(|caption| &caption.scores);
        let correct: f64 = scores().map(|score| self.correctness.estimate(*score)).sum();
        let fraction = correct / scores().count().max(1) as f64;
        let fraction = fraction.clamp(FRACTIONS.0, FRACTIONS.1);
        let of_image = |(caption, &pool): (&ScoredResponse, &f64)| {
            let probabilities =
                || caption.scores.iter().map(|&score| self.probability(score, fraction));
            let right: f64 = probabilities().product();
            // dp′/dπ′ = p′ (1 − p′) / (π′ (1 − π′)).
            let doubts: f64 = probabilities().map(|probability| 1.0 - probability).sum();
            let slope = -right * doubts / (fraction * (1.0 - fraction));
            let estimate = |score: &f64| self.correctness.estimate(*score);
            let recalled: f64 = first_mentions(caption).values().map(estimate).sum();
            Sums {
                captions: 1.0,
                mentions: caption.scores.len() as f64,
                correct: caption.scores.iter().map(estimate).sum(),
                wrong: 1.0 - right - slope * fraction,
                slope,
                recalled,
                pool,
            }
        };
        captions.iter().zip(&self.pool).map(of_image).collect()
    }
}

/// Score of the first mention of each category.
fn first_mentions(caption: &ScoredResponse) -> BTreeMap<usize, f64> {
    let mut seen = BTreeSet::new();
    let mentions = caption.mentions.iter().zip(&caption.scores);
    let first = mentions.filter(|(mention, _)| seen.insert(mention.category));
    first.map(|(mention, score)| (mention.category, *score)).collect()
}

#[cfg(test)]
mod tests {
    use fisao_models::generation::FinishReason;
    use fisao_verifier::calibration::fit_annotated;
    use fisao_verifier::mentions::TokenMention;

    use super::*;

    /// Means 1 and 0, standard deviation 0.5: an AUC of 0.92. Nine of ten mentions are correct.
    fn calibration() -> Calibration {
        let normal = |at: usize| {
            // Quantiles of the normal distribution by a table would do; a sine has the same symmetry.
            let angle = std::f64::consts::TAU * (at as f64 + 0.5) / 100.0;
            0.5 * std::f64::consts::SQRT_2 * angle.sin()
        };
        let correct = (0..900).map(|at| (1.0 + normal(at % 100), true));
        let wrong = (0..100).map(|at| (normal(at), false));
        let (scores, labels): (Vec<f64>, Vec<bool>) = correct.chain(wrong).unzip();
        fit_annotated(&scores, &labels).unwrap()
    }

    /// A caption that names these categories with these scores.
    fn caption(task: usize, mentions: &[(usize, f64)]) -> ScoredResponse {
        let mention = |&(category, _): &(usize, f64)| TokenMention {
            category,
            form: String::new(),
            text: String::new(),
            span: 0..0,
            tokens: 0..0,
            negated: false,
            description: None,
        };
        ScoredResponse {
            task,
            tokens: vec![1],
            logprobs: vec![0.0],
            finish: FinishReason::Stop,
            text: String::new(),
            mentions: mentions.iter().map(mention).collect(),
            scores: mentions.iter().map(|(_, score)| *score).collect(),
            negated: 0,
        }
    }

    /// Captions of which every `nth` names an object that is not there, with scores of the calibration's classes.
    fn captions(nth: usize) -> Vec<ScoredResponse> {
        let noise = |at: usize| 0.5 * std::f64::consts::SQRT_2 * (at as f64 * 2.4).sin();
        let of = |at: usize| {
            let wrong = at.is_multiple_of(nth);
            let last = if wrong { noise(3 * at) } else { 1.0 + noise(3 * at) };
            let right = [(0, 1.0 + noise(3 * at + 1)), (1, 1.0 + noise(3 * at + 2))];
            caption(at, &[right[0], right[1], (if wrong { 3 } else { 2 }, last)])
        };
        (0..600).map(of).collect()
    }

    /// One in six mentions is hallucinated, and one in thirty, though the calibration knows one in ten.
    #[test]
    fn estimated_rates_follow_the_captions_and_not_the_calibration() {
        let (many, few) = (captions(2), captions(10));
        let calibration = calibration();
        let estimator = Estimator::new(&calibration, &[&many, &few]).unwrap();
        let (before, after) = (estimator.rates(&many), estimator.rates(&few));
        assert!((before.chair_i - 1.0 / 6.0).abs() < 0.02, "{before:?}");
        assert!((after.chair_i - 1.0 / 30.0).abs() < 0.02, "{after:?}");
        assert!((before.chair_s - 0.5).abs() < 0.05, "{before:?}");
        assert!((after.chair_s - 0.1).abs() < 0.05, "{after:?}");
        let interval = before.intervals.chair_i.unwrap();
        assert!(interval.low < before.chair_i && before.chair_i < interval.high);
        let change = estimator.changes(&many, &few).chair_i.unwrap();
        assert!(change.high < 0.0, "{change:?}");
    }

    /// A resample with more hallucinations than all captions have is estimated as it would be by itself.
    #[test]
    fn resamples_have_a_fraction_of_correct_mentions_of_their_own() {
        let (many, calibration) = (captions(4), calibration());
        let estimator = Estimator::new(&calibration, &[&many]).unwrap();
        let images = estimator.images(&many);
        let drawn: Vec<usize> = (0..600).filter(|at| !matches!(at % 8, 1 | 2)).collect();
        let sums = drawn.iter().map(|&at| images[at]).fold(Sums::default(), std::ops::Add::add);
        let resampled = sums.rates()[1].unwrap();
        let alone: Vec<ScoredResponse> = drawn.iter().map(|&at| many[at].clone()).collect();
        let alone = Estimator::new(&calibration, &[&alone]).unwrap().rates(&alone).chair_s;
        let fixed = drawn.iter().map(|&at| images[at].wrong + images[at].slope * 11.0 / 12.0);
        let fixed = fixed.sum::<f64>() / drawn.len() as f64;
        assert!((resampled - alone).abs() < 0.01, "{resampled} {alone}");
        assert!((fixed - alone).abs() > 2.0 * (resampled - alone).abs(), "{fixed} {alone}");
    }

    /// The pool has three objects of an image, of which one caption names two.
    #[test]
    fn recall_is_of_what_any_caption_names() {
        let (one, other) =
            (vec![caption(0, &[(0, 1.0), (1, 1.0)])], vec![caption(0, &[(1, 1.0), (2, 1.0)])]);
        let calibration = calibration();
        let estimator = Estimator::new(&calibration, &[&one, &other]).unwrap();
        assert!((estimator.rates(&one).recall - 2.0 / 3.0).abs() < 1e-9);
        // A repetition recalls nothing more.
        let again = vec![caption(0, &[(0, 1.0), (1, 1.0), (1, 1.0)])];
        assert!((estimator.rates(&again).recall - 2.0 / 3.0).abs() < 1e-9);
    }
}
