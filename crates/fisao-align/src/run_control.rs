//! Control of long work: progress, stopping, and responses that need not be generated again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fisao_models::generation::Generated;

use crate::error::AlignError;
use crate::team::Team;

/// Raised from anywhere, for instance by Ctrl-C; the default one never is.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// A flag that whoever holds the other end raises.
    pub fn new(raised: Arc<AtomicBool>) -> Self {
        Self(raised)
    }

    /// Whether it is raised.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Ends the work if it is raised.
    ///
    /// # Errors
    /// [`AlignError::Stopped`].
    pub fn check(&self) -> Result<(), AlignError> {
        if self.is_raised() { Err(AlignError::Stopped) } else { Ok(()) }
    }
}

/// A store of generated responses. A response is identified by the seed of its sampling and the number of its random
/// stream.
pub trait ResponseStore: Sync {
    /// All responses to a task, if they are stored.
    fn get(&self, seed: u64, stream: u64) -> Option<Vec<Generated>>;

    /// Stores the responses to some tasks, as many to each.
    ///
    /// # Errors
    /// [`AlignError::Unkept`].
    fn insert(&self, seed: u64, streams: &[u64], responses: &[Generated])
    -> Result<(), AlignError>;
}

/// Control of long work.
#[derive(Clone, Copy)]
pub struct RunControl<'a> {
    /// Called with the number of further items done, from any thread.
    pub advance: &'a (dyn Fn(usize) + Sync),
    /// Checked before every batch, if the work can be stopped.
    pub stop: Option<&'a StopFlag>,
    /// Responses that need not be generated again.
    pub kept: Option<&'a dyn ResponseStore>,
    /// How the work is shared, if it is.
    pub team: Option<Team<'a>>,
}

impl<'a> RunControl<'a> {
    /// Work that is not stopped, and of which nothing was done before.
    pub fn new(advance: &'a (dyn Fn(usize) + Sync)) -> Self {
        Self { advance, stop: None, kept: None, team: None }
    }

    /// The same that stops once a flag is raised.
    #[must_use]
    pub fn until(self, stop: &'a StopFlag) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// The same, shared.
    #[must_use]
    pub fn shared(self, team: Option<Team<'a>>) -> Self {
        Self { team, ..self }
    }

    /// Ends the work if that was asked for.
    ///
    /// # Errors
    /// [`AlignError::Stopped`].
    pub fn check(&self) -> Result<(), AlignError> {
        self.stop.map_or(Ok(()), StopFlag::check)
    }
}

impl fmt::Debug for RunControl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Course").field("stop", &self.stop).finish_non_exhaustive()
    }
}
