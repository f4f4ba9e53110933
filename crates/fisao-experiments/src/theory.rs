//! Closed forms of the method's theory beside Monte Carlo estimates, as numbers and as a page.

mod document;
mod gradients;
mod measured;
mod page;

use std::path::PathBuf;

use fisao_formats::documents::{check_output_folder, write_bytes, write_json};
use fisao_runs::{Reporter, locks};
use fisao_theory::checks::{CHECKS, VIOLATIONS};

use self::document::Theory;
use crate::study::Studied;

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct TheoryRequest {
    /// Seed of every simulation.
    pub seed: u64,
    /// Folder of the results.
    pub output: PathBuf,
}

/// Compares every closed form with its simulation and, where they have it, with the built-in datasets; writes `theory.json` and `theory.html`.
pub fn study_theory(request: &TheoryRequest, reporter: &Reporter) -> anyhow::Result<Studied> {
    check_output_folder(&request.output)?;
    let _lock = locks::lock(&request.output, reporter)?;
    let (checks, violations) = {
        let total = (CHECKS.len() + VIOLATIONS.len()) as u64;
        let progress = reporter.phase("simulate", total);
        let checks = CHECKS.iter().map(|check| {
            let check = check(request.seed);
            progress.advance(1);
            check
        });
        let checks = checks.collect();
        let violations = VIOLATIONS.iter().map(|violation| {
            let violation = violation(request.seed);
            progress.advance(1);
            violation
        });
        let violations = violations.collect();
        progress.finish();
        (checks, violations)
    };
    let measured = measured::measure(request.seed, reporter)?;
    let theory = Theory::new(request.seed, checks, violations, measured);
    write_json(&request.output.join("theory.json"), &theory)?;
    let page = request.output.join("theory.html");
    write_bytes(&page, page::render(&theory).as_bytes())?;
    for check in theory.inaccurate() {
        let error = 100.0 * check.relative_error;
        reporter.warn(
            format!("{}: closed form and simulation differ by {error:.1} %", check.facts.name),
            Some("another --seed tells whether that is chance"),
        );
    }
    Ok(Studied { summary: theory.table().aligned(), page })
}
