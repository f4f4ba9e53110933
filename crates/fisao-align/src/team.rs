//! Work that is shared among parts: several processes, or a fixed number of shares that any number of processes and threads compute alike.
//!
//! One process, number 0, runs the command: it reads the images, rewards, decides, takes the optimiser's steps and writes every file. The others
//! [`serve`] it. What they are asked for depends on nothing but the request and the models that they have opened: image features, responses,
//! what forward passes say of tokens, gradients. So there is no state that could part: the adapter goes out with the work whenever it has
//! moved, and an error or a stop is one process's to handle.

mod messages;
mod serving;
mod sums;
mod tree;
mod work;

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fisao_models::parallel::{cores, on_worker, parallel_chunks};
use fisao_models::value_head::ValueHead;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::scorer::Verifier;
use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::run_control::RunControl;
use messages::{LearnerState, Message, decode, encode};
use sums::{Sum, added_up};

pub use messages::MessageError;
pub(crate) use messages::{PackedFeatures, PackedTask, as_bytes};
pub use serving::{next_order, order, serve};
pub(crate) use work::{Answer, Caption, Differentiate, Estimate, Sample, Work};

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

    /// Does `count` parts of work, at most as many as there are [`shares`](Self::shares), and returns the answers in order; gradients are
    /// added up. What the others do is made and sent first.
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
        let of_process = |process: usize| {
            let parts = process * count / processes..(process + 1) * count / processes;
            Parts { count, first: parts.start, work: parts.map(&make).collect() }
        };
        let mut expected: Vec<usize> = Vec::new();
        if let Some(others) = self.processes {
            let moved = self.learner_moved(others, models)?;
            for process in 1..processes {
                let parts = of_process(process);
                if parts.work.is_empty() && !moved {
                    continue;
                }
                // Sums come along the tree, where everybody has one.
                let gathered = count >= processes
                    && parts.work.iter().all(|work| matches!(work, Work::Differentiate(_)));
                let answers = !parts.work.is_empty();
                if answers && (!gathered || tree::parent(process) == 0) {
                    expected.push(process);
                }
                let message = Message::Work { moved, gathered, exact: self.exact, parts };
                others.link.send(process, &encode(&message)?)?;
            }
            if moved {
                let state = others.told.lock().unwrap_or_else(PoisonError::into_inner);
                for child in tree::children(0, processes) {
                    others.link.send(child, &state)?;
                }
            }
        }
        let own = answers(models, &of_process(0), self.exact, control);
        // The others' answers are waited for even after an error here: nothing must be left in the link that the next work does not expect.
        let (mut further, mut failed) = (Vec::new(), None);
        for process in expected {
            let others = self.processes.expect("somebody was asked");
            match decode::<Reply>(&others.link.receive(process)?)? {
                Ok(answers) => further.push(answers),
                Err((process, reason)) => {
                    failed = failed.or(Some(AlignError::Process { process, reason }));
                }
            }
        }
        let own = own?;
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(own.and(further, count).into_each())
    }

    /// Whether the learner's state is another than the others were told last; what they are to be told is kept then.
    fn learner_moved(
        &self,
        others: &Processes,
        models: WorkModels<'_>,
    ) -> Result<bool, AlignError> {
        let state = encode(&LearnerState::of(models.policy, models.value_head))?;
        let mut told = others.told.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = *told != state;
        *told = state;
        Ok(moved)
    }
}

/// What a process answers, or which one failed, and why.
type Reply = Result<Answers, (usize, String)>;

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

/// Some of the parts of work.
#[derive(Debug, Serialize, Deserialize)]
struct Parts {
    /// Of all.
    count: usize,
    /// Number of the first of these.
    first: usize,
    work: Vec<Work>,
}

/// What some parts give.
#[derive(Debug, Serialize, Deserialize)]
enum Answers {
    /// One after the other.
    Each(Vec<Answer>),
    /// Of what is differentiated.
    Sums(Vec<Sum>),
}

impl Answers {
    /// Of parts from number `first` on, of `count` in all.
    fn of(answers: Vec<Answer>, first: usize, count: usize) -> Self {
        let mut sums = Vec::new();
        let mut each = Vec::new();
        for (at, answer) in answers.into_iter().enumerate() {
            match answer {
                Answer::Differentiated(step) => sums.push(Sum::of_part(first + at, *step)),
                other => each.push(other),
            }
        }
        if sums.is_empty() {
            return Self::Each(each);
        }
        Self::Sums(added_up(sums, count, |sum, step| sum.add(&step)))
    }

    /// These and those of further processes, in order.
    fn and(self, further: Vec<Self>, count: usize) -> Self {
        let (mut each, mut sums) = (Vec::new(), Vec::new());
        for answers in std::iter::once(self).chain(further) {
            match answers {
                Self::Each(of) => each.extend(of),
                Self::Sums(of) => sums.extend(of),
            }
        }
        if sums.is_empty() {
            return Self::Each(each);
        }
        Self::Sums(added_up(sums, count, |sum, step| sum.add(&step)))
    }

    /// One after the other.
    fn into_each(self) -> Vec<Answer> {
        match self {
            Self::Each(of) => of,
            Self::Sums(of) => of
                .into_iter()
                .map(|sum| Answer::Differentiated(Box::new(sum.into_inner())))
                .collect(),
        }
    }
}

/// What work gives, by this process: exact work by one-threaded workers, as many at once as there are cores; other work by all of them.
fn answers(
    models: WorkModels<'_>,
    Parts { count, first, work }: &Parts,
    exact: bool,
    control: RunControl<'_>,
) -> Result<Answers, AlignError> {
    let control = RunControl { team: None, ..control };
    let all_of = |work: &[Work]| -> Result<Vec<Answer>, AlignError> {
        work.iter().map(|work| work.done_by(models, control)).collect()
    };
    let threads = cores().min(work.len());
    let answers = if !exact {
        all_of(work)?
    } else if threads <= 1 {
        on_worker(0, || all_of(work))?
    } else {
        let parts = parallel_chunks(work, threads, all_of);
        parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat()
    };
    Ok(Answers::of(answers, *first, *count))
}
