//! Repeating a piece of work and saying how long it took.

use std::time::Instant;

use burn::tensor::Device;
use fisao_runs::memory::peak_rss_mb;
use serde::{Deserialize, Serialize};

use super::Case;

/// Fewest repetitions that count.
const FEWEST: usize = 3;
/// Most of them.
const MOST: usize = 10_000;

/// Counts and times repetitions; the first warms up and does not count.
#[derive(Debug)]
pub struct Repetitions {
    /// Where the work is done.
    pub(super) device: Device,
    seconds: f64,
    begun: Option<Instant>,
    times: Vec<f64>,
}

impl Repetitions {
    fn new(device: Device, seconds: f64) -> Self {
        Self { device, seconds, begun: None, times: Vec::new() }
    }

    /// Ends a repetition, and says whether there is to be one more.
    pub fn again(&mut self) -> bool {
        if let Some(begun) = self.begun.take() {
            self.times.push(begun.elapsed().as_secs_f64());
        }
        let counted = self.times.get(1..).unwrap_or_default();
        let enough = counted.len() >= FEWEST && counted.iter().sum::<f64>() >= self.seconds;
        if enough || counted.len() >= MOST {
            return false;
        }
        self.begun = Some(Instant::now());
        true
    }
}

/// What a case took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Name of the case.
    pub case: String,
    /// What is counted.
    pub unit: String,
    /// How many of them one repetition does.
    pub count: f64,
    /// Repetitions that count.
    pub repetitions: usize,
    /// Seconds of a repetition, the median.
    pub seconds: f64,
    /// Seconds of the shortest one.
    pub shortest: f64,
    /// Seconds of the longest one.
    pub longest: f64,
    /// Units per second, by the median.
    pub rate: f64,
    /// 10⁹ floating-point operations per second of its products, where that is what it is about.
    pub gflops: Option<f64>,
    /// 10⁹ bytes per second that had to be read, where that bounds it.
    pub gigabytes_per_second: Option<f64>,
    /// Largest resident set of the process, MB.
    pub peak_memory_mb: f64,
}

/// Does a case in this process.
pub fn measure(case: &Case, device: Device, seconds: f64) -> anyhow::Result<Measured> {
    let mut repetitions = Repetitions::new(device, seconds);
    let amount = (case.work)(&mut repetitions)?;
    let mut times = repetitions.times.split_off(1);
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let rate = |work: f64| (work > 0.0).then(|| work / median / 1e9);
    Ok(Measured {
        case: case.name.to_owned(),
        unit: amount.unit.to_owned(),
        count: amount.count,
        repetitions: times.len(),
        seconds: median,
        shortest: times[0],
        longest: times[times.len() - 1],
        rate: amount.count / median,
        gflops: rate(amount.flops),
        gigabytes_per_second: rate(amount.bytes),
        peak_memory_mb: peak_rss_mb(),
    })
}
