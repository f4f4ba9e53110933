//! What a few runs, such as seeds, can tell: Student's t, and Holm's correction for asking several times.
//!
//! Both assume that what is averaged scatters like a normal distribution, which a handful of runs can neither
//! show nor refute; below six runs no test without that assumption can reach p < 0.05.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF as _, StudentsT};

use super::{Interval, Spread};

/// Values with their mean, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanEstimate {
    /// Mean, standard deviation and number of runs.
    #[serde(flatten)]
    pub spread: Spread,
    /// 95 % t-interval of the mean; `None` of a single run.
    pub interval: Option<Interval>,
}

impl MeanEstimate {
    /// Of at least one run.
    pub fn of(values: &[f64]) -> Option<Self> {
        let spread = Spread::of(values)?;
        Some(Self { spread, interval: t_interval(&spread) })
    }
}

/// How the means of two systems differ over runs that belong together, such as equal seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedMeans {
    /// Mean of the second's values less the first's.
    pub difference: f64,
    /// 95 % t-interval of it; `None` of a single pair.
    pub interval: Option<Interval>,
    /// Pairs.
    pub runs: usize,
    /// Probability of a difference so large, or larger, if the means were equal: the two-sided paired t-test.
    /// `None` of a single pair, and where all pairs agree exactly.
    pub p: Option<f64>,
}

/// Student's paired t-test, two-sided; `None` without pairs.
///
/// ```text
/// dᵢ = secondᵢ − firstᵢ        t = mean(d) / (sd(d) / √n)        p = 2 · P(T > |t|),   T ~ t with n − 1 degrees
/// ```
pub fn paired_t_test(pairs: &[(f64, f64)]) -> Option<PairedMeans> {
    let differences: Vec<f64> = pairs.iter().map(|(first, second)| second - first).collect();
    let spread = Spread::of(&differences)?;
    let t = spread.mean / standard_error(&spread);
    // 0 / 0 where all pairs agree; infinite where all differ by the same.
    let p = student(&spread).filter(|_| !t.is_nan()).map(|student| 2.0 * student.sf(t.abs()));
    let (difference, runs) = (spread.mean, spread.runs);
    Some(PairedMeans { difference, interval: t_interval(&spread), runs, p })
}

/// Holm's step-down correction (*A Simple Sequentially Rejective Multiple Test Procedure*, 1979): each p as it
/// counts when all of them were asked for together, in the order given.
///
/// ```text
/// p₍₁₎ ≤ … ≤ p₍ₘ₎        adjusted₍ₖ₎ = max over j ≤ k of min(1, (m − j + 1) · p₍ⱼ₎)
/// ```
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0.0_f64;
    for (rank, at) in order.into_iter().enumerate() {
        largest = largest.max(((p.len() - rank) as f64 * p[at]).min(1.0));
        adjusted[at] = largest;
    }
    adjusted
}

/// mean ± t(0.975, n − 1) · sd / √n
fn t_interval(spread: &Spread) -> Option<Interval> {
    let half = student(spread)?.inverse_cdf(0.975) * standard_error(spread);
    Some(Interval { low: spread.mean - half, high: spread.mean + half })
}

fn standard_error(spread: &Spread) -> f64 {
    spread.standard_deviation / (spread.runs as f64).sqrt()
}

/// With n − 1 degrees of freedom.
fn student(spread: &Spread) -> Option<StudentsT> {
    StudentsT::new(0.0, 1.0, spread.runs.checked_sub(1)? as f64).ok()
}
