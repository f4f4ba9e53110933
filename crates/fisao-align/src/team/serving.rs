//! What a process does that does not run the command itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::scorer::Verifier;

use super::messages::{LearnerState, Message, decode, encode};
use super::{Link, Parts, Reply, WorkModels, answers, tree, unexpected};
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
        Message::Work { .. } => Err(unexpected()),
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
    verifier: Option<&Verifier>,
) -> Result<String, AlignError> {
    let own = link.number();
    let mut value_head = None;
    loop {
        match decode(&link.receive(0)?)? {
            Message::Work { moved, gathered, exact, parts } => {
                if moved {
                    let state = link.receive(tree::parent(own))?;
                    for child in tree::children(own, link.processes()) {
                        link.send(child, &state)?;
                    }
                    value_head = decode::<LearnerState>(&state)?.apply(&mut policy);
                }
                if parts.work.is_empty() {
                    continue;
                }
                let value_head = value_head.as_ref();
                let models = WorkModels { policy: &policy, verifier, value_head };
                let reply = attempt(own, models, &parts, exact);
                if gathered {
                    let reply = with_children(link, reply, parts.count)?;
                    link.send(tree::parent(own), &encode(&reply)?)?;
                } else {
                    link.send(0, &encode(&reply)?)?;
                }
            }
            Message::Order(content) => return Ok(content),
        }
    }
}

fn attempt(own: usize, models: WorkModels<'_>, parts: &Parts, exact: bool) -> Reply {
    let control = RunControl::new(&|_| {});
    match catch_unwind(AssertUnwindSafe(|| answers(models, parts, exact, control))) {
        Ok(done) => done.map_err(|error| (own, error.to_string())),
        Err(_) => Err((own, "it panicked; what it wrote to standard error says where".to_owned())),
    }
}

/// A process's answers and those of all below it.
fn with_children(link: &dyn Link, own: Reply, count: usize) -> Result<Reply, AlignError> {
    let mut all = own;
    for child in tree::children(link.number(), link.processes()) {
        let further: Reply = decode(&link.receive(child)?)?;
        all = match (all, further) {
            (Ok(answers), Ok(further)) => Ok(answers.and(vec![further], count)),
            (Err(failed), _) | (_, Err(failed)) => Err(failed),
        };
    }
    Ok(all)
}
