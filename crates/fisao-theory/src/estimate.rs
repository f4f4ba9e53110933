//! Monte Carlo estimates with their standard errors.

use rayon::prelude::*;
use serde::Serialize;

use crate::random::Stream;

/// Independent batches of an estimate; its standard error comes from their spread.
pub const BATCHES: u64 = 16;

/// A number found by simulation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Mean over the batches.
    pub value: f64,
    /// Standard deviation of the mean.
    pub standard_error: f64,
}

/// Mean of what [`BATCHES`] simulations give, each with a random stream of its own. Batches run on all cores and are added in
/// order, so that the result does not depend on their number.
pub fn estimate(seed: u64, name: &str, simulate: impl Fn(&mut Stream) -> f64 + Sync) -> Estimate {
    let batch = |number| simulate(&mut Stream::new(seed, name, number));
    let found: Vec<f64> = (0..BATCHES).into_par_iter().map(batch).collect();
    let count = BATCHES as f64;
    let value = found.iter().sum::<f64>() / count;
    let squares: f64 = found.iter().map(|one| (one - value).powi(2)).sum();
    Estimate { value, standard_error: (squares / (count - 1.0) / count).sqrt() }
}

/// Mean of `count` draws.
pub fn mean(count: usize, mut draw: impl FnMut() -> f64) -> f64 {
    (0..count).map(|_| draw()).sum::<f64>() / count as f64
}

/// Mean and variance of `count` draws.
pub fn mean_and_variance(count: usize, mut draw: impl FnMut() -> f64) -> (f64, f64) {
    let (mut sum, mut squares) = (0.0, 0.0);
    for _ in 0..count {
        let value = draw();
        sum += value;
        squares += value * value;
    }
    let mean = sum / count as f64;
    (mean, squares / count as f64 - mean * mean)
}

/// Where `is_below` turns from true to false between two ends, from below.
pub fn bisect(
    (mut low, mut high): (f64, f64),
    steps: usize,
    is_below: impl Fn(f64) -> bool,
) -> f64 {
    for _ in 0..steps {
        let middle = f64::midpoint(low, high);
        if is_below(middle) { low = middle } else { high = middle }
    }
    low
}

/// Running mean and variance of each coordinate of vectors of one length.
#[derive(Clone, Debug)]
pub struct VectorMoments {
    count: f64,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl VectorMoments {
    /// Of vectors of this length.
    pub fn new(length: usize) -> Self {
        Self { count: 0.0, sums: vec![0.0; length], squares: vec![0.0; length] }
    }

    /// Takes in one more.
    pub fn add(&mut self, vector: &[f64]) {
        assert_eq!(vector.len(), self.sums.len(), "vectors are of one length");
        self.count += 1.0;
        for ((sum, square), value) in self.sums.iter_mut().zip(&mut self.squares).zip(vector) {
            *sum += value;
            *square += value * value;
        }
    }

    /// Mean of each coordinate.
    pub fn means(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum / self.count).collect()
    }

    /// Sum of the coordinates' variances: the trace of the covariance, without bias.
    pub fn total_variance(&self) -> f64 {
        let of =
            |(sum, square): (&f64, &f64)| (square - sum * sum / self.count) / (self.count - 1.0);
        self.sums.iter().zip(&self.squares).map(of).sum()
    }
}
