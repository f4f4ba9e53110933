//! Streams of random numbers of a run, one for each purpose and position.
//!
//! Everything that a run draws is determined by its seed, its purpose and a position (a response, a pass, an iteration),
//! so that nothing has to be saved for a resume. Purposes have cipher keys of their own: a seed and position that two of them
//! share never give the same numbers.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What random numbers are drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The tokens of a response; the position is the response's.
    Responses,
    /// The order of the tasks in a pass; the position is the pass's.
    TaskOrder,
    /// The order of responses in an update; the position is the iteration.
    Minibatches,
    /// The first values of an adapter; the position is 0.
    AdapterStart,
}

impl Purpose {
    /// Stands in the key; never changed, as draws would change with it.
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Responses => b"responses",
            Self::TaskOrder => b"task order",
            Self::Minibatches => b"minibatches",
            Self::AdapterStart => b"adapter start",
        }
    }

    /// The generator of one position. Its key is the seed (8 bytes, little-endian) followed by the purpose's name, its stream
    /// the position.
    pub fn stream(self, seed: u64, position: u64) -> ChaCha8Rng {
        let mut key = [0; 32];
        let (number, name) = key.split_at_mut(8);
        number.copy_from_slice(&seed.to_le_bytes());
        name[..self.name().len()].copy_from_slice(self.name());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(position);
        rng
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::Rng;

    use super::Purpose::{AdapterStart, Minibatches, Responses, TaskOrder};

    #[test]
    fn random_streams_differ_by_purpose_seed_and_position() {
        let mut first = HashSet::new();
        for purpose in [Responses, TaskOrder, Minibatches, AdapterStart] {
            for seed in [0, 1, 1 << 32, u64::MAX] {
                for position in [0, 1, 1 << 56, u64::MAX] {
                    assert!(first.insert(purpose.stream(seed, position).next_u64()));
                }
            }
        }
    }
}
