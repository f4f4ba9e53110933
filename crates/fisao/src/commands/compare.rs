//! `fisao compare`: methods against each other on the built-in synthetic dataset, with equal budgets and several seeds.

use fisao_experiments::compare::{CompareRequest, Compared, compare};
use fisao_runs::Reporter;

use crate::arguments::CompareArguments;
use crate::{interrupt, output};

pub(crate) fn run(arguments: &CompareArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let request = CompareRequest {
        methods: arguments.methods.iter().copied().map(Into::into).collect(),
        vary: arguments.vary.clone(),
        ablation: arguments.ablation.iter().copied().map(Into::into).collect(),
        seeds: arguments.seeds,
        first_seed: arguments.first_seed,
        budget: arguments.budget.into(),
        labels: arguments.labels.into(),
        world: arguments.world.kind(),
        best_of: arguments.best_of,
        quick: arguments.quick,
        device: arguments.device.device.unwrap_or_default(),
        settings: arguments.settings.changes(),
        output: arguments.output.clone(),
    };
    let Compared { summary, page } = compare(&request, &interrupt::flag, reporter)?;
    output::line(summary.trim_end())?;
    reporter.note(format!("comparison: {}", page.display()));
    Ok(())
}
