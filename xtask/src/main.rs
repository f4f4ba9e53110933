//! Project checks: `cargo xtask check` is what continuous integration runs and what to run
//! before sending a change.
#![expect(clippy::print_stderr, reason = "a command-line tool that reports its progress")]

mod arrows;
mod commands;
mod full_disk;
mod fuzz;
mod kernels;
mod kill;
mod modules;
mod mpi;
mod settings;
mod steps;
mod wheel;
mod words;

use anyhow::Context;
use clap::{Parser, Subcommand};
use commands::Outcome;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;
use steps::Step;

/// The project's own checks, cheapest first.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every check and stop at the first that fails.
    Check {
        /// Leave out a step; may be repeated.
        #[arg(long, value_enum, value_name = "STEP")]
        skip: Vec<Step>,
        /// Run only this step; may be repeated.
        #[arg(long, value_enum, value_name = "STEP", conflicts_with = "skip")]
        only: Vec<Step>,
    },
    /// Try the readers of other people's files with damaged ones.
    Fuzz(fuzz::FuzzArguments),
    /// Kill an alignment run at random moments, and fill its disk at every write, again and again; compare what comes out with
    /// an uninterrupted run's.
    Kill(kill::KillArguments),
    /// Write the table of settings that `fisao config` prints, from the doc comments of their types.
    Settings,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Task::Check { skip, only } => check(&skip, &only),
        Task::Fuzz(arguments) => workspace_root().and_then(|root| fuzz::fuzz(&root, &arguments)),
        Task::Kill(arguments) => {
            workspace_root().and_then(|root| kill::kill(&root, &arguments)).map(|()| true)
        }
        Task::Settings => workspace_root().and_then(|root| settings::write(&root)).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the chosen steps in order; `Ok(false)` as soon as one of them fails.
fn check(skip: &[Step], only: &[Step]) -> anyhow::Result<bool> {
    let root = workspace_root()?;
    let mut not_run = Vec::new();
    for &step in Step::ALL {
        let name = step.name();
        if skip.contains(&step) || !(only.is_empty() || only.contains(&step)) {
            not_run.push(format!("{name} (not asked for)"));
            continue;
        }
        eprintln!("\n== {name}: {}", step.purpose());
        let started = Instant::now();
        match step.run(&root).with_context(|| format!("step `{name}` could not be run"))? {
            Outcome::Passed => {
                eprintln!("== {name}: passed in {:.1} s", started.elapsed().as_secs_f64());
            }
            Outcome::Failed(reason) => {
                eprintln!("== {name}: FAILED\n{reason}");
                eprintln!("\nrun it alone with: cargo xtask check --only {name}");
                return Ok(false);
            }
            Outcome::ToolMissing(tool) => {
                eprintln!("== {name}: skipped, `{tool}` is not installed");
                not_run.push(format!("{name} (`{tool}` is not installed)"));
            }
        }
    }
    eprintln!("\nall steps that ran have passed");
    if !not_run.is_empty() {
        eprintln!("not run: {}", not_run.join(", "));
    }
    Ok(true)
}

/// The folder of the workspace's `Cargo.toml`, wherever the command was started.
fn workspace_root() -> anyhow::Result<PathBuf> {
    let output = Command::new(commands::cargo())
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .output()
        .context("`cargo locate-project` could not be started")?;
    anyhow::ensure!(output.status.success(), "run this inside the workspace");
    let manifest = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let root = manifest.parent().context("the workspace manifest has no parent folder")?;
    Ok(root.to_path_buf())
}
