//! `fisao pretrain`: builds a built-in synthetic dataset's model and verifier.

use fisao_experiments::pretrain::{PretrainRequest, pretrain};
use fisao_runs::Reporter;

use crate::arguments::PretrainArguments;
use crate::{interrupt, output};

pub(crate) fn run(arguments: &PretrainArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let request = PretrainRequest {
        output: arguments.output.clone(),
        world: arguments.world.into(),
        seed: arguments.seed,
        set: arguments.set.clone(),
        measure: !arguments.no_measure,
    };
    pretrain(&request, &interrupt::flag, reporter)?.iter().try_for_each(output::line)?;
    reporter.note(format_args!("the models are in {}", arguments.output.display()));
    Ok(())
}
