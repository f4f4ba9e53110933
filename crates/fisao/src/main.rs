//! The `fisao` command: aligns a vision-language model with rewards from its own image encoder.
//!
//! Data goes to standard output, everything else to standard error. The exit code is 0 for success,
//! 1 for what the user can put right, 2 for internal errors, 3 where a check that was asked for
//! failed, 130 after Ctrl-C.

mod arguments;
mod command_line;
mod commands;
mod failure;
mod interrupt;
mod logging;
#[cfg(feature = "mpi")]
mod mpi;
mod output;
mod printer;
mod processes;
mod reporter;
mod version;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use clap_complete::CompleteEnv;
use fisao_runs::Reporter;

use crate::command_line::{Arguments, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Answers a shell that completes a command line, and nothing else: `source <(COMPLETE=bash fisao)`.
    CompleteEnv::with_factory(Arguments::command).complete();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(request) => return failure::usage(&request),
    };
    arguments.colour.apply();
    logging::start(arguments.verbose);
    let reporter = reporter::reporter(arguments.quiet);
    let command = &arguments.command;
    let outcome = processes::shared(command, || {
        match catch_unwind(AssertUnwindSafe(|| run(command, &reporter))) {
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(error)) => failure::report(&error),
            Err(_) => failure::report_panic(),
        }
    });
    outcome.unwrap_or_else(|error| failure::report(&error))
}

fn run(command: &Command, reporter: &Reporter) -> anyhow::Result<()> {
    match command {
        Command::Caption(arguments) => commands::caption::run(arguments, reporter),
        Command::Score(arguments) => commands::score::run(arguments, reporter),
        Command::Verify(arguments) => commands::verify::run(arguments, reporter),
        Command::Calibrate(arguments) => commands::calibrate::run(arguments, reporter),
        Command::Compare(arguments) => commands::compare::run(arguments, reporter),
        Command::Align(arguments) => commands::align::run(arguments, reporter),
        Command::Serve(arguments) => commands::serve::run(arguments, reporter),
        Command::Study(arguments) => commands::study::run(&arguments.command, reporter),
        Command::Eval(arguments) => commands::eval::run(&arguments.command, reporter),
        Command::Config(arguments) => commands::config::run(arguments, reporter),
        Command::Runs(arguments) => commands::runs::run(arguments, reporter),
        Command::Bench(arguments) => commands::bench::run(arguments, reporter),
        Command::Inspect(arguments) => commands::inspect::run(arguments, reporter),
        Command::Merge(arguments) => commands::merge::run(arguments, reporter),
        Command::Pretrain(arguments) => commands::pretrain::run(arguments, reporter),
        Command::Scenes(arguments) => commands::scenes::run(arguments, reporter),
        Command::Demo(arguments) => commands::demo::run(arguments, reporter),
        Command::Man(arguments) => commands::man::run(arguments, Arguments::command(), reporter),
        Command::Completions(arguments) => {
            commands::completions::run(arguments, Arguments::command())
        }
    }
}
