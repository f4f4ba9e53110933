//! Named streams of random numbers.

use std::f64::consts::{PI, SQRT_2};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Degrees of freedom of [`Noise::StudentT`]: the fewest whole number with a finite fourth moment.
const FREEDOM: i32 = 5;

/// Distribution of a noise with mean 0 and variance 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// The assumption of the closed forms.
    Gaussian,
    /// Double exponential: kurtosis 6.
    Laplace,
    /// Student's t with 5 degrees of freedom: kurtosis 9.
    StudentT,
}

/// Random numbers that depend on a seed, a name and a number alone.
#[derive(Clone, Debug)]
pub struct Stream {
    generator: ChaCha8Rng,
    /// The second number of the last pair.
    spare: Option<f64>,
}

impl Stream {
    /// Stream `number` of a name.
    pub fn new(seed: u64, name: &str, number: u64) -> Self {
        // FNV-1a: names differ, and so do their streams.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut generator =
            ChaCha8Rng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash);
        generator.set_stream(number);
        Self { generator, spare: None }
    }

    /// Uniform in (0, 1].
    pub fn uniform(&mut self) -> f64 {
        1.0 - self.generator.random::<f64>()
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.uniform() <= probability
    }

    /// Index drawn with these probabilities, which sum to 1.
    pub fn index(&mut self, probabilities: &[f64]) -> usize {
        let mut left = self.uniform();
        let found = probabilities.iter().position(|probability| {
            left -= probability;
            left <= 0.0
        });
        found.unwrap_or(probabilities.len() - 1)
    }

    /// Standard normal (Box–Muller).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let (sine, cosine) = (2.0 * PI * self.uniform()).sin_cos();
        self.spare = Some(radius * sine);
        radius * cosine
    }

    /// Mean 0, variance 1.
    pub fn noise(&mut self, noise: Noise) -> f64 {
        match noise {
            Noise::Gaussian => self.normal(),
            Noise::Laplace => {
                let size = -self.uniform().ln() / SQRT_2;
                if self.happens(0.5) { size } else { -size }
            }
            Noise::StudentT => {
                let squares: f64 = (0..FREEDOM).map(|_| self.normal().powi(2)).sum();
                let freedom = f64::from(FREEDOM);
                let variance = freedom / (freedom - 2.0);
                self.normal() / (squares / freedom * variance).sqrt()
            }
        }
    }

    /// Standard normal numbers.
    pub fn normals(&mut self, count: usize) -> Vec<f64> {
        (0..count).map(|_| self.normal()).collect()
    }
}
