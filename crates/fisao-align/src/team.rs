//! Work that is shared among parts: several processes, or a fixed number of shares that any number of processes and threads compute alike.
//!
//! One process, number 0, runs the command: it reads the images, rewards, decides, takes the optimiser's steps and writes every file. The others
//! [`serve`] it. What they are asked for depends on nothing but the request and the models that they have opened: image features, responses,
//! what forward passes say of tokens, gradients. So there is no state that could part: the adapter goes out with the work whenever it has
//! moved, and an error or a stop is one process's to handle.

mod messages;
mod serving;
mod work;

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fisao_models::parallel::{cores, on_worker, parallel_chunks};
use fisao_models::value_head::ValueHead;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::scorer::Verifier;

use crate::error::AlignError;
use crate::run_control::RunControl;
use messages::{LearnerState, Message, decode, encode};

pub use messages::MessageError;
pub(crate) use messages::{PackedFeatures, PackedTask, as_bytes};
pub use serving::{next_order, order, serve};
pub(crate) use work::{Answer, Differentiate, Estimate, Sample, Work};

/// Shares of [exact](Team::exact) work.
pub const SHARES: usize = 8;

/// A link between this process and the others of a command. Process 0 is the one that runs it.
pub trait Link: Debug + Send + Sync {
    /// Number of this process.
    fn number(&self) -> usize;

    /// How many there are, this one among them.
    fn processes(&self) -> usize;

    /// Sends a message.
    ///
    /// # Errors
    /// [`LinkError`] when the other process cannot be reached.
    fn send(&self, to: usize, message: &[u8]) -> Result<(), LinkError>;

    /// The next message from a process; waits for it.
    ///
    /// # Errors
    /// [`LinkError`] when the other process cannot be reached.
    fn receive(&self, from: usize) -> Result<Vec<u8>, LinkError>;
}

/// A process that cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("process {process} cannot be reached: {reason}")]
pub struct LinkError {
    /// Its number.
    pub process: usize,
    /// What is wrong.
    pub reason: String,
}

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

/// The models that work is done with.
#[derive(Clone, Copy)]
pub(crate) struct WorkModels<'a> {
    pub(crate) policy: &'a VisionLanguageModel,
    /// For [`Work::Encode`].
    pub(crate) verifier: Option<&'a Verifier>,
    /// For [`Work::Estimate`] and [`Work::Differentiate`], where the objective has a critic.
    pub(crate) value_head: Option<&'a ValueHead>,
}

impl<'a> Team<'a> {
    /// How to share work among processes, if there are others, or to do it exactly, if that is asked for: in eight shares, each of them
    /// computed by one thread, whose results are put together in order. `None` where this process works alone, however it likes.
    pub fn of(processes: Option<&'a Processes>, exact: bool) -> Option<Self> {
        let processes = processes
            .filter(|others| others.link.processes() > 1 && !others.left.load(Ordering::Relaxed));
        (processes.is_some() || exact).then_some(Self { processes, exact })
    }

    /// Parts that work is cut into.
    pub(crate) fn shares(&self) -> usize {
        if self.exact { SHARES } else { self.count() }
    }

    /// Parts that this process cuts work into which it does alone: those of exact work, or else `usual` ones.
    pub(crate) fn parts(team: Option<Team<'_>>, usual: usize) -> usize {
        team.filter(|team| team.exact).map_or(usual, |_| SHARES)
    }

    /// Whether results are the same to the bit for any number of processes and threads.
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    fn count(&self) -> usize {
        self.processes.map_or(1, |others| others.link.processes())
    }

    /// Does `count` parts of work, at most as many as there are [`shares`](Self::shares), and returns the answers in order. What the others
    /// do is made and sent first.
    ///
    /// # Errors
    /// [`AlignError::Process`] when another process fails or cannot be reached, and what the work itself reports.
    pub(crate) fn perform(
        &self,
        models: WorkModels<'_>,
        count: usize,
        make: impl Fn(usize) -> Work,
        control: RunControl<'_>,
    ) -> Result<Vec<Answer>, AlignError> {
        control.check()?;
        let processes = self.count();
        let of_process = |process: usize| -> Vec<Work> {
            let parts = process * count / processes..(process + 1) * count / processes;
            parts.map(&make).collect()
        };
        let mut asked = Vec::new();
        if let Some(others) = self.processes {
            self.tell_learner(others, models)?;
            for process in 1..processes {
                let work = of_process(process);
                if !work.is_empty() {
                    let message = Message::Work { exact: self.exact, work };
                    others.link.send(process, &encode(&message)?)?;
                    asked.push((process, &*others.link));
                }
            }
        }
        let own = answers(models, &of_process(0), self.exact, control);
        // The others' answers are waited for even after an error here: nothing must be left in the link that the next work does not expect.
        let (mut further, mut failed) = (Vec::new(), None);
        for (process, link) in asked {
            match decode::<Result<Vec<Answer>, String>>(&link.receive(process)?)? {
                Ok(answers) => further.extend(answers),
                Err(reason) => failed = failed.or(Some(AlignError::Process { process, reason })),
            }
        }
        let mut all = own?;
        if let Some(error) = failed {
            return Err(error);
        }
        all.extend(further);
        Ok(all)
    }

    /// Lets the others' models be as these are.
    fn tell_learner(&self, others: &Processes, models: WorkModels<'_>) -> Result<(), AlignError> {
        let message =
            encode(&Message::Learner(LearnerState::of(models.policy, models.value_head)))?;
        let mut told = others.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != message {
            for process in 1..others.link.processes() {
                others.link.send(process, &message)?;
            }
            *told = message;
        }
        Ok(())
    }
}

/// Neighbouring items in at most `count` shares whose sizes differ by one at most, none of them empty.
pub(crate) fn shares<T>(items: &[T], count: usize) -> impl Iterator<Item = &[T]> {
    let count = count.min(items.len());
    let edge = move |share: usize| share * items.len() / count;
    (0..count).map(move |share| &items[edge(share)..edge(share + 1)])
}

/// An answer to something else than was asked.
pub(crate) fn unexpected() -> AlignError {
    MessageError::unexpected().into()
}

/// What work gives, by this process: exact work by one-threaded workers, as many at once as there are cores; other work by all of them.
fn answers(
    models: WorkModels<'_>,
    work: &[Work],
    exact: bool,
    control: RunControl<'_>,
) -> Result<Vec<Answer>, AlignError> {
    let control = RunControl { team: None, ..control };
    let all_of = |work: &[Work]| -> Result<Vec<Answer>, AlignError> {
        work.iter().map(|work| work.done_by(models, control)).collect()
    };
    if !exact {
        return all_of(work);
    }
    let threads = cores().min(work.len());
    if threads <= 1 {
        return on_worker(0, || all_of(work));
    }
    let parts = parallel_chunks(work, threads, all_of);
    Ok(parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}
