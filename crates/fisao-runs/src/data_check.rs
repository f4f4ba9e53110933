//! Whether the data is still what something was begun with.

use std::path::Path;

use fisao_formats::FormatError;
use fisao_formats::data_record::DataRecord;

use crate::failure::Refusal;
use crate::reporter::Reporter;

/// File of a run's or an evaluation's [`DataRecord`] in its folder.
pub const DATA: &str = "data.json";

/// Refuses data that is not what a folder was begun with; `name` tells what the row at an index is called now. A folder that
/// does not say, as earlier versions made them, is taken with a note.
pub fn check(
    folder: &Path,
    now: &DataRecord,
    name: impl Fn(usize) -> String,
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let Some(begun) = DataRecord::read(&folder.join(DATA))? else {
        let folder = folder.display();
        reporter.note(format!(
            "{folder} does not record the data it was started with: nothing was compared"
        ));
        return Ok(());
    };
    let Some(changes) = begun.changes(now) else { return Ok(()) };
    let message =
        format!("{} was started with other data: {}", folder.display(), changes.describe(name));
    Err(Refusal::new(message)
        .hint("put the data back as it was, or start again in another folder")
        .into())
}

/// Writes down what data a folder is begun with.
pub fn write(folder: &Path, now: &DataRecord) -> Result<(), FormatError> {
    now.write(&folder.join(DATA))
}
