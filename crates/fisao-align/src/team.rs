//! Who shares the work of a command: processes, or a fixed number of parts that any number of processes and threads compute alike.
//!
//! One process, number 0, runs the command: it reads the images, rewards, decides, takes the optimiser's steps and writes every file. The others
//! [serve](crate::serving::serve) it. What they are asked for depends on nothing but the request and the models that they have opened: image
//! features, responses, what forward passes say of tokens, gradients. So there is no state that could part: the adapter goes out with the
//! work whenever it has moved, and an error or a stop is one process's to handle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::link::Link;

/// Parts of [exact](Team::of) work.
pub const PARTS: usize = 8;

/// The other processes of a command, with what they know of it.
#[derive(Debug)]
pub struct Processes {
    link: Arc<dyn Link>,
    /// The learner's state that each of them was told last, encoded.
    told: Mutex<Vec<u8>>,
    /// Whether they have opened other models since.
    left: AtomicBool,
}

impl Processes {
    /// Those behind a link, which have opened the models.
    pub fn new(link: Arc<dyn Link>) -> Self {
        Self { link, told: Mutex::default(), left: AtomicBool::new(false) }
    }

    /// What connects them.
    pub(crate) fn link(&self) -> &dyn Link {
        &*self.link
    }

    /// What they were told of the learner last.
    pub(crate) fn told(&self) -> MutexGuard<'_, Vec<u8>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shares nothing with them from now on: they are to open other models.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }
}

/// How work is shared.
#[derive(Debug, Clone, Copy)]
pub struct Team<'a> {
    /// The other processes, where there are any.
    processes: Option<&'a Processes>,
    /// Whether results are to be the same to the bit for any number of processes and threads.
    exact: bool,
}

impl<'a> Team<'a> {
    /// How to share work among processes, if there are others, or to do it exactly, if that is asked for: in eight parts, each of them
    /// computed by one thread, whose results are put together in order. `None` where this process works alone, however it likes.
    pub fn of(processes: Option<&'a Processes>, exact: bool) -> Option<Self> {
        let processes = processes
            .filter(|others| others.link.processes() > 1 && !others.left.load(Ordering::Relaxed));
        (processes.is_some() || exact).then_some(Self { processes, exact })
    }

    /// Parts that work is cut into.
    pub(crate) fn parts(&self) -> usize {
        if self.exact { PARTS } else { self.count() }
    }

    /// Parts of work that can be done at once where one process does `alone` of them: as many for any number of processes and threads
    /// where results are to be the same.
    pub fn parts_at_once(&self, alone: usize) -> usize {
        if self.exact { PARTS } else { self.count() * alone }
    }

    /// Whether results are the same to the bit for any number of processes and threads.
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// The others.
    pub(crate) fn processes(&self) -> Option<&'a Processes> {
        self.processes
    }

    /// How many processes there are, this one among them.
    pub(crate) fn count(&self) -> usize {
        self.processes.map_or(1, |others| others.link.processes())
    }
}
