//! What long work says on its way: remarks, warnings and progress as typed events, for whoever observes it.

use std::collections::BTreeSet;
use std::fmt::{self, Debug, Display};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something worth knowing about work that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A remark.
    Note(String),
    /// What must not be missed.
    Warning {
        /// What is wrong.
        text: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A part of the work begins.
    PhaseStarted {
        /// Tells its later events from those of others.
        phase: PhaseId,
        /// What is done.
        name: String,
        /// What is counted.
        unit: Unit,
        /// Steps done before, by another process.
        done: u64,
        /// Steps in all.
        total: u64,
    },
    /// More of a phase is done.
    PhaseAdvanced {
        /// Which phase.
        phase: PhaseId,
        /// Steps done so far.
        done: u64,
        /// Steps in all, as far as is known by now.
        total: u64,
    },
    /// What else there is to say about a phase's last step, such as its loss.
    PhaseMessage {
        /// Which phase.
        phase: PhaseId,
        /// In place of what was said before.
        text: String,
    },
    /// A phase came to its end; [`Event::PhaseClosed`] follows.
    PhaseFinished(PhaseId),
    /// A phase is over, well or not: its last event.
    PhaseClosed(PhaseId),
}

/// One phase of all that a [`Reporter`] began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PhaseId(u64);

/// What a phase counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Pieces of work.
    Steps,
    /// Bytes of a transfer.
    Bytes,
}

/// Who is told what happens: a terminal, a log, a test. Any function of an event is one.
///
/// Events come from any thread; those of one phase come one after the other.
pub trait Observer: Send + Sync {
    /// Takes note of an event.
    fn on(&self, event: Event);
}

impl<F: Fn(Event) + Send + Sync> Observer for F {
    fn on(&self, event: Event) {
        self(event);
    }
}

/// Where work says how far it is; clones tell the same observer.
#[derive(Clone)]
pub struct Reporter {
    inner: Arc<Inner>,
}

struct Inner {
    observer: Box<dyn Observer>,
    phases: AtomicU64,
    /// Notes that are not told again.
    told: Mutex<BTreeSet<String>>,
}

impl Reporter {
    /// Tells an observer.
    pub fn new(observer: impl Observer + 'static) -> Self {
        let (phases, told) = (AtomicU64::new(0), Mutex::default());
        Self { inner: Arc::new(Inner { observer: Box::new(observer), phases, told }) }
    }

    /// Tells nobody.
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    /// Begins a part of the work that takes `total` steps.
    pub fn phase(&self, name: &str, total: u64) -> PhaseProgress {
        self.phase_from(name, 0, total)
    }

    /// Begins a part of the work of which `done` steps were made before, by another process.
    pub fn phase_from(&self, name: &str, done: u64, total: u64) -> PhaseProgress {
        self.begin(name, done, total, Unit::Steps)
    }

    /// Begins a transfer of `total` bytes.
    pub fn transfer(&self, name: &str, total: u64) -> PhaseProgress {
        self.begin(name, 0, total, Unit::Bytes)
    }

    fn begin(&self, name: &str, done: u64, total: u64, unit: Unit) -> PhaseProgress {
        let phase = PhaseId(self.inner.phases.fetch_add(1, Ordering::Relaxed));
        self.tell(Event::PhaseStarted { phase, name: name.to_owned(), unit, done, total });
        PhaseProgress { phase, reporter: self.clone(), state: Mutex::new(State { done, total }) }
    }

    /// Says something worth knowing.
    pub fn note(&self, text: impl Display) {
        self.tell(Event::Note(text.to_string()));
    }

    /// Says something that is worth knowing once.
    pub fn note_once(&self, text: impl Display) {
        let text = text.to_string();
        let new = {
            let mut told = self.inner.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.insert(text.clone())
        };
        if new {
            self.note(text);
        }
    }

    /// Says what the user must not miss.
    pub fn warn(&self, text: impl Display, hint: Option<&str>) {
        self.tell(Event::Warning { text: text.to_string(), hint: hint.map(str::to_owned) });
    }

    fn tell(&self, event: Event) {
        self.inner.observer.on(event);
    }
}

impl Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").finish_non_exhaustive()
    }
}

/// One part of the work; may be advanced from any thread.
#[derive(Debug)]
pub struct PhaseProgress {
    phase: PhaseId,
    reporter: Reporter,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    done: u64,
    total: u64,
}

impl PhaseProgress {
    /// Some more steps are done.
    pub fn advance(&self, steps: u64) {
        let mut state = self.state();
        state.done += steps;
        self.show(&state);
    }

    /// This much is done of what has turned out to be this much.
    pub fn reach(&self, done: u64, total: u64) {
        let mut state = self.state();
        *state = State { done, total };
        self.show(&state);
    }

    /// Says what else there is to say about the last step, such as its loss.
    pub fn message(&self, message: impl Display) {
        let text = message.to_string();
        self.reporter.tell(Event::PhaseMessage { phase: self.phase, text });
    }

    /// This part is done.
    pub fn finish(self) {
        self.reporter.tell(Event::PhaseFinished(self.phase));
    }

    /// Tells how far it is, while no other thread does.
    fn show(&self, &State { done, total }: &State) {
        self.reporter.tell(Event::PhaseAdvanced { phase: self.phase, done, total });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while counting leaves nothing worse than a wrong count.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PhaseProgress {
    fn drop(&mut self) {
        self.reporter.tell(Event::PhaseClosed(self.phase));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reporter, and what it has told so far.
    fn recorded() -> (Reporter, Arc<Mutex<Vec<Event>>>) {
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let told = Arc::clone(&events);
        (Reporter::new(move |event| told.lock().unwrap().push(event)), events)
    }

    #[test]
    fn steps_are_counted_from_any_thread() {
        let (reporter, events) = recorded();
        let progress = reporter.phase_from("counting", 5, 105);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25).for_each(|_| progress.advance(1)));
            }
        });
        let phase = progress.phase;
        progress.finish();
        let mut events = events.lock().unwrap().clone();
        let end = [Event::PhaseFinished(phase), Event::PhaseClosed(phase)];
        assert_eq!(events.split_off(101), end);
        let done = events.iter().filter_map(|event| match event {
            Event::PhaseAdvanced { done, total: 105, .. } => Some(*done),
            _ => None,
        });
        assert_eq!(done.collect::<Vec<_>>(), (6..=105).collect::<Vec<_>>());
    }

    #[test]
    fn a_phase_that_ends_with_an_error_is_closed_and_not_finished() {
        let (reporter, events) = recorded();
        drop(reporter.transfer("download", 10));
        let events = events.lock().unwrap();
        assert!(matches!(
            events[..],
            [Event::PhaseStarted { unit: Unit::Bytes, total: 10, .. }, Event::PhaseClosed(_)]
        ));
    }

    #[test]
    fn a_note_is_told_once_by_all_clones() {
        let (reporter, events) = recorded();
        reporter.note_once("renamed");
        reporter.clone().note_once("renamed");
        reporter.note("renamed");
        assert_eq!(events.lock().unwrap().len(), 2);
    }
}
