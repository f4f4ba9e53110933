//! The embedded models at work: verification, and whole iterations of alignment.

use std::hint::black_box;

use burn::tensor::Device;
use fisao_align::captions::look_at;
use fisao_align::group::GroupRelativeConfig;
use fisao_align::objective::Objective;
use fisao_align::tasks::TaskSource as _;
use fisao_align::trainer::Trainer;
use fisao_align::{AlignConfig, StopFlag};
use fisao_scenes::{Split, WorldKind};
use fisao_verifier::calibration::Labels;
use fisao_verifier::scorer::RegionWeights;

use super::{Amount, Repetitions};
use crate::commands::demo::demo_config;
use crate::reporter::Reporter;
use crate::world::{Sizes, WorldLab};

/// Pictures verified together.
const PICTURES: usize = 64;
/// Words scored against each.
const WORDS: usize = 4;

/// The demo's settings.
pub(super) fn ppo() -> AlignConfig {
    endless(demo_config(0, false))
}

/// The same rewards without a critic, several responses to a picture.
pub(super) fn group() -> AlignConfig {
    let mut config = demo_config(0, false);
    config.objective = Objective::GroupRelative(GroupRelativeConfig::default());
    config.align.images_per_iteration = 16;
    config.align.samples_per_image = 4;
    endless(config)
}

/// Iterations that differ in nothing but their pictures: nothing warms up or fades out.
fn endless(mut config: AlignConfig) -> AlignConfig {
    config.align.iterations = usize::from(u16::MAX);
    config.align.warmup_iterations = 0;
    config
}

/// Pixels in, scores of words out.
pub(super) fn verify(repetitions: &mut Repetitions) -> anyhow::Result<Amount> {
    let lab = WorldLab::open(&ppo(), WorldKind::Clear, &Device::flex(), &Reporter::new(true))?;
    let source = lab.tasks(Split::Test, 0, PICTURES);
    let tasks = (0..PICTURES).map(|at| source.task(at)).collect::<Result<Vec<_>, _>>()?;
    let judge = lab.judge()?;
    let mut verifier = judge.verifier;
    verifier.set_weights(RegionWeights::default());
    let words: Vec<&str> = judge.vocabulary.forms().map(|(form, _)| form).take(WORDS).collect();
    verifier.learn(words.iter().copied())?;
    while repetitions.again() {
        for embedding in look_at(&verifier, &tasks)? {
            for word in &words {
                black_box(verifier.score(&embedding, word));
            }
        }
    }
    Ok(Amount { count: PICTURES as f64, unit: "pictures", flops: 0.0, bytes: 0.0 })
}

/// Sampling, verification, advantages and update.
pub(super) fn iterations(
    repetitions: &mut Repetitions,
    config: &AlignConfig,
) -> anyhow::Result<Amount> {
    let reporter = Reporter::new(true);
    let lab = WorldLab::open(config, WorldKind::Clear, &Device::flex(), &reporter)?;
    let sizes = Sizes::of(true);
    let known = lab.tasks(Split::Calibration, config.seed, sizes.calibration).labelled()?;
    let truth = (known.0.as_slice(), known.1.as_slice());
    let course = (None, &StopFlag::default());
    let calibration = lab.calibrate(config, Labels::Annotations, truth, course, &reporter)?;
    let train = lab.training(config);
    let (policy, judge) = (lab.policy.model.clone(), lab.judge()?);
    let mut trainer = Trainer::new(config.clone(), policy, judge, &calibration, &train, None)?;
    while repetitions.again() {
        trainer.iterate(&mut |_| {})?;
    }
    let responses = config.responses_per_iteration() as f64;
    Ok(Amount { count: responses, unit: "responses", flops: 0.0, bytes: 0.0 })
}
