//! `cargo xtask kill`: an alignment run that is killed at random moments, again and again, or whose disk fills up, must end with
//! the same bytes as one that was left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::full_disk::{self, Shortage};

/// What is compared, in the run's folder.
const RESULTS: [&str; 5] = [
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "metrics.jsonl",
    "validation.jsonl",
    "calibration.json",
];

#[derive(Debug, Args)]
pub(crate) struct KillArguments {
    /// How often the run is killed.
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// Iterations of the run.
    #[arg(long, default_value_t = 40)]
    iterations: usize,
    /// Seed of the run and of the moments.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Fill the disk at every file of a short run, and at every N-th page; 0 leaves this out. Where file systems cannot be mounted
    /// it is skipped.
    #[arg(long, default_value_t = 1, value_name = "N")]
    full_disk: u64,
    /// The command, instead of one that is built first.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// More settings of the run, such as objective.kind=dpo.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Builds the command, makes both runs and compares them.
pub(crate) fn kill(root: &Path, arguments: &KillArguments) -> anyhow::Result<()> {
    let binary = match &arguments.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => build(root)?,
    };
    let folder = std::env::temp_dir().join(format!("fisao-kill-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    if arguments.full_disk > 0 {
        fill_disk(&binary, &folder, arguments)?;
    }
    if arguments.kills > 0 {
        kill_often(&binary, &folder, arguments)?;
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// A run that is killed so many times.
fn kill_often(binary: &Path, folder: &Path, arguments: &KillArguments) -> anyhow::Result<()> {
    let run = |name: &str| begin(binary, &folder.join(name), arguments);

    eprintln!("the run that is left alone");
    let started = Instant::now();
    let alone = run("alone").output()?;
    ensure!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
    let whole = started.elapsed();
    eprintln!("  {:.0} s", whole.as_secs_f64());

    let mut random = arguments.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let (mut kills, mut longest) = (0, whole.mul_f64(0.3));
    let cut = folder.join("cut");
    let started = Instant::now();
    loop {
        let begun = cut.join("config.toml");
        let command =
            if begun.exists() { resume(binary, &cut) } else { begin(binary, &cut, arguments) };
        let delay = (kills < arguments.kills).then(|| longest.mul_f64(uniform(&mut random)));
        // Most lives begin with the run: calibration before it takes long, and leaves nothing.
        let after = (!kills.is_multiple_of(8)).then_some(begun.as_path());
        match run_for(command, delay, after)? {
            Ended::Killed => {
                kills += 1;
                eprintln!("  killed {kills} times, {} iterations recorded", recorded(&cut));
            }
            Ended::Done if kills < arguments.kills => {
                // Over too soon: begin anew with shorter lives, and keep count.
                eprintln!("  over after {kills} kills; compared, and begun anew");
                compare(&folder.join("alone"), &cut)?;
                fs::remove_dir_all(&cut)?;
                longest = longest.mul_f64(0.8);
            }
            Ended::Done => break,
        }
    }
    compare(&folder.join("alone"), &cut)?;
    eprintln!(
        "after {kills} kills in {:.0} s, adapter and metrics are the same to the byte",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A short run whose disk fills up at every write.
fn fill_disk(binary: &Path, folder: &Path, arguments: &KillArguments) -> anyhow::Result<()> {
    /// Few and small files, each of which is still written several times.
    const SHORT: [&str; 9] = [
        "align.iterations=3",
        "align.images-per-iteration=4",
        "align.epochs=1",
        "align.minibatches=1",
        "checkpoint.every=1",
        "checkpoint.best=reward",
        "validation-every=2",
        "lora.rank=1",
        "lora.target-modules=[\"q_proj\"]",
    ];
    let short = |output: &Path| {
        let mut command = Command::new(binary);
        command.args(["align", "--demo", "--seed", &arguments.seed.to_string()]);
        command.args(SHORT.iter().flat_map(|setting| ["--set", setting]));
        command.arg("--output").arg(output);
        command
    };
    let (alone, begun) = (folder.join("short-alone"), folder.join("short-begun"));
    let output = short(&alone).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Killed as soon as it has its folder: calibration is done, and nothing learned.
    let mut child = short(&begun).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    while !begun.join("config.toml").exists() {
        ensure!(child.try_wait()?.is_none(), "the short run ended before it began");
        sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()?;
    for (shortage, step) in [(Shortage::Files, 1), (Shortage::Room, arguments.full_disk)] {
        eprintln!("a disk without {shortage:?}");
        let failed = full_disk::fill(
            &begun,
            &folder.join("disk"),
            (shortage, step),
            |run| resume(binary, run),
            |run| compare(&alone, run),
        )?;
        if let Some(failed) = failed {
            eprintln!(
                "  {failed} runs met the end of the disk, and went on to the same bytes; the next had enough"
            );
        }
    }
    Ok(())
}

fn resume(binary: &Path, run: &Path) -> Command {
    let mut command = Command::new(binary);
    command.args(["align", "--resume"]).arg(run);
    command
}

fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--workspace", "--release"])
        .current_dir(root)
        .status()?;
    ensure!(built.success(), "the command could not be built");
    Ok(root.join("target/release/fisao"))
}

fn begin(binary: &Path, output: &Path, arguments: &KillArguments) -> Command {
    let mut command = Command::new(binary);
    command.args(["align", "--demo", "--seed", &arguments.seed.to_string()]);
    command.args(["--set", &format!("align.iterations={}", arguments.iterations)]);
    command.args(["--set", "checkpoint.every=3", "--set", "validation-every=5"]);
    command.args(arguments.set.iter().flat_map(|setting| ["--set", setting]));
    command.arg("--output").arg(output);
    command
}

enum Ended {
    Killed,
    Done,
}

/// Runs a command for so long at most, counted from when a file is there; it must not fail.
fn run_for(
    mut command: Command,
    delay: Option<Duration>,
    after: Option<&Path>,
) -> anyhow::Result<Ended> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut started = Instant::now();
    let mut waiting = after.is_some_and(|file| !file.exists());
    while waiting || delay.is_none_or(|delay| started.elapsed() < delay) {
        if waiting && after.is_some_and(Path::exists) {
            (waiting, started) = (false, Instant::now());
        }
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(Ended::Done);
            }
            let output = child.wait_with_output()?;
            bail!("{status}: {}", String::from_utf8_lossy(&output.stderr));
        }
        sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    Ok(Ended::Killed)
}

fn compare(alone: &Path, cut: &Path) -> anyhow::Result<()> {
    for name in RESULTS {
        let read = |run: &Path| {
            let path = run.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        ensure!(
            read(alone)? == read(cut)?,
            "{name} differs: {} {}",
            alone.display(),
            cut.display()
        );
    }
    Ok(())
}

fn recorded(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// The next of a sequence of numbers in `[0, 1)` (`SplitMix64`).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
