//! How sure a number is: means over seeds with their t-intervals, bootstrap intervals over images, paired comparison.
//!
//! Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993: percentile intervals. Resamples are drawn
//! from a generator of our own with a fixed seed, so that a report repeats itself.

mod student;

pub use student::{MeanEstimate, PairedMeans, holm, paired_t_test};

use std::array;
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Add;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::rates::mean;

/// A number with the interval that holds it with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// 2.5 % of resamples are below.
    pub low: f64,
    /// 2.5 % of resamples are above.
    pub high: f64,
}

/// Mean and standard deviation over runs, such as seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation with n − 1 in the denominator; 0 for a single run.
    pub standard_deviation: f64,
    /// Number of runs.
    pub runs: usize,
}

impl Spread {
    /// Of at least one run.
    pub fn of(values: &[f64]) -> Option<Self> {
        let runs = values.len();
        if runs == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / runs as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let standard_deviation = if runs > 1 { (squares / (runs - 1) as f64).sqrt() } else { 0.0 };
        Some(Self { mean, standard_deviation, runs })
    }
}

/// How two systems compare on the same images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedTest {
    /// The second's number less the first's.
    pub difference: f64,
    /// 95 % bootstrap interval of the difference, images resampled in pairs.
    pub interval: Option<Interval>,
    /// Images on which the second is higher.
    pub higher: usize,
    /// Images on which it is lower.
    pub lower: usize,
    /// Images on which they agree.
    pub equal: usize,
    /// Probability of so uneven a split, or a more uneven one, if neither were better: the two-sided exact
    /// sign test, ties left out.
    pub sign_test_p: f64,
}

/// How to draw bootstrap intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Resamples; 0 for no intervals.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, seed: 0 }
    }
}

impl Bootstrap {
    /// A statistic of every resample of `count` images, in order. It gets positions of images, some several times.
    /// Every resample has a generator of its own, so that they can be drawn on all cores and still repeat
    /// themselves.
    pub fn resample<Value: Send>(
        self,
        count: usize,
        statistic: impl Fn(&[usize]) -> Value + Sync,
    ) -> Vec<Value> {
        self.each(count, |mut random| {
            let drawn: Vec<usize> = (0..count).map(|_| random.below(count)).collect();
            statistic(&drawn)
        })
    }

    /// What is made of every resample's own generator, in order, on all cores; nothing where there are no images.
    fn each<Value: Send>(
        self,
        images: usize,
        value: impl Fn(SplitMix) -> Value + Sync,
    ) -> Vec<Value> {
        let resamples = if images == 0 { 0 } else { self.resamples };
        let generator = |resample| SplitMix(SplitMix(self.seed ^ (resample as u64) << 32).next());
        (0..resamples).into_par_iter().map(|resample| value(generator(resample))).collect()
    }

    /// 95 % percentile interval of a statistic of `count` images; a resample on which it is undefined is left out.
    /// `None` when nothing is left.
    pub fn interval(
        self,
        count: usize,
        statistic: impl Fn(&[usize]) -> Option<f64> + Sync,
    ) -> Option<Interval> {
        Interval::of(self.resample(count, statistic).into_iter().flatten())
    }

    /// Intervals of numbers that are made of counts: of runs, such as seeds, the counts of each image by its name. The
    /// same images are drawn for all runs, counts are summed over them, and each number is the mean over the
    /// runs, of which none may lack it. Counts of one name are added up before anything is drawn.
    pub fn intervals<Name, Counts, const N: usize>(
        self,
        runs: &[impl AsRef<[(Name, Counts)]>],
        numbers: impl Fn(&Counts) -> [Option<f64>; N] + Sync,
    ) -> [Option<Interval>; N]
    where
        Name: Eq + Hash,
        Counts: Copy + Default + Add<Output = Counts> + Send + Sync,
    {
        let mut places: HashMap<&Name, usize> = HashMap::new();
        let mut counts: Vec<Vec<Counts>> = vec![Vec::new(); runs.len()];
        for (images, counts) in runs.iter().zip(&mut counts) {
            for (name, count) in images.as_ref() {
                let next = places.len();
                let image = *places.entry(name).or_insert(next);
                counts.resize(counts.len().max(image + 1), Counts::default());
                counts[image] = counts[image] + *count;
            }
        }
        let images = places.len();
        for counts in &mut counts {
            counts.resize(images, Counts::default());
        }
        // Positions are drawn anew for each run rather than kept: that is quicker than to go through memory.
        let values: Vec<[Option<f64>; N]> = self.each(images, |random| {
            let of_run = |counts: &Vec<Counts>| {
                let (mut random, mut sum) = (random.clone(), Counts::default());
                for _ in 0..images / 2 {
                    let [first, second] = random.two_below(images);
                    sum = sum + counts[first] + counts[second];
                }
                if !images.is_multiple_of(2) {
                    sum = sum + counts[random.below(images)];
                }
                numbers(&sum)
            };
            let of_runs: Vec<[Option<f64>; N]> = counts.iter().map(of_run).collect();
            array::from_fn(|at| mean(of_runs.iter().map(|run| run[at])))
        });
        array::from_fn(|at| Interval::of(values.iter().filter_map(|row| row[at])))
    }
}

impl Interval {
    /// The middle 95 % of values; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Self { low: quantile(&values, 0.025)?, high: quantile(&values, 0.975)? })
    }

    /// The interval in another unit, a positive factor away.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { low: factor * self.low, high: factor * self.high }
    }
}

/// Interpolated between the two nearest of sorted values.
fn quantile(sorted: &[f64], fraction: f64) -> Option<f64> {
    let place = fraction * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

/// Compares two systems on the same images: per image a value each, and the statistic of positions that
/// the difference is taken of, for the first and for the second.
pub fn paired_test(
    values: &[(f64, f64)],
    bootstrap: Bootstrap,
    statistic: impl Fn(&[usize]) -> Option<(f64, f64)> + Sync,
) -> Option<PairedTest> {
    let all: Vec<usize> = (0..values.len()).collect();
    let (first, second) = statistic(&all)?;
    let higher = values.iter().filter(|(a, b)| b > a).count();
    let lower = values.iter().filter(|(a, b)| b < a).count();
    Some(PairedTest {
        difference: second - first,
        interval: bootstrap
            .interval(values.len(), |drawn| statistic(drawn).map(|(first, second)| second - first)),
        higher,
        lower,
        equal: values.len() - higher - lower,
        sign_test_p: sign_test(higher, lower),
    })
}

/// Two-sided exact sign test.
pub fn sign_test(higher: usize, lower: usize) -> f64 {
    let (count, fewer) = (higher + lower, higher.min(lower));
    // ln of binomial(count, k) / 2^count, from k = 0 up.
    let mut log = -(count as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..=fewer {
        tail += log.exp();
        log += ((count - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

/// Steele, Lea & Flood 2014: 64 bits of state, good enough to draw positions.
#[derive(Clone)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Two numbers uniform below `end`, which is below 2³²; their bias is below `end` / 2³².
    fn two_below(&mut self, end: usize) -> [usize; 2] {
        let (end, bits) = (end as u64, self.next());
        [bits >> 32, bits & 0xFFFF_FFFF].map(|half| ((half * end) >> 32) as usize)
    }

    /// Uniform below `end`; the bias of the multiplication is below 2⁻³² for any number of images.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates::{Accuracy, rate};

    #[test]
    fn spread_is_the_sample_standard_deviation() {
        let spread = Spread::of(&[1.0, 2.0, 6.0]).unwrap();
        assert!((spread.mean - 3.0).abs() < 1e-12);
        assert!((spread.standard_deviation - 7.0_f64.sqrt()).abs() < 1e-12);
        assert!(Spread::of(&[4.0]).unwrap().standard_deviation.abs() < 1e-12);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn bootstrap_interval_of_a_mean_matches_theory() {
        let values: Vec<f64> = (0..400).map(|at| f64::from(at % 2)).collect();
        let mean = |drawn: &[usize]| {
            Some(drawn.iter().map(|&at| values[at]).sum::<f64>() / drawn.len() as f64)
        };
        let bootstrap = Bootstrap { resamples: 4000, seed: 1 };
        let interval = bootstrap.interval(values.len(), mean).unwrap();
        // 1.96 · 0.5 / √400 = 0.049
        assert!((interval.low - 0.451).abs() < 0.004, "{interval:?}");
        assert!((interval.high - 0.549).abs() < 0.004, "{interval:?}");
        assert_eq!(bootstrap.interval(values.len(), mean), Some(interval));
        assert_eq!(bootstrap.interval(0, mean), None);
    }

    #[test]
    fn sign_test_matches_the_binomial_distribution() {
        // Binomial with p = 1/2: P(X ≤ 1 of 8) = 9/256; P(X ≤ 0 of 5) = 1/32.
        assert!((sign_test(7, 1) - 18.0 / 256.0).abs() < 1e-12);
        assert!((sign_test(0, 5) - 2.0 / 32.0).abs() < 1e-12);
        assert!((sign_test(3, 3) - 1.0).abs() < 1e-12);
        assert!((sign_test(0, 0) - 1.0).abs() < 1e-12);
        assert!(sign_test(3000, 2700) < 1e-3);
    }

    #[test]
    fn paired_test_cancels_variation_between_images() {
        let values: Vec<(f64, f64)> =
            (0..100).map(|at| (f64::from(at), f64::from(at) + 1.0)).collect();
        let mean = |drawn: &[usize]| {
            let count = drawn.len() as f64;
            let sum = |part: fn(&(f64, f64)) -> f64| {
                drawn.iter().map(|&at| part(&values[at])).sum::<f64>() / count
            };
            Some((sum(|pair| pair.0), sum(|pair| pair.1)))
        };
        let test = paired_test(&values, Bootstrap { resamples: 500, seed: 1 }, mean).unwrap();
        assert!((test.difference - 1.0).abs() < 1e-9);
        let interval = test.interval.unwrap();
        assert!(interval.high - interval.low < 1e-9);
        assert_eq!((test.higher, test.lower, test.equal), (100, 0, 0));
    }

    #[test]
    fn bootstrap_resamples_whole_images() {
        // Every image holds one right and one wrong answer, so that no choice of images changes the fraction; drawn
        // one by one, answers would.
        let run: Vec<(&str, Accuracy)> = ["a", "a", "b", "b", "c", "c"]
            .into_iter()
            .enumerate()
            .map(|(at, image)| (image, [at % 2 == 0].into_iter().collect()))
            .collect();
        let [half] = Bootstrap::default().intervals(&[run], |sum| [sum.accuracy]);
        assert_eq!(half, Some(Interval { low: 0.5, high: 0.5 }));
    }

    #[test]
    fn bootstrap_draws_the_same_images_for_every_run() {
        // What one run gains by a choice of images the other loses.
        let images = ["a", "b", "c", "d", "e"];
        let run = |flip: bool| -> Vec<(&str, Accuracy)> {
            let right = |at: usize| at.is_multiple_of(2) != flip;
            let counts = |(at, image)| (image, [right(at)].into_iter().collect());
            images.into_iter().enumerate().map(counts).collect()
        };
        let numbers = |sum: &Accuracy| [sum.accuracy, rate(sum.correct, 0)];
        let [both, none] = Bootstrap::default().intervals(&[run(false), run(true)], numbers);
        let both = both.unwrap();
        assert!((both.low - 0.5).abs() < 1e-12 && (both.high - 0.5).abs() < 1e-12);
        assert_eq!(none, None);
        let [alone, _] = Bootstrap::default().intervals(&[run(false)], numbers);
        assert!(alone.unwrap().high - alone.unwrap().low > 0.5);
    }
}
