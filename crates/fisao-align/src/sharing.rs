//! Work that is shared: cut into parts, sent around, done and put together.

mod learner_state;
mod packed;
mod sums;
mod tree;

use std::ops::Range;

use fisao_models::parallel::{cores, on_worker, parallel_chunks};
use fisao_models::value_head::ValueHead;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::scorer::Verifier;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::link::{Link, decode, encode};
use crate::run_control::RunControl;
use crate::team::{Processes, Team};
use sums::{Sum, added_up};

pub(crate) use learner_state::LearnerState;
pub(crate) use packed::{PackedEmbedding, PackedFeatures, PackedPixels, PackedTask};
pub(crate) use tree::{children, parent};

/// A part of some work, which depends on nothing but itself and the models.
pub(crate) trait Work: Serialize + DeserializeOwned + Sync {
    /// By which a process knows it.
    const KIND: Kind;
    /// How answers are added up, where nobody asks for each of them.
    const ADD: Option<Add<Self::Answer>> = None;
    /// What it gives.
    type Answer: Serialize + DeserializeOwned + Send;

    /// Does it, by this process alone.
    fn done(
        &self,
        models: WorkModels<'_>,
        control: RunControl<'_>,
    ) -> Result<Self::Answer, AlignError>;
}

/// Adds the second to the first.
pub(crate) type Add<A> = fn(&mut A, A);

/// Kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Run the image encoders.
    Encode,
    /// Run the verifier's image encoder.
    EmbedViews,
    /// Encode images and write responses.
    Caption,
    /// Write responses about images that are encoded.
    Sample,
    /// Read given responses.
    Estimate,
    /// Say how likely given answers are.
    Likelihoods,
    /// Look at captions and their images with the decoder.
    DecoderViews,
    /// Differentiate the loss of given responses.
    Differentiate,
}

/// The models that work is done with.
#[derive(Clone, Copy)]
pub(crate) struct WorkModels<'a> {
    /// Everywhere but where a verifier alone looks at images.
    policy: Option<&'a VisionLanguageModel>,
    /// Where images are encoded.
    verifier: Option<&'a Verifier>,
    /// Where responses are read and differentiated under an objective with a critic.
    pub(crate) value_head: Option<&'a ValueHead>,
}

impl<'a> WorkModels<'a> {
    /// Those that there are.
    pub(crate) fn new(
        policy: Option<&'a VisionLanguageModel>,
        verifier: Option<&'a Verifier>,
        value_head: Option<&'a ValueHead>,
    ) -> Self {
        Self { policy, verifier, value_head }
    }

    /// A policy alone.
    pub(crate) fn of_policy(policy: &'a VisionLanguageModel) -> Self {
        Self::new(Some(policy), None, None)
    }

    /// That of work that needs one.
    ///
    /// # Panics
    /// Only a verifier was opened.
    pub(crate) fn policy(&self) -> &'a VisionLanguageModel {
        self.policy.expect("all processes have opened a model")
    }

    /// That of work that needs one.
    ///
    /// # Panics
    /// Only a model was opened.
    pub(crate) fn verifier(&self) -> &'a Verifier {
        self.verifier.expect("all processes have opened a verifier")
    }
}

/// What a process is told first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// There is work to do.
    Work(Header),
    /// Something for whoever opens the models.
    Order(String),
}

/// About work that is to be done.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Whether adapter and critic have moved: their state comes next, from the [parent].
    pub(crate) moved: bool,
    pub(crate) asked: Asked,
    /// See [`Team::of`].
    pub(crate) exact: bool,
}

/// What a process is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Asked {
    /// To know how adapter and critic have moved.
    Nothing,
    /// Answers to its [`Parts`], which come then, from process 0; to process 0.
    Answers,
    /// The same, added up with those of all below it in the tree; to its [parent].
    Sum,
}

/// Some of the parts of work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parts<W> {
    /// Of all.
    pub(crate) count: usize,
    /// Number of the first of these.
    first: usize,
    work: Vec<W>,
}

/// What a process answers, or which one failed, and why.
pub(crate) type Reply<A> = Result<Answers<A>, (usize, String)>;

/// Does `count` parts of work, at most as many as the team has [parts](Team::parts), and returns the answers in order, or their sum where
/// they are added up. What the others do is made and sent first.
///
/// # Errors
/// [`AlignError::Process`] when another process fails, [`AlignError::Link`] when it cannot be reached, and what the work itself reports.
pub(crate) fn perform<W: Work>(
    team: Team<'_>,
    models: WorkModels<'_>,
    count: usize,
    make: impl Fn(usize) -> W,
    control: RunControl<'_>,
) -> Result<Vec<W::Answer>, AlignError> {
    control.check()?;
    let exact = team.is_exact();
    let own = |process: usize| part(count, team.count(), process);
    let parts_of = |process: usize| {
        let own = own(process);
        Parts { count, first: own.start, work: own.map(&make).collect() }
    };
    let mut expected: Vec<(&dyn Link, usize)> = Vec::new();
    if let Some(others) = team.processes() {
        let link = others.link();
        let processes = link.processes();
        let moved = learner_moved(others, models)?;
        // Everybody has a part, and so a sum.
        let gathered = W::ADD.is_some() && count >= processes;
        let concerned = |process: usize| !own(process).is_empty();
        let told: Vec<usize> =
            (1..processes).filter(|&process| moved || concerned(process)).collect();
        for &process in &told {
            let asked = match (concerned(process), gathered) {
                (false, _) => Asked::Nothing,
                (true, false) => Asked::Answers,
                (true, true) => Asked::Sum,
            };
            let header = Header { kind: W::KIND, moved, asked, exact };
            link.send(process, &encode(&Message::Work(header))?)?;
        }
        if moved {
            let state = others.told();
            children(0, processes).try_for_each(|child| link.send(child, &state))?;
        }
        for process in told.into_iter().filter(|&process| concerned(process)) {
            link.send(process, &encode(&parts_of(process))?)?;
            if !gathered || parent(process) == 0 {
                expected.push((link, process));
            }
        }
    }
    let mut all = answers(models, &parts_of(0), exact, control);
    // The others' answers are waited for even after an error here: nothing must be left in the link that the next work does not expect.
    for (link, process) in expected {
        let further: Reply<W::Answer> = decode(&link.receive(process)?)?;
        all = match (all, further) {
            (Ok(known), Ok(further)) => Ok(known.and::<W>(further, count)),
            (Ok(_), Err((process, reason))) => Err(AlignError::Process { process, reason }),
            (Err(error), _) => Err(error),
        };
    }
    Ok(all?.into_each())
}

/// Whether the learner's state is another than the others were told last; what they are to be told is kept then. A verifier alone learns
/// nothing.
fn learner_moved(others: &Processes, models: WorkModels<'_>) -> Result<bool, AlignError> {
    let Some(policy) = models.policy else { return Ok(false) };
    let state = encode(&LearnerState::of(policy, models.value_head))?;
    let mut told = others.told();
    let moved = *told != state;
    *told = state;
    Ok(moved)
}

/// Neighbouring items in at most `count` parts whose sizes differ by one at most, none of them empty.
pub(crate) fn in_parts<T>(items: &[T], count: usize) -> impl Iterator<Item = &[T]> {
    let count = count.min(items.len());
    (0..count).map(move |at| &items[part(items.len(), count, at)])
}

/// Places of part `at` of so many items in `count` parts.
fn part(items: usize, count: usize, at: usize) -> Range<usize> {
    at * items / count..(at + 1) * items / count
}

/// What some parts give.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answers<A> {
    /// One after the other.
    Each(Vec<A>),
    /// As far as they can be added up.
    Sums(Vec<Sum<A>>),
}

impl<A> Answers<A> {
    /// Of parts from number `first` on, of `count` in all.
    fn of<W: Work<Answer = A>>(answers: Vec<A>, first: usize, count: usize) -> Self {
        let Some(add) = W::ADD else { return Self::Each(answers) };
        let numbered = answers.into_iter().zip(first..);
        let sums = numbered.map(|(answer, part)| Sum::of_part(part, answer)).collect();
        Self::Sums(added_up(sums, count, add))
    }

    /// These and those of a later process.
    pub(crate) fn and<W: Work<Answer = A>>(self, further: Self, count: usize) -> Self {
        match (self, further, W::ADD) {
            (Self::Sums(mut sums), Self::Sums(further), Some(add)) => {
                sums.extend(further);
                Self::Sums(added_up(sums, count, add))
            }
            (known, further, _) => {
                let mut each = known.into_each();
                each.extend(further.into_each());
                Self::Each(each)
            }
        }
    }

    /// One after the other.
    fn into_each(self) -> Vec<A> {
        match self {
            Self::Each(of) => of,
            Self::Sums(of) => of.into_iter().map(Sum::into_inner).collect(),
        }
    }
}

/// What work gives, by this process: exact work by one-threaded workers, as many at once as there are cores; other work by all of them.
pub(crate) fn answers<W: Work>(
    models: WorkModels<'_>,
    Parts { count, first, work }: &Parts<W>,
    exact: bool,
    control: RunControl<'_>,
) -> Result<Answers<W::Answer>, AlignError> {
    let control = RunControl { team: None, ..control };
    let all_of = |work: &[W]| -> Result<Vec<W::Answer>, AlignError> {
        work.iter().map(|work| work.done(models, control)).collect()
    };
    let threads = cores().min(work.len());
    let answers = if !exact {
        all_of(work)?
    } else if threads <= 1 {
        on_worker(0, || all_of(work))?
    } else {
        let parts = parallel_chunks(work, threads, all_of);
        parts.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect()
    };
    Ok(Answers::of::<W>(answers, *first, *count))
}
