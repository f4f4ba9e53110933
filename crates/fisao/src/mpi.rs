//! Processes that MPI has started: `mpirun -n 4 fisao …`.
//!
//! Messages are bytes from one process to another. A process that waits for one looks for it with pauses in between: MPI's own waiting
//! keeps a core busy, which processes that share a machine cannot spare.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fisao_align::link::{Link, LinkError};
use fisao_models::parallel::{cores_there, use_cores};
use mpi::Threading;
use mpi::environment::{self, Universe};
use mpi::topology::{Process, SimpleCommunicator};
use mpi::traits::{
    Communicator as _, CommunicatorCollectives as _, Destination as _, Equivalence as _,
    Source as _,
};

/// Most bytes of one of MPI's messages, whose lengths are 31 bits.
const PIECE: usize = 1 << 30;
/// How long a message is looked for without a pause.
const SPINNING: Duration = Duration::from_micros(200);
/// Between two looks from then on.
const PAUSE: Duration = Duration::from_micros(500);

/// Enters MPI; it is left when the result is dropped.
pub(crate) fn enter() -> anyhow::Result<(Universe, World)> {
    // Messages are sent by whichever thread works, one at a time.
    let (universe, threading) = environment::initialize_with_threading(Threading::Serialized)
        .context("MPI cannot be entered")?;
    anyhow::ensure!(threading >= Threading::Serialized, "this MPI takes calls of one thread only");
    let world = universe.world();
    share_cores(&world);
    let (number, processes) = (world.rank() as usize, world.size() as usize);
    Ok((universe, World { number, processes, one_at_a_time: Mutex::new(()) }))
}

/// Lets processes that may run on the same cores, as launchers leave them without binding, share these evenly.
fn share_cores(world: &SimpleCommunicator) {
    let allowed = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed =
        allowed.lines().find(|line| line.starts_with("Cpus_allowed:")).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    allowed.hash(&mut hasher);
    let own = hasher.finish();
    let machine = world.split_shared(world.rank());
    let mut all = vec![0_u64; machine.size() as usize];
    machine.all_gather_into(&own, &mut all[..]);
    let sharing = all.iter().filter(|&&of| of == own).count();
    // Whoever sets the number of threads has shared them out.
    if sharing > 1 && env::var_os("RAYON_NUM_THREADS").is_none() {
        use_cores((cores_there() / sharing).max(1));
    }
}

/// All processes of a command.
#[derive(Debug)]
pub(crate) struct World {
    number: usize,
    processes: usize,
    one_at_a_time: Mutex<()>,
}

impl World {
    fn alone(&self) -> MutexGuard<'_, ()> {
        self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next of MPI's messages from a process.
    fn piece(&self, from: usize) -> Vec<u8> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(from as i32);
        let started = Instant::now();
        loop {
            {
                let _alone = self.alone();
                if let Some((message, status)) = process.immediate_matched_probe() {
                    let mut bytes = vec![0; status.count(u8::equivalent_datatype()) as usize];
                    message.matched_receive_into(&mut bytes[..]);
                    return bytes;
                }
            }
            if started.elapsed() > SPINNING {
                thread::sleep(PAUSE);
            }
        }
    }
}

impl Link for World {
    fn number(&self) -> usize {
        self.number
    }

    fn processes(&self) -> usize {
        self.processes
    }

    /// The length, and then the content in pieces. MPI ends all processes where one cannot be reached.
    fn send(&self, to: usize, message: &[u8]) -> Result<(), LinkError> {
        let world = SimpleCommunicator::world();
        let process: Process<'_> = world.process_at_rank(to as i32);
        let _alone = self.alone();
        process.send(&(message.len() as u64).to_le_bytes()[..]);
        message.chunks(PIECE).for_each(|piece| process.send(piece));
        Ok(())
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, LinkError> {
        let broken = || LinkError { process: from, reason: "it sent no length".to_owned() };
        let length = self.piece(from).try_into().map_err(|_| broken())?;
        let length = u64::from_le_bytes(length) as usize;
        let mut message = Vec::with_capacity(length);
        while message.len() < length {
            message.extend(self.piece(from));
        }
        Ok(message)
    }
}
