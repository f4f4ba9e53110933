//! A run on a disk that fills up: at every page that it needs, and at every file, it must end with an error that says so, and go
//! on to the same bytes once there is room.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail, ensure};

/// Bytes that a file system in memory gives out at a time.
const PAGE: u64 = 4096;
/// Room for everything.
const ENOUGH: &str = "size=1g,nr_inodes=100000";

/// What runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// Pages.
    Room,
    /// Files.
    Files,
}

/// A file system in memory, unmounted when this is dropped.
struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// `None` where we may not mount one; the reason is printed.
    fn mount(place: &Path) -> anyhow::Result<Option<Self>> {
        fs::create_dir_all(place)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", ENOUGH, "fisao-kill"])
            .arg(place)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Some(Self { place: place.to_owned() })),
            Ok(output) => {
                eprintln!("  skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
                Ok(None)
            }
            Err(error) => {
                eprintln!("  skipped: mount cannot be run: {error}");
                Ok(None)
            }
        }
    }

    fn limit(&self, options: &str) -> anyhow::Result<()> {
        let options = format!("remount,{options}");
        let output = Command::new("mount").args(["-o", &options]).arg(&self.place).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.place).status();
    }
}

/// Goes on with a run that was begun and killed, on a disk with room for one page or file more each time, until there is enough.
/// `resume` makes the command that goes on with the run in a folder, `compare` the comparison with a run that was left alone.
/// Every `step`th page is tried. Returns how many runs met the end of the disk; `None` where none could be limited.
pub(crate) fn fill(
    begun: &Path,
    place: &Path,
    (shortage, step): (Shortage, u64),
    resume: impl Fn(&Path) -> Command,
    compare: impl Fn(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<Option<usize>> {
    let Some(disk) = SmallDisk::mount(place)? else { return Ok(None) };
    let run = place.join("run");
    let mut failed = 0;
    for more in (1..).step_by(usize::try_from(step)?) {
        disk.limit(ENOUGH)?;
        if run.exists() {
            fs::remove_dir_all(&run)?;
        }
        copy(begun, &run)?;
        let (pages, files) = used(place)?;
        disk.limit(&match shortage {
            Shortage::Room => format!("size={}", (pages + more) * PAGE),
            Shortage::Files => format!("nr_inodes={}", files + more),
        })?;
        let output = resume(&run).output()?;
        let enough = output.status.success();
        if !enough {
            check_refusal(&output).with_context(|| format!("{shortage:?} for {more} more"))?;
            failed += 1;
            eprintln!("  {shortage:?} ended after {} of them", more - 1);
            disk.limit(ENOUGH)?;
            let output = resume(&run).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{shortage:?} for {more} more: {said}");
        }
        compare(&run).with_context(|| format!("{shortage:?} for {more} more"))?;
        if enough {
            break;
        }
    }
    Ok(Some(failed))
}

/// A full disk is an error of the user's surroundings, said in words.
fn check_refusal(output: &Output) -> anyhow::Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(1) && said.contains("No space left on device") {
        return Ok(());
    }
    bail!("{}: {said}", output.status)
}

/// Pages and files that are in use, by `df`.
fn used(place: &Path) -> anyhow::Result<(u64, u64)> {
    let output =
        Command::new("df").args(["--output=used,iused", "-B", "4096"]).arg(place).output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut numbers = text.lines().last().unwrap_or_default().split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(pages)), Some(Ok(files))) => Ok((pages, files)),
        _ => bail!("df says {text}"),
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
