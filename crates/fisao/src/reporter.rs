//! Progress and remarks on standard error: bars with the remaining time on a terminal, a plain line
//! now and then elsewhere.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use owo_colors::OwoColorize;

use fisao_report::escaping;

/// Time between plain lines.
const INTERVAL: Duration = Duration::from_secs(10);
/// What takes less time than this is not worth a plain line.
const NEGLIGIBLE: Duration = Duration::from_secs(1);
/// Look of a bar; the message stands after the remaining time.
const BAR: &str = "{prefix:24} {bar:30} {pos}/{len}  {elapsed} < {eta}  {wide_msg}";

/// Look of a bar that counts bytes.
const BYTE_BAR: &str =
    "{prefix:24} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {elapsed} < {eta}  {wide_msg}";

/// Where a command says how far it is.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    quiet: bool,
    /// `None` where bars would not be seen as such.
    bars: Option<MultiProgress>,
}

impl Reporter {
    /// A reporter for standard error; a quiet one passes warnings on only.
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { quiet, bars: (terminal && !quiet).then(MultiProgress::new) }
    }

    /// Begins a part of the work that takes `total` steps.
    pub(crate) fn phase(&self, name: &str, total: u64) -> PhaseProgress {
        self.phase_from(name, 0, total)
    }

    /// Begins a part of the work of which `done` steps were made before, by another process.
    pub(crate) fn phase_from(&self, name: &str, done: u64, total: u64) -> PhaseProgress {
        self.begin(name, done, total, Unit::Steps)
    }

    /// Begins a transfer of `total` bytes.
    pub(crate) fn transfer(&self, name: &str, total: u64) -> PhaseProgress {
        self.begin(name, 0, total, Unit::Bytes)
    }

    fn begin(&self, name: &str, done: u64, total: u64, unit: Unit) -> PhaseProgress {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total).with_position(done));
            let look = if unit == Unit::Bytes { BYTE_BAR } else { BAR };
            let style = ProgressStyle::with_template(look).expect("the template is well formed");
            bar.set_style(style);
            bar.set_prefix(escaping::one_line(name).into_owned());
            bar.reset_eta();
            bar
        });
        let now = Instant::now();
        PhaseProgress {
            name: name.to_owned(),
            unit,
            first: done,
            started: now,
            bar,
            lines: (!self.quiet && self.bars.is_none()).then(|| self.clone()),
            state: Arc::new(Mutex::new(State { done, total, message: String::new(), said: now })),
        }
    }

    /// Says something worth knowing.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            self.line(&escaping::printable(&text.to_string()));
        }
    }

    /// Says what the user must not miss.
    pub(crate) fn warn(&self, text: impl Display, hint: Option<&str>) {
        let text = text.to_string();
        self.line(&format!("{} {}", "warning:".yellow().bold(), escaping::one_line(&text)));
        if let Some(hint) = hint {
            self.line(&format!("{} {}", "hint:".cyan().bold(), escaping::one_line(hint)));
        }
    }

    fn line(&self, text: &str) {
        let print = || {
            // Progress that cannot be shown must not end the work it is about.
            let _ = writeln!(anstream::stderr().lock(), "{text}");
        };
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }
}

/// One part of the work; may be advanced from any thread.
#[derive(Debug)]
pub(crate) struct PhaseProgress {
    name: String,
    unit: Unit,
    first: u64,
    started: Instant,
    bar: Option<ProgressBar>,
    /// Where plain lines go, if there are any.
    lines: Option<Reporter>,
    state: Arc<Mutex<State>>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Steps,
    Bytes,
}

impl Unit {
    fn show(self, amount: u64) -> String {
        match self {
            Self::Steps => amount.to_string(),
            Self::Bytes => HumanBytes(amount).to_string(),
        }
    }
}

#[derive(Debug)]
struct State {
    done: u64,
    total: u64,
    message: String,
    said: Instant,
}

impl PhaseProgress {
    /// Some more steps are done.
    pub(crate) fn advance(&self, steps: u64) {
        let mut state = self.state();
        state.done += steps;
        self.show(&mut state);
    }

    /// This much is done of what has turned out to be this much.
    pub(crate) fn reach(&self, done: u64, total: u64) {
        let mut state = self.state();
        (state.done, state.total) = (done, total);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
        self.show(&mut state);
    }

    /// Says what else there is to say about the last step, such as its loss.
    pub(crate) fn message(&self, message: impl Display) {
        let mut state = self.state();
        state.message = escaping::one_line(&message.to_string()).into_owned();
        if let Some(bar) = &self.bar {
            bar.set_message(state.message.clone());
        }
    }

    /// This part is done.
    pub(crate) fn finish(self) {
        let state = self.state();
        let elapsed = self.started.elapsed();
        if let Some(lines) = self.lines.as_ref().filter(|_| elapsed >= NEGLIGIBLE) {
            let done = self.unit.show(state.done);
            let text = format!("{}: {done} in {}", self.name, clock(elapsed));
            lines.note(with_message(&text, &state));
        }
    }

    fn show(&self, state: &mut State) {
        if let Some(bar) = &self.bar {
            bar.set_position(state.done);
        }
        let Some(lines) = self.lines.as_ref().filter(|_| state.said.elapsed() >= INTERVAL) else {
            return;
        };
        state.said = Instant::now();
        let elapsed = self.started.elapsed();
        let made = state.done.saturating_sub(self.first).max(1);
        let left = state.total.saturating_sub(state.done);
        // What is to be done may come from a server, and be any number.
        let left = elapsed.as_secs_f64() * (left as f64 / made as f64);
        let left = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
        let (elapsed, left) = (clock(elapsed), clock(left));
        let (done, total) = (self.unit.show(state.done), self.unit.show(state.total));
        let text = format!("{}: {done}/{total}, {elapsed}, {left} left", self.name);
        lines.note(with_message(&text, state));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while counting leaves nothing worse than a wrong count.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PhaseProgress {
    /// A bar whose work ended, well or not, leaves the screen to what comes next.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            let (done, total) = {
                let state = self.state();
                (state.done, state.total)
            };
            if done >= total { bar.finish() } else { bar.abandon() }
        }
    }
}

fn with_message(text: &str, state: &State) -> String {
    if state.message.is_empty() { text.to_owned() } else { format!("{text}, {}", state.message) }
}

/// A duration as minutes and seconds, with hours where there are any.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_a_clock() {
        assert_eq!(clock(Duration::from_millis(9_900)), "0:09");
        assert_eq!(clock(Duration::from_secs(754)), "12:34");
        assert_eq!(clock(Duration::from_secs(3_661)), "1:01:01");
    }

    #[test]
    fn steps_are_counted_from_any_thread() {
        let progress = Reporter::new(true).phase_from("counting", 5, 105);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25).for_each(|_| progress.advance(1)));
            }
        });
        assert_eq!(progress.state().done, 105);
    }
}
