//! Commands of several processes, by the system's MPI.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::commands::{Outcome, run_cargo};

/// What Debian has it in; the last is for the bindings, which are generated from its headers.
const PACKAGES: [&str; 3] = ["openmpi-bin", "libopenmpi-dev", "libclang-dev"];

/// Lints and tests the program with the feature `mpi`.
pub(crate) fn test(root: &Path) -> anyhow::Result<Outcome> {
    if !is_there("mpicc") && !installed() {
        return Ok(Outcome::ToolMissing("mpicc"));
    }
    // With the whole workspace: alone the program would be built once more, with other features of its dependencies.
    let with = ["--workspace", "--release", "--features", "fisao/mpi"];
    let lint = [&["clippy"], &with[..], &["--all-targets", "--", "-D", "warnings"]].concat();
    match run_cargo(root, &lint, &[])? {
        Outcome::Passed => {
            let test = [&["test"], &with[..], &["--test", "it", "--", "processes::"]].concat();
            run_cargo(root, &test, &[])
        }
        failed => Ok(failed),
    }
}

/// Installs it, on the machines of continuous integration alone, where that is possible.
fn installed() -> bool {
    if std::env::var_os("CI").is_none() {
        return false;
    }
    let apt = |arguments: &[&str]| {
        let ran = Command::new("apt-get").args(arguments).stdout(Stdio::null()).status();
        ran.is_ok_and(|status| status.success())
    };
    let install = [&["install", "-y", "--no-install-recommends"], &PACKAGES[..]].concat();
    apt(&["update"]) && apt(&install) && is_there("mpicc")
}

fn is_there(tool: &str) -> bool {
    let asked =
        Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}
