//! `fisao merge`: a checkpoint with an adapter folded into its weights.

use fisao_formats::documents::check_output_folder;
use fisao_formats::merge::{MergeOptions, Merged};
use fisao_runs::Reporter;
use fisao_runs::bundle::{embedded, title};
use fisao_runs::merge::merge;
use fisao_runs::model_location::Role;
use indicatif::DecimalBytes;
use serde::Serialize;

use crate::arguments::{Format, MergeArguments, vision_adapter};
use crate::{interrupt, output};

/// What was written, as printed.
#[derive(Serialize)]
struct MergedCheckpoint<'a> {
    output: String,
    layers: usize,
    tensors: usize,
    bytes: u64,
    files: &'a [String],
}

pub(crate) fn run(arguments: &MergeArguments, reporter: &Reporter) -> anyhow::Result<()> {
    check_output_folder(&arguments.output)?;
    let models;
    let folder = if let Some(model) = &arguments.model {
        model.locate(Role::Model, reporter)?.folder
    } else {
        let world = arguments.world.kind();
        let title = title(world);
        reporter.note(format_args!("no --model given: using the {title}'s small model"));
        models = embedded(world)?;
        models.llava()
    };
    let options = MergeOptions {
        dtype: arguments.dtype.map(Into::into),
        max_shard_size: arguments.max_shard_size,
        vision: vision_adapter(arguments.allow_vision_adapter),
    };
    let adapter = arguments.adapter.locate(Role::Adapter, reporter)?.folder;
    let stop = interrupt::flag()?;
    let merged = merge(&folder, &adapter, (&arguments.output, &options), &stop, reporter)?;
    print(arguments, &merged)
}

fn print(arguments: &MergeArguments, merged: &Merged) -> anyhow::Result<()> {
    let folder = arguments.output.display();
    let Merged { layers, tensors, bytes, files } = merged;
    match arguments.format {
        Format::Text => {
            let files = match files.as_slice() {
                [file] => file.clone(),
                files => format!("{} files", files.len()),
            };
            output::line(format!(
                "{folder}: {layers} linear layers changed, {tensors} tensors written ({files}, {})",
                DecimalBytes(*bytes)
            ))
        }
        Format::Json => output::json(&MergedCheckpoint {
            output: folder.to_string(),
            layers: *layers,
            tensors: *tensors,
            bytes: *bytes,
            files,
        }),
    }
}
