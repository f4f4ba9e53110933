//! `fisao eval`: what a model wrote, measured.

mod accuracy;
mod amber;
mod captions;
mod chair;
mod diff;
mod gqa;
mod inputs;
mod judged;
mod mme;
mod options;
mod pope;
pub(crate) mod report;
mod runs;
mod science_qa;
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
        EvalCommand::Amber(arguments) => amber::run(arguments, reporter),
        EvalCommand::ScienceQa(arguments) => science_qa::run(arguments, reporter),
        EvalCommand::Gqa(arguments) => gqa::run(arguments, reporter),
        EvalCommand::SeedBench(arguments) => options::seed_bench(arguments, reporter),
        EvalCommand::Mmbench(arguments) => options::mmbench(arguments, reporter),
        EvalCommand::MmVet(arguments) => judged::mm_vet(arguments, reporter),
        EvalCommand::MmHal(arguments) => judged::mm_hal(arguments, reporter),
    }
}
