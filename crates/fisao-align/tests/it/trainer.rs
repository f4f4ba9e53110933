//! The loop on a tiny random model: the invariants that keep PPO honest.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor};
use fisao_align::captions::describe;
use fisao_align::config::AlignConfig;
use fisao_align::encoding::{EncodedImages, encode, encode_images};
use fisao_align::error::AlignError;
use fisao_align::features::FeatureCache;
use fisao_align::group::GroupRelativeConfig;
use fisao_align::likelihoods::likelihoods;
use fisao_align::objective::{Data, DpoConfig, Objective, PairSource, SftConfig};
use fisao_align::ppo::PpoConfig;
use fisao_align::sampling::generate;
use fisao_align::tasks::{Answer, Task, TaskSource};
use fisao_align::trainer::{Trainer, TrainerState};
use fisao_align::{AlignEvent, IterationMetrics, Phase, RunControl, StopFlag, WarningCode};
use fisao_models::generation::{Generated, Sampling};
use fisao_models::lora::LowRank;
use fisao_models::parameters::{Parameters, floats};
use fisao_testkit::tiny_policy::{EOS, Noise, calibration, models};
use fisao_verifier::mentions::ObjectVocabulary;
use fisao_verifier::regions::{RegionWeights, ScoreConfig};
use fisao_verifier::rewards::PenaltyWeight;
use fisao_verifier::scorer::{DecoderReader, Verifier};

fn config() -> AlignConfig {
    let mut config = AlignConfig { max_new_tokens: 12, ..AlignConfig::default() };
    config.align.iterations = 4;
    config.align.images_per_iteration = 6;
    config.align.samples_per_image = 2;
    config.align.minibatches = 2;
    config.align.learning_rate = Some(5e-3);
    config.lora.rank = 4;
    config
}

fn trainer(config: AlignConfig) -> Trainer<'static> {
    let (policy, scorer) = models();
    Trainer::new(config, policy, scorer, &calibration(0.0), &Noise, None).unwrap()
}

fn adapter(trainer: &Trainer<'_>) -> BTreeMap<String, Vec<f32>> {
    trainer.state().parameters
}

fn largest_change(
    a: &BTreeMap<String, Vec<f32>>,
    b: &BTreeMap<String, Vec<f32>>,
    part: &str,
) -> f32 {
    a.iter()
        .filter(|(name, _)| name.contains(part))
        .flat_map(|(name, values)| values.iter().zip(&b[name]))
        .fold(0.0, |most, (x, y)| most.max((x - y).abs()))
}

#[test]
fn trainer_log_probabilities_equal_the_samplers() {
    let mut trainer = trainer(config());
    for _ in 0..3 {
        let metrics = trainer.iterate(&mut |_| {}).unwrap();
        assert!(metrics.sampler_gap < 1e-4, "gap {}", metrics.sampler_gap);
    }
}

/// What iterations that sample with int8 weights measure, what they warn of, and the state they leave.
fn sampled_in_int8(limit: f64) -> (Vec<IterationMetrics>, Vec<WarningCode>, TrainerState) {
    let mut config = config();
    config.align.int8_sampling = true;
    config.guards.sampler_kl = limit;
    let mut trainer = trainer(config);
    let mut codes = Vec::new();
    let mut emit = |event| {
        if let AlignEvent::Warning(warning) = event {
            codes.push(warning.code);
        }
    };
    let metrics = (0..3).map(|_| trainer.iterate(&mut emit).unwrap()).collect();
    let state = trainer.state();
    (metrics, codes, state)
}

#[test]
fn sampling_in_int8_is_close_and_ratios_use_the_trainers_log_probabilities() {
    let (metrics, codes, state) = sampled_in_int8(1.0);
    for metrics in &metrics {
        let kl = metrics.sampler_kl.expect("it samples with int8 weights");
        assert!(kl > 1e-9 && kl < 1e-3, "KL {kl}");
        assert!(metrics.sampler_gap > 1e-4, "other log-probabilities: {}", metrics.sampler_gap);
    }
    assert!(!codes.contains(&WarningCode::SamplerMismatch), "{codes:?}");
    assert!(!state.int8_sampling_left);
    // Before the first step no ratio differs from one: had it begun with the sampler's log-probabilities, they would.
    let mut config = config();
    (config.align.int8_sampling, config.align.learning_rate) = (true, Some(1e-12));
    let metrics = trainer(config).iterate(&mut |_| {}).unwrap();
    assert!(metrics.ratio_max < 1.0001, "ratio {}", metrics.ratio_max);
}

#[test]
fn sampling_in_int8_ends_for_good_where_it_differs_too_much() {
    let (metrics, codes, state) = sampled_in_int8(1e-12);
    assert!(metrics[0].sampler_kl.is_some() && metrics[0].sampler_gap > 1e-4);
    for metrics in &metrics[1..] {
        assert!(metrics.sampler_kl.is_none() && metrics.sampler_gap < 1e-4);
    }
    let left = codes.iter().filter(|code| **code == WarningCode::Int8SamplingLeft).count();
    assert_eq!(left, 1);
    assert!(state.int8_sampling_left);
    // A run that is resumed does not begin again.
    let mut config = config();
    config.align.int8_sampling = true;
    let mut resumed = trainer(config);
    resumed.restore(state).unwrap();
    assert_eq!(resumed.iterate(&mut |_| {}).unwrap().sampler_kl, None);
}

#[test]
fn likelihoods_equal_the_samplers_mean_log_probability() {
    let (policy, _) = models();
    let sampling = Sampling { max_new_tokens: 6, temperature: 1.0, seed: 3 };
    let quiet = |_: usize| {};
    let written =
        generate(&policy, &Noise, 2..7, 1, 20, &sampling, RunControl::new(&quiet)).unwrap();
    // Beside what was written, something shorter and something longer, so that rows are padded.
    let own =
        |written: &Generated| vec![vec![5], written.tokens.clone(), vec![4, 5, 9, 4, 6, 12, 7, 10]];
    let responses: Vec<Vec<Vec<u32>>> =
        [Vec::new(), Vec::new()].into_iter().chain(written.iter().map(own)).collect();
    let found =
        likelihoods(&policy, &Noise, 2..7, &responses, 20, RunControl::new(&quiet)).unwrap();
    for (found, written) in found.iter().zip(&written) {
        let sum: f64 = written.logprobs.iter().map(|&logprob| f64::from(logprob)).sum();
        let mean = sum / written.logprobs.len() as f64;
        assert!((found[1] - mean).abs() < 1e-4, "{} {mean}", found[1]);
        assert!((found[2] - found[0]).abs() > 1e-9 && found.iter().all(|number| *number < 0.0));
    }
    let differ = found.windows(2).all(|pair| (pair[0][0] - pair[1][0]).abs() > 1e-7);
    assert!(differ, "every image has a likelihood of its own: {found:?}");
}

#[test]
fn training_updates_every_adapter_matrix_and_nothing_else() {
    let mut trainer = trainer(config());
    let start = adapter(&trainer);
    let mut base = trainer.policy().without_lora();
    let mut frozen = BTreeMap::new();
    base.visit_mut("", &mut |name, p| drop(frozen.insert(name.to_owned(), p.values())));
    for _ in 0..2 {
        trainer.iterate(&mut |_| {}).unwrap();
    }
    let end = adapter(&trainer);
    for (name, values) in &start {
        assert_ne!(values, &end[name], "{name} did not move");
    }
    trainer.policy().without_lora().visit_mut("", &mut |name, p| {
        assert_eq!(p.values(), frozen[name], "{name} moved");
    });
}

#[test]
fn policy_is_unchanged_without_reward_and_kl_penalty() {
    let mut config = config();
    config.reward.truncated_penalty = 0.0;
    config.guards.reward_std = 0.0;
    config.objective.definition_mut().kl_mut().unwrap().coefficient = 0.0;
    // The policy has no word for the second half of the only name, so no token earns anything.
    let (policy, mut scorer) = models();
    scorer.vocabulary = ObjectVocabulary::new(vec![("dog zebra".to_owned(), Vec::new())]).unwrap();
    let mut trainer =
        Trainer::new(config, policy, scorer, &calibration(0.0), &Noise, None).unwrap();
    let start = adapter(&trainer);
    let metrics = trainer.iterate(&mut |_| {}).unwrap();
    assert!(metrics.reward_mean.abs() < 1e-12, "reward {}", metrics.reward_mean);
    assert!(largest_change(&start, &adapter(&trainer), "lora") == 0.0);
}

#[test]
fn high_kl_penalty_keeps_the_policy_near_the_reference() {
    let run = |coefficient: f64| {
        let mut config = config();
        config.objective.definition_mut().kl_mut().unwrap().coefficient = coefficient;
        config.align.iterations = 30;
        config.align.images_per_iteration = 12;
        config.align.learning_rate = Some(3e-3);
        config.reward.penalty_weight = PenaltyWeight::Fixed(1.0);
        let mut trainer = trainer(config);
        let mut kl = 0.0;
        while !trainer.is_finished() {
            kl = trainer.iterate(&mut |_| {}).unwrap().kl_per_token.unwrap();
        }
        kl
    };
    let (none, high) = (run(0.0), run(100.0));
    assert!(high < 0.2 * none, "KL per token {high} with a high KL penalty, {none} without");
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let mut whole = trainer(config());
    let mut first = trainer(config());
    for _ in 0..2 {
        whole.iterate(&mut |_| {}).unwrap();
        first.iterate(&mut |_| {}).unwrap();
    }
    let saved = first.state();
    drop(first);
    let mut resumed = trainer(config());
    resumed.restore(saved).unwrap();
    while !whole.is_finished() {
        let a = whole.iterate(&mut |_| {}).unwrap();
        let b = resumed.iterate(&mut |_| {}).unwrap();
        assert_eq!((a.reward_mean, a.kl, a.grad_norm), (b.reward_mean, b.kl, b.grad_norm));
    }
    assert_eq!(whole.state(), resumed.state());
}

/// Whenever it is asked to, from within every phase and in the midst of an update.
#[test]
fn stopped_iteration_leaves_the_trainer_state_unchanged() {
    let mut config = config();
    config.align.epochs = 3;
    let (mut whole, mut cut) = (trainer(config.clone()), trainer(config));
    let raised = Arc::new(AtomicBool::new(false));
    cut.stop_on(StopFlag::new(Arc::clone(&raised)));
    whole.iterate(&mut |_| {}).unwrap();
    cut.iterate(&mut |_| {}).unwrap();
    let before = cut.state();
    for wanted in [
        Phase::Encode,
        Phase::Sample,
        Phase::Score,
        Phase::Compare,
        Phase::Reward,
        Phase::Advantages,
        Phase::Update,
    ] {
        let stopped = cut.iterate(&mut |event| {
            if matches!(event, AlignEvent::PhaseStarted { phase, .. } if phase == wanted) {
                raised.store(true, Ordering::Relaxed);
            }
        });
        assert!(matches!(stopped, Err(AlignError::Stopped)), "{wanted:?}");
        assert_eq!(cut.state(), before, "{wanted:?}");
        raised.store(false, Ordering::Relaxed);
    }
    for microseconds in (0..6).map(|at| 300 << at) {
        let mut watcher = None;
        let stopped = cut.iterate(&mut |event| {
            if matches!(event, AlignEvent::PhaseStarted { phase: Phase::Update, .. }) {
                let raised = Arc::clone(&raised);
                watcher = Some(std::thread::spawn(move || {
                    std::thread::sleep(std::time::Duration::from_micros(microseconds));
                    raised.store(true, Ordering::Relaxed);
                }));
            }
        });
        watcher.expect("an update").join().unwrap();
        raised.store(false, Ordering::Relaxed);
        match stopped {
            Err(AlignError::Stopped) => assert_eq!(cut.state(), before),
            Err(error) => panic!("{error}"),
            // It was over before the flag was raised.
            Ok(_) => cut.restore(before.clone()).unwrap(),
        }
    }
    raised.store(true, Ordering::Relaxed);
    assert!(cut.run_validation(&mut |_| {}).is_ok(), "there is nothing to look at");
    assert!(matches!(cut.check_image_matters(), Err(AlignError::Stopped)));
    raised.store(false, Ordering::Relaxed);
    while !whole.is_finished() {
        whole.iterate(&mut |_| {}).unwrap();
        cut.iterate(&mut |_| {}).unwrap();
    }
    assert_eq!(whole.state(), cut.state());
}

/// Before the first update policy and base model say the same, so that nothing moves; from then on what is measured moves the
/// precision that the next iteration's rewards start from.
#[test]
fn the_break_even_precision_follows_the_estimated_recall() {
    let run = |constraint: bool| {
        let mut config = config();
        config.align.iterations = 6;
        config.align.learning_rate = Some(2e-2);
        config.recall.constraint = constraint;
        config.recall.margin = 0.0;
        let mut trainer = trainer(config);
        let mut all = Vec::new();
        while !trainer.is_finished() {
            all.push(trainer.iterate(&mut |_| {}).unwrap());
        }
        all
    };
    let constrained = run(true);
    let first = &constrained[0];
    assert_eq!(first.expected_correct, first.expected_correct_base);
    assert_eq!((first.break_even, constrained[1].break_even), (Some(0.5), Some(0.5)));
    let moved =
        constrained.iter().position(|m| m.recall_surplus != Some(0.0)).expect("captions change");
    let (before, after) = (&constrained[moved], &constrained[moved + 1]);
    let surplus = before.recall_surplus.unwrap();
    let step = after.break_even.unwrap() - before.break_even.unwrap();
    assert!(step * surplus > 0.0, "q* moved by {step} after a surplus of {surplus}");
    for metrics in run(false) {
        assert_eq!((metrics.break_even, metrics.expected_correct), (Some(0.5), None));
    }
}

/// With no room between its limits the constraint answers the first change of length with a reward of the other sign, from
/// the next iteration on.
#[test]
fn the_length_bonus_opposes_a_change_of_length() {
    let mut config = config();
    config.align.iterations = 30;
    config.align.images_per_iteration = 12;
    config.objective.definition_mut().kl_mut().unwrap().coefficient = 0.0;
    config.align.learning_rate = Some(1e-2);
    config.length.min_ratio = 1.0;
    config.length.max_ratio = 1.0;
    let mut trainer = trainer(config);
    let mut all = Vec::new();
    while !trainer.is_finished() {
        all.push(trainer.iterate(&mut |_| {}).unwrap());
    }
    let moved = all.iter().position(|m| m.length_ratio != Some(1.0)).expect("lengths change");
    for metrics in &all[..=moved] {
        assert_eq!(metrics.length_bonus, Some(0.0));
    }
    let (ratio, bonus) = (all[moved].length_ratio.unwrap(), all[moved + 1].length_bonus.unwrap());
    assert!((1.0 - ratio) * bonus > 0.0, "{bonus} per token at a ratio of {ratio}");
}

/// A bonus per token makes every token before the end better than the untrained critic expects. States without the constraint, as
/// earlier versions wrote them, go on without it.
#[test]
fn length_bonus_enters_the_advantages_and_the_saved_state() {
    let advantage = |length: Option<serde_json::Value>| {
        let mut trainer = trainer(config());
        let length = length.map(|value| serde_json::from_value(value).unwrap());
        let state = TrainerState { length, ..trainer.state() };
        trainer.restore(state.clone()).unwrap();
        assert_eq!(trainer.state(), state);
        let metrics = trainer.iterate(&mut |_| {}).unwrap();
        (metrics.length_bonus, metrics.advantage_mean.unwrap())
    };
    let controller = |too_short: f64| serde_json::json!({"too_short": too_short, "too_long": 0.0, "ratio": 1.0, "measurements": 1});
    let (none, plain) = advantage(None);
    assert_eq!(none, None);
    let (zero, unmoved) = advantage(Some(controller(0.025)));
    assert_eq!((zero, unmoved.to_bits()), (Some(0.0), plain.to_bits()));
    let (bonus, raised) = advantage(Some(controller(0.225)));
    assert!((bonus.unwrap() - 0.2).abs() < 1e-12, "{bonus:?}");
    assert!(raised > plain + 0.2, "{raised} for {plain}");
}

#[test]
fn training_raises_the_reward() {
    let mut config = config();
    config.align.iterations = 30;
    config.align.images_per_iteration = 12;
    config.objective.definition_mut().kl_mut().unwrap().coefficient = 0.0;
    config.align.learning_rate = Some(1e-2);
    // A random model earns most by saying less.
    config.length.constraint = false;
    let mut trainer = trainer(config);
    let mut rewards = Vec::new();
    while !trainer.is_finished() {
        rewards.push(trainer.iterate(&mut |_| {}).unwrap().reward_mean);
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (before, after) = (mean(&rewards[..5]), mean(&rewards[25..]));
    assert!(after > before + 0.5, "mean reward {before:.2} → {after:.2}");
}

#[test]
fn a_model_that_ignores_its_image_is_refused() {
    let (mut policy, scorer) = models();
    // A projector of zeros lets nothing of the image through.
    policy.visit_text_side_mut(&mut |name, mut p| {
        if name.starts_with("multi_modal_projector.linear_2") {
            let count = p.values().len();
            p.set_values(vec![0.0; count]);
        }
    });
    let mut trainer =
        Trainer::new(config(), policy, scorer, &calibration(0.0), &Noise, None).unwrap();
    let error = trainer.check_image_matters().unwrap_err();
    assert!(matches!(error, AlignError::ImageIgnored { .. }), "{error}");
}

#[test]
fn state_of_another_run_is_refused() {
    let mut other = config();
    other.lora.rank = 2;
    let error = trainer(config()).restore(trainer(other).state()).unwrap_err();
    assert!(matches!(error, AlignError::State(_)), "{error}");
}

/// An optimiser that took moments of another length would update a part of the tensor, and say nothing.
#[test]
fn a_state_with_wrong_moments_or_nan_is_refused_and_changes_nothing() {
    type Damage = fn(&mut TrainerState);
    let mut trained = trainer(config());
    trained.iterate(&mut |_| {}).unwrap();
    let saved = trained.state();
    let name = saved.moments.keys().next().unwrap().clone();
    let damages: [(Damage, &str); 5] = [
        (|state| _ = first(&mut state.moments).0.pop(), "moments of"),
        (|state| first(&mut state.moments).1[0] = -1.0, "moments of"),
        (|state| state.parameters.values_mut().next().unwrap()[0] = f32::NAN, "NaN"),
        (|state| drop(state.moments.insert("other".to_owned(), Default::default())), "`other`"),
        (|state| _ = state.parameters.values_mut().next().unwrap().pop(), "values for"),
    ];
    for (damage, named) in damages {
        let mut state = saved.clone();
        damage(&mut state);
        let mut fresh = trainer(config());
        let before = fresh.state();
        let error = fresh.restore(state).unwrap_err();
        assert!(error.to_string().contains(named), "{name}: {error}");
        assert_eq!(fresh.state(), before);
    }
}

fn first(moments: &mut BTreeMap<String, (Vec<f32>, Vec<f32>)>) -> &mut (Vec<f32>, Vec<f32>) {
    moments.values_mut().next().unwrap()
}

/// The verifier is the encoder as it came; what an adapter makes of the policy's must not reach it.
#[test]
fn adapted_vision_tower_is_not_shared_with_the_verifier() {
    let (mut policy, mut scorer) = models();
    let tasks: Vec<Task> = (0..3).map(|index| Noise.task(index).unwrap()).collect();
    let alone = encode(&policy, &scorer.verifier, &tasks).unwrap();
    scorer.verifier.share_tower(policy.vision_tower().unwrap()).unwrap();
    assert!(scorer.verifier.shares_tower());
    let shared = encode(&policy, &scorer.verifier, &tasks).unwrap();
    let distance = |a: &EncodedImages, b: &EncodedImages| {
        let pairs = a.embeddings.iter().zip(&b.embeddings);
        let differences = pairs.flat_map(|(a, b)| a.whole.iter().zip(&b.whole));
        differences.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert!(distance(&alone, &shared) < 1e-5);

    policy.visit_linears_mut(&mut |name, linear| {
        if name.starts_with("vision") {
            let [inputs, outputs] = linear.size();
            let ones = |shape| Tensor::ones(shape, &Device::flex());
            linear.adapter =
                Some(LowRank { a: ones([1, inputs]), b: ones([outputs, 1]), scale: 1.0 });
        }
    });
    assert!(policy.vision_tower().unwrap().is_adapted());
    scorer.verifier.share_tower(policy.vision_tower().unwrap()).unwrap();
    assert!(!scorer.verifier.shares_tower());
    assert!(distance(&alone, &encode(&policy, &scorer.verifier, &tasks).unwrap()) < 1e-6);
}

/// Rewards by what the policy's own decoder reads, which is the same before and after training.
#[test]
fn decoder_reading_drives_training_and_is_not_trained() {
    let (policy, mut scorer) = models();
    let (tokenizer, prompt) = (Arc::clone(&scorer.tokenizer), vec![1, 3, 8, 14]);
    let reader = DecoderReader::new(&policy, tokenizer, prompt, Vec::new());
    let score = ScoreConfig { centred: false, ..ScoreConfig::default() };
    scorer.verifier = Verifier::of_decoder(reader, score);
    scorer.verifier.embed_names(["dog", "cat", "car"]).unwrap();
    let tasks: Vec<Task> = (0..3).map(|index| Noise.task(index).unwrap()).collect();
    let before = encode(&policy, &scorer.verifier, &tasks).unwrap();
    let alone = encode_images(&scorer.verifier, &tasks).unwrap();
    assert_eq!(before.embeddings, alone, "features of the policy are the reader's own");
    let verifier = scorer.verifier.clone();
    let centre = verifier.score(&before.embeddings[0], "dog").unwrap();
    let (config, start) = (config(), policy.clone());
    let mut trainer =
        Trainer::new(config, policy, scorer, &calibration(centre), &Noise, None).unwrap();
    let untrained = adapter(&trainer);
    let metrics = trainer.iterate(&mut |_| {}).unwrap();
    assert!(metrics.mentions_per_caption > 0.0);
    assert!(largest_change(&untrained, &adapter(&trainer), "lora") > 0.0);
    assert_eq!(encode(&start, &verifier, &tasks).unwrap().embeddings, before.embeddings);
}

/// Encodes tasks 0 to 5, then 3 to 8, and compares with encoding each for itself; returns how many were encoded and how
/// many are kept at the end.
fn encoded_twice(cache: &mut FeatureCache) -> ([usize; 2], usize) {
    let (policy, mut scorer) = models();
    // Of the whole image alone.
    scorer.verifier.set_weights(RegionWeights::default());
    let mut counts = [0; 2];
    for (numbers, count) in [(0..6), (3..9)].into_iter().zip(&mut counts) {
        let numbers: Vec<usize> = numbers.collect();
        let tasks: Vec<Task> = numbers.iter().map(|&at| Noise.task(at).unwrap()).collect();
        let control = RunControl::new(&|_| {});
        let (found, encoded) =
            cache.encode(&policy, &scorer.verifier, &numbers, &tasks, true, control).unwrap();
        let expected = encode(&policy, &scorer.verifier, &tasks).unwrap();
        assert_eq!(found.embeddings, expected.embeddings);
        for (found, expected) in found.features.iter().zip(&expected.features) {
            assert_eq!(found.counts(), expected.counts());
            assert_eq!(floats(found.tokens()), floats(expected.tokens()));
        }
        *count = encoded;
    }
    (counts, cache.len())
}

#[test]
fn feature_cache_encodes_images_once_within_its_limits() {
    let folder = std::env::temp_dir();
    // 4 tokens of 16 numbers and an embedding of 8.
    let each = 4 * (4 * 16 + 8);
    let cache = |memory: u64, disk: u64, folder: &Path| {
        encoded_twice(&mut FeatureCache::new(memory * each, disk * each, folder))
    };
    assert_eq!(cache(9, 0, &folder), ([6, 3], 9));
    assert_eq!(cache(0, 9, &folder), ([6, 3], 9), "all on disk");
    assert_eq!(cache(4, 1, &folder), ([6, 4], 5), "five of them fit");
    assert_eq!(cache(0, 0, &folder), ([6, 6], 0));
    let gone = folder.join("fisao-no-such-folder");
    assert_eq!(cache(4, 9, &gone), ([6, 5], 4), "a folder that is not there");
}

/// [`Noise`] that counts how many images were decoded.
#[derive(Default)]
struct Counted(AtomicUsize);

impl TaskSource for Counted {
    fn count(&self) -> usize {
        Noise.count()
    }

    fn task(&self, index: usize) -> Result<Task, AlignError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Noise.task(index)
    }
}

#[test]
fn feature_cache_does_not_change_training() {
    let run = |megabytes: usize| {
        let mut config = config();
        // Twelve images, six at a time: the third iteration is a second pass.
        config.align.feature_cache_mb = megabytes;
        let (source, (policy, scorer)) = (Counted::default(), models());
        let calibration = calibration(0.0);
        let mut trainer =
            Trainer::new(config, policy, scorer, &calibration, &source, None).unwrap();
        let encoded: Vec<usize> =
            (0..4).map(|_| trainer.iterate(&mut |_| {}).unwrap().images_encoded).collect();
        (encoded, source.0.load(Ordering::Relaxed), adapter(&trainer))
    };
    let ((with, decoded, one), (without, decoded_again, other)) = (run(1), run(0));
    assert_eq!((with, without), (vec![6, 6, 0, 0], vec![6; 4]));
    assert_eq!((decoded, decoded_again), (12, 24), "what is kept is not decoded again either");
    assert_eq!(one, other);
}

/// The given answers of [`Noise`]: one names a dog, the other a car.
struct Answered {
    pair: bool,
}

impl TaskSource for Answered {
    fn count(&self) -> usize {
        Noise.count()
    }

    fn task(&self, index: usize) -> Result<Task, AlignError> {
        let (dog, car) = (vec![4, 5, 9, 4, 6, EOS], vec![8, 7, 15, 12, EOS]);
        let answer = if self.pair {
            Answer::Pair { chosen: dog, rejected: car }
        } else {
            Answer::Response(dog)
        };
        Ok(Task { answer, ..Noise.task(index)? })
    }
}

fn of(objective: Objective, tasks: &dyn TaskSource) -> Trainer<'_> {
    let mut config = config();
    config.objective = objective;
    config.align.iterations = 20;
    config.align.samples_per_image = 4;
    config.align.learning_rate = Some(1e-2);
    let (policy, scorer) = models();
    Trainer::new(config, policy, scorer, &calibration(0.0), tasks, None).unwrap()
}

#[test]
fn every_objective_trains_the_adapter_and_only_ppo_has_a_critic() {
    let objectives = [
        Objective::Ppo(PpoConfig::default()),
        Objective::GroupRelative(GroupRelativeConfig::default()),
        Objective::Dpo(DpoConfig { min_gap: 0.0, ..DpoConfig::default() }),
        Objective::Dpo(DpoConfig { pairs: PairSource::Data, ..DpoConfig::default() }),
        Objective::Sft(SftConfig {}),
    ];
    for objective in objectives {
        let name = format!("{objective:?}");
        let pairs = Answered { pair: objective.definition().data() == Data::Pairs };
        let mut trainer = of(objective, &pairs);
        let start = adapter(&trainer);
        let metrics = trainer.iterate(&mut |_| {}).unwrap();
        assert!(metrics.steps > 0, "{name}");
        for (tensor, values) in start.iter().filter(|(tensor, _)| tensor.contains("lora_B")) {
            assert_ne!(values, &adapter(&trainer)[tensor], "{name}: {tensor} did not move");
        }
        let critic = start.keys().any(|tensor| tensor.starts_with("value_head"));
        assert_eq!(critic, name.starts_with("Ppo"));
        assert_eq!(metrics.value_loss.is_some(), critic);
        assert_eq!(metrics.pairs.is_some(), name.starts_with("Dpo"), "{name}");
        assert_eq!(metrics.kl.is_some(), metrics.sampler_gap > 0.0, "{name}");
    }
}

#[test]
fn dpo_raises_chosen_over_rejected() {
    let answered = Answered { pair: true };
    let dpo = DpoConfig { pairs: PairSource::Data, ..DpoConfig::default() };
    let mut trainer = of(Objective::Dpo(dpo), &answered);
    let mut last = None;
    while !trainer.is_finished() {
        last = Some(trainer.iterate(&mut |_| {}).unwrap());
    }
    let last = last.unwrap();
    assert_eq!(last.objective.get("pair_accuracy"), Some(&1.0));
    assert!(last.objective["pair_margin"] > 1.0, "{:?}", last.objective);
    assert_eq!((last.kl, last.pairs), (None, Some(6)));
}

#[test]
fn sft_lowers_the_loss_of_given_responses() {
    let answered = Answered { pair: false };
    let mut trainer = of(Objective::Sft(SftConfig {}), &answered);
    let mut losses = Vec::new();
    while !trainer.is_finished() {
        losses.push(trainer.iterate(&mut |_| {}).unwrap().policy_loss);
    }
    assert!(losses[19] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn missing_response_error_names_the_row_and_what_is_required() {
    for (objective, wanted) in [
        (Objective::Sft(SftConfig {}), "response"),
        (
            Objective::Dpo(DpoConfig { pairs: PairSource::Data, ..DpoConfig::default() }),
            "chosen and rejected response",
        ),
    ] {
        let error = of(objective, &Noise).iterate(&mut |_| {}).unwrap_err().to_string();
        assert!(error.starts_with("noise-") && error.contains(wanted), "{error}");
    }
}

/// What the optimiser is given must not depend on how a minibatch was cut: gradients are sums over its tokens.
#[test]
fn micro_batch_size_and_gradient_checkpointing_do_not_change_the_update() {
    let objectives = [
        Objective::Ppo(PpoConfig { entropy_coefficient: 0.01, ..PpoConfig::default() }),
        Objective::GroupRelative(GroupRelativeConfig::default()),
        Objective::Dpo(DpoConfig { min_gap: 0.0, ..DpoConfig::default() }),
        Objective::Sft(SftConfig {}),
    ];
    let answered = Answered { pair: false };
    for objective in objectives {
        let moments = |micro_batch: usize, gradient_checkpointing: bool| {
            let (policy, scorer) = models();
            let mut config = config();
            config.objective = objective.clone();
            config.align.samples_per_image = 4;
            config.align.micro_batch = micro_batch;
            config.align.gradient_checkpointing = gradient_checkpointing;
            // One step, so that its first moment is a tenth of the gradient.
            (config.align.minibatches, config.align.epochs) = (1, 1);
            config.align.max_grad_norm = 1e9;
            let mut trainer =
                Trainer::new(config, policy, scorer, &calibration(0.0), &answered, None).unwrap();
            trainer.iterate(&mut |_| {}).unwrap();
            trainer.state().moments
        };
        let whole = moments(64, false);
        for (micro_batch, gradient_checkpointing) in
            [(1, false), (3, false), (5, false), (64, true), (3, true)]
        {
            let cut = moments(micro_batch, gradient_checkpointing);
            for (name, (first, _)) in &whole {
                let largest = first.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                let apart = first.iter().zip(&cut[name].0);
                let apart = apart.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
                assert!(
                    apart <= 1e-4 * largest + 1e-9,
                    "{objective:?}: {name} in parts of {micro_batch}, recomputed {gradient_checkpointing}: \
                     {apart} of {largest}"
                );
            }
        }
    }
}

#[test]
fn all_zero_reward_is_rejected_before_the_first_update() {
    let mut config = config();
    config.reward.truncated_penalty = 0.0;
    let (policy, mut scorer) = models();
    scorer.vocabulary = ObjectVocabulary::new(vec![("dog zebra".to_owned(), Vec::new())]).unwrap();
    let mut trainer =
        Trainer::new(config, policy, scorer, &calibration(0.0), &Noise, None).unwrap();
    let start = trainer.state();
    let error = trainer.iterate(&mut |_| {}).unwrap_err();
    assert!(matches!(error, AlignError::RewardZero { responses: 12, .. }), "{error}");
    assert_eq!(trainer.state(), start);
}

#[test]
fn unrecoverable_run_stops_after_patience_iterations() {
    let mut config = config();
    config.align.iterations = 40;
    config.align.learning_rate = Some(0.3);
    config.align.max_grad_norm = 1e3;
    config.guards.kl_per_token = 1e-4;
    config.guards.patience = 3;
    let mut trainer = trainer(config);
    let mut finished = 0;
    let error = loop {
        let mut count = |event: AlignEvent| {
            finished += usize::from(matches!(event, AlignEvent::IterationFinished { .. }));
        };
        match trainer.iterate(&mut count) {
            Ok(_) => assert!(!trainer.is_finished(), "it never stopped"),
            Err(error) => break error,
        }
    };
    let AlignError::Unrecoverable { iteration, message, .. } = &error else { panic!("{error}") };
    assert_eq!((*iteration, trainer.iteration()), (finished, finished));
    assert!(message.contains("3 iterations in a row"), "{message}");
    assert!(error.hint().is_some());
}

#[test]
fn nan_logits_are_rejected_in_generation_scoring_and_training() {
    let (mut policy, mut scorer) = models();
    policy.visit_mut("", &mut |name, mut parameter| {
        if name.ends_with("embed_tokens.weight") {
            let count = parameter.values().len();
            parameter.set_values(vec![f32::NAN; count]);
        }
    });
    let tasks: Vec<Task> = (0..2).map(|at| Noise.task(at).unwrap()).collect();
    let sampling = Sampling { max_new_tokens: 4, temperature: 1.0, seed: 0 };
    let described =
        describe(&policy, &mut scorer, &tasks, &sampling, RunControl::new(&|_| {})).map(|_| ());
    let generated =
        generate(&policy, &Noise, 0..2, 1, 24, &sampling, RunControl::new(&|_| {})).map(|_| ());
    let responses = vec![vec![vec![5, EOS]]; Noise.count()];
    let quiet = RunControl::new(&|_| {});
    let likely = likelihoods(&policy, &Noise, 0..2, &responses, 24, quiet).map(|_| ());
    let mut trainer =
        Trainer::new(config(), policy, scorer, &calibration(0.0), &Noise, None).unwrap();
    let trained = trainer.iterate(&mut |_| {}).map(|_| ());
    for result in [described, generated, likely, trained] {
        let error = result.unwrap_err();
        assert!(matches!(error, AlignError::NotFinite { .. }), "{error}");
        assert!(error.hint().unwrap().contains("inspect --check"));
    }
}
