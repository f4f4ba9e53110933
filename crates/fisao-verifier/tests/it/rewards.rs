use fisao_verifier::calibration::{
    Calibration, CalibrationError, ProbabilityModel, SentenceCalibration, Statistic,
};
use fisao_verifier::rewards::{
    PenaltyWeight, Placement, Response, RewardConfig, RewardError, RewardForm, RewardRule,
    ScoredMention, thresholds,
};
use proptest::prelude::*;

use crate::calibration::gaussians;

/// μ₊ = 0.5, μ₋ = 0.3, σ± = σ = 0.1, even fractions.
fn calibration() -> Calibration {
    gaussians((0.5, 0.1), (0.3, 0.1), 0.5)
}

fn config(form: RewardForm) -> RewardConfig {
    RewardConfig { form, penalty_weight: PenaltyWeight::Fixed(1.0), ..RewardConfig::default() }
}

fn threshold(margin: f64) -> RewardConfig {
    config(RewardForm::Threshold { margin, max: 2.0 })
}

fn log_odds(target_precision: f64) -> RewardConfig {
    let probability = ProbabilityModel::Gaussians;
    config(RewardForm::LogOdds { target_precision, max: 3.0, probability })
}

fn rule(config: &RewardConfig) -> RewardRule {
    RewardRule::new(config, &calibration()).unwrap()
}

fn mention(category: usize, tokens: std::ops::Range<usize>, score: f64) -> ScoredMention {
    ScoredMention { category, tokens, score }
}

fn rewards(rule: &RewardRule, mentions: &[ScoredMention], token_count: usize) -> Vec<f32> {
    let response = Response { mentions, token_count, truncated: false, sentence_score: None };
    rule.token_rewards(&response)
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
}

fn all_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (index, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*f) - e).abs() < 1e-6, "token {index}: {f} is not {e} in {found:?}");
    }
}

/// λ = 0.05: τ₊ = 0.45, τ₋ = 0.35, one unit of reward per 0.1 of score, cut at 2.
#[test]
fn threshold_rewards_match_hand_computed_values() {
    let rule = rule(&threshold(0.05));
    for (score, expected) in
        [(0.55, 1.0), (0.45, 0.0), (0.9, 2.0), (0.40, 0.0), (0.35, 0.0), (0.25, -1.0), (-0.5, -2.0)]
    {
        close(rule.mention_reward(score), expected);
    }
}

/// Equal spreads and fractions: logit p(s) = (μ₊−μ₋)(s − 0.4)/σ² = 20 (s − 0.4).
#[test]
fn log_odds_rewards_match_hand_computed_values() {
    let rule = rule(&log_odds(0.9));
    let target = 9.0_f64.ln();
    close(rule.mention_reward(0.4), -target);
    close(rule.mention_reward(0.5), 2.0 - target);
    close(rule.mention_reward(0.4 + target / 20.0), 0.0);
    close(rule.mention_reward(0.9), 3.0);
    close(rule.mention_reward(0.1), -3.0);
}

#[test]
fn log_odds_rewards_can_use_the_logistic_fit() {
    let probability = ProbabilityModel::Logistic;
    let form = RewardForm::LogOdds { target_precision: 0.9, max: 3.0, probability };
    let calibration = calibration();
    let rule = RewardRule::new(&config(form), &calibration).unwrap();
    let expected = calibration.logistic.logit(4.0) - 9.0_f64.ln();
    close(rule.mention_reward(4.0), expected.clamp(-3.0, 3.0));
}

#[test]
fn rewards_are_on_mention_tokens_only() {
    let mentions = [mention(0, 1..4, 0.65), mention(1, 5..6, 0.25)];
    let mut config = threshold(0.05);
    all_close(&rewards(&rule(&config), &mentions, 7), &[0.0, 0.0, 0.0, 2.0, 0.0, -1.0, 0.0]);
    config.placement = Placement::Spread;
    let third = 2.0 / 3.0;
    all_close(&rewards(&rule(&config), &mentions, 7), &[0.0, third, third, third, 0.0, -1.0, 0.0]);
}

#[test]
fn only_first_mentions_are_rewarded_but_all_are_penalised() {
    let mut config = threshold(0.05);
    config.repetition_penalty = 0.0;
    let lenient = rule(&config);
    let good = [mention(0, 0..1, 0.55), mention(0, 1..2, 0.65), mention(1, 2..3, 0.55)];
    all_close(&rewards(&lenient, &good, 3), &[1.0, 0.0, 1.0]);
    let bad = [mention(0, 0..1, 0.25), mention(0, 1..2, 0.25), mention(0, 2..3, 0.55)];
    all_close(&rewards(&lenient, &bad, 3), &[-1.0, -1.0, 0.0]);
}

/// A repeated word costs the penalty of repetition, or its own where that is more.
#[test]
fn repeated_mentions_are_penalised() {
    let mut config = threshold(0.05);
    config.repetition_penalty = 0.4;
    let strict = rule(&config);
    let good = [mention(0, 0..1, 0.55), mention(0, 1..2, 0.65), mention(1, 2..3, 0.55)];
    all_close(&rewards(&strict, &good, 3), &[1.0, -0.4, 1.0]);
    let bad = [mention(0, 0..1, 0.25), mention(0, 1..2, 0.25), mention(0, 2..3, 0.55)];
    all_close(&rewards(&strict, &bad, 3), &[-1.0, -1.0, -0.4]);
    config.repetition_penalty = -0.1;
    let error = RewardRule::new(&config, &calibration()).unwrap_err().to_string();
    assert!(error.contains("repetition-penalty"), "{error}");
}

#[test]
fn penalties_are_weighted_and_truncation_is_penalised() {
    let mut config = threshold(0.05);
    config.penalty_weight = PenaltyWeight::Fixed(2.5);
    config.truncated_penalty = 0.75;
    let rule = rule(&config);
    let mentions = [mention(0, 0..1, 0.25), mention(1, 2..3, 0.55)];
    let response =
        Response { mentions: &mentions, token_count: 3, truncated: true, sentence_score: None };
    all_close(&rule.token_rewards(&response), &[-2.5, 0.0, 1.0 - 0.75]);
    let empty = Response { mentions: &[], token_count: 0, truncated: true, sentence_score: None };
    assert!(rule.token_rewards(&empty).is_empty());
}

#[test]
fn sentence_reward_is_paid_once_on_the_last_token() {
    let config = config(RewardForm::Sentence { max: 1.5 });
    let mut calibration = calibration();
    assert_eq!(
        RewardRule::new(&config, &calibration).unwrap_err(),
        RewardError::SentenceUncalibrated
    );
    calibration.sentence = Some(SentenceCalibration { mean: 0.2, deviation: 0.1, responses: 50 });
    let rule = RewardRule::new(&config, &calibration).unwrap();
    assert!(rule.needs_sentence_score());
    let mentions = [mention(0, 0..1, 0.9)];
    let at = |score: f64| {
        let sentence_score = Some(score);
        let response =
            Response { mentions: &mentions, token_count: 3, truncated: false, sentence_score };
        rule.token_rewards(&response)
    };
    all_close(&at(0.3), &[0.0, 0.0, 1.0]);
    all_close(&at(-0.9), &[0.0, 0.0, -1.5]);
}

#[test]
fn crossing_thresholds_error_states_the_largest_valid_margin() {
    let calibration = calibration();
    let error = thresholds(&calibration, 0.2).unwrap_err();
    let RewardError::Crossed { largest, .. } = error else { panic!("{error}") };
    close(largest, 0.1);
    assert!(thresholds(&calibration, largest).is_ok());
    assert!(RewardRule::new(&threshold(largest), &calibration).is_ok());
    assert!(RewardRule::new(&threshold(0.11), &calibration).is_err());
    assert!(error.to_string().contains("largest margin"), "{error}");
}

/// With one correct mention in ten, even odds lie at 0.4 + ln 9 / 20 ≈ 0.51, above τ₊ = 0.45.
#[test]
fn threshold_below_even_odds_is_rejected() {
    let calibration = gaussians((0.5, 0.1), (0.3, 0.1), 0.1);
    let error = RewardRule::new(&threshold(0.05), &calibration).unwrap_err();
    let RewardError::BoundaryPays { boundary, excess, .. } = error else { panic!("{error}") };
    close(boundary, 0.4 + 9.0_f64.ln() / 20.0);
    close(excess, 9.0_f64.ln() / 20.0 - 0.05);
}

/// By symmetry a mention of even odds neither gains nor loses under the threshold form; under log
/// odds it loses. The expectation of the unclipped log-odds is known: E± = ±(μ₊−μ₋)²/2σ² = ±2.
#[test]
fn expected_rewards_match_theory() {
    close(rule(&threshold(0.05)).expected_reward(0.5), 0.0);
    let probability = ProbabilityModel::Gaussians;
    let form = RewardForm::LogOdds { target_precision: 0.9, max: 1e3, probability };
    let rule = RewardRule::new(&config(form), &calibration()).unwrap();
    close(rule.expected_reward(1.0), 2.0 - 9.0_f64.ln());
    close(rule.expected_reward(0.0), -2.0 - 9.0_f64.ln());
    close(rule.expected_reward(0.5), -9.0_f64.ln());
    let boundary = rule.boundary();
    close(boundary.score.unwrap(), 0.4);
    close(boundary.reward, -9.0_f64.ln());
    assert!(boundary.least_penalty_weight < 1.0);
}

/// A wide correct class earns more than the narrow hallucinated one costs, unless weighed.
#[test]
fn balanced_weight_gives_zero_expected_reward_at_even_odds() {
    let calibration = gaussians((0.5, 0.2), (0.3, 0.05), 0.5);
    let mut config = threshold(0.0);
    let fixed = RewardRule::new(&config, &calibration).unwrap();
    assert!(fixed.boundary().expected > 0.1, "{:?}", fixed.boundary());
    config.penalty_weight = PenaltyWeight::Balanced;
    let balanced = RewardRule::new(&config, &calibration).unwrap();
    assert!(balanced.penalty_weight() > 1.0);
    close(balanced.boundary().expected, 0.0);
    close(balanced.boundary().least_penalty_weight, fixed.boundary().least_penalty_weight);
}

#[test]
fn out_of_range_reward_settings_are_reported_by_key() {
    let refuse = |config: RewardConfig| RewardRule::new(&config, &calibration()).unwrap_err();
    let setting = |config| match refuse(config) {
        RewardError::OutOfRange { setting, .. } => setting,
        other => panic!("{other}"),
    };
    assert_eq!(setting(threshold(-0.1)), "form.margin");
    assert_eq!(setting(threshold(f64::NAN)), "form.margin");
    assert_eq!(setting(log_odds(0.4)), "form.target-precision");
    assert_eq!(setting(log_odds(1.0)), "form.target-precision");
    assert_eq!(setting(config(RewardForm::Threshold { margin: 0.0, max: 0.0 })), "form.max");
    let weight = PenaltyWeight::Fixed(-1.0);
    assert_eq!(
        setting(RewardConfig { penalty_weight: weight, ..threshold(0.0) }),
        "penalty-weight"
    );
    let truncated = RewardConfig { truncated_penalty: f64::INFINITY, ..threshold(0.0) };
    assert_eq!(setting(truncated), "truncated-penalty");

    let broken = Calibration { sigma: -1.0, ..calibration() };
    assert!(matches!(
        RewardRule::new(&threshold(0.0), &broken),
        Err(RewardError::Calibration(CalibrationError::OutOfRange { field: "sigma", .. }))
    ));
}

#[test]
fn reward_config_round_trips_through_toml() {
    let read = |text: &str| toml::from_str::<RewardConfig>(text);
    assert_eq!(read("").unwrap(), RewardConfig::default());
    let default =
        RewardForm::Corrected { break_even: 0.5, scale: 6.0, statistic: Statistic::Posterior };
    assert_eq!(RewardConfig::default().form, default);
    let text = "placement = \"spread\"\npenalty-weight = 2\ntruncated-penalty = 0.5\n\
                [form]\nkind = \"threshold\"\nmargin = 0.02";
    let config = read(text).unwrap();
    assert_eq!(config.form, RewardForm::Threshold { margin: 0.02, max: 3.0 });
    assert_eq!(config.penalty_weight, PenaltyWeight::Fixed(2.0));
    assert_eq!(config.placement, Placement::Spread);
    for config in [config, RewardConfig::default()] {
        assert_eq!(read(&toml::to_string(&config).unwrap()).unwrap(), config);
    }
    assert!(read("margin = 0.1").is_err());
    assert!(read("[form]\nkind = \"log-odds\"\nmargin = 0.1").is_err());
    let error = read("penalty-weight = \"heavy\"").unwrap_err().to_string();
    assert!(error.contains("give a number or \"balanced\""), "{error}");
    let error = read("penalty-weight = true").unwrap_err().to_string();
    let said = "invalid type: boolean `true`, expected a number or \"balanced\" for penalty-weight";
    assert!(error.contains(said), "{error}");
}

fn any_rule() -> impl Strategy<Value = RewardRule> {
    let form = prop_oneof![
        (0.0..0.1f64).prop_map(|margin| RewardForm::Threshold { margin, max: 2.0 }),
        (0.5..0.99f64).prop_map(|target_precision| RewardForm::LogOdds {
            target_precision,
            max: 3.0,
            probability: ProbabilityModel::Gaussians,
        }),
    ];
    let placement = prop_oneof![Just(Placement::Last), Just(Placement::Spread)];
    // Above half: below it a threshold can lie under even odds, which is refused.
    (form, placement, 0.0..4.0f64, 0.05..0.2f64, 0.05..0.2f64, 0.6..0.95f64).prop_filter_map(
        "rewarded boundary",
        |(form, placement, weight, sigma_plus, sigma_minus, prior)| {
            let calibration = gaussians((0.5, sigma_plus), (0.3, sigma_minus), prior);
            let penalty_weight = PenaltyWeight::Fixed(weight);
            let config = RewardConfig { form, placement, penalty_weight, ..Default::default() };
            RewardRule::new(&config, &calibration).ok()
        },
    )
}

/// Disjoint mentions inside 40 tokens, with categories that repeat.
fn any_mentions() -> impl Strategy<Value = Vec<ScoredMention>> {
    prop::collection::vec((0usize..3, 1usize..4, 0usize..2, -0.5..1.0f64), 0..8).prop_map(|rows| {
        let mut at = 0;
        rows.into_iter()
            .map(|(category, length, gap, score)| {
                let start = at + gap;
                at = start + length;
                mention(category, start..at, score)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn reward_is_monotone_in_the_score(rule in any_rule(), low in -1.0..2.0f64, step in 0.0..1.0f64) {
        prop_assert!(rule.mention_reward(low + step) >= rule.mention_reward(low) - 1e-12);
    }

    /// Slopes are bounded (by κ₋ times the steepest log-odds or 1/σ), so small steps are small.
    #[test]
    fn reward_is_continuous_in_the_score(rule in any_rule(), score in -1.0..2.0f64) {
        let step = 1e-9;
        let jump = rule.mention_reward(score + step) - rule.mention_reward(score);
        prop_assert!(jump.abs() < 1e-5, "jump of {jump} at {score}");
    }

    #[test]
    fn rewards_do_not_depend_on_mention_order_and_padding(
        rule in any_rule(),
        mentions in any_mentions(),
        rotation in 0usize..8,
        padding in 0usize..10,
    ) {
        let tight = rewards(&rule, &mentions, 40);
        let mut moved = mentions.clone();
        if !moved.is_empty() {
            let places = rotation % moved.len();
            moved.rotate_left(places);
        }
        moved.reverse();
        let padded = rewards(&rule, &moved, 40 + padding);
        prop_assert_eq!(&padded[..40], &tight[..]);
        prop_assert!(padded[40..].iter().all(|reward| *reward == 0.0));
    }

    #[test]
    fn non_mention_tokens_get_zero_and_the_sum_is_bounded(
        rule in any_rule(),
        mentions in any_mentions(),
    ) {
        let given = rewards(&rule, &mentions, 40);
        for (token, reward) in given.iter().enumerate() {
            if !mentions.iter().any(|mention| mention.tokens.contains(&token)) {
                prop_assert!(reward.abs() <= 0.0, "token {token} gets {reward}");
            }
        }
        let sum: f64 = given.iter().map(|reward| f64::from(*reward)).sum();
        let most = 3.0 * rule.penalty_weight().max(1.0) * mentions.len() as f64;
        prop_assert!(sum.abs() <= most + 1e-4);
        let earned: f64 = given.iter().map(|reward| f64::from(reward.max(0.0))).sum();
        prop_assert!(earned <= 3.0 * 3.0 + 1e-4, "three categories can earn three times");
    }

    /// The balanced weight keeps its promise, whatever the calibration.
    #[test]
    fn balanced_log_odds_rewards_do_not_pay_at_even_odds(
        sigma_plus in 0.05..0.3f64,
        sigma_minus in 0.05..0.3f64,
        prior in 0.05..0.95f64,
        target_precision in 0.5..0.99f64,
    ) {
        let calibration = gaussians((0.5, sigma_plus), (0.3, sigma_minus), prior);
        let config =
            RewardConfig { penalty_weight: PenaltyWeight::Balanced, ..log_odds(target_precision) };
        if let Ok(rule) = RewardRule::new(&config, &calibration) {
            let boundary = rule.boundary();
            prop_assert!(boundary.reward <= 1e-9 && boundary.expected <= 1e-9, "{boundary:?}");
        }
    }
}
