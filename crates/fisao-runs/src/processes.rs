//! Several processes of one command: process 0 runs it, the others open the models that it opens and serve it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, bail};
use fisao_align::link::Link;
use fisao_align::serving;
use fisao_align::team::Processes;
use fisao_models::parallel::instruction_set;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::scorer::Verifier;
use serde::{Deserialize, Serialize};

use crate::device::OpenDevice;
use crate::failure::Refusal;

/// Of this process, where there are others.
static LINK: OnceLock<Arc<dyn Link>> = OnceLock::new();

/// The others with the models that they have open.
static CURRENT: Mutex<Option<Arc<Processes>>> = Mutex::new(None);

fn current() -> MutexGuard<'static, Option<Arc<Processes>>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a serving process is told between models.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Open these, in the words of whoever does, and serve.
    Open(String),
    /// The command is over.
    Quit,
}

/// The instructions of a process that has opened the models, or why it has not.
type Opened = Result<String, String>;

/// Lets the command that this process runs be shared with those behind the link.
pub fn share_with(link: Arc<dyn Link>) {
    assert!(link.number() == 0, "process 0 runs the command");
    LINK.set(link).expect("processes are joined once");
}

/// Tells the others that the command is over, however it ended.
///
/// # Errors
/// One cannot be reached.
pub fn quit() -> anyhow::Result<()> {
    LINK.get().map_or(Ok(()), |link| tell_all(&**link, &Order::Quit))
}

fn tell_all(link: &dyn Link, order: &Order) -> anyhow::Result<()> {
    let message = serving::order(&serde_json::to_string(order)?)?;
    Ok((1..link.processes()).try_for_each(|process| link.send(process, &message))?)
}

/// A model and a verifier, as far as they were wanted.
pub type OpenedModels = (Option<VisionLanguageModel>, Option<Verifier>);

/// Serves process 0 until the command is over, with the models that `open` opens by the words of process 0.
///
/// # Errors
/// Process 0 cannot be reached, or is not understood.
pub fn serve_command(
    link: &dyn Link,
    open: impl Fn(&str) -> anyhow::Result<OpenedModels>,
) -> anyhow::Result<()> {
    let mut order = serving::next_order(link)?;
    loop {
        let Order::Open(wanted) = serde_json::from_str(&order)? else { return Ok(()) };
        let opened = open(&wanted);
        let answer: Opened = match &opened {
            Ok(_) => Ok(instruction_set().to_owned()),
            Err(error) => Err(format!("{error:#}")),
        };
        link.send(0, &serde_json::to_vec(&answer)?)?;
        order = match opened {
            Ok((policy, verifier)) => serving::serve(link, policy, verifier.as_ref())?,
            Err(_) => serving::next_order(link)?,
        };
    }
}

/// The other processes, asked to open the same models.
#[derive(Debug)]
pub(crate) struct Opening(Option<Arc<dyn Link>>);

impl Opening {
    /// Asks them, where there are others, so that they open their models while this process opens its own.
    ///
    /// # Errors
    /// Models are for a device besides the CPU, or a process cannot be reached.
    pub(crate) fn begin(wanted: &impl Serialize, device: &OpenDevice) -> anyhow::Result<Self> {
        let Some(link) = LINK.get() else { return Ok(Self(None)) };
        if !device.is_cpu() {
            bail!(
                Refusal::new("several processes share their work on the CPU only, and --device names another one")
                    .hint("leave out --device, or start one process")
            );
        }
        if let Some(earlier) = current().take() {
            earlier.leave();
        }
        tell_all(&**link, &Order::Open(serde_json::to_string(wanted)?))?;
        Ok(Self(Some(Arc::clone(link))))
    }

    /// Waits until all of them have.
    ///
    /// # Errors
    /// One of them could not; its reason.
    pub(crate) fn finish(self) -> anyhow::Result<Option<Arc<Processes>>> {
        let Some(link) = self.0 else { return Ok(None) };
        let mut refused = None;
        for process in 1..link.processes() {
            let opened: Opened = serde_json::from_slice(&link.receive(process)?)
                .with_context(|| format!("process {process} is not understood"))?;
            match opened {
                Ok(instructions) if instructions == instruction_set() => {}
                Ok(instructions) => {
                    let own = instruction_set();
                    refused = refused.or(Some(format!(
                        "process {process} computes with {instructions}, and process 0 with {own}: results would depend on which process does what"
                    )));
                }
                Err(reason) => {
                    refused = refused.or(Some(format!("process {process}: {reason}")));
                }
            }
        }
        if let Some(reason) = refused {
            bail!(
                Refusal::new(reason)
                    .hint("all processes need the same program, files and kind of processor; see the chapter on several processes")
            );
        }
        let processes = Arc::new(Processes::new(link));
        *current() = Some(Arc::clone(&processes));
        Ok(Some(processes))
    }
}
