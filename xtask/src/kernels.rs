//! The kernels for NVIDIA cards as machine code: by NVRTC, which pip brings without a toolkit or a card.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::commands::{Outcome, run_cargo};
use crate::wheel::{Environment, has_python};

/// The package that has NVRTC, and nothing else.
const PACKAGE: &str = "nvidia-cuda-nvrtc";
/// The test that compiles; it skips itself where it finds no NVRTC.
const TEST: &str = "kernels_compile_for_every_architecture";

/// Compiles all kernels for each architecture that is supported.
pub(crate) fn compile(root: &Path) -> anyhow::Result<Outcome> {
    if !has_python() {
        return Ok(Outcome::ToolMissing("python3"));
    }
    let folder = root.join("target/python-nvrtc");
    let there = ["-m", "pip", "show", "-q", PACKAGE];
    let Some(environment) = Environment::with(folder, &[PACKAGE], &there)? else {
        return Ok(Outcome::ToolMissing(PACKAGE));
    };
    let list = root.join("target").join("skipped-kernels.txt");
    fs::write(&list, "").with_context(|| list.display().to_string())?;
    let [folder, skipped] = [environment.folder(), &list].map(Path::to_str);
    let unreadable = "the project's folder has a name that is not text";
    let variables = [
        ("VIRTUAL_ENV", folder.context(unreadable)?),
        ("FISAO_SKIPPED_TESTS", skipped.context(unreadable)?),
    ];
    // With the whole workspace: alone the crate would be built once more, with other features of its dependencies.
    let test = ["test", "--workspace", "--release", "--test", "it", "--", TEST];
    let outcome = run_cargo(root, &test, &variables)?;
    let skipped = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    match outcome {
        Outcome::Passed if skipped.contains(TEST) => Ok(Outcome::Failed(skipped)),
        outcome => Ok(outcome),
    }
}
