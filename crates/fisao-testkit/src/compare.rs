//! Comparisons that say where and by how much two results differ.

/// Asserts `|actual − expected| ≤ tolerance · max(1, |expected|)` for every element.
///
/// # Panics
/// When lengths differ, or an element is too far off or not a number; the message names the worst
/// element.
#[track_caller]
pub fn assert_close(what: &str, actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len(), "{what}: number of elements");
    let error = |at: usize| (actual[at] - expected[at]).abs() / expected[at].abs().max(1.0);
    let worst = (0..actual.len()).max_by(|&a, &b| error(a).total_cmp(&error(b)));
    if let Some(at) = worst {
        let off = error(at);
        assert!(
            off <= tolerance,
            "{what}: element {at} is {} instead of {}, off by {off:e} (tolerance {tolerance:e})",
            actual[at],
            expected[at]
        );
    }
}

/// Largest absolute difference of two equally long slices.
///
/// # Panics
/// When lengths differ.
#[track_caller]
pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "number of elements");
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::{assert_close, largest_difference};

    #[test]
    fn tolerance_is_absolute_below_one_and_relative_above() {
        assert_close("values", &[1e-7, 1000.001], &[0.0, 1000.0], 2e-6);
        assert!((largest_difference(&[1.0, 2.0], &[1.5, 1.0]) - 1.0).abs() < f32::EPSILON);
    }

    #[test]
    #[should_panic(expected = "values: element 1 is 2 instead of 2.1")]
    fn failure_message_names_the_worst_element() {
        assert_close("values", &[1.0, 2.0], &[1.0, 2.1], 1e-3);
    }

    #[test]
    #[should_panic(expected = "element 0 is NaN")]
    fn nan_is_never_close() {
        assert_close("values", &[f32::NAN, 2.0], &[1.0, 2.1], 1e9);
    }
}
