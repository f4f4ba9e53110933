//! `fisao study`: what parts of the method are worth, measured.

use crate::arguments::StudyCommand;
use crate::reporter::Reporter;
use crate::study;

pub(crate) fn run(command: &StudyCommand, reporter: &Reporter) -> anyhow::Result<()> {
    match command {
        StudyCommand::Verifier(arguments) => study::run(arguments, reporter),
    }
}
