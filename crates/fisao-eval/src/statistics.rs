//! How sure a number is: means over seeds, bootstrap intervals over images, paired comparison.
//!
//! Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993: percentile intervals. Resamples are drawn
//! from a generator of our own with a fixed seed, so that a report repeats itself.

use serde::{Deserialize, Serialize};

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

/// 95 % percentile interval of a statistic of `count` images. `statistic` gets positions of images, some
/// several times; `None` where it is undefined on them, and then the resample is left out. `None` when
/// there is nothing to resample.
pub fn bootstrap(
    count: usize,
    resamples: usize,
    seed: u64,
    statistic: impl Fn(&[usize]) -> Option<f64>,
) -> Option<Interval> {
    if count == 0 {
        return None;
    }
    let mut random = SplitMix(seed);
    let mut drawn = vec![0; count];
    let mut values: Vec<f64> = (0..resamples)
        .filter_map(|_| {
            drawn.fill_with(|| random.below(count));
            statistic(&drawn)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    Some(Interval { low: quantile(&values, 0.025)?, high: quantile(&values, 0.975)? })
}

/// Interpolated between the two nearest of sorted values.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

/// Compares two systems on the same images: per image a value each, and the statistic of positions that
/// the difference is taken of, for the first and for the second.
pub fn paired_test(
    values: &[(f64, f64)],
    resamples: usize,
    seed: u64,
    statistic: impl Fn(&[usize]) -> Option<(f64, f64)>,
) -> Option<PairedTest> {
    let all: Vec<usize> = (0..values.len()).collect();
    let (first, second) = statistic(&all)?;
    let higher = values.iter().filter(|(a, b)| b > a).count();
    let lower = values.iter().filter(|(a, b)| b < a).count();
    Some(PairedTest {
        difference: second - first,
        interval: bootstrap(values.len(), resamples, seed, |drawn| {
            statistic(drawn).map(|(first, second)| second - first)
        }),
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
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform below `end`; the bias of the multiplication is below 2⁻³² for any number of images.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_those_of_samples() {
        let spread = Spread::of(&[1.0, 2.0, 6.0]).unwrap();
        assert!((spread.mean - 3.0).abs() < 1e-12);
        assert!((spread.standard_deviation - 7.0_f64.sqrt()).abs() < 1e-12);
        assert!(Spread::of(&[4.0]).unwrap().standard_deviation.abs() < 1e-12);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_theory() {
        let values: Vec<f64> = (0..400).map(|at| f64::from(at % 2)).collect();
        let mean = |drawn: &[usize]| {
            Some(drawn.iter().map(|&at| values[at]).sum::<f64>() / drawn.len() as f64)
        };
        let interval = bootstrap(values.len(), 4000, 1, mean).unwrap();
        // 1.96 · 0.5 / √400 = 0.049
        assert!((interval.low - 0.451).abs() < 0.004, "{interval:?}");
        assert!((interval.high - 0.549).abs() < 0.004, "{interval:?}");
        assert_eq!(bootstrap(values.len(), 4000, 1, mean), Some(interval));
        assert_eq!(bootstrap(0, 10, 1, mean), None);
    }

    #[test]
    fn sign_tests_are_those_of_a_table() {
        // Binomial with p = 1/2: P(X ≤ 1 of 8) = 9/256; P(X ≤ 0 of 5) = 1/32.
        assert!((sign_test(7, 1) - 18.0 / 256.0).abs() < 1e-12);
        assert!((sign_test(0, 5) - 2.0 / 32.0).abs() < 1e-12);
        assert!((sign_test(3, 3) - 1.0).abs() < 1e-12);
        assert!((sign_test(0, 0) - 1.0).abs() < 1e-12);
        assert!(sign_test(3000, 2700) < 1e-3);
    }

    #[test]
    fn a_paired_difference_is_surer_than_its_parts() {
        let values: Vec<(f64, f64)> =
            (0..100).map(|at| (f64::from(at), f64::from(at) + 1.0)).collect();
        let mean = |drawn: &[usize]| {
            let count = drawn.len() as f64;
            let sum = |part: fn(&(f64, f64)) -> f64| {
                drawn.iter().map(|&at| part(&values[at])).sum::<f64>() / count
            };
            Some((sum(|pair| pair.0), sum(|pair| pair.1)))
        };
        let test = paired_test(&values, 500, 1, mean).unwrap();
        assert!((test.difference - 1.0).abs() < 1e-9);
        let interval = test.interval.unwrap();
        assert!(interval.high - interval.low < 1e-9);
        assert_eq!((test.higher, test.lower, test.equal), (100, 0, 0));
    }
}
