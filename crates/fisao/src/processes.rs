//! A command of several processes, which MPI starts where this is a build with the feature `mpi`.

use std::env;
use std::process::ExitCode;

use anyhow::bail;
use fisao_runs::failure::Refusal;

use crate::command_line::Command;

/// Where launchers say how many processes they have started: Open MPI, and those that speak PMI (MPICH, Slurm).
const COUNTS: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];
/// What launchers set that speak `PMIx`, and where Slurm says it then.
const PMIX: [&str; 2] = ["PMIX_RANK", "SLURM_STEP_NUM_TASKS"];

/// Refuses what several processes would each do as a whole.
fn check(command: &Command, processes: usize) -> anyhow::Result<()> {
    if processes < 2 || command.is_shared() {
        return Ok(());
    }
    bail!(
        Refusal::new(format!(
            "this command does not share its work, and {processes} processes of it were started"
        ))
        .hint("start it without mpirun; align, demo, compare, calibrate, caption, verify and what eval asks a model take several processes")
    )
}

/// Runs a command in process 0, which the others serve.
#[cfg(feature = "mpi")]
pub(crate) fn shared(
    command: &Command,
    run: impl FnOnce() -> ExitCode,
) -> anyhow::Result<ExitCode> {
    use std::sync::Arc;

    use fisao_align::link::Link as _;
    use fisao_runs::bundle::open_wanted;
    use fisao_runs::processes;

    if started().is_none() {
        return Ok(run());
    }
    let (_universe, world) = crate::mpi::enter()?;
    if world.processes() == 1 {
        return Ok(run());
    }
    if world.number() > 0 {
        // Ctrl-C is for process 0 to decide about.
        crate::interrupt::flag()?;
        if check(command, world.processes()).is_ok() {
            processes::serve_command(&world, open_wanted)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    check(command, world.processes())?;
    processes::share_with(Arc::new(world));
    let code = run();
    processes::quit()?;
    Ok(code)
}

/// Runs a command, which is alone: this build knows nothing of others.
#[cfg(not(feature = "mpi"))]
pub(crate) fn shared(
    command: &Command,
    run: impl FnOnce() -> ExitCode,
) -> anyhow::Result<ExitCode> {
    let Some(processes) = started().filter(|&count| count > 1) else { return Ok(run()) };
    check(command, processes)?;
    bail!(
        Refusal::new(format!("{processes} processes were started, and this build does not know how to share work among them"))
            .hint("build it with --features mpi, or start one process")
    )
}

/// How many processes a launcher of MPI says that it has started; `None` without one. Slurm alone is none: its tasks may be commands of
/// their own.
fn started() -> Option<usize> {
    let number = |name| env::var(name).ok()?.parse().ok();
    let [rank, count] = PMIX;
    let by_pmix = || env::var_os(rank).map(|_| number(count).unwrap_or(1));
    COUNTS.into_iter().find_map(number).or_else(by_pmix)
}
