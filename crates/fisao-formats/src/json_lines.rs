//! JSON lines: one JSON value per line, as captions, prompts and metrics are kept.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::FormatError;
use crate::documents::write_atomically;
use crate::files::open_file;

/// The caption of one image, in the keys that CHAIR's reference script reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptionRecord {
    /// The image's identifier: a file name without its folder, or a scene's name.
    pub image_id: String,
    /// The caption.
    pub caption: String,
}

/// Bytes of the longest line: nested lists take a hundred times their text as a value. Ours have a few kilobytes.
const LONGEST_LINE: usize = 1 << 19;

/// One prompt about one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptRecord {
    /// The image, relative to the image folder.
    pub image: String,
    /// What the model is asked.
    pub prompt: String,
}

/// Reads a whole JSON-lines file; blank lines are skipped.
///
/// # Errors
/// The file is absent or unreadable, or a line is too long or does not hold a `T`; the line is named.
pub fn read_json_lines<T: DeserializeOwned>(
    what: &'static str,
    path: &Path,
) -> Result<Vec<T>, FormatError> {
    let file = open_file(what, path)?;
    let mut records = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let wrong =
            |reason: String| FormatError::Line { path: path.to_owned(), line: index + 1, reason };
        let line = line.map_err(|error| wrong(error.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        if line.len() > LONGEST_LINE {
            let length = line.len();
            return Err(wrong(format!(
                "it is {length} bytes long, and at most {LONGEST_LINE} are read"
            )));
        }
        records.push(serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?);
    }
    Ok(records)
}

/// Writes a JSON-lines file atomically.
///
/// # Errors
/// The file cannot be written.
pub fn write_json_lines<T: Serialize>(
    path: &Path,
    records: impl IntoIterator<Item = T>,
) -> Result<(), FormatError> {
    write_atomically(path, |file| {
        let mut lines = BufWriter::new(file);
        for record in records {
            serde_json::to_writer(&mut lines, &record)?;
            lines.write_all(b"\n")?;
        }
        lines.flush()
    })
}
