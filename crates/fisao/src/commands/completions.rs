//! `fisao completions`: scripts that make a shell complete command lines.

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::output;

/// What the script cannot do, and what can.
pub(crate) const DYNAMIC: &str = "The script knows commands and options as they are now, and runs without fisao. To have the keys of settings behind --set \
     completed, too, let the shell ask fisao each time instead: source <(COMPLETE=bash fisao)";

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script of a whole command line.
pub(crate) fn run(arguments: &CompletionsArguments, mut root: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut root, "fisao", &mut script);
    output::script(&String::from_utf8(script).context("a completion script is text")?)
}
