//! `cargo xtask fuzz`: the tests that try readers with damaged files, for as many files as one likes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use clap::Args;

use crate::commands::cargo;

#[derive(Debug, Args)]
pub(crate) struct FuzzArguments {
    /// Only this reader, such as `config`; else all of them.
    #[arg(long, value_name = "NAME", default_value = "")]
    reader: String,
    /// Inputs of each reader.
    #[arg(long, default_value_t = 100_000)]
    inputs: u64,
    /// Seed of the inputs.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Runs the tests; `Ok(false)` if there are findings, which are in `target/fuzz`.
pub(crate) fn fuzz(root: &Path, arguments: &FuzzArguments) -> anyhow::Result<bool> {
    let report = root.join("target/fuzz/report.txt");
    // Each crate with readers adds its own to it.
    let _ = fs::remove_file(&report);
    let tested = Command::new(cargo())
        .args(["test", "--release", "--quiet", "--no-fail-fast", "--workspace", "--test", "fuzz"])
        .env("FISAO_FUZZ_READER", &arguments.reader)
        .env("FISAO_FUZZ_INPUTS", arguments.inputs.to_string())
        .env("FISAO_FUZZ_SEED", arguments.seed.to_string())
        .current_dir(root)
        .status()
        .context("`cargo test` could not be started")?;
    eprint!("{}", fs::read_to_string(&report).unwrap_or_default());
    Ok(tested.success())
}
