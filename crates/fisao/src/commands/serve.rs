//! `fisao serve`.

use std::env;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fisao_align::AlignConfig;
use fisao_runs::{Reporter, calibrations, settings};
use fisao_serve::engine::{Engine, EngineSource};
use fisao_serve::http::{self, HttpOptions};
use fisao_serve::stdio;

use crate::arguments::ServeArguments;
use crate::interrupt;

/// Variable of the environment that holds the token: arguments can be seen by everybody on the machine.
const TOKEN: &str = "FISAO_TOKEN";

pub(crate) fn run(arguments: &ServeArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let config =
        settings::resolve(&AlignConfig::default(), &arguments.settings.changes(), reporter)?;
    let calibration = arguments.calibration.as_deref().map(calibrations::read).transpose()?;
    let source = EngineSource {
        pair: arguments.pair.source(),
        scoring: arguments.scoring.resolve(calibration.as_ref()),
        calibration,
        vocabulary: arguments.vocabulary.vocabulary.clone(),
        rewards: config.reward,
        files: arguments.files(),
    };
    let opened = arguments.pair.model.device.open(reporter)?;
    let engine = Engine::open(&source, &opened, reporter)?;
    let longest = arguments.body_mb << 20;
    let Some(address) = arguments.http else {
        return Ok(stdio::serve(&engine, io::stdin().lock(), io::stdout().lock(), longest)?);
    };
    let token = arguments.token.clone().or_else(|| env::var(TOKEN).ok());
    let token = token.filter(|token| !token.is_empty());
    if !address.ip().is_loopback() && token.is_none() {
        reporter.warn(
            format!("{address} can be reached from other machines, and no token is asked for"),
            Some("--token asks for one; --http PORT listens on this machine only"),
        );
    }
    let options = HttpOptions {
        address,
        token,
        body: longest,
        queue: arguments.queue,
        deadline: Duration::from_secs(arguments.deadline),
    };
    let ready = |address: SocketAddr| reporter.note(format_args!("listening on http://{address}/"));
    http::serve(engine, options, &interrupt::flag()?, ready)
}
