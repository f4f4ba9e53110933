use fisao_align::ppo::{ClipRange, PolicyStatistics, explained_variance};

use crate::assert_close;

#[test]
fn explained_variance_matches_hand_computed_values() {
    let returns = [1.0, 2.0, 3.0, 4.0];
    let found = |values: &[f32]| explained_variance(values, &returns).expect("returns vary");
    assert_close(found(&returns), 1.0, 0.0);
    assert_close(found(&[7.0; 4]), 0.0, 1e-12);
    // Reversed guess: G − V = (−3, −1, 1, 3), variance 5, against the returns' 1.25.
    assert_close(found(&[4.0, 3.0, 2.0, 1.0]), -3.0, 1e-12);
    assert_eq!(explained_variance(&[0.0, 1.0], &[2.0, 2.0]), None);
    assert_eq!(explained_variance(&[], &[]), None);
}

/// A token is clipped where its gradient is zero, not wherever its ratio left the range.
#[test]
fn clip_fraction_counts_vanished_gradients() {
    let fraction = |log_ratio: f32, advantage: f32, dual: Option<f64>| {
        let clip = ClipRange { epsilon: 0.2, dual };
        PolicyStatistics::measure(&[log_ratio], &[0.0], &[advantage], clip).clip_fraction()
    };
    let (up, down, far) = (0.3, -0.3, 2.0);
    assert_close(fraction(up, 1.0, None), 1.0, 0.0);
    assert_close(fraction(up, -1.0, None), 0.0, 0.0);
    assert_close(fraction(down, 1.0, None), 0.0, 0.0);
    assert_close(fraction(down, -1.0, None), 1.0, 0.0);
    assert_close(fraction(far, -1.0, None), 0.0, 0.0);
    assert_close(fraction(far, -1.0, Some(3.0)), 1.0, 0.0);
    assert_close(fraction(up, 0.0, None), 0.0, 0.0);
}
