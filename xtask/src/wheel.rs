//! The Python package and its wheel: built, installed into an empty environment and tested there.

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::commands::{Outcome, run_cargo, run_visibly, succeeds};

/// What the tests need besides Python and the package.
const TOOLS: [&str; 4] = ["maturin", "pytest", "numpy", "pillow"];
/// Most bytes of a wheel.
const MOST: u64 = 40_000_000;
/// A caption that the installed package scores.
const FIRST_SCORE: &str = "import fisao; \
    report = fisao.chair({1: 'A dog and a cat.'}, {1: ['dog']}, rules='strict'); \
    assert report.chair_i == 0.5, report; \
    print(fisao.__file__)";

/// Tests the Python package with the program of this build.
pub(crate) fn test_package(root: &Path) -> anyhow::Result<Outcome> {
    if !has_python() {
        return Ok(Outcome::ToolMissing("python3"));
    }
    let Some(tools) = tools(root)? else { return Ok(Outcome::ToolMissing("pytest")) };
    match run_cargo(root, &["build", "--release", "--workspace", "--bin", "fisao"], &[])? {
        Outcome::Passed => {
            let mut tests = Command::new(tools);
            tests.args(["-m", "pytest", "-q"]);
            tests.env("FISAO_BINARY", root.join("target/release").join(program()));
            run_visibly(root, tests)
        }
        failed => Ok(failed),
    }
}

/// Builds the wheel, installs it into an empty environment and lets that score a caption.
pub(crate) fn install_wheel(root: &Path) -> anyhow::Result<Outcome> {
    if !has_python() {
        return Ok(Outcome::ToolMissing("python3"));
    }
    let Some(tools) = tools(root)? else { return Ok(Outcome::ToolMissing("maturin")) };
    let wheels = root.join("target/wheels");
    if wheels.exists() {
        fs::remove_dir_all(&wheels).with_context(|| wheels.display().to_string())?;
    }
    let mut build = Command::new(tools);
    build.args(["-m", "maturin", "build", "--release", "--out"]).arg(&wheels);
    if let failed @ Outcome::Failed(_) = run_visibly(root, build)? {
        return Ok(failed);
    }
    let wheel = only_file(&wheels)?;
    let size = fs::metadata(&wheel)?.len();
    if size > MOST {
        let megabytes = size as f64 / 1e6;
        return Ok(Outcome::Failed(format!("{} has {megabytes:.1} MB", wheel.display())));
    }
    let environment = Environment::create(root.join("target/python-wheel"))?;
    let mut install = environment.python();
    install.args(["-m", "pip", "install", "-q", "--no-index", "--no-deps"]).arg(&wheel);
    let mut version = Command::new(environment.program(program()));
    version.arg("--version");
    let mut score = environment.python();
    // Neither the repository's own package nor its program.
    score.args(["-I", "-c", FIRST_SCORE]).env_remove("FISAO_BINARY");
    for command in [install, version, score] {
        if let failed @ Outcome::Failed(_) = run_visibly(root, command)? {
            return Ok(failed);
        }
    }
    Ok(Outcome::Passed)
}

fn program() -> String {
    format!("fisao{EXE_SUFFIX}")
}

pub(crate) fn has_python() -> bool {
    succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"]))
}

/// A Python that has [`TOOLS`]: the one that is there, or that of an environment of the project's own, which pip fills if it can.
fn tools(root: &Path) -> anyhow::Result<Option<PathBuf>> {
    let modules = ["-c", "import maturin, pytest, numpy, PIL"];
    if succeeds(Command::new("python3").args(modules)) {
        return Ok(Some("python3".into()));
    }
    let own = Environment::with(root.join("target/python-tools"), &TOOLS, &modules)?;
    Ok(own.map(|own| own.program("python")))
}

/// A virtual environment.
pub(crate) struct Environment {
    folder: PathBuf,
}

impl Environment {
    /// An empty one, in the place of what was there.
    fn create(folder: PathBuf) -> anyhow::Result<Self> {
        let status = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).status();
        let status = status.context("python3 could not be started")?;
        ensure!(status.success(), "`python3 -m venv {}` ended with {status}", folder.display());
        Ok(Self { folder })
    }

    /// One that has some packages, which pip brings where Python fails with the arguments `there`; nothing if pip cannot.
    pub(crate) fn with(
        folder: PathBuf,
        packages: &[&str],
        there: &[&str],
    ) -> anyhow::Result<Option<Self>> {
        let known = Self { folder };
        if succeeds(known.python().args(there)) {
            return Ok(Some(known));
        }
        let new = Self::create(known.folder)?;
        let brought = succeeds(new.python().args(["-m", "pip", "install", "-q"]).args(packages));
        Ok(brought.then_some(new))
    }

    /// Where it lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn program(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.join(if cfg!(windows) { "Scripts" } else { "bin" }).join(name.as_ref())
    }

    fn python(&self) -> Command {
        Command::new(self.program("python"))
    }
}

fn only_file(folder: &Path) -> anyhow::Result<PathBuf> {
    let files = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let files = files.map(|file| Ok(file?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    let [file] = &files[..] else {
        anyhow::bail!("{} holds {} files", folder.display(), files.len())
    };
    Ok(file.clone())
}
