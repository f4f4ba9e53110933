//! Work on several parts of a batch at once.
//!
//! A small model's tensor operations are too short to be worth sharing among cores. Giving each core
//! its own part of the batch keeps all of them busy; parts are joined in order, so results do not
//! depend on timing.

use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use rayon::ThreadPool;

use crate::fused::is_cpu;

/// One-threaded pools, one for each part that has ever been worked on at once. They are kept: what a
/// thread has allocated it can use again, and inside of them nothing is split a second time.
static WORKERS: Mutex<Vec<&'static ThreadPool>> = Mutex::new(Vec::new());

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

/// Applies `work` to `parts` equal shares of `items`, one thread each; results in order.
///
/// # Panics
/// When `work` panics.
pub fn over_shares<T: Sync, R: Send>(
    items: &[T],
    parts: usize,
    work: impl Fn(&[T]) -> R + Sync,
) -> Vec<R> {
    if items.is_empty() {
        return Vec::new();
    }
    let share = items.len().div_ceil(parts.max(1));
    // Inside a share there is nothing left to split: its worker would wait for itself.
    let inside = rayon::current_thread_index().is_some() && rayon::current_num_threads() == 1;
    if share == items.len() || inside {
        return items.chunks(share).map(work).collect();
    }
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(share)
            .enumerate()
            .map(|(index, part)| scope.spawn(move || worker(index).install(|| work(part))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// How many shares a batch is best worked on in: one for each core of the CPU. Another device spreads a
/// whole batch over all it has by itself.
pub fn shares_on(device: &Device) -> usize {
    if is_cpu(device) { cores() } else { 1 }
}

/// Number of cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
