//! Work shared among processes, which here are threads with models of their own.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use burn::tensor::Tensor;
use fisao_align::RunControl;
use fisao_align::captions::best_of;
use fisao_align::config::AlignConfig;
use fisao_align::encoding::{embed_views, encode_on};
use fisao_align::error::AlignError;
use fisao_align::features::FeatureCache;
use fisao_align::group::GroupRelativeConfig;
use fisao_align::likelihoods::likelihoods;
use fisao_align::link::{Link, LinkError};
use fisao_align::mentions::MentionScorer;
use fisao_align::objective::{DpoConfig, Objective, PairSource};
use fisao_align::serving::{order, serve};
use fisao_align::signals::decoder_views;
use fisao_align::tasks::{Task, TaskSource as _};
use fisao_align::team::{Processes, Team};
use fisao_align::token_rewards::AdditionalRewards;
use fisao_align::trainer::{Trainer, TrainerState, ValidationSet};
use fisao_align::{IterationMetrics, PhaseSeconds};
use fisao_models::generation::Sampling;
use fisao_models::image::PixelValues;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_testkit::tiny_policy::{Noise, calibration, models};
use fisao_verifier::regions::RegionWeights;
use fisao_verifier::rewards::{RewardConfig, RewardRule};
use fisao_verifier::scorer::Verifier;

/// Channels to the other processes and from them, by their numbers.
#[derive(Debug)]
struct Channels {
    number: usize,
    to: Vec<Mutex<Sender<Vec<u8>>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Link for Channels {
    fn number(&self) -> usize {
        self.number
    }

    fn processes(&self) -> usize {
        self.to.len()
    }

    fn send(&self, to: usize, message: &[u8]) -> Result<(), LinkError> {
        let sent = self.to[to].lock().unwrap().send(message.to_vec());
        sent.map_err(|_| gone(to))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, LinkError> {
        self.from[from].lock().unwrap().recv().map_err(|_| gone(from))
    }
}

fn gone(process: usize) -> LinkError {
    LinkError { process, reason: "it is gone".to_owned() }
}

/// As many processes, all linked.
fn linked(count: usize) -> Vec<Channels> {
    let mut all: Vec<Channels> =
        (0..count).map(|number| Channels { number, to: Vec::new(), from: Vec::new() }).collect();
    for sender in 0..count {
        for receiver in 0..count {
            let (to, from) = channel();
            all[sender].to.push(Mutex::new(to));
            all[receiver].from.push(Mutex::new(from));
        }
    }
    all
}

/// Process 0 of `count`, and the others, which serve it with the models that `open` gives to each number.
fn served(count: usize, open: fn(usize) -> OpenedModels) -> (Arc<Channels>, Vec<Serving>) {
    let mut all = linked(count);
    let others = all.split_off(1);
    let serve_with = |link: Channels| {
        thread::spawn(move || {
            let (policy, verifier) = open(link.number());
            serve(&link, policy, Some(&verifier))
        })
    };
    let serving = others.into_iter().map(serve_with).collect();
    (Arc::new(all.remove(0)), serving)
}

type OpenedModels = (Option<VisionLanguageModel>, Verifier);
type Serving = JoinHandle<Result<String, AlignError>>;

/// The same with models like its own.
fn processes(count: usize) -> (Arc<Channels>, Vec<Serving>) {
    served(count, |_| {
        let (policy, scorer) = models();
        (Some(policy), scorer.verifier)
    })
}

/// Ends what the others serve.
fn end(link: &Channels, serving: Vec<Serving>) {
    for process in 1..link.processes() {
        link.send(process, &order("enough").unwrap()).unwrap();
    }
    for other in serving {
        assert_eq!(other.join().unwrap().unwrap(), "enough");
    }
}

fn config(exact: bool) -> AlignConfig {
    let mut config = AlignConfig { max_new_tokens: 10, ..AlignConfig::default() };
    config.align.iterations = 3;
    config.align.images_per_iteration = 11;
    config.align.minibatches = 2;
    config.align.learning_rate = Some(5e-3);
    config.align.exact = exact;
    config.lora.rank = 4;
    config
}

/// What some iterations measure and leave behind, with so many processes.
fn run(config: AlignConfig, count: usize) -> (Vec<IterationMetrics>, TrainerState) {
    let (policy, scorer) = models();
    let tasks = (1000..1005).map(|at| Noise.task(at).unwrap()).collect();
    let validation = Some(ValidationSet { tasks, truth: None });
    let mut trainer =
        Trainer::new(config, policy, scorer, &calibration(0.0), &Noise, validation).unwrap();
    let (link, serving) = processes(count);
    trainer.share_with(Some(Arc::new(Processes::new(Arc::clone(&link) as _))));
    trainer.check_image_matters().unwrap();
    let mut all = Vec::new();
    while !trainer.is_finished() {
        let metrics = trainer.iterate(&mut |_| {}).unwrap();
        all.push(IterationMetrics { seconds: PhaseSeconds::default(), ..metrics });
        trainer.run_validation(&mut |_| {}).unwrap();
    }
    end(&link, serving);
    (all, trainer.state())
}

#[test]
fn exact_runs_are_equal_for_any_number_of_processes() {
    let groups = |config: &mut AlignConfig| {
        config.objective = Objective::GroupRelative(GroupRelativeConfig::default());
        config.align.samples_per_image = 3;
    };
    let pairs = |config: &mut AlignConfig| {
        let sampled = DpoConfig { pairs: PairSource::Verifier, ..DpoConfig::default() };
        config.objective = Objective::Dpo(sampled);
        config.align.samples_per_image = 3;
    };
    let recomputed = |config: &mut AlignConfig| config.align.gradient_checkpointing = true;
    let in_int8 = |config: &mut AlignConfig| config.align.int8_sampling = true;
    let settings: [&dyn Fn(&mut AlignConfig); 5] =
        [&|_| {}, &groups, &pairs, &recomputed, &in_int8];
    for set in settings {
        let mut config = config(true);
        set(&mut config);
        let (metrics, state) = run(config.clone(), 1);
        for count in [2, 3, 8, 9] {
            let (others, other) = run(config.clone(), count);
            assert_eq!(metrics, others, "{count} processes");
            assert_eq!(state.parameters, other.parameters, "{count} processes");
        }
    }
}

#[test]
fn shared_runs_repeat_themselves_and_stay_close_to_one_process() {
    let (metrics, state) = run(config(false), 3);
    let (again, same) = run(config(false), 3);
    assert_eq!(metrics, again);
    assert_eq!(state.parameters, same.parameters);
    let (alone, _) = run(config(false), 1);
    // The first responses are the same, the gradients up to their last bits.
    assert_eq!(metrics[0].tokens, alone[0].tokens);
    assert!((metrics[0].policy_loss - alone[0].policy_loss).abs() < 1e-6);
    assert!((metrics[0].grad_norm - alone[0].grad_norm).abs() < 1e-4 * alone[0].grad_norm);
}

/// Exact work for which `ask` has `count` processes.
fn asked<T>(
    count: usize,
    ask: impl FnOnce(&VisionLanguageModel, &mut MentionScorer, RunControl<'_>) -> T,
) -> T {
    let ((policy, mut scorer), (link, serving)) = (models(), processes(count));
    let processes = Processes::new(Arc::clone(&link) as _);
    let control = RunControl::new(&|_| {}).shared(Team::of(Some(&processes), true));
    let answer = ask(&policy, &mut scorer, control);
    end(&link, serving);
    answer
}

#[test]
fn embeddings_of_a_verifier_alone_are_equal_for_any_number_of_processes() {
    let views: Vec<Vec<PixelValues>> =
        (0..Noise.count()).map(|at| vec![Noise.task(at).unwrap().image]).collect();
    // With them or without, parts of images are embedded or not.
    for weights in [None, Some(RegionWeights::default()), Some(RegionWeights { patches: 0.5 })] {
        let of = |count: usize| {
            let (link, serving) = served(count, |_| (None, models().1.verifier));
            let processes = Processes::new(Arc::clone(&link) as _);
            let control = RunControl::new(&|_| {}).shared(Team::of(Some(&processes), true));
            let verifier = models().1.verifier.with_weights(weights);
            let embeddings = embed_views(&verifier, &views, control).unwrap();
            end(&link, serving);
            embeddings
        };
        let alone = of(1);
        let whole_only = weights == Some(RegionWeights::default());
        assert_eq!(alone.len(), views.len());
        assert!(alone.iter().all(|image| image.parts.is_empty() == whole_only));
        for count in [2, 3, 9] {
            assert_eq!(of(count), alone, "{count} processes");
        }
    }
}

#[test]
fn encoded_images_do_not_depend_on_who_knows_the_calibration() {
    let tasks: Vec<Task> = (0..Noise.count()).map(|at| Noise.task(at).unwrap()).collect();
    let of = |count: usize| {
        asked(count, |policy, scorer, control| {
            scorer.verifier.set_weights(RegionWeights::default());
            encode_on(policy, &scorer.verifier, &tasks, control).unwrap().embeddings
        })
    };
    assert_eq!(of(3), of(1));
}

#[test]
fn what_a_model_says_of_answers_and_captions_is_equal_for_any_number_of_processes() {
    let responses = vec![vec![vec![5, 6], vec![4, 5, 9, 4, 6, 12]]; Noise.count()];
    let tokens = [4, 5];
    let of = |count: usize| {
        asked(count, |policy, scorer, control| {
            let found = likelihoods(policy, &Noise, 1..10, &responses, 20, control).unwrap();
            let tasks: Vec<Task> = (0..Noise.count()).map(|at| Noise.task(at).unwrap()).collect();
            let sampling = Sampling { max_new_tokens: 14, temperature: 1.5, seed: 1 };
            let rule = RewardRule::new(&RewardConfig::default(), &calibration(0.0)).unwrap();
            let rewards = (&rule, &AdditionalRewards::default());
            let asked = (tasks.as_slice(), 0);
            let (best, _) = best_of(policy, scorer, rewards, asked, 3, &sampling, control).unwrap();
            assert!(best.iter().any(|caption| !caption.mentions.is_empty()));
            // Some of the features are known.
            let mut cache = FeatureCache::in_memory(1);
            let (known, _) = cache
                .encode(policy, &scorer.verifier, &[0, 1, 2], &tasks[..3], true, control)
                .unwrap();
            assert_eq!(known.features.len(), 3);
            let views = decoder_views(policy, &Noise, (&best, &cache), &tokens, control).unwrap();
            (found, best, views)
        })
    };
    let (found, best, views) = of(1);
    assert_eq!((found.len(), best.len(), views.len()), (9, Noise.count(), Noise.count()));
    for count in [2, 3, 9] {
        assert_eq!(of(count), (found.clone(), best.clone(), views.clone()), "{count} processes");
    }
}

#[test]
fn process_that_fails_is_named_with_its_reason() {
    let (policy, scorer) = models();
    let mut trainer =
        Trainer::new(config(false), policy, scorer, &calibration(0.0), &Noise, None).unwrap();
    let (link, serving) = served(3, |number| {
        let (mut policy, scorer) = models();
        if number == 2 {
            policy.visit_linears_mut(&mut |name, linear| {
                if name.ends_with("v_proj") {
                    linear.weight =
                        Tensor::full(linear.weight.dims(), f32::NAN, &linear.weight.device());
                }
            });
        }
        (Some(policy), scorer.verifier)
    });
    trainer.share_with(Some(Arc::new(Processes::new(Arc::clone(&link) as _))));
    let before = trainer.state();
    let error = trainer.iterate(&mut |_| {}).unwrap_err();
    assert!(matches!(error, AlignError::Process { process: 2, .. }), "{error}");
    assert!(error.to_string().contains("NaN"), "{error}");
    assert_eq!(trainer.state().parameters, before.parameters);
    end(&link, serving);
}
