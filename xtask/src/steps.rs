//! The steps of `cargo xtask check`.

use crate::arrows;
use crate::commands::{Outcome, cargo, run_cargo, run_visibly};
use crate::kernels;
use crate::modules;
use crate::mpi;
use crate::wheel;
use crate::words::Words;
use anyhow::Context;
use clap::ValueEnum;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// One check. The order of the variants is the order in which they run: cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// Formatting.
    Fmt,
    /// Dependencies between the workspace's crates, and between the modules of each.
    Arrows,
    /// Terms that are not used.
    Words,
    /// Spelling, when `typos` is installed.
    Typos,
    /// Licences, advisories and sources of dependencies, when `cargo-deny` is installed.
    Deny,
    /// Lints.
    Clippy,
    /// Documentation.
    Docs,
    /// The test command of the README.
    Tests,
    /// Commands of several processes, when there is an MPI or it can be installed.
    Mpi,
    /// Kernels for NVIDIA cards as machine code, when there is a Python and pip can bring NVRTC.
    Kernels,
    /// Tests of the Python package with the program, when there is a Python, and its tools are installed or can be.
    Python,
    /// The wheel, installed into an empty environment, under the same condition.
    Wheel,
}

impl Step {
    /// All steps in running order.
    pub(crate) const ALL: &[Self] = &[
        Self::Fmt,
        Self::Arrows,
        Self::Words,
        Self::Typos,
        Self::Deny,
        Self::Clippy,
        Self::Docs,
        Self::Tests,
        Self::Mpi,
        Self::Kernels,
        Self::Python,
        Self::Wheel,
    ];

    /// The name used on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Arrows => "arrows",
            Self::Words => "words",
            Self::Typos => "typos",
            Self::Deny => "deny",
            Self::Clippy => "clippy",
            Self::Docs => "docs",
            Self::Tests => "tests",
            Self::Mpi => "mpi",
            Self::Kernels => "kernels",
            Self::Python => "python",
            Self::Wheel => "wheel",
        }
    }

    /// What the step looks at, in one phrase.
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            Self::Fmt => "the code is formatted",
            Self::Arrows => {
                "crates depend only on what ARCHITECTURE.md allows, modules on none that depends on them"
            }
            Self::Words => "code and documents use the terms of STYLE.md",
            Self::Typos => "words are spelled right",
            Self::Deny => "dependencies are licensed, maintained and from crates.io",
            Self::Clippy => "no lint fires, with the vulkan back end",
            Self::Docs => "the documentation builds without warnings",
            Self::Tests => "all tests pass",
            Self::Mpi => "several processes give what one does",
            Self::Kernels => "kernels compile for every supported card",
            Self::Python => "the Python package works with the program",
            Self::Wheel => "the wheel can be built, installed and used",
        }
    }

    /// Runs the step in the workspace's root folder.
    pub(crate) fn run(self, root: &Path) -> anyhow::Result<Outcome> {
        match self {
            Self::Fmt => run_cargo(root, &["fmt", "--all", "--check"], &[]),
            Self::Arrows => check_arrows(root),
            Self::Words => check_words(root),
            Self::Typos => run_optional(root, "typos", Command::new("typos")),
            Self::Deny => {
                let mut deny = Command::new("cargo-deny");
                deny.args(["--workspace", "check", "--hide-inclusion-graph"]);
                run_optional(root, "cargo-deny", deny)
            }
            Self::Clippy => {
                // The back end of other cards is compiled here only: it needs no driver to be linted.
                let all = ["clippy", "--workspace", "--all-targets", "--release"];
                let lint = [&all[..], &["--features", "fisao/vulkan"]].concat();
                // Alone it is built without its feature, which everything else in the workspace turns on.
                let alone = ["clippy", "--package", "fisao-verifier", "--lib", "--release"];
                let deny = ["--", "-D", "warnings"];
                match run_cargo(root, &[&lint[..], &deny[..]].concat(), &[])? {
                    Outcome::Passed => run_cargo(root, &[&alone[..], &deny[..]].concat(), &[]),
                    failed => Ok(failed),
                }
            }
            Self::Docs => {
                let document = ["doc", "--workspace", "--no-deps", "--release"];
                run_cargo(root, &document, &[("RUSTDOCFLAGS", "-D warnings")])
            }
            Self::Tests => run_tests(root),
            Self::Mpi => mpi::test(root),
            Self::Kernels => kernels::compile(root),
            Self::Python => wheel::test_package(root),
            Self::Wheel => wheel::install_wheel(root),
        }
    }
}

/// Runs the tests and lists those that did not run, for want of their data.
fn run_tests(root: &Path) -> anyhow::Result<Outcome> {
    let list = root.join("target").join("skipped-tests.txt");
    fs::create_dir_all(root.join("target"))?;
    fs::write(&list, "").with_context(|| list.display().to_string())?;
    let path = list.to_str().context("the project's folder has a name that is not text")?;
    let variables = [("FISAO_SKIPPED_TESTS", path)];
    let outcome = run_cargo(root, &["test", "--workspace", "--release"], &variables)?;
    let text = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let skipped: BTreeSet<&str> = text.lines().collect();
    for line in &skipped {
        eprintln!("{line}");
    }
    eprintln!("tests skipped for want of data: {}", skipped.len());
    Ok(outcome)
}

/// Runs a tool that need not be installed.
fn run_optional(root: &Path, tool: &'static str, command: Command) -> anyhow::Result<Outcome> {
    let installed =
        Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match installed {
        Ok(_) => run_visibly(root, command),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Outcome::ToolMissing(tool))
        }
        Err(error) => Err(error).with_context(|| format!("`{tool}` could not be started")),
    }
}

fn check_arrows(root: &Path) -> anyhow::Result<Outcome> {
    let output = Command::new(cargo())
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("`cargo metadata` could not be started")?;
    anyhow::ensure!(output.status.success(), "`cargo metadata` ended with {}", output.status);
    let packages = arrows::parse_metadata(&output.stdout)?;
    let mut violations = arrows::violations(&packages);
    violations.extend(modules::cycles(root)?);
    if violations.is_empty() {
        return Ok(Outcome::Passed);
    }
    Ok(Outcome::Failed(violations.join("\n")))
}

fn check_words(root: &Path) -> anyhow::Result<Outcome> {
    let violations = Words::read(root)?.violations(root)?;
    if violations.is_empty() {
        return Ok(Outcome::Passed);
    }
    Ok(Outcome::Failed(violations.join("\n")))
}
