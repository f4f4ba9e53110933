//! `fisao demo`: calibrate → align → evaluate on the built-in synthetic dataset, and one table.

use fisao_runs::Reporter;
use fisao_runs::demo::{DemoRequest, DemoResult, demo};

use crate::arguments::DemoArguments;
use crate::{interrupt, output, printer};

pub(crate) fn run(arguments: &DemoArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let request = DemoRequest {
        output: arguments.output.clone(),
        options: arguments.options.into(),
        resume: arguments.resume,
        settings: arguments.settings.changes(),
        device: arguments.device.device,
        resume_command: format!("fisao demo --output {} --resume", arguments.output.display()),
    };
    let DemoResult { report, page } = demo(&request, &interrupt::flag, reporter)?;
    output::line(printer::summary(&report).trim_end())?;
    reporter.note(format!("report: {}", page.display()));
    Ok(())
}
