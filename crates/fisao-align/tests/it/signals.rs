//! Signals about mentions on a tiny random model.

use std::collections::{BTreeMap, BTreeSet};

use fisao_align::RunControl;
use fisao_align::captions::describe;
use fisao_align::encoding::encode_all_images;
use fisao_align::error::AlignError;
use fisao_align::features::FeatureCache;
use fisao_align::mention_views::MentionViews;
use fisao_align::mentions::ScoredResponse;
use fisao_align::signals::{
    DecoderView, Evidence, NameScales, OTHER_CAPTIONS, Signal, categories_of_others, decoder_views,
    mention_tokens, signals,
};
use fisao_align::tasks::{Task, TaskSource};
use fisao_models::generation::Sampling;
use fisao_models::lora::LoraConfig;
use fisao_models::vision_language::VisionLanguageModel;

use fisao_testkit::tiny_policy::{Noise, models};

/// Absolute tolerance of log-probabilities in f32.
const TOLERANCE: f64 = 1e-5;

/// The same prompts about blank images.
struct Blank;

impl TaskSource for Blank {
    fn count(&self) -> usize {
        Noise.count()
    }

    fn task(&self, index: usize) -> Result<Task, AlignError> {
        let mut task = Noise.task(index)?;
        task.image.values.fill(0.0);
        Ok(task)
    }
}

/// Captions of all tasks, hot enough to name something.
fn captions(policy: &VisionLanguageModel) -> Vec<ScoredResponse> {
    let (_, mut scorer) = models();
    let tasks: Vec<Task> = (0..Noise.count()).map(|at| Noise.task(at).unwrap()).collect();
    let sampling = Sampling { max_new_tokens: 14, temperature: 1.5, seed: 1 };
    describe(policy, &mut scorer, &tasks, &sampling, RunControl::new(&|_| {})).unwrap().0
}

fn views(
    policy: &VisionLanguageModel,
    source: &dyn TaskSource,
    captions: &[ScoredResponse],
) -> Vec<DecoderView> {
    decoder_views(
        policy,
        source,
        (captions, &FeatureCache::none()),
        &mention_tokens(captions),
        RunControl::new(&|_| {}),
    )
    .unwrap()
}

#[test]
fn decoder_views_do_not_depend_on_batching() {
    let (policy, _) = models();
    let captions = captions(&policy);
    let tokens = mention_tokens(&captions);
    assert!(captions.iter().map(|caption| caption.mentions.len()).sum::<usize>() > 10);
    let together = views(&policy, &Noise, &captions);
    for (caption, together) in captions.iter().zip(&together) {
        let one = std::slice::from_ref(caption);
        let alone = decoder_views(
            &policy,
            &Noise,
            (one, &FeatureCache::none()),
            &tokens,
            RunControl::new(&|_| {}),
        )
        .unwrap()
        .remove(0);
        let pairs = [
            (&alone.readings, &together.readings),
            (&alone.log_probabilities, &together.log_probabilities),
            (&alone.blank_log_probabilities, &together.blank_log_probabilities),
        ];
        for (alone, together) in pairs {
            assert_eq!(alone.len(), together.len());
            let close = alone.iter().zip(together).all(|(a, b)| (a - b).abs() < TOLERANCE);
            assert!(close, "{alone:?} {together:?}");
        }
    }
}

#[test]
fn log_probability_views_sum_over_mention_tokens() {
    let (policy, _) = models();
    let captions = captions(&policy);
    for (caption, view) in captions.iter().zip(views(&policy, &Noise, &captions)) {
        // The sampler reports them of the distribution it drew from: at temperature 1.5 they are others.
        for (mention, found) in caption.mentions.iter().zip(&view.log_probabilities) {
            let task = Noise.task(caption.task).unwrap();
            let images =
                fisao_align::encoding::image_batch(std::slice::from_ref(&task), &policy.device());
            let features = policy.image_features(images).unwrap();
            let end = mention.tokens.end;
            let example = fisao_models::sequences::Example {
                prompt: &task.prompt,
                image: 0,
                response: &caption.tokens[..end],
            };
            let states = policy.response_states(&[example], &features);
            let all = fisao_models::parameters::floats(&policy.log_probabilities(&states, 1.0).0);
            let expected: f64 = all[mention.tokens.clone()].iter().map(|&one| f64::from(one)).sum();
            assert!((found - expected).abs() < TOLERANCE, "{found} {expected}");
        }
    }
}

#[test]
fn image_drop_is_zero_for_blank_images() {
    let (policy, _) = models();
    let captions = captions(&policy);
    let drops = |source: &dyn TaskSource| -> Vec<f64> {
        let views = views(&policy, source, &captions);
        let of_view = |view: DecoderView| {
            let pairs = view.log_probabilities.into_iter().zip(view.blank_log_probabilities);
            pairs.map(|(seen, blank)| seen - blank).collect::<Vec<_>>()
        };
        views.into_iter().flat_map(of_view).collect()
    };
    assert!(drops(&Blank).iter().all(|drop| drop.abs() < TOLERANCE), "{:?}", drops(&Blank));
    assert!(drops(&Noise).iter().any(|drop| drop.abs() > 100.0 * TOLERANCE), "{:?}", drops(&Noise));
}

#[test]
fn decoder_views_ignore_the_adapter() {
    let (policy, _) = models();
    let captions = captions(&policy);
    let mut adapted = policy.clone();
    adapted.add_lora(&LoraConfig { rank: 2, ..LoraConfig::default() }, 3).unwrap();
    adapted.visit_lora_mut(&mut |_, mut matrix| {
        let count = matrix.values().len();
        matrix.set_values(vec![0.3; count]);
    });
    assert_eq!(views(&policy, &Noise, &captions), views(&adapted, &Noise, &captions));
}

#[test]
fn signal_rows_hold_each_signal_in_its_column() {
    let (policy, mut scorer) = models();
    let captions = captions(&policy);
    let images = encode_all_images(&scorer.verifier, &Noise).unwrap();
    scorer.verifier.embed_names(["dog", "cat", "car"]).unwrap();
    let tokens = mention_tokens(&captions);
    let views = views(&policy, &Noise, &captions);
    let sampling = Sampling { max_new_tokens: 14, temperature: 1.5, seed: 99 };
    let others = categories_of_others(
        &policy,
        (&mut scorer, &mut FeatureCache::none()),
        &Noise,
        24,
        &sampling,
        RunControl::new(&|_| {}),
    )
    .unwrap();
    assert!(
        others.len() == Noise.count() && others.iter().all(|named| named.len() == OTHER_CAPTIONS)
    );
    let evidence = Evidence {
        captions: &captions,
        images: &images,
        views: &views,
        tokens: &tokens,
        others: &others,
    };
    let scales = NameScales::new(&evidence, &scorer.verifier, &captions);
    let rows = signals(&evidence, &scorer.verifier, &scales);
    let mut rows = rows.iter();
    let at = |signal: Signal| Signal::ALL.iter().position(|other| *other == signal).unwrap();
    let mut by_name: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (caption, view) in captions.iter().zip(&views) {
        for (mention, log_probability) in caption.mentions.iter().zip(&view.log_probabilities) {
            let row = rows.next().unwrap();
            assert_eq!(row.len(), Signal::ALL.len());
            let pooled = scorer.verifier.score(&images[caption.task], &mention.form).unwrap();
            assert!((row[at(Signal::Pooled)] - pooled).abs() < 1e-12);
            assert!((row[at(Signal::LogProbability)] - log_probability).abs() < 1e-12);
            let holds = |named: &&BTreeSet<usize>| named.contains(&mention.category);
            let agreeing = others[caption.task].iter().filter(holds).count();
            assert!(
                (row[at(Signal::Agreement)] - agreeing as f64 / OTHER_CAPTIONS as f64).abs()
                    < 1e-12
            );
            let centred = row[at(Signal::PooledCentred)];
            by_name.entry(mention.form.clone()).or_default().push((pooled, centred));
        }
    }
    assert!(rows.next().is_none());
    // A centre is one number for each name.
    for pairs in by_name.values() {
        let centre = pairs[0].0 - pairs[0].1;
        assert!(pairs.iter().all(|(pooled, centred)| (pooled - centred - centre).abs() < 1e-12));
    }
}

#[test]
fn mention_views_are_image_drops_and_agreements_in_order() {
    let (policy, mut scorer) = models();
    let captions = captions(&policy);
    let sampling = Sampling { max_new_tokens: 14, temperature: 0.0, seed: 99 };
    let done = std::sync::atomic::AtomicUsize::new(0);
    let advance = |count| {
        done.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
    };
    let cache = &mut FeatureCache::new(1 << 20, 0, &std::env::temp_dir());
    let mut find = || {
        let (seen, control) = ((&mut scorer, &mut *cache), RunControl::new(&advance));
        MentionViews::of(&policy, seen, &Noise, &captions, 24, &sampling, control).unwrap()
    };
    // The second time nothing is encoded again.
    let (found, again) = (find(), find());
    assert_eq!(found, again);
    assert_eq!(cache.len(), Noise.count());
    let others = categories_of_others(
        &policy,
        (&mut scorer, &mut FeatureCache::none()),
        &Noise,
        24,
        &sampling,
        RunControl::new(&|_| {}),
    )
    .unwrap();
    let views = views(&policy, &Noise, &captions);
    let (mut drops, mut agreements) = (Vec::new(), Vec::new());
    for (caption, view) in captions.iter().zip(&views) {
        for (at, mention) in caption.mentions.iter().enumerate() {
            drops.push(view.log_probabilities[at] - view.blank_log_probabilities[at]);
            let named =
                others[caption.task].iter().filter(|named| named.contains(&mention.category));
            agreements.push(named.count() as f64 / OTHER_CAPTIONS as f64);
        }
    }
    assert_eq!(found, MentionViews { image_drops: drops, agreements });
    assert_eq!(done.into_inner(), 2 * Noise.count() * MentionViews::PASSES);
    // Greedy captions would agree with each other, whatever the image.
    assert!(others.iter().any(|named| named.iter().any(|one| *one != named[0])));
}
