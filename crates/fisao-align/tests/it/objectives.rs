//! Advantages without a critic, and preferences: on paper and against finite differences.

use burn::tensor::{Device, Tensor};
use fisao_align::group::{GroupBaseline, group_advantages, returns_to_go};
use fisao_align::preference::{best_and_worst, dpo_loss, dpo_term};
use proptest::prelude::*;

use crate::{assert_all_close, assert_close};

#[test]
fn returns_to_go_discount_later_rewards() {
    assert_all_close(
        &returns_to_go(&[1.0, 0.0, 2.0], 0.5).iter().map(|&g| g as f32).collect::<Vec<_>>(),
        &[1.5, 1.0, 2.0],
        1e-7,
    );
}

#[test]
fn leave_one_out_advantages_match_hand_computed_values() {
    let rewards = [vec![1.0, 1.0], vec![0.0], vec![0.0, 3.0, 0.0]];
    // With γ = 1 the returns are (2, 1), (0), (3, 3, 0).
    let advantages = group_advantages(&rewards, 1.0, GroupBaseline::LeaveOneOut);
    assert_all_close(&advantages[0], &[2.0 - 1.5, 1.0 - 1.5], 1e-6);
    assert_all_close(&advantages[1], &[0.0 - 2.5], 1e-6);
    assert_all_close(&advantages[2], &[3.0 - 1.0, 3.0 - 0.5, 0.0], 1e-6);
    let alone = group_advantages(&rewards[..1], 1.0, GroupBaseline::LeaveOneOut);
    assert_all_close(&alone[0], &[2.0, 1.0], 1e-6);
    let plain = group_advantages(&rewards, 1.0, GroupBaseline::None);
    assert_all_close(&plain[2], &[3.0, 3.0, 0.0], 1e-6);
}

#[test]
fn preference_pair_is_best_and_worst_above_the_minimum_gap() {
    assert_eq!(best_and_worst(&[1.0, 3.0, -2.0, 3.0], 0.5), Some((1, 2)));
    assert_eq!(best_and_worst(&[1.0, 1.4], 0.5), None);
    assert_eq!(best_and_worst(&[1.0], 0.0), None);
    assert_eq!(best_and_worst(&[1.0, 1.0], 0.0), None);
    assert_eq!(best_and_worst(&[], 0.0), None);
}

#[test]
fn dpo_loss_does_not_overflow() {
    assert_close(dpo_term(0.0, 0.1), 2f64.ln(), 1e-12);
    assert_close(dpo_term(-1e6, 1.0), 1e6, 1e-6);
    assert_close(dpo_term(1e6, 1.0), 0.0, 1e-12);
}

proptest! {
    /// Shifting all rewards of a group of responses of one length changes no advantage.
    #[test]
    fn group_advantages_are_invariant_to_a_reward_shift(
        rows in prop::collection::vec(prop::collection::vec(-2.0f32..2.0, 5), 2..6),
        shift in -3.0f32..3.0,
    ) {
        let moved: Vec<Vec<f32>> =
            rows.iter().map(|row| row.iter().map(|r| r + shift).collect()).collect();
        let before = group_advantages(&rows, 0.9, GroupBaseline::LeaveOneOut).concat();
        let after = group_advantages(&moved, 0.9, GroupBaseline::LeaveOneOut).concat();
        for (a, b) in before.iter().zip(&after) {
            prop_assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        let sums: Vec<f32> = (0..5).map(|t| before.iter().skip(t).step_by(5).sum()).collect();
        prop_assert!(sums.iter().all(|sum| sum.abs() < 1e-4), "advantages of a place sum to 0: {sums:?}");
    }

    #[test]
    fn dpo_gradient_equals_finite_differences(
        tokens in prop::collection::vec((-3.0f32..0.0, -3.0f32..0.0), 8),
        cut in 1usize..4,
    ) {
        let lengths = [cut, 4 - cut, 2, 2];
        let new: Vec<f32> = tokens.iter().map(|t| t.0).collect();
        let reference: Vec<f32> = tokens.iter().map(|t| t.1).collect();
        let leaf = Tensor::<1>::from_data(new.as_slice(), &Device::flex().autodiff()).require_grad();
        let (loss, statistics) = dpo_loss(&leaf, &reference, &lengths, 0.7, 2.0);
        let gradient: Vec<f32> =
            leaf.grad(&loss.backward()).expect("tracked").to_data().iter::<f32>().collect();
        let value = |new: &[f64]| -> f64 {
            let drift = |range: std::ops::Range<usize>| -> f64 {
                range.map(|at| new[at] - f64::from(reference[at])).sum()
            };
            let first = drift(0..cut) - drift(cut..4);
            let second = drift(4..6) - drift(6..8);
            f64::midpoint(dpo_term(first, 0.7), dpo_term(second, 0.7))
        };
        let point: Vec<f64> = new.iter().map(|&x| x.into()).collect();
        assert_close(loss.into_scalar::<f32>().into(), value(&point), 2e-5);
        let expected: Vec<f64> = (0..8).map(|at| {
            let moved = |step: f64| {
                let mut point = point.clone();
                point[at] += step;
                value(&point)
            };
            (moved(1e-5) - moved(-1e-5)) / 2e-5
        }).collect();
        assert_all_close(&gradient, &expected, 2e-5);
        prop_assert_eq!(statistics.pairs, 2);
    }
}
