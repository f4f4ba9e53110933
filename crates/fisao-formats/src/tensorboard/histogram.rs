//! Counts of values in bins.

use super::protobuf::Message;

/// Bins of a histogram, as many as TensorBoard shows.
const BINS: usize = 30;

/// `tensorflow.HistogramProto`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    smallest: f64,
    largest: f64,
    sum: f64,
    sum_of_squares: f64,
    /// Right edges of the bins, ascending.
    edges: Vec<f64>,
    /// Values in each.
    counts: Vec<f64>,
}

impl Histogram {
    /// Counts the finite ones of the values in bins of equal width, or in one if they are all equal; `None` without
    /// any.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let smallest = finite().reduce(f64::min)?;
        let largest = finite().reduce(f64::max)?;
        // In halves, as the difference may be too large for a float.
        let half_width = (largest / 2.0 - smallest / 2.0) / BINS as f64;
        let bins = if half_width > 0.0 { BINS } else { 1 };
        let mut edges: Vec<f64> = (1..=bins)
            .map(|bin| smallest + half_width * bin as f64 + half_width * bin as f64)
            .collect();
        edges[bins - 1] = largest;
        let mut counts = vec![0.0; bins];
        for value in finite() {
            let bin = edges.partition_point(|&edge| edge < value);
            counts[bin.min(bins - 1)] += 1.0;
        }
        let (sum, sum_of_squares) = (finite().sum(), finite().map(|value| value * value).sum());
        Some(Self { smallest, largest, sum, sum_of_squares, edges, counts })
    }

    pub(super) fn message(&self) -> Message {
        let message = Message::default().double(1, self.smallest).double(2, self.largest);
        let message = message.double(3, self.counts.iter().sum()).double(4, self.sum);
        let message = message.double(5, self.sum_of_squares);
        message.doubles(6, &self.edges).doubles(7, &self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::{BINS, Histogram};

    #[test]
    fn histogram_counts_every_finite_value_once() {
        let values: Vec<f64> = (0..=60).map(f64::from).chain([f64::NAN, f64::INFINITY]).collect();
        let histogram = Histogram::of(&values).expect("there are values");
        assert_eq!((histogram.smallest, histogram.largest), (0.0, 60.0));
        assert_eq!((histogram.edges[0], histogram.edges[BINS - 1]), (2.0, 60.0));
        // Bins hold their right edge, the first its left one, too.
        assert_eq!((histogram.counts[0], histogram.counts[1]), (3.0, 2.0));
        assert_eq!((histogram.counts.iter().sum(), histogram.sum), (61.0, 1830.0));
    }

    #[test]
    fn equal_values_have_one_bin_and_no_values_no_histogram() {
        let equal = Histogram::of(&[2.5; 4]).expect("there are values");
        assert_eq!((equal.edges, equal.counts), (vec![2.5], vec![4.0]));
        assert_eq!(Histogram::of(&[f64::NAN]), None);
        let wide = Histogram::of(&[f64::MIN, f64::MAX]).expect("there are values");
        assert!(wide.edges.iter().all(|edge| edge.is_finite()));
        assert_eq!((wide.counts[0], wide.counts[BINS - 1]), (1.0, 1.0));
    }
}
