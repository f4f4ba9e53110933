//! Files that scorers read, and questions put to a model where no file of answers is given.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fisao_formats::documents::open_text;
use serde_json::json;

use crate::answering::{Answering, Question};
use crate::arguments::AnsweringArguments;
use crate::bundle::Policy;
use crate::failure::Refusal;
use crate::reporter::Reporter;

/// Opens a file, unpacked if it is gzipped, and hands it to a reader; what the reader finds wrong is said
/// with the name of the file. `what` is what the user would call it.
pub(super) fn read<T, E>(
    what: &'static str,
    path: &Path,
    reader: impl FnOnce(Box<dyn BufRead>) -> Result<T, E>,
) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let file = open_text(what, path)?;
    reader(file).with_context(|| format!("{} cannot be read as {what}", path.display()))
}

/// A name for what a file holds: its own, without folder and endings.
pub(super) fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Lets a model answer questions about pictures of a folder; returns the file of answers.
pub(super) fn answer(
    arguments: &AnsweringArguments,
    benchmark: &str,
    field: &'static str,
    folder: &Path,
    questions: &[Question],
    reporter: &Reporter,
) -> anyhow::Result<PathBuf> {
    let sampling = arguments.sampling.resolve()?;
    let device = arguments.model.device.open(reporter)?.device;
    let policy = Policy::from_arguments(&arguments.model, &device, reporter)?;
    let adapter = arguments.model.adapter.as_ref().map(ToString::to_string);
    let dtype = format!("{:?}", arguments.model.dtype).to_lowercase();
    let settings = json!({ "benchmark": benchmark, "adapter": adapter, "dtype": dtype });
    let answering = Answering { policy: &policy, sampling: &sampling, settings, field, folder };
    answering.run(questions, reporter)
}

/// The folders of pictures and of answers.
pub(super) fn folders(arguments: &AnsweringArguments) -> anyhow::Result<(&Path, &Path)> {
    match (&arguments.images, &arguments.output) {
        (Some(images), Some(output)) => Ok((images, output)),
        _ => bail!(Refusal::new("there are no answers to score").hint(
            "give --answers, or let a model answer: --images DIR --output DIR, with --model"
        )),
    }
}

/// The file of an image of a folder, which may be named without its ending.
pub(super) fn image_file(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let exact = folder.join(name);
    if exact.is_file() {
        return Ok(exact);
    }
    let with_ending =
        ["jpg", "png", "jpeg", "webp"].map(|ending| folder.join(format!("{name}.{ending}")));
    match with_ending.into_iter().find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => bail!(
            Refusal::new(format!("{} has no image {name}", folder.display()))
                .hint("--images names the folder that holds the pictures of the questions")
        ),
    }
}
