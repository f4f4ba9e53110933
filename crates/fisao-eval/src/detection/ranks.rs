//! Order of scores, equal ones sharing a place.

use std::cmp::Ordering;

/// Rank of every value among all, in the order given:
///
/// ```text
/// rank_i = #{j : v_j < v_i} + (#{j : v_j = v_i} + 1) / 2        ∈ [1, n]
/// ```
///
/// The lowest has rank 1; equal values share the mean of the ranks they take up, and −0 equals 0.
/// Values may be infinite. `scipy.stats.rankdata(values, method="average")`.
///
/// # Panics
/// NaN among several values has no rank.
pub fn mean_ranks(values: &[f64]) -> Vec<f64> {
    let by_value = |&a: &usize, &b: &usize| compare(values[a], values[b]);
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(by_value);

    let mut ranks = vec![0.0; values.len()];
    let mut lower = 0;
    for tied in order.chunk_by(|a, b| by_value(a, b).is_eq()) {
        let rank = lower as f64 + f64::midpoint(tied.len() as f64, 1.0);
        for &at in tied {
            ranks[at] = rank;
        }
        lower += tied.len();
    }
    ranks
}

/// Items of one score.
pub(super) struct Tied {
    /// The score.
    pub(super) score: f64,
    /// How many.
    pub(super) count: usize,
    /// How many of them are marked.
    pub(super) marked: usize,
}

/// Scores with a mark each, by score from the highest down.
pub(super) fn tied_from_the_highest(scores: impl IntoIterator<Item = (f64, bool)>) -> Vec<Tied> {
    let mut scores: Vec<(f64, bool)> = scores.into_iter().collect();
    scores.sort_unstable_by(|a, b| compare(b.0, a.0));
    let tied = scores.chunk_by(|a, b| compare(a.0, b.0).is_eq());
    let marked = |tied: &[(f64, bool)]| tied.iter().filter(|(_, mark)| *mark).count();
    tied.map(|tied| Tied { score: tied[0].0, count: tied.len(), marked: marked(tied) }).collect()
}

/// The usual order of numbers, in which −0 equals 0, unlike in `total_cmp`.
fn compare(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).expect("a score is NaN, which has no rank")
}
