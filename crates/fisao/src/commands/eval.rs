//! `fisao eval`: what a model wrote, measured.

mod captions;
mod chair;
mod diff;
mod inputs;
mod mme;
mod pope;
mod rates;
mod report;
mod world;

use crate::arguments::{EvalCommand, PopeCommand};
use crate::reporter::Reporter;

pub(crate) fn run(command: &EvalCommand, reporter: &Reporter) -> anyhow::Result<()> {
    match command {
        EvalCommand::Chair(arguments) => chair::run(arguments, reporter),
        EvalCommand::Pope(arguments) => match &arguments.command {
            Some(PopeCommand::Build(arguments)) => pope::build(arguments, reporter),
            None => pope::run(arguments, reporter),
        },
        EvalCommand::Captions(arguments) => captions::run(arguments, reporter),
        EvalCommand::Diff(arguments) => diff::run(arguments, reporter),
        EvalCommand::Mme(arguments) => mme::run(arguments, reporter),
    }
}
