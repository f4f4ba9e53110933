//! Progress and remarks on standard error: bars with the remaining time on a terminal, a plain line
//! now and then elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use owo_colors::OwoColorize;

use fisao_report::escaping;
use fisao_runs::Reporter;
use fisao_runs::reporter::{Event, Observer, PhaseId, Unit};

/// Time between plain lines.
const INTERVAL: Duration = Duration::from_secs(10);
/// What takes less time than this is not worth a plain line.
const NEGLIGIBLE: Duration = Duration::from_secs(1);
/// Look of a bar; the message stands after the remaining time.
const BAR: &str = "{prefix:24} {bar:30} {pos}/{len}  {elapsed} < {eta}  {wide_msg}";

/// Look of a bar that counts bytes.
const BYTE_BAR: &str =
    "{prefix:24} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {elapsed} < {eta}  {wide_msg}";

/// Shows what work tells a reporter.
#[derive(Debug)]
struct Terminal {
    quiet: bool,
    /// `None` where bars would not be seen as such.
    bars: Option<MultiProgress>,
    phases: Mutex<HashMap<PhaseId, Phase>>,
}

/// A reporter for standard error; a quiet one passes warnings on only.
pub(crate) fn reporter(quiet: bool) -> Reporter {
    let terminal = std::io::stderr().is_terminal();
    let bars = (terminal && !quiet).then(MultiProgress::new);
    Reporter::new(Terminal { quiet, bars, phases: Mutex::default() })
}

impl Observer for Terminal {
    fn on(&self, event: Event) {
        match event {
            Event::Note(text) => self.note(&text),
            Event::Warning { text, hint } => self.warn(&text, hint.as_deref()),
            Event::PhaseStarted { phase, name, unit, done, total } => {
                let begun = self.begin(name, unit, done, total);
                self.phases().insert(phase, begun);
            }
            Event::PhaseAdvanced { phase, done, total } => {
                self.in_phase(phase, |phase| phase.reach(done, total));
            }
            Event::PhaseMessage { phase, text } => {
                self.in_phase(phase, |phase| phase.message(&text));
            }
            Event::PhaseFinished(phase) => self.in_phase(phase, |phase| phase.end()),
            Event::PhaseClosed(phase) => drop(self.phases().remove(&phase)),
            _ => {}
        }
    }
}

impl Terminal {
    fn begin(&self, name: String, unit: Unit, done: u64, total: u64) -> Phase {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total).with_position(done));
            let look = if unit == Unit::Bytes { BYTE_BAR } else { BAR };
            let style = ProgressStyle::with_template(look).expect("the template is well formed");
            bar.set_style(style);
            bar.set_prefix(escaping::one_line(&name).into_owned());
            bar.reset_eta();
            bar
        });
        let now = Instant::now();
        let plain = !self.quiet && self.bars.is_none();
        let message = String::new();
        Phase { name, unit, first: done, started: now, bar, plain, done, total, message, said: now }
    }

    /// Lets a phase take note, and prints the plain line that it has to say.
    fn in_phase(&self, id: PhaseId, take_note: impl FnOnce(&mut Phase) -> Option<String>) {
        let line = self.phases().get_mut(&id).and_then(take_note);
        if let Some(line) = line {
            self.note(&line);
        }
    }

    fn phases(&self) -> MutexGuard<'_, HashMap<PhaseId, Phase>> {
        // A thread that panicked while counting leaves nothing worse than a wrong count.
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, text: &str) {
        if !self.quiet {
            self.line(&escaping::printable(text));
        }
    }

    fn warn(&self, text: &str, hint: Option<&str>) {
        self.line(&format!("{} {}", "warning:".yellow().bold(), escaping::one_line(text)));
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

/// One part of the work.
#[derive(Debug)]
struct Phase {
    name: String,
    unit: Unit,
    first: u64,
    started: Instant,
    bar: Option<ProgressBar>,
    /// Whether there are plain lines instead of a bar.
    plain: bool,
    done: u64,
    total: u64,
    message: String,
    said: Instant,
}

/// An amount of what is counted.
fn amount(unit: Unit, amount: u64) -> String {
    match unit {
        Unit::Steps => amount.to_string(),
        Unit::Bytes => HumanBytes(amount).to_string(),
    }
}

impl Phase {
    fn message(&mut self, message: &str) -> Option<String> {
        self.message = escaping::one_line(message).into_owned();
        if let Some(bar) = &self.bar {
            bar.set_message(self.message.clone());
        }
        None
    }

    /// What is told at the end; nothing of what took next to no time.
    fn end(&self) -> Option<String> {
        let elapsed = self.started.elapsed();
        (self.plain && elapsed >= NEGLIGIBLE).then(|| {
            let done = amount(self.unit, self.done);
            self.with_message(format!("{}: {done} in {}", self.name, clock(elapsed)))
        })
    }

    /// What is told now and then.
    fn reach(&mut self, done: u64, total: u64) -> Option<String> {
        if let Some(bar) = &self.bar {
            if total != self.total {
                bar.set_length(total);
            }
            bar.set_position(done);
        }
        (self.done, self.total) = (done, total);
        if !self.plain || self.said.elapsed() < INTERVAL {
            return None;
        }
        self.said = Instant::now();
        let elapsed = self.started.elapsed();
        let made = done.saturating_sub(self.first).max(1);
        let left = total.saturating_sub(done);
        // What is to be done may come from a server, and be any number.
        let left = elapsed.as_secs_f64() * (left as f64 / made as f64);
        let left = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
        let (elapsed, left) = (clock(elapsed), clock(left));
        let (done, total) = (amount(self.unit, done), amount(self.unit, total));
        let text = format!("{}: {done}/{total}, {elapsed}, {left} left", self.name);
        Some(self.with_message(text))
    }

    fn with_message(&self, text: String) -> String {
        if self.message.is_empty() { text } else { format!("{text}, {}", self.message) }
    }
}

impl Drop for Phase {
    /// A bar whose work ended, well or not, leaves the screen to what comes next.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            if self.done >= self.total { bar.finish() } else { bar.abandon() }
        }
    }
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
    fn durations_are_formatted_like_a_clock() {
        assert_eq!(clock(Duration::from_millis(9_900)), "0:09");
        assert_eq!(clock(Duration::from_secs(754)), "12:34");
        assert_eq!(clock(Duration::from_secs(3_661)), "1:01:01");
    }
}
