//! Errors as the user sees them, and the exit codes they end with.

use std::error::Error;
use std::fmt::{self, Display};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use fisao_formats::FormatError;
use fisao_report::escaping::one_line;
use fisao_runs::failure::{BUG, InternalError, Interrupted, hint_of};
use owo_colors::OwoColorize;

/// Exit code for what the user can put right.
const USER: u8 = 1;
/// Exit code for internal errors.
const UNEXPECTED: u8 = 2;
/// Exit code where a check that was asked for failed.
const FAILED: u8 = 3;
/// Exit code after Ctrl-C, as shells have it: 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// A check that the user asked for failed; everything was done and said.
#[derive(Debug)]
pub(crate) struct VerdictFailed {
    /// What was found, and what was allowed.
    pub(crate) message: String,
}

impl Display for VerdictFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for VerdictFailed {}

/// Prints what clap has to say: help and version are answers, all else is an error.
pub(crate) fn usage(request: &clap::Error) -> ExitCode {
    // Nothing is left to do when even this cannot be printed.
    let _ = request.print();
    if request.use_stderr() { ExitCode::from(USER) } else { ExitCode::SUCCESS }
}

/// Prints an error with its causes and hints; returns the exit code it stands for.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(is_closed_pipe) {
        // Whoever read our output has seen enough.
        return ExitCode::SUCCESS;
    }
    let code = exit_code(error);
    let mut stderr = anstream::stderr().lock();
    let _ = if code == INTERRUPTED || code == FAILED {
        // How to go on stands on a line of its own.
        error.to_string().lines().try_for_each(|line| writeln!(stderr, "{}", one_line(line)))
    } else {
        write!(stderr, "{}", describe(error))
    };
    ExitCode::from(code)
}

/// Prints what follows the panic's own message.
pub(crate) fn report_panic() -> ExitCode {
    let hint = "hint:".cyan().bold().to_string();
    let _ = writeln!(anstream::stderr().lock(), "{hint} {BUG}");
    ExitCode::from(UNEXPECTED)
}

/// The error, its causes and its hints, with colour codes.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut last = error.to_string();
    let mut text = format!("{} {}\n", "error:".red().bold(), one_line(&last));
    for cause in error.chain().skip(1) {
        let message = cause.to_string();
        // Some messages already end with their cause's.
        if !last.contains(&message) {
            text.extend(["  ", &"because:".dimmed().to_string(), " ", &one_line(&message), "\n"]);
        }
        last = message;
    }
    for item in error.chain().flat_map(list_of) {
        text.extend(["  ", &one_line(&item), "\n"]);
    }
    for hint in error.chain().filter_map(hint_of) {
        text.extend([&"hint:".cyan().bold().to_string(), " ", &one_line(&hint), "\n"]);
    }
    text
}

/// What an error is about where that is several things, one line each; of very many the first.
fn list_of(error: &(dyn Error + 'static)) -> Vec<String> {
    const SHOWN: usize = 200;
    let list = error.downcast_ref::<FormatError>().map_or(&[] as &[_], FormatError::list);
    let mut lines: Vec<String> = list.iter().take(SHOWN).map(ToString::to_string).collect();
    if list.len() > SHOWN {
        lines.push(format!("and {} more", list.len() - SHOWN));
    }
    lines
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(<dyn Error>::is::<Interrupted>) {
        INTERRUPTED
    } else if error.is::<VerdictFailed>() {
        FAILED
    } else if error.chain().any(<dyn Error>::is::<InternalError>) {
        UNEXPECTED
    } else {
        USER
    }
}

/// Whether an error says that nobody reads our output any more.
pub(crate) fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use fisao_runs::failure::{OrInternal as _, Refusal};

    fn plain(error: &anyhow::Error) -> String {
        anstream::adapter::strip_str(&describe(error)).to_string()
    }

    #[test]
    fn causes_and_hints_are_printed_on_separate_lines() {
        let refusal = Refusal::new("no such thing").hint("look elsewhere");
        let error = anyhow::Error::new(refusal).context("reading the list failed");
        assert_eq!(
            plain(&error),
            "error: reading the list failed\n  because: no such thing\nhint: look elsewhere\n"
        );
        assert_eq!(exit_code(&error), USER);
    }

    #[test]
    fn cause_already_in_the_message_is_not_repeated() {
        let missing = std::fs::read("no-such-file-anywhere").map_err(|source| FormatError::Io {
            action: "read",
            path: "no-such-file-anywhere".into(),
            source,
        });
        assert_eq!(plain(&missing.unwrap_err().into()).lines().count(), 1);
    }

    #[test]
    fn internal_errors_have_their_own_exit_code() {
        let error = None::<()>.or_internal("a set without a first").unwrap_err();
        assert_eq!(exit_code(&error.into()), UNEXPECTED);
        let cause = "x".parse::<u8>().or_internal("a number we wrote is none");
        let error = cause.context("while working").unwrap_err();
        assert_eq!(exit_code(&error), UNEXPECTED);
        assert_eq!(
            plain(&error),
            "error: while working\n  because: a number we wrote is none\n  because: invalid digit found in string\n\
             hint: this is a bug in fisao; please report it with the message above\n"
        );
    }

    #[test]
    fn system_errors_have_the_user_exit_code() {
        let error = std::fs::create_dir_all("/proc/no-such-folder").context("cannot create it");
        assert_eq!(exit_code(&error.unwrap_err()), USER);
    }
}
