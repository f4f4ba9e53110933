//! `fisao align`: trains an adapter with token rewards.

mod source;

use std::io::{IsTerminal as _, Write as _, stderr, stdin};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use fisao_runs::align::record::Amendment;
use fisao_runs::align::{AlignRequest, Outcome, Published, Start, align};
use fisao_runs::{Refusal, Reporter};

use crate::arguments::AlignArguments;
use crate::{interrupt, output, printer};

pub(crate) fn run(arguments: &AlignArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let request = request(arguments)?;
    let confirm = || Ok(arguments.yes || !asks() || is_wanted()?);
    match align(&request, &confirm, &interrupt::flag, reporter)? {
        Outcome::Trained { published: None, .. } => Ok(()),
        Outcome::Trained { published: Some(Published { report, page }), .. } => {
            output::line(printer::summary(&report).trim_end())?;
            reporter.note(format!("report: {}", page.display()));
            Ok(())
        }
        Outcome::Checked(lines) => lines.iter().try_for_each(output::line),
        Outcome::Declined => {
            reporter.note("not begun; nothing was written");
            Ok(())
        }
    }
}

/// Whether there is somebody to ask.
fn asks() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Asks whether to begin; whoever just presses Enter wants to.
fn is_wanted() -> anyhow::Result<bool> {
    write!(anstream::stderr(), "Begin? [Y/n] ").context("cannot ask whether to begin")?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.ends_with('\n') && matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

fn request(arguments: &AlignArguments) -> anyhow::Result<AlignRequest> {
    let (start, folder) = if let Some(resumed) = &arguments.resume {
        let Some(folder) = resumed.as_ref().or(arguments.output.as_ref()) else {
            bail!(Refusal::new("--resume names no folder").hint("write --resume FOLDER"));
        };
        let given = &arguments.source;
        let source = given.is_given().then(|| source::of(given)).transpose()?;
        // What the source says of both must agree with the run's.
        let amendment = match source {
            Some(_) => Amendment::default(),
            None => source::amendment(given)?,
        };
        let start = Start::Resumed { folder: folder.clone(), source, amendment };
        (start, Some(folder.clone()))
    } else {
        let output = arguments.output.clone().filter(|_| !arguments.dry_run);
        (Start::New { source: source::of(&arguments.source)?, output: output.clone() }, output)
    };
    let resume = |folder: PathBuf| format!("fisao align --resume {}", folder.display());
    Ok(AlignRequest {
        start,
        resume_command: folder.map_or_else(String::new, resume),
        seed: arguments.seed,
        settings: arguments.settings.changes(),
        device: arguments.device.device,
    })
}
