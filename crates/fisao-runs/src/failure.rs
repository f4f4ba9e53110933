//! What ends work that cannot go on: refusals with what to do about them, mistakes of ours, and interruptions.
//!
//! Functions of this crate return [`anyhow::Error`]; these types are somewhere in its chain, and [`hint_of`] finds what to do
//! about any of its causes. How that is shown, and with which exit code a process ends, is up to the program.

use std::error::Error;
use std::fmt::{self, Display};

use fisao_align::AlignError;
use fisao_cuda::CudaError;
use fisao_formats::FormatError;
use fisao_formats::hub::HubError;
use fisao_scenes::recipe::RecipeError;
use fisao_verifier::scorer::VerifierError;

/// What to do about a mistake of ours.
pub const BUG: &str = "this is a bug in fisao; please report it with the message above";

/// Input that a command refuses, with what to do about it.
#[derive(Debug)]
pub struct Refusal {
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Refusal {
    /// A refusal without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, source: None }
    }

    /// Adds why, whose causes may have hints of their own.
    #[must_use]
    pub fn because(self, cause: anyhow::Error) -> Self {
        // An `into` would wrap it, and its hint could not be found.
        let source = cause.reallocate_into_boxed_dyn_error_without_backtrace();
        Self { source: Some(source), ..self }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// What no input should cause: a mistake of ours.
#[derive(Debug)]
pub struct InternalError {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Display for InternalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for InternalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// Results that are errors only by a mistake of ours.
pub trait OrInternal<T> {
    /// The value, or an [`InternalError`].
    fn or_internal(self, message: impl Into<String>) -> Result<T, InternalError>;
}

impl<T> OrInternal<T> for Option<T> {
    fn or_internal(self, message: impl Into<String>) -> Result<T, InternalError> {
        self.ok_or_else(|| InternalError { message: message.into(), source: None })
    }
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> OrInternal<T> for Result<T, E> {
    fn or_internal(self, message: impl Into<String>) -> Result<T, InternalError> {
        self.map_err(|source| InternalError {
            message: message.into(),
            source: Some(source.into()),
        })
    }
}

/// The user ended the command; what was done so far is safe.
#[derive(Debug)]
pub struct Interrupted {
    /// Where it stopped, and how to go on.
    pub message: String,
}

impl Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Interrupted {}

/// Work that ended because its stop flag was raised, told as [`Interrupted`]; any other error is as it was.
pub fn told(error: anyhow::Error, message: impl FnOnce() -> String) -> anyhow::Error {
    match error.downcast_ref() {
        Some(AlignError::Stopped) => Interrupted { message: message() }.into(),
        _ => error,
    }
}

/// What to do about an error, if that is known. Causes have hints of their own.
pub fn hint_of(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<FormatError>() {
        error.hint()
    } else if let Some(error) = error.downcast_ref::<HubError>() {
        error.hint()
    } else if let Some(error) = error.downcast_ref::<VerifierError>() {
        error.hint()
    } else if let Some(error) = error.downcast_ref::<AlignError>() {
        error.hint()
    } else if let Some(error) = error.downcast_ref::<CudaError>() {
        error.hint().map(str::to_owned)
    } else if let Some(RecipeError::State(_)) = error.downcast_ref::<RecipeError>() {
        Some(
            "delete the folder of its state, state-clip or state-llava, to start this stage again"
                .to_owned(),
        )
    } else if error.is::<InternalError>() {
        Some(BUG.to_owned())
    } else {
        error.downcast_ref::<Refusal>()?.hint.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_belong_to_the_cause_that_has_one() {
        let refusal = Refusal::new("no such thing").hint("look elsewhere");
        let error = anyhow::Error::new(refusal).context("reading the list failed");
        let hints: Vec<String> = error.chain().filter_map(hint_of).collect();
        assert_eq!(hints, ["look elsewhere"]);
        let error = None::<()>.or_internal("a set without a first").unwrap_err();
        assert_eq!(hint_of(&error).as_deref(), Some(BUG));
    }

    #[test]
    fn a_refusal_keeps_its_cause_and_both_hints() {
        let cause = Refusal::new("too few").hint("add some").into();
        let error = anyhow::Error::from(Refusal::new("not done").because(cause).hint("try again"));
        let hints: Vec<String> = error.chain().filter_map(hint_of).collect();
        assert_eq!(hints, ["try again", "add some"]);
        assert_eq!(format!("{error:#}"), "not done: too few");
    }

    #[test]
    fn what_a_card_lacks_is_said_once_and_how_to_get_it_once() {
        let lacking = || CudaError::Memory {
            what: "the batch",
            needed: 3 << 20,
            free: 0,
            hint: "take fewer",
        };
        for error in [lacking().into(), AlignError::from(lacking()).into()] {
            let error: anyhow::Error = error;
            assert!(error.to_string().starts_with("the batch needs 3 MiB"), "{error}");
            let hints: Vec<String> = error.chain().filter_map(hint_of).collect();
            assert_eq!(hints, ["take fewer"]);
        }
    }

    #[test]
    fn work_that_was_stopped_is_told_as_an_interruption() {
        let message = || "stopped; the same command resumes".to_owned();
        assert!(told(AlignError::Stopped.into(), message).is::<Interrupted>());
        assert!(told(Refusal::new("no such thing").into(), message).is::<Refusal>());
    }
}
