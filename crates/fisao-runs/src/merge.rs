//! A checkpoint with an adapter folded into its weights.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fisao_formats::adapter::Adapter;
use fisao_formats::checkpoint::Checkpoint;
use fisao_formats::merge::{Merge, MergeOptions, Merged};

use crate::failure::Interrupted;
use crate::model_location::{ModelLocation, Role};
use crate::reporter::Reporter;

/// Folds the adapter in a folder into a checkpoint's weights and writes the result into another folder, new or empty. A raised
/// flag ends the work.
///
/// # Errors
/// [`Interrupted`] where the flag was raised; nothing is left of the output then. Otherwise what does not fit or cannot be written.
pub fn merge(
    checkpoint: &Path,
    adapter: &Path,
    (output, options): (&Path, &MergeOptions),
    stop: &AtomicBool,
    reporter: &Reporter,
) -> anyhow::Result<Merged> {
    let checkpoint = Checkpoint::open(checkpoint)?;
    let merge = Merge::new(&checkpoint, Adapter::read(adapter)?, adapter, options)?;
    let progress = reporter.transfer("merging", merge.bytes());
    let merged = merge.write(output, &mut |bytes| {
        progress.advance(bytes);
        if stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    if merged.is_err() && stop.load(Ordering::Relaxed) {
        let message = format!("stopped; nothing is left in {}", output.display());
        return Err(Interrupted { message }.into());
    }
    let merged = merged?;
    progress.finish();
    Ok(merged)
}

/// The same at the end of a run: into the model that it has aligned, each tensor in its own precision.
pub(crate) fn merge_into(
    model: &ModelLocation,
    adapter: &Path,
    output: &Path,
    stop: &Arc<AtomicBool>,
    reporter: &Reporter,
) -> anyhow::Result<Merged> {
    let checkpoint = model.locate(Role::Model, reporter)?.folder;
    merge(&checkpoint, adapter, (output, &MergeOptions::default()), stop, reporter)
}
