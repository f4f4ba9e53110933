//! `fisao serve`.

use std::io;

use anyhow::bail;
use fisao_align::AlignConfig;
use fisao_runs::failure::Refusal;
use fisao_runs::{Reporter, calibrations, settings};
use fisao_serve::engine::{Engine, EngineSource};
use fisao_serve::stdio;

use crate::arguments::ServeArguments;

pub(crate) fn run(arguments: &ServeArguments, reporter: &Reporter) -> anyhow::Result<()> {
    if !arguments.stdio {
        bail!(Refusal::new("fisao serve has to be told how to answer").hint("add --stdio"));
    }
    let config =
        settings::resolve(&AlignConfig::default(), &arguments.settings.changes(), reporter)?;
    let calibration = arguments.calibration.as_deref().map(calibrations::read).transpose()?;
    let source = EngineSource {
        pair: arguments.pair.source(),
        calibration: arguments.calibration.clone(),
        vocabulary: arguments.vocabulary.vocabulary.clone(),
        scoring: Some(arguments.scoring.resolve(calibration.as_ref())),
        rewards: config.reward,
        files: arguments.files(),
    };
    let device = arguments.pair.model.device.open(reporter)?.device;
    let engine = Engine::open(&source, &device, reporter)?;
    let longest = arguments.body_mb << 20;
    Ok(stdio::serve(&engine, io::stdin().lock(), io::stdout().lock(), longest)?)
}
