//! Work on several parts of a batch at once.
//!
//! A small model's tensor operations are too short to be worth sharing among cores. Giving each core
//! its own part of the batch keeps all of them busy; parts are joined in order, so results do not
//! depend on timing.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use burn::tensor::Device;
use fisao_kernels::is_cpu;
pub use fisao_kernels::multiplies_in_tiles;
use rayon::ThreadPool;

/// One-threaded pools, one for each part that has ever been worked on at once. They are kept: what a
/// thread has allocated it can use again, and inside of them nothing is split a second time.
static WORKERS: Mutex<Vec<&'static ThreadPool>> = Mutex::new(Vec::new());

/// Cores that this process uses, if not all that it may.
static CORES: OnceLock<usize> = OnceLock::new();

/// The worker of part `index`.
fn worker(index: usize) -> &'static ThreadPool {
    let mut workers = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    while workers.len() <= index {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .thread_name(|_| "share".to_owned())
            .build()
            .expect("the system can start one more thread");
        workers.push(Box::leak(Box::new(pool)));
    }
    workers[index]
}

/// Runs `work` on worker `index`, where nothing is split among cores a second time; whoever asks for the same worker waits.
pub fn on_worker<R: Send>(index: usize, work: impl FnOnce() -> R + Send) -> R {
    worker(index).install(work)
}

/// Applies `work` to `parts` equal parts of `items`, one thread each; results in order.
///
/// # Panics
/// When `work` panics.
pub fn parallel_chunks<T: Sync, R: Send>(
    items: &[T],
    parts: usize,
    work: impl Fn(&[T]) -> R + Sync,
) -> Vec<R> {
    if items.is_empty() {
        return Vec::new();
    }
    let chunk = items.len().div_ceil(parts.max(1));
    // Inside a part there is nothing left to split: its worker would wait for itself.
    if chunk == items.len() || inside_worker() {
        return items.chunks(chunk).map(work).collect();
    }
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(chunk)
            .enumerate()
            .map(|(index, part)| scope.spawn(move || on_worker(index, || work(part))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Runs `work`, which shares many short pieces among all cores, with none of them falling asleep in between: waking one
/// takes as long as reading a hundred kilobytes of a matrix.
pub(crate) fn spinning_workers<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    /// Says that there is no more to come, even when `work` panics.
    struct Done<'a>(&'a AtomicBool);

    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }

    if rayon::current_num_threads() == 1 {
        return work();
    }
    let done = AtomicBool::new(false);
    rayon::scope(|scope| {
        let worker = rayon::current_thread_index();
        let done = &done;
        scope.spawn_broadcast(move |_, context| {
            // The one that works has come by here while it waits for the others.
            if Some(context.index()) == worker {
                return;
            }
            while !done.load(Ordering::Acquire) {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    spin_loop();
                }
            }
        });
        let _done = Done(done);
        work()
    })
}

/// How many workers process a batch best: one for each core of the CPU. Another device spreads a
/// whole batch over all it has by itself.
pub fn workers_on(device: &Device) -> usize {
    if is_cpu(device) { cores() } else { 1 }
}

/// Whether this is a thread that works alone.
fn inside_worker() -> bool {
    rayon::current_thread_index().is_some() && rayon::current_num_threads() == 1
}

/// Number of cores that may be used: those of this process, or the one of a [worker](on_worker), whose batches so are the same
/// however many others there are.
pub fn cores() -> usize {
    if inside_worker() {
        return 1;
    }
    CORES.get().copied().unwrap_or_else(cores_there)
}

/// Lets this process use so many cores, at least one, and no more: before it does anything with them.
///
/// # Panics
/// It has used some already.
pub fn use_cores(count: usize) {
    CORES.set(count).expect("cores are shared out once");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build_global();
    pool.expect("nothing is computed before cores are shared out");
}

/// Number of cores that the system lets this process run on.
pub fn cores_there() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The widest instructions that the CPU kernels use on this machine: `avx512`, `avx2` or `baseline`. Like the number of cores they
/// decide in which order sums are taken, and so their last bits.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if pulp::x86::V4::try_new().is_some() {
            return "avx512";
        }
        if pulp::x86::V3::try_new().is_some() {
            return "avx2";
        }
    }
    "baseline"
}
