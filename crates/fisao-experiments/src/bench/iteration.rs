//! The embedded models at work: verification, and whole iterations of alignment.

use std::hint::black_box;

use fisao_align::encoding::encode_images;
use fisao_align::group::GroupRelativeConfig;
use fisao_align::objective::Objective;
use fisao_align::tasks::TaskSource as _;
use fisao_align::trainer::Trainer;
use fisao_align::{AlignConfig, StopFlag};
use fisao_runs::Reporter;
use fisao_runs::demo_config::demo_config;
use fisao_runs::device::OpenDevice;
use fisao_runs::world::{DemoSetup, Sizes};
use fisao_scenes::{Split, WorldKind};
use fisao_verifier::calibration::Labels;
use fisao_verifier::regions::RegionWeights;

use super::{Amount, Repetitions};

/// Images verified together.
const IMAGES: usize = 64;
/// Words scored against each.
const WORDS: usize = 4;

/// The demo's settings.
pub(super) fn ppo() -> AlignConfig {
    endless(demo_config(0, false))
}

/// The same rewards without a critic, several responses to an image.
pub(super) fn group() -> AlignConfig {
    let mut config = demo_config(0, false);
    config.objective = Objective::GroupRelative(GroupRelativeConfig::default());
    config.align.images_per_iteration = 16;
    config.align.samples_per_image = 4;
    endless(config)
}

/// Iterations that differ in nothing but their images: nothing warms up or fades out.
fn endless(mut config: AlignConfig) -> AlignConfig {
    config.align.iterations = usize::from(u16::MAX);
    config.align.warmup_iterations = 0;
    config
}

/// Pixels in, scores of words out.
pub(super) fn verify(repetitions: &mut Repetitions) -> anyhow::Result<Amount> {
    let setup = DemoSetup::open(&ppo(), WorldKind::Clear, &OpenDevice::cpu(), &Reporter::silent())?;
    let source = setup.tasks(Split::Test, 0, IMAGES);
    let tasks = (0..IMAGES).map(|at| source.task(at)).collect::<Result<Vec<_>, _>>()?;
    let scorer = setup.scorer()?;
    let mut verifier = scorer.verifier;
    verifier.set_weights(RegionWeights::default());
    let words: Vec<&str> = scorer.vocabulary.forms().map(|(form, _)| form).take(WORDS).collect();
    verifier.embed_names(words.iter().copied())?;
    while repetitions.again() {
        for embedding in encode_images(&verifier, &tasks)? {
            for word in &words {
                black_box(verifier.score(&embedding, word)?);
            }
        }
    }
    Ok(Amount { count: IMAGES as f64, unit: "images", flops: 0.0, bytes: 0.0 })
}

/// Sampling, verification, advantages and update.
pub(super) fn iterations(
    repetitions: &mut Repetitions,
    config: &AlignConfig,
) -> anyhow::Result<Amount> {
    let reporter = Reporter::silent();
    let setup = DemoSetup::open(config, WorldKind::Clear, &OpenDevice::cpu(), &reporter)?;
    let sizes = Sizes::of(true);
    let known = setup.tasks(Split::Calibration, config.seed, sizes.calibration).labelled()?;
    let truth = (known.0.as_slice(), known.1.as_slice());
    let control = (None, &StopFlag::default());
    let calibration = setup.calibrate(config, Labels::Annotations, truth, control, &reporter)?;
    let train = setup.training(config);
    let (policy, scorer) = (setup.policy.model.clone(), setup.scorer()?);
    let mut trainer = Trainer::new(config.clone(), policy, scorer, &calibration, &train, None)?;
    while repetitions.again() {
        trainer.iterate(&mut |_| {})?;
    }
    let responses = config.responses_per_iteration() as f64;
    Ok(Amount { count: responses, unit: "responses", flops: 0.0, bytes: 0.0 })
}
