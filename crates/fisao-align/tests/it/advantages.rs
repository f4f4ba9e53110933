use fisao_align::ppo::{WhitenMode, gae, whiten};
use proptest::prelude::*;

use crate::{F32_TOLERANCE, assert_all_close, assert_close};

/// `A_t = Σ_{k ≥ t} (γλ)^{k−t} δ_k`, the definition (arXiv 1506.02438, eq. 16), in O(T²).
fn gae_by_definition(rewards: &[f32], values: &[f32], gamma: f64, lambda: f64) -> Vec<f64> {
    let length = rewards.len();
    let value = |t: usize| if t < length { f64::from(values[t]) } else { 0.0 };
    let delta = |t: usize| f64::from(rewards[t]) + gamma * value(t + 1) - value(t);
    (0..length)
        .map(|t| (t..length).map(|k| (gamma * lambda).powi((k - t) as i32) * delta(k)).sum())
        .collect()
}

fn response() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    prop::collection::vec((-3.0f32..3.0, -3.0f32..3.0), 0..40)
        .prop_map(|pairs| pairs.into_iter().unzip())
}

proptest! {
    #[test]
    fn gae_equals_its_definition(
        (rewards, values) in response(),
        gamma in 0.0..=1.0f64,
        lambda in 0.0..=1.0f64,
    ) {
        let (advantages, returns) = gae(&rewards, &values, gamma, lambda);
        let expected = gae_by_definition(&rewards, &values, gamma, lambda);
        assert_all_close(&advantages, &expected, F32_TOLERANCE);
        let expected: Vec<f64> =
            expected.iter().zip(&values).map(|(a, &v)| a + f64::from(v)).collect();
        assert_all_close(&returns, &expected, F32_TOLERANCE);
    }

    /// λ = 1 leaves Monte Carlo: returns are discounted sums of rewards, whatever the critic says.
    #[test]
    fn returns_are_independent_of_the_critic_when_lambda_is_one((rewards, values) in response()) {
        let (_, returns) = gae(&rewards, &values, 1.0, 1.0);
        let sums: Vec<f64> = (0..rewards.len())
            .map(|t| rewards[t..].iter().map(|&r| f64::from(r)).sum())
            .collect();
        // The telescoping sum of the values cancels up to f64 rounding and the final f32.
        assert_all_close(&returns, &sums, F32_TOLERANCE);
    }

    #[test]
    fn whitening_does_not_depend_on_how_the_batch_is_split(
        tokens in prop::collection::vec(-3.0f32..3.0, 2..60),
        cut in 1usize..50,
    ) {
        let cut = cut.min(tokens.len() - 1);
        for mode in [WhitenMode::None, WhitenMode::Scale, WhitenMode::MeanAndScale] {
            let mut whole = [tokens.clone()];
            let mut halves = [tokens[..cut].to_vec(), vec![], tokens[cut..].to_vec()];
            prop_assert_eq!(whiten(&mut whole, mode), whiten(&mut halves, mode));
            prop_assert_eq!(&whole[0], &halves.concat());
        }
    }
}

#[test]
fn scale_whitening_divides_by_the_biased_standard_deviation() {
    // Mean (2 + 0 + 0 + 2)/4 = 1; biased variance 1; deviation 1. Doubled: mean 2, deviation 2.
    let mut batch = [vec![4.0, 0.0], vec![0.0, 4.0]];
    let before = whiten(&mut batch, WhitenMode::Scale);
    assert_close(before.mean, 2.0, 0.0);
    assert_close(before.standard_deviation, 2.0, 0.0);
    assert_eq!(batch, [vec![2.0, 0.0], vec![0.0, 2.0]]);
}

#[test]
fn mean_and_scale_whitening_centres_advantages() {
    let mut batch = [vec![4.0, 0.0], vec![0.0, 4.0]];
    whiten(&mut batch, WhitenMode::MeanAndScale);
    assert_eq!(batch, [vec![1.0, -1.0], vec![-1.0, 1.0]]);
}

#[test]
fn whitening_leaves_zero_and_empty_batches_unchanged() {
    let mut zero = [vec![0.0; 5]];
    whiten(&mut zero, WhitenMode::Scale);
    assert_eq!(zero, [vec![0.0; 5]]);
    let mut empty: [Vec<f32>; 1] = [vec![]];
    assert_close(whiten(&mut empty, WhitenMode::MeanAndScale).standard_deviation, 0.0, 0.0);
}
