//! What the rows of a comparison say together: means with intervals, changes, tests.

use std::collections::BTreeMap;

use fisao_eval::statistics::{Interval, MeanEstimate, holm, paired_t_test, sign_test};
use serde::{Deserialize, Serialize};

use super::document::{Decoding, Method, Settings};
use super::metric::Metric;

/// Seeds from which the sign test can reach p < 0.05: 2 / 2⁶ = 0.031.
const SEEDS_OF_A_SIGN_TEST: usize = 6;

/// A difference counts as significant below this p, corrected.
pub(crate) const SIGNIFICANT: f64 = 0.05;

/// What follows from all rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// One for each method, in their order.
    pub(crate) methods: Vec<MethodSummary>,
    /// Every method against [`Settings::against`], by metric and decoding.
    pub(crate) tests: Vec<PairedComparison>,
}

/// What the seeds of one method say together. Where one of them lacks a number, the mean of it is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MethodSummary {
    /// Key of the method.
    pub(crate) key: String,
    /// Means with 95 % t-intervals over the seeds, of greedy captions.
    pub(crate) greedy: BTreeMap<Metric, MeanEstimate>,
    /// The same of captions drawn at temperature 1; empty where there are none.
    pub(crate) sampled: BTreeMap<Metric, MeanEstimate>,
    /// (this − base) / base of `chair_i`, greedy; the worst is the highest.
    pub(crate) chair_i_change: Option<Change>,
    /// this − base of `recall`, greedy; the worst is the lowest.
    pub(crate) recall_change: Option<Change>,
    /// (this − base) / base of `mean_length`, greedy; the worst is the farthest from 0.
    pub(crate) length_change: Option<Change>,
}

impl MethodSummary {
    /// Mean and interval of a metric.
    pub(crate) fn mean(&self, decoding: Decoding, metric: Metric) -> Option<&MeanEstimate> {
        match decoding {
            Decoding::Greedy => &self.greedy,
            Decoding::Sampled => &self.sampled,
        }
        .get(&metric)
    }
}

/// A change against the base, seed by seed: both were measured on the same scenes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Over the seeds.
    pub(crate) mean: f64,
    /// Of the seed in which it looks worst.
    pub(crate) worst: f64,
    /// Seed and change.
    pub(crate) seeds: Vec<(u64, f64)>,
}

/// A method against the one all are tested against, over the seeds both have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PairedComparison {
    /// How the captions were decoded.
    pub(crate) decoding: Decoding,
    /// What is compared.
    pub(crate) metric: Metric,
    /// Key of the method.
    pub(crate) method: String,
    /// Key of what it is tested against.
    pub(crate) against: String,
    /// Mean over the seeds of the method's value less the other's.
    pub(crate) difference: f64,
    /// 95 % t-interval of it.
    pub(crate) interval: Option<Interval>,
    /// Seeds.
    pub(crate) seeds: usize,
    /// p of the two-sided paired t-test; `None` of a single seed, and where all seeds agree exactly.
    pub(crate) p: Option<f64>,
    /// The same by Holm's correction for all methods tested by this metric and decoding.
    pub(crate) p_holm: Option<f64>,
    /// p of the exact sign test, which assumes no distribution; `None` below six seeds, with which it cannot
    /// reach 0.05.
    pub(crate) sign_test_p: Option<f64>,
}

impl PairedComparison {
    /// Whether the difference is more than chance, all methods together.
    pub(crate) fn is_significant(&self) -> bool {
        self.p_holm.is_some_and(|p| p < SIGNIFICANT)
    }
}

impl Summary {
    /// Of rows.
    pub(crate) fn of(settings: &Settings, methods: &[Method]) -> Self {
        let find = |key: &Option<String>| {
            let key = key.as_ref()?;
            methods.iter().find(|method| method.key == *key)
        };
        let base = find(&settings.base);
        let summaries = methods.iter().map(|method| summary(method, base)).collect();
        let against = find(&settings.against);
        let tests = against.map_or_else(Vec::new, |against| {
            let decodings = [Decoding::Greedy, Decoding::Sampled];
            let asked = decodings
                .into_iter()
                .flat_map(|decoding| Metric::of_captions().map(move |metric| (decoding, metric)));
            asked.flat_map(|asked| family(methods, against, asked)).collect()
        });
        Self { methods: summaries, tests }
    }

    /// The summary of a method.
    pub(crate) fn method(&self, key: &str) -> Option<&MethodSummary> {
        self.methods.iter().find(|method| method.key == key)
    }

    /// The test of a method.
    pub(crate) fn test(
        &self,
        decoding: Decoding,
        metric: Metric,
        method: &str,
    ) -> Option<&PairedComparison> {
        self.tests.iter().find(|test| {
            test.decoding == decoding && test.metric == metric && test.method == method
        })
    }
}

fn summary(method: &Method, base: Option<&Method>) -> MethodSummary {
    let means = |decoding: Decoding| {
        let mean = |metric: Metric| {
            let values = method.seeds.iter().map(|row| row.value(decoding, metric));
            let values: Option<Vec<f64>> = values.collect();
            Some((metric, MeanEstimate::of(&values?)?))
        };
        Metric::ALL.into_iter().filter_map(mean).collect()
    };
    let base = base.filter(|base| base.key != method.key);
    let change = |metric, change: fn(f64, f64) -> f64, badness: fn(f64) -> f64| {
        let pairs = pairs(base?, method, (Decoding::Greedy, metric));
        let seeds: Vec<(u64, f64)> =
            pairs.into_iter().map(|(seed, base, this)| (seed, change(base, this))).collect();
        // A base without hallucinations has no relative change.
        let finite = !seeds.is_empty() && seeds.iter().all(|(_, change)| change.is_finite());
        let worst = |a: f64, b: f64| if badness(b) > badness(a) { b } else { a };
        finite.then(|| Change {
            mean: seeds.iter().map(|(_, change)| change).sum::<f64>() / seeds.len() as f64,
            worst: seeds.iter().map(|&(_, change)| change).reduce(worst).unwrap_or(0.0),
            seeds,
        })
    };
    let relative: fn(f64, f64) -> f64 = |base, this| (this - base) / base;
    MethodSummary {
        key: method.key.clone(),
        greedy: means(Decoding::Greedy),
        sampled: means(Decoding::Sampled),
        chair_i_change: change(Metric::ChairI, relative, |change| change),
        recall_change: change(Metric::Recall, |base, this| this - base, |change| -change),
        length_change: change(Metric::MeanLength, relative, f64::abs),
    }
}

/// Seed and the values of two methods, of the seeds in which both have one.
fn pairs(
    first: &Method,
    second: &Method,
    (decoding, metric): (Decoding, Metric),
) -> Vec<(u64, f64, f64)> {
    let pair = |row: &super::document::SeedRow| {
        let first = first.seed(row.seed)?.value(decoding, metric)?;
        Some((row.seed, first, row.value(decoding, metric)?))
    };
    second.seeds.iter().filter_map(pair).collect()
}

/// All tests by one metric and decoding, which are corrected together.
fn family(
    methods: &[Method],
    against: &Method,
    (decoding, metric): (Decoding, Metric),
) -> Vec<PairedComparison> {
    let test = |method: &Method| {
        let pairs: Vec<(f64, f64)> = pairs(against, method, (decoding, metric))
            .into_iter()
            .map(|(_, against, this)| (against, this))
            .collect();
        let found = paired_t_test(&pairs)?;
        let higher = pairs.iter().filter(|(against, this)| this > against).count();
        let lower = pairs.iter().filter(|(against, this)| this < against).count();
        Some(PairedComparison {
            decoding,
            metric,
            method: method.key.clone(),
            against: against.key.clone(),
            difference: found.difference,
            interval: found.interval,
            seeds: found.runs,
            p: found.p,
            p_holm: None,
            sign_test_p: (found.runs >= SEEDS_OF_A_SIGN_TEST).then(|| sign_test(higher, lower)),
        })
    };
    let others = methods.iter().filter(|method| method.key != against.key);
    let mut tests: Vec<PairedComparison> = others.filter_map(test).collect();
    let corrected = holm(&tests.iter().filter_map(|test| test.p).collect::<Vec<_>>());
    let tested = tests.iter_mut().filter(|test| test.p.is_some());
    for (test, p) in tested.zip(corrected) {
        test.p_holm = Some(p);
    }
    tests
}
