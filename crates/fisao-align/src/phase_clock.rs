//! Times the phases of an iteration and reports them.

use std::time::Instant;

use crate::events::{AlignEvent, Phase, PhaseSeconds};

/// Of one iteration; one phase runs at a time.
pub(crate) struct PhaseClock {
    /// From 1.
    iteration: usize,
    running: Option<(Phase, Instant)>,
    seconds: PhaseSeconds,
}

impl PhaseClock {
    pub(crate) fn new(iteration: usize) -> Self {
        Self { iteration, running: None, seconds: PhaseSeconds::default() }
    }

    /// Ends the running phase, if there is one, and begins another of so many units of work.
    pub(crate) fn start(&mut self, phase: Phase, steps: usize, emit: &mut dyn FnMut(AlignEvent)) {
        self.end(emit);
        emit(AlignEvent::PhaseStarted { iteration: self.iteration, phase, steps });
        self.running = Some((phase, Instant::now()));
    }

    /// Ends the running phase; returns the seconds of all.
    pub(crate) fn finish(mut self, emit: &mut dyn FnMut(AlignEvent)) -> PhaseSeconds {
        self.end(emit);
        self.seconds
    }

    fn end(&mut self, emit: &mut dyn FnMut(AlignEvent)) {
        let Some((phase, start)) = self.running.take() else { return };
        let seconds = start.elapsed().as_secs_f64();
        *self.seconds.of_mut(phase) += seconds;
        emit(AlignEvent::PhaseFinished { iteration: self.iteration, phase, seconds });
    }
}
