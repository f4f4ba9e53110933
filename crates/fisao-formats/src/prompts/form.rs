//! Forms of prompt sets, told apart by their first bytes.

use std::fmt;
use std::io::Read;
use std::path::Path;

use super::json::Layout;
use crate::FormatError;
use crate::files::open_file;

/// The form of a prompt set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PromptKind {
    /// A folder of images.
    Folder,
    /// One JSON object per line.
    JsonLines,
    /// One JSON list of objects, such as LLaVA-Instruct.
    JsonList,
    /// Parquet, one file or a folder of them.
    Parquet,
}

impl fmt::Display for PromptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder => "image folder",
            Self::JsonLines => "JSON lines",
            Self::JsonList => "JSON list",
            Self::Parquet => "Parquet",
        })
    }
}

/// What a file of prompts holds.
pub(super) enum Form {
    Json(Layout),
    Parquet,
}

/// The form of a file, by its first bytes.
pub(super) fn recognise(path: &Path) -> Result<Form, FormatError> {
    const LOOKED_AT: u64 = 4096;
    let wrong = |reason: &str, hint| FormatError::Prompts {
        path: path.to_owned(),
        reason: reason.to_owned(),
        hint: Some(hint),
    };
    let mut start = Vec::new();
    open_file("prompt file", path)?
        .take(LOOKED_AT)
        .read_to_end(&mut start)
        .map_err(|error| FormatError::reading("prompt file", path, error))?;
    let packed: [&[u8]; 5] =
        [b"\x1F\x8B", b"\x28\xB5\x2F\xFD", b"BZh", b"\xFD7zXZ\0", b"PK\x03\x04"];
    if packed.iter().any(|mark| start.starts_with(mark)) {
        return Err(wrong(
            "is packed, and rows of a packed file cannot be read one by one",
            "unpack it first, with gunzip or what else packed it",
        ));
    }
    if start.starts_with(b"PAR1") {
        return Ok(Form::Parquet);
    }
    let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&start).trim_ascii_start();
    match text.first() {
        Some(b'[') => Ok(Form::Json(Layout::List)),
        Some(b'{') => Ok(Form::Json(Layout::Lines)),
        None => Err(wrong("is empty", "give a file with prompts")),
        Some(_) => Err(wrong(
            "is not a prompt file: it is neither JSON nor Parquet",
            "give JSON lines, a JSON list of objects, Parquet, or a folder of images or Parquet files",
        )),
    }
}
