//! `fisao align`: PPO with token rewards on a folder of images.

use std::sync::Arc;

use anyhow::bail;
use fisao_align::AlignConfig;
use fisao_align::captions::Judge;
use fisao_align::trainer::Trainer;
use fisao_formats::{LoadDtype, RunFolder};

use crate::arguments::AlignArguments;
use crate::bundle::{Policy, ScoreSettings, verifier_from_arguments};
use crate::calibrations::{self, Setting};
use crate::device::{self, OpenDevice};
use crate::failure::Refusal;
use crate::reporter::Reporter;
use crate::tasks::{ImageTasks, checked_images};
use crate::training::Training;
use crate::vocabulary::Vocabulary;
use crate::{interrupt, settings, text_cache};

/// File of a run's calibration.
const CALIBRATION: &str = "calibration.json";

pub(crate) fn run(arguments: &AlignArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let config = if arguments.resume {
        settings::of_run(&RunFolder::open(&arguments.output)?, &arguments.settings)?
    } else {
        settings::resolve(&AlignConfig::default(), &arguments.settings)?
    };
    let calibration = calibrations::read(&arguments.calibration)?;
    let images = checked_images(std::slice::from_ref(&arguments.images), reporter)?;
    let asked = arguments.device.device;
    let OpenDevice { device, record, .. } = if arguments.resume {
        device::of_run(&RunFolder::open(&arguments.output)?, asked, reporter)?
    } else {
        arguments.device.open(reporter)?
    };
    // First, as it is small: a name that leads nowhere is found before a large model is fetched.
    let (verifier, score) = (Some(&arguments.verifier), ScoreSettings::of_run(&config));
    let mut loaded = verifier_from_arguments(verifier, score, &device, reporter)?;
    let policy = Policy::located(&arguments.model, None, LoadDtype::AsStored, &device, reporter)?;
    let views = loaded.views_beside(&policy, arguments.allow_foreign_verifier, reporter)?;
    let vocabulary = Vocabulary::from_arguments(&arguments.vocabulary)?;
    let setting = Setting { verifier: &loaded, vocabulary: &vocabulary };
    setting.check(&calibration, Some(&policy), reporter)?;
    let vocabulary = vocabulary.for_mentions()?;
    let mut verifier = loaded.verifier.clone();
    text_cache::learn(&loaded, &mut verifier, &vocabulary, reporter)?;
    let judge = Judge { tokenizer: Arc::clone(&policy.tokenizer), vocabulary, verifier };
    let tasks = ImageTasks::new(&policy, images, &arguments.prompt)?.with_verifier(views);
    policy.check_length(tasks.longest_prompt(), config.max_new_tokens)?;
    let model = policy.model.clone();
    let mut trainer = Trainer::new(config.clone(), model, judge, &calibration, &tasks, None)?;
    let folder = if arguments.resume {
        let folder = RunFolder::open(&arguments.output)?;
        let own = folder.path(CALIBRATION);
        if calibrations::read(&own)? != calibration {
            let message = format!(
                "{} is not the calibration that the run was begun with",
                arguments.calibration.display()
            );
            bail!(Refusal::new(message).hint(format!("give --calibration {}", own.display())));
        }
        folder
    } else {
        RunFolder::create(&arguments.output)?
    };
    folder.write_toml(RunFolder::CONFIG, &config)?;
    folder.write_json(device::FILE, &record)?;
    folder.write_json(CALIBRATION, &calibration)?;
    let mut training = Training {
        folder: &folder,
        reporter,
        stop: interrupt::flag()?,
        resume_command: "the same command with --resume".to_owned(),
        iterations: config.ppo.iterations,
        check_every: 0,
        warnings: Vec::new(),
        warned: Vec::new(),
        metrics: Vec::new(),
        health: Vec::new(),
    };
    training.run(&mut trainer, arguments.resume)?;
    training.write_adapter(&trainer, &config.lora, &policy.name)?;
    let adapter = folder.path(RunFolder::ADAPTER);
    reporter.note(format!("adapter: {}", adapter.display()));
    Ok(())
}
