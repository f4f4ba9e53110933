//! What a process does that does not run the command itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::scorer::Verifier;

use super::messages::{Message, decode, encode};
use super::{Link, WorkModels, answers, unexpected};
use crate::error::AlignError;
use crate::run_control::RunControl;

/// A message that [`next_order`] and [`serve`] return from.
///
/// # Errors
/// [`AlignError::Message`] when it cannot be written.
pub fn order(content: &str) -> Result<Vec<u8>, AlignError> {
    Ok(encode(&Message::Order(content.to_owned()))?)
}

/// Waits for an [`order`] of process 0, before any models are opened.
///
/// # Errors
/// [`AlignError::Link`] when process 0 cannot be reached, [`AlignError::Message`] when it asks for something else.
pub fn next_order(link: &dyn Link) -> Result<String, AlignError> {
    match decode(&link.receive(0)?)? {
        Message::Order(content) => Ok(content),
        Message::Learner(_) | Message::Work { .. } => Err(unexpected()),
    }
}

/// Works for process 0 with these models until there is an [`order`] from it, which is returned. What cannot be done is answered with
/// the reason.
///
/// # Errors
/// [`AlignError::Link`] when process 0 cannot be reached, [`AlignError::Message`] when it is not understood.
pub fn serve(
    link: &dyn Link,
    mut policy: VisionLanguageModel,
    verifier: &Verifier,
) -> Result<String, AlignError> {
    let mut value_head = None;
    loop {
        match decode(&link.receive(0)?)? {
            Message::Learner(state) => value_head = state.apply(&mut policy),
            Message::Work { exact, work } => {
                let models = WorkModels {
                    policy: &policy,
                    verifier: Some(verifier),
                    value_head: value_head.as_ref(),
                };
                let control = RunControl::new(&|_| {});
                let done =
                    catch_unwind(AssertUnwindSafe(|| answers(models, &work, exact, control)));
                let answer = match done {
                    Ok(done) => done.map_err(|error| error.to_string()),
                    Err(_) => {
                        Err("it panicked; what it wrote to standard error says where".to_owned())
                    }
                };
                link.send(0, &encode(&answer)?)?;
            }
            Message::Order(content) => return Ok(content),
        }
    }
}
