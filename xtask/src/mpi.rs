//! Commands of several processes, by the system's MPI.

use std::path::Path;
use std::process::Command;

use crate::commands::{Outcome, run_cargo, succeeds};

/// What Debian has it in; the last is for the bindings, which are generated from its headers.
const PACKAGES: [&str; 3] = ["openmpi-bin", "libopenmpi-dev", "libclang-dev"];

/// Lints and tests the program with the feature `mpi`.
pub(crate) fn test(root: &Path) -> anyhow::Result<Outcome> {
    if !has_mpi() && !installed() {
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
    let apt = |arguments: &[&str]| succeeds(Command::new("apt-get").args(arguments));
    let install = [&["install", "-y", "--no-install-recommends"], &PACKAGES[..]].concat();
    apt(&["update"]) && apt(&install) && has_mpi()
}

fn has_mpi() -> bool {
    succeeds(Command::new("mpicc").arg("--version"))
}
