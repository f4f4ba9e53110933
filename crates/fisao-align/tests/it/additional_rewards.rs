//! Rewards beside that of mentions: from the configuration, and written in code.

use std::collections::BTreeSet;
use std::sync::Arc;

use fisao_align::encoding::encode;
use fisao_align::mentions::ScoredResponse;
use fisao_align::tasks::TaskSource;
use fisao_align::token_rewards::{AdditionalRewards, RewardInputs, TokenReward, token_rewards};
use fisao_align::trainer::Trainer;
use fisao_align::{AlignConfig, AlignError, IterationMetrics};
use fisao_models::generation::{FinishReason, Generated};
use fisao_testkit::tiny_policy::{EOS, Noise, WORDS, calibration, models};
use fisao_verifier::rewards::RewardRule;

fn config(text: &str) -> AlignConfig {
    toml::from_str(text).unwrap()
}

fn refused(text: &str) -> String {
    config(text).validate().unwrap_err().to_string()
}

/// Rewards of a response of these words, of its mentions and with the additional ones.
fn rewards(words: &str, additional: &AdditionalRewards) -> Result<[Vec<f32>; 2], AlignError> {
    let (policy, mut scorer) = models();
    let tasks = [Noise.task(0)?];
    let encoded = encode(&policy, &scorer.verifier, &tasks)?;
    let id = |word: &str| WORDS.iter().position(|known| *known == word).unwrap() as u32;
    let tokens: Vec<u32> = words.split(' ').map(id).chain([EOS]).collect();
    let logprobs = vec![-1.0; tokens.len()];
    let generated = Generated { tokens, logprobs, finish: FinishReason::Stop };
    let response = [scorer.read(0, generated, &encoded.embeddings[0])?];
    let rule = RewardRule::new(&AlignConfig::default().reward, &calibration(0.0)).unwrap();
    let of = |additional| {
        token_rewards(&rule, additional, (&scorer, &tasks, &encoded), &response)
            .map(|rows| rows[0].clone())
    };
    Ok([of(&AdditionalRewards::default())?, of(additional)?])
}

#[test]
fn pattern_reward_is_paid_on_the_last_token_of_each_match() {
    let settings = r#"
        [[additional-rewards]]
        kind = "pattern"
        pattern = "big (dog|cat)"
        reward = -0.5
        [[additional-rewards]]
        kind = "pattern"
        pattern = "x*"
        reward = 7.0
    "#;
    let additional = AdditionalRewards::new(&config(settings).additional_rewards).unwrap();
    let [plain, all] = rewards("the big dog is on a big cat", &additional).unwrap();
    let added: Vec<f32> = plain.iter().zip(&all).map(|(a, b)| b - a).collect();
    assert_eq!(added, [0.0, 0.0, -0.5, 0.0, 0.0, 0.0, 0.0, -0.5, 0.0]);
}

#[test]
fn invalid_pattern_rewards_are_rejected_by_key() {
    let table = "[[additional-rewards]]\nkind = \"pattern\"\n";
    let broken = refused(&format!("{table}pattern = '(big'\nreward = 1.0"));
    assert!(broken.contains("`additional-rewards[0].pattern`"), "{broken}");
    assert!(broken.contains("unclosed group"), "{broken}");
    let infinite = refused(&format!("{table}pattern = 'big'\nreward = inf"));
    assert!(infinite.contains("`additional-rewards[0].reward` = inf"), "{infinite}");
    let unknown = toml::from_str::<AlignConfig>("[[additional-rewards]]\nkind = \"length\"");
    assert!(unknown.unwrap_err().to_string().contains("pattern"));
}

/// One reward for the whole response: the fewer different words the better.
struct FewWords;

impl TokenReward for FewWords {
    fn token_rewards(&self, inputs: &RewardInputs<'_>) -> Result<Vec<f32>, AlignError> {
        let ScoredResponse { tokens, .. } = inputs.response;
        let different: BTreeSet<u32> = tokens.iter().copied().collect();
        let mut rewards = vec![0.0; tokens.len()];
        if let Some(last) = rewards.last_mut() {
            *last = -(different.len() as f32);
        }
        Ok(rewards)
    }
}

#[test]
fn training_follows_a_custom_reward() {
    let mut config = AlignConfig { max_new_tokens: 12, ..AlignConfig::default() };
    config.align.iterations = 10;
    config.align.images_per_iteration = 12;
    config.align.samples_per_image = 2;
    config.align.learning_rate = Some(1e-2);
    config.lora.rank = 4;
    let last = |with: bool| -> IterationMetrics {
        let (policy, scorer) = models();
        let mut trainer =
            Trainer::new(config.clone(), policy, scorer, &calibration(0.0), &Noise, None).unwrap();
        if with {
            trainer.add_reward(Arc::new(FewWords));
        }
        let mut metrics = Vec::new();
        while !trainer.is_finished() {
            metrics.push(trainer.iterate(&mut |_| {}).unwrap());
        }
        metrics.pop().unwrap()
    };
    let (with, without) = (last(true), last(false));
    assert!(with.entropy < without.entropy, "{} and {}", with.entropy, without.entropy);
    assert!(with.reward_mean < without.reward_mean, "its own reward is part of the mean");
}

/// Gives whatever it is made of.
struct Fixed(Vec<f32>);

impl TokenReward for Fixed {
    fn token_rewards(&self, _: &RewardInputs<'_>) -> Result<Vec<f32>, AlignError> {
        Ok(self.0.clone())
    }
}

#[test]
fn additional_rewards_must_be_one_finite_value_per_token() {
    for (given, good) in
        [(vec![1.0; 3], true), (vec![1.0; 2], false), (vec![0.0, f32::NAN, 0.0], false)]
    {
        let mut additional = AdditionalRewards::default();
        additional.push(Arc::new(Fixed(given.clone())));
        let found = rewards("a dog", &additional);
        assert_eq!(found.is_ok(), good, "{given:?}");
        if let Err(error) = found {
            let text = error.to_string();
            assert!(text.contains("noise-0") && text.contains("additional-rewards[0]"), "{text}");
        }
    }
}
