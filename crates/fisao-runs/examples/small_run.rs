//! A run of two iterations of the built-in model, its events as they come, and what the model says of a scene before and after:
//! `cargo run --release -p fisao-runs --example small_run -- FOLDER`.
#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::path::Path;

use anyhow::Context as _;
use fisao_align::captions::describe;
use fisao_align::tasks::TaskSource as _;
use fisao_align::trainer::Trainer;
use fisao_align::{RunControl, StopFlag};
use fisao_formats::run_folder::RunFolder;
use fisao_models::generation::Sampling;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_runs::Reporter;
use fisao_runs::demo_config::demo_config;
use fisao_runs::device::OpenDevice;
use fisao_runs::reporter::Event;
use fisao_runs::stop;
use fisao_runs::training::{Surroundings, Training};
use fisao_runs::world::DemoSetup;
use fisao_scenes::{Split, WorldKind};
use fisao_verifier::calibration::Labels;

fn main() -> anyhow::Result<()> {
    let output = std::env::args().nth(1).context("usage: small_run FOLDER")?;
    let reporter = Reporter::new(|event| match event {
        Event::PhaseAdvanced { .. } | Event::PhaseClosed(_) => {}
        event => println!("{event:?}"),
    });
    let mut config = demo_config(0, true);
    config.align.iterations = 2;
    config.align.images_per_iteration = 16;

    let setup = DemoSetup::open(&config, WorldKind::Clear, &OpenDevice::cpu(), &reporter)?;
    let (tasks, truth) = setup.tasks(Split::Calibration, config.seed, 64).labelled()?;
    let (known, control) = ((&tasks[..], &truth[..]), (None, &StopFlag::default()));
    let calibration = setup.calibrate(&config, Labels::Annotations, known, control, &reporter)?;
    println!("AUC of the verifier: {:.3}", calibration.auc);

    let folder = RunFolder::create(Path::new(&output))?;
    folder.write_toml(RunFolder::CONFIG, &config)?;
    let model = setup.policy.model.clone();
    let scenes = setup.training(&config);
    let mut trainer =
        Trainer::new(config.clone(), model, setup.scorer()?, &calibration, &scenes, None)?;
    let surroundings = Surroundings {
        folder: &folder,
        reporter: &reporter,
        config: &config,
        calibration: &calibration,
        processor: &setup.policy.processor,
        base_model: &setup.policy.name,
    };
    let mut training = Training::new(surroundings, stop::never()?, "small_run".to_owned());
    training.run(&mut trainer, false)?;
    println!("before: {}", caption(&setup, &setup.policy.model)?);
    println!("after:  {}", caption(&setup, trainer.policy())?);
    Ok(())
}

/// What a model says of a test scene, with the score of each object it names.
fn caption(setup: &DemoSetup, model: &VisionLanguageModel) -> anyhow::Result<String> {
    let tasks = [setup.tasks(Split::Test, 0, 1).task(0)?];
    let sampling = Sampling { max_new_tokens: 48, temperature: 0.0, seed: 0 };
    let mut scorer = setup.scorer()?;
    let (captions, _) = describe(model, &mut scorer, &tasks, &sampling, RunControl::new(&|_| {}))?;
    let caption = &captions[0];
    let scored = caption.mentions.iter().zip(&caption.scores);
    let scored = scored.map(|(mention, score)| {
        format!("{} {score:+.2}", scorer.vocabulary.category(mention.category))
    });
    Ok(format!("{} ({})", caption.text, scored.collect::<Vec<_>>().join(", ")))
}
