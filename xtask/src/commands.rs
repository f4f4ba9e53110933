//! Programs that checks run.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

/// How a step ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing to complain about.
    Passed,
    /// The check found something; the text says what.
    Failed(String),
    /// An optional tool is not on the path.
    ToolMissing(&'static str),
}

/// The cargo that started this process, so that nested calls use the same toolchain.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

pub(crate) fn run_cargo(
    root: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> anyhow::Result<Outcome> {
    let mut command = Command::new(cargo());
    command.args(arguments).envs(environment.iter().copied());
    run_visibly(root, command)
}

/// Runs a command with its output going to the terminal as it comes.
pub(crate) fn run_visibly(root: &Path, mut command: Command) -> anyhow::Result<Outcome> {
    let status = command
        .current_dir(root)
        .status()
        .with_context(|| format!("{} could not be started", command.get_program().display()))?;
    if status.success() {
        return Ok(Outcome::Passed);
    }
    Ok(Outcome::Failed(format!("{} ended with {status}", command.get_program().display())))
}

/// Whether a command can be started and succeeds; it says nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
