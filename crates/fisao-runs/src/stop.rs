//! Ending work before its time, without losing what it has done.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Where work gets the flag that is raised to end it after its current step. It asks for the flag when it first has something to
/// keep: a program that listens for Ctrl-C need not do so before, when ending at once loses nothing.
pub type StopSource<'a> = &'a dyn Fn() -> anyhow::Result<Arc<AtomicBool>>;

/// A [`StopSource`] whose flag nobody raises.
pub fn never() -> anyhow::Result<Arc<AtomicBool>> {
    Ok(Arc::default())
}
