//! Ctrl-C and SIGTERM as a request to finish the current step.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// A flag that the first Ctrl-C raises; the second one ends the process at once.
pub(crate) fn flag() -> anyhow::Result<Arc<AtomicBool>> {
    if let Some(flag) = FLAG.get() {
        return Ok(Arc::clone(flag));
    }
    let flag = Arc::clone(FLAG.get_or_init(Arc::default));
    let raised = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            abort();
        }
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(flag)
}

/// Ends the process at once.
#[expect(
    clippy::exit,
    reason = "the user insists: a signal handler or a thread has nothing to return to"
)]
pub(crate) fn abort() -> ! {
    std::process::exit(130)
}
