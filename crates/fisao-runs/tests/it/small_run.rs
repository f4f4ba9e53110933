//! Training in a run folder, observed and interrupted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fisao_align::trainer::Trainer;
use fisao_align::{AlignConfig, StopFlag};
use fisao_formats::run_folder::RunFolder;
use fisao_runs::Reporter;
use fisao_runs::demo_config::demo_config;
use fisao_runs::device::OpenDevice;
use fisao_runs::failure::Interrupted;
use fisao_runs::reporter::Event;
use fisao_runs::run_list::{Run, State};
use fisao_runs::training::{Surroundings, Training};
use fisao_runs::world::DemoSetup;
use fisao_scenes::{Split, WorldKind};
use fisao_verifier::calibration::{Calibration, Labels};

fn config() -> AlignConfig {
    let mut config = demo_config(0, true);
    config.align.iterations = 2;
    config.align.images_per_iteration = 4;
    config
}

/// Trains in a folder from its beginning or from where it stopped.
fn train(
    setup: &DemoSetup,
    calibration: &Calibration,
    (folder, resume): (&RunFolder, bool),
    stop: &Arc<AtomicBool>,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let config = config();
    let scenes = setup.training(&config);
    let (model, scorer) = (setup.policy.model.clone(), setup.scorer()?);
    let mut trainer = Trainer::new(config.clone(), model, scorer, calibration, &scenes, None)?;
    let surroundings = Surroundings {
        folder,
        reporter,
        config: &config,
        calibration,
        processor: &setup.policy.processor,
        base_model: &setup.policy.name,
    };
    Training::new(surroundings, Arc::clone(stop), "again".to_owned()).run(&mut trainer, resume)
}

#[test]
fn a_run_tells_its_observer_and_goes_on_where_it_was_stopped() {
    let stop = Arc::<AtomicBool>::default();
    let events = Arc::<Mutex<Vec<Event>>>::default();
    let (told, raised) = (Arc::clone(&events), Arc::clone(&stop));
    let reporter = Reporter::new(move |event: Event| {
        // Whoever watches decides when to end.
        if matches!(event, Event::PhaseAdvanced { total: 2, .. }) {
            raised.store(true, Ordering::Relaxed);
        }
        told.lock().unwrap().push(event);
    });
    let config = config();
    let setup = DemoSetup::open(&config, WorldKind::Clear, &OpenDevice::cpu(), &reporter).unwrap();
    let (tasks, truth) = setup.tasks(Split::Calibration, 0, 48).labelled().unwrap();
    let (known, control) = ((&tasks[..], &truth[..]), (None, &StopFlag::default()));
    let calibration =
        setup.calibrate(&config, Labels::Annotations, known, control, &reporter).unwrap();
    let root = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(&root.path().join("run")).unwrap();
    folder.write_toml(RunFolder::CONFIG, &config).unwrap();

    let stopped = train(&setup, &calibration, (&folder, false), &stop, &reporter).unwrap_err();
    let message = &stopped.downcast_ref::<Interrupted>().unwrap().message;
    assert!(message.contains("after iteration 1 of 2") && message.contains("again"), "{message}");
    assert_eq!(Run::read(&folder).state, State::Unfinished);
    let quiet = Reporter::silent();
    train(&setup, &calibration, (&folder, true), &Arc::default(), &quiet).unwrap();
    let run = Run::read(&folder);
    assert_eq!((run.state, run.iterations), (State::Finished, 2));

    let events = events.lock().unwrap();
    let started = events.iter().filter_map(|event| match event {
        Event::PhaseStarted { name, total, .. } => Some((name.as_str(), *total)),
        _ => None,
    });
    assert_eq!(started.collect::<Vec<_>>(), [("calibrate", 48), ("align", 2)]);
    let closed = events.iter().filter(|event| matches!(event, Event::PhaseClosed(_))).count();
    let finished = events.iter().filter(|event| matches!(event, Event::PhaseFinished(_))).count();
    assert_eq!((closed, finished), (2, 1), "the second phase did not come to its end");
}
