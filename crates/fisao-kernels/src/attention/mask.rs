//! Which keys a query sees.

use std::ops::Range;
use std::sync::Arc;

/// Which keys a query sees. Queries stand at the end of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    Full,
    /// Those up to its own position, and of row `r` of the batch none before `first[r]` (0 where
    /// `first` is shorter). A query before `first[r]` is padding and sees what lies before it.
    Causal {
        /// First visible key of each row.
        first: Arc<[usize]>,
    },
    /// As `Causal`, but of the keys up to its own position only the last `window`.
    SlidingWindow {
        /// First visible key of each row.
        first: Arc<[usize]>,
        /// Keys that a query sees at most, at least 1.
        window: usize,
    },
    /// Of row `r` every query sees the keys `seen[r]`: a step of decoding where sequences have different lengths.
    PerRow {
        /// Visible keys of each row.
        seen: Arc<[Range<usize>]>,
    },
    /// As many sequences in a row as begin alike: what they begin with stands there once. Queries are the keys.
    SharedPrefix {
        /// Where the sequences of each row lie.
        rows: Arc<[SharedPrefix]>,
    },
}

/// Where the sequences of a row lie that have a prefix in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedPrefix {
    /// Positions of the prefix, which is causal.
    pub prefix: usize,
    /// Where the continuations end, which lie one behind the other from the prefix on: each sees the prefix and, causally, itself. What
    /// lies behind the last is padding, a continuation of its own.
    pub ends: Vec<usize>,
}

impl SharedPrefix {
    /// The prefix, the continuation or the padding that a position is of.
    fn segment(&self, position: usize) -> Range<usize> {
        if position < self.prefix {
            return 0..self.prefix;
        }
        let behind = self.ends.partition_point(|&end| end <= position);
        let start = behind.checked_sub(1).map_or(self.prefix, |before| self.ends[before]);
        start..self.ends.get(behind).copied().unwrap_or(usize::MAX)
    }

    /// Positions of the longest sequence.
    fn longest(&self) -> usize {
        let starts = std::iter::once(&self.prefix).chain(&self.ends);
        let own = self.ends.iter().zip(starts).map(|(end, start)| end - start).max();
        self.prefix + own.unwrap_or(0)
    }
}

impl Mask {
    /// Causal without padding.
    pub fn causal() -> Self {
        Self::Causal { first: Arc::new([]) }
    }

    /// A causal mask within a sliding window, where there is one; any other as it is.
    ///
    /// # Panics
    /// Sequences have a prefix in common of which a window would hide something.
    #[must_use]
    pub fn within(self, window: Option<usize>) -> Self {
        if let (Self::SharedPrefix { rows }, Some(window)) = (&self, window) {
            let fits = rows.iter().all(|row| row.longest() <= window);
            assert!(fits, "a sliding window of {window} hides some of a shared prefix");
        }
        match (self, window) {
            (Self::Causal { first }, Some(window)) => Self::SlidingWindow { first, window },
            (mask, _) => mask,
        }
    }

    /// Keys that `query` of row `row` sees, out of `keys`, when there are `queries` of them: all in the first range, unless some are
    /// between those of a shared prefix and its own.
    pub fn visible(
        &self,
        row: usize,
        query: usize,
        [queries, keys]: [usize; 2],
    ) -> [Range<usize>; 2] {
        let (first, window) = match self {
            Self::Full => return [0..keys, keys..keys],
            Self::Causal { first } => (first, keys),
            Self::SlidingWindow { first, window } => (first, *window),
            Self::PerRow { seen } => {
                let seen = seen[row].clone();
                return [seen.clone(), seen.end..seen.end];
            }
            Self::SharedPrefix { rows } => {
                assert!(queries == keys, "sequences with a shared prefix are read whole");
                let row = &rows[row];
                let own = row.segment(query).start;
                return [0..row.prefix.min(own), own..query + 1];
            }
        };
        let end = (keys + query + 1).checked_sub(queries);
        let end = end.expect("queries stand behind the keys");
        let start = first.get(row).copied().filter(|&start| start < end).unwrap_or(0);
        [start.max(end.saturating_sub(window))..end, end..end]
    }

    /// Queries of a row from `first` on, `most` at most, that see keys of one span or two, and these: what any of them sees.
    pub(super) fn block(
        &self,
        row: usize,
        first: usize,
        most: usize,
        sizes: [usize; 2],
    ) -> (Range<usize>, [Range<usize>; 2]) {
        let end = (first + most).min(sizes[0]);
        if let Self::SharedPrefix { rows } = self {
            let end = end.min(rows[row].segment(first).end);
            let spans = self.visible(row, end - 1, sizes);
            return (first..end, spans);
        }
        let [seen, _] = self.visible(row, end - 1, sizes);
        (first..end, [0..seen.end, seen.end..seen.end])
    }
}
