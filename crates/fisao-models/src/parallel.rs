//! Work on several parts of a batch at once.
//!
//! Many tensor operations of the CPU backend run on one core. Giving each core its own part of the
//! batch keeps all of them busy; parts are joined in order, so results do not depend on timing.

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
    if share == items.len() {
        return vec![work(items)];
    }
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            items.chunks(share).map(|part| scope.spawn(move || work(part))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Number of cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
