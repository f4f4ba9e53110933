//! `fisao align`: trains an adapter with token rewards.

mod source;

use std::path::PathBuf;

use anyhow::bail;
use fisao_runs::align::{AlignRequest, Outcome, Start, align};
use fisao_runs::{Refusal, Reporter};

use crate::arguments::AlignArguments;
use crate::{interrupt, output};

pub(crate) fn run(arguments: &AlignArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let request = request(arguments)?;
    match align(&request, &interrupt::flag, reporter)? {
        Outcome::Trained(_) => Ok(()),
        Outcome::Checked(lines) => lines.iter().try_for_each(output::line),
    }
}

fn request(arguments: &AlignArguments) -> anyhow::Result<AlignRequest> {
    let (start, folder) = if let Some(resumed) = &arguments.resume {
        let Some(folder) = resumed.as_ref().or(arguments.output.as_ref()) else {
            bail!(Refusal::new("--resume names no folder").hint("write --resume FOLDER"));
        };
        let given = &arguments.source;
        let source = given.is_given().then(|| source::of(given)).transpose()?;
        (Start::Resumed { folder: folder.clone(), source }, Some(folder.clone()))
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
