//! Rows that are resampled together.

use std::array;
use std::collections::HashMap;
use std::hash::Hash;

use crate::statistics::{Bootstrap, Interval};

/// Which rows, such as mentions, come from one caption or image. Those of a group resemble each
/// other, so that an interval over rows drawn one by one would be too narrow; groups are drawn
/// instead, each with all of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Positions of rows by group, groups in the order they are first named.
    rows: Vec<Vec<usize>>,
}

impl Groups {
    /// From the name of every row's group, in the order of the rows.
    pub fn of<Name: Eq + Hash>(names: impl IntoIterator<Item = Name>) -> Self {
        let mut places = HashMap::new();
        let mut rows: Vec<Vec<usize>> = Vec::new();
        for (row, name) in names.into_iter().enumerate() {
            let place = *places.entry(name).or_insert(rows.len());
            rows.resize_with(rows.len().max(place + 1), Vec::new);
            rows[place].push(row);
        }
        Self { rows }
    }

    /// How many groups.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// 95 % percentile intervals of statistics of rows, groups resampled with replacement:
    ///
    /// ```text
    /// resample = rows of G groups, each drawn uniformly from all G
    /// interval = [2.5 %, 97.5 %] of the statistic over resamples
    /// ```
    ///
    /// `statistics` gets positions of rows, some several times, and gives all numbers of one
    /// resample. Numbers that are compared belong in one call, for they are drawn together: with
    /// `[a, b, b − a]` the last is the interval of the paired difference. A resample on which a number
    /// is undefined is left out for that number; `None` when nothing is left. The same seed gives the
    /// same intervals on any number of cores.
    pub fn intervals<const N: usize>(
        &self,
        bootstrap: Bootstrap,
        statistics: impl Fn(&[usize]) -> [Option<f64>; N] + Sync,
    ) -> [Option<Interval>; N] {
        let values = bootstrap.resample(self.count(), |drawn| {
            let rows = drawn.iter().flat_map(|&group| &self.rows[group]);
            statistics(&rows.copied().collect::<Vec<_>>())
        });
        array::from_fn(|at| Interval::of(values.iter().filter_map(|row| row[at])))
    }
}
