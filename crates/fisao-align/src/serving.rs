//! What a process does that does not run the command itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::scorer::Verifier;

use crate::encoding::{EmbedViews, Encode};
use crate::error::AlignError;
use crate::likelihoods::Likelihoods;
use crate::link::{Link, MessageError, decode, encode};
use crate::log_probabilities::Estimate;
use crate::run_control::RunControl;
use crate::sampling::{Caption, Sample};
use crate::sharing::{
    Asked, Header, Kind, LearnerState, Message, Parts, Reply, Work, WorkModels, answers, children,
    parent,
};
use crate::signals::DecoderViews;
use crate::update::Differentiate;

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
        Message::Work(_) => Err(MessageError::unexpected().into()),
    }
}

/// Works for process 0 with these models until there is an [`order`] from it, which is returned. What cannot be done is answered with
/// the reason.
///
/// # Errors
/// [`AlignError::Link`] when process 0 cannot be reached, [`AlignError::Message`] when it is not understood.
pub fn serve(
    link: &dyn Link,
    mut policy: Option<VisionLanguageModel>,
    verifier: Option<&Verifier>,
) -> Result<String, AlignError> {
    let mut value_head = None;
    loop {
        let header = match decode(&link.receive(0)?)? {
            Message::Work(header) => header,
            Message::Order(content) => return Ok(content),
        };
        if header.moved {
            let state = link.receive(parent(link.number()))?;
            for child in children(link.number(), link.processes()) {
                link.send(child, &state)?;
            }
            let policy = policy.as_mut().ok_or_else(MessageError::unexpected)?;
            value_head = decode::<LearnerState>(&state)?.apply(policy);
        }
        if header.asked == Asked::Nothing {
            continue;
        }
        let models = WorkModels::new(policy.as_ref(), verifier, value_head.as_ref());
        match header.kind {
            Kind::Encode => work::<Encode>(link, header, models)?,
            Kind::EmbedViews => work::<EmbedViews>(link, header, models)?,
            Kind::Caption => work::<Caption>(link, header, models)?,
            Kind::Sample => work::<Sample>(link, header, models)?,
            Kind::Estimate => work::<Estimate>(link, header, models)?,
            Kind::Likelihoods => work::<Likelihoods>(link, header, models)?,
            Kind::DecoderViews => work::<DecoderViews>(link, header, models)?,
            Kind::Differentiate => work::<Differentiate>(link, header, models)?,
        }
    }
}

/// Does this process's part, and answers for it and, where that is asked for, for all below it in the tree.
fn work<W: Work>(
    link: &dyn Link,
    Header { asked, exact, .. }: Header,
    models: WorkModels<'_>,
) -> Result<(), AlignError> {
    let parts: Parts<W> = decode(&link.receive(0)?)?;
    let (own, control) = (link.number(), RunControl::new(&|_| {}));
    let done = catch_unwind(AssertUnwindSafe(|| answers(models, &parts, exact, control)));
    let mut reply: Reply<W::Answer> = match done {
        Ok(done) => done.map_err(|error| (own, error.to_string())),
        Err(_) => Err((own, "it panicked; what it wrote to standard error says where".to_owned())),
    };
    if asked != Asked::Sum {
        return Ok(link.send(0, &encode(&reply)?)?);
    }
    for child in children(own, link.processes()) {
        let further: Reply<W::Answer> = decode(&link.receive(child)?)?;
        reply = match (reply, further) {
            (Ok(known), Ok(further)) => Ok(known.and::<W>(further, parts.count)),
            (Err(failed), _) | (_, Err(failed)) => Err(failed),
        };
    }
    Ok(link.send(parent(own), &encode(&reply)?)?)
}
