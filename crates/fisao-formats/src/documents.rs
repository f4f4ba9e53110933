//! Small text documents, JSON and TOML: read with errors that name the file, written atomically.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserializer as _, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::FormatError;
use crate::fields::shortened;
use crate::files::{open_file, read_file};
use crate::read_ahead::ReadAhead;

/// Bytes of the longest file of settings. Published ones take some kilobytes, lists of classes a hundred.
const LONGEST_SETTINGS: u64 = 1 << 19;

/// Reads a JSON file; `what` is what the user would call it ("model configuration (config.json)").
///
/// # Errors
/// The file is absent, unreadable, or not such a document.
pub fn read_json<T: DeserializeOwned>(what: &'static str, path: &Path) -> Result<T, FormatError> {
    let text = read_text(what, path)?;
    serde_json::from_str(&text).map_err(|error| not_json(what, path, &text, &error))
}

/// The text of a file is not the JSON that it should be.
fn not_json(what: &'static str, path: &Path, text: &str, error: &serde_json::Error) -> FormatError {
    match not_a_number(text, error) {
        Some(reason) => FormatError::Malformed { what, path: path.to_owned(), reason },
        None => malformed(what, path, error),
    }
}

/// Reads a JSON file of settings, which is never long: a value in memory is many times as large as its text.
///
/// # Errors
/// The file is absent, unreadable, longer than settings are, or not JSON.
pub(crate) fn read_settings(what: &'static str, path: &Path) -> Result<Value, FormatError> {
    let length = fs::metadata(path).map_err(|error| FormatError::reading(what, path, error))?.len();
    if length > LONGEST_SETTINGS {
        let reason = format!("it is {length} bytes long, and at most {LONGEST_SETTINGS} are read");
        return Err(FormatError::Malformed { what, path: path.to_owned(), reason });
    }
    read_json(what, path)
}

/// What is wanted of a field.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    /// What it holds.
    Value,
    /// Whether it is there: it counts as `true`, whatever it holds.
    Presence,
}

/// Reads some fields of a JSON object in a file, which may be long; the others are passed over and take no memory.
///
/// # Errors
/// The file is absent, unreadable, or not a JSON object; a list or object that is wanted is longer than settings are.
pub(crate) fn read_parts(
    what: &'static str,
    path: &Path,
    wanted: &[(&str, Wanted)],
) -> Result<Map<String, Value>, FormatError> {
    let text = read_text(what, path)?;
    let failed = |error: serde_json::Error| not_json(what, path, &text, &error);
    let mut parser = serde_json::Deserializer::from_str(&text);
    let parts = parser.deserialize_map(Parts { wanted }).map_err(failed)?;
    parser.end().map_err(failed)?;
    let mut values = Map::new();
    for (name, part) in parts {
        let Some(part) = part else {
            values.insert(name, true.into());
            continue;
        };
        let length = part.get().len() as u64;
        if part.get().starts_with(['[', '{']) && length > LONGEST_SETTINGS {
            let reason =
                format!("`{name}` is {length} bytes long, and at most {LONGEST_SETTINGS} are read");
            return Err(FormatError::Malformed { what, path: path.to_owned(), reason });
        }
        let value = serde_json::from_str(part.get()).map_err(|error| {
            // Lines are counted from where the part begins.
            let reason = format!("in `{name}`: {error}");
            FormatError::Malformed { what, path: path.to_owned(), reason }
        })?;
        values.insert(name, value);
    }
    Ok(values)
}

/// Reads the text of wanted fields; nothing of those whose presence counts.
struct Parts<'a> {
    wanted: &'a [(&'a str, Wanted)],
}

impl<'de> Visitor<'de> for Parts<'_> {
    type Value = Vec<(String, Option<&'de RawValue>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut parts = Vec::new();
        while let Some(name) = fields.next_key::<String>()? {
            match self.wanted.iter().find(|(wanted, _)| *wanted == name) {
                Some((_, Wanted::Value)) => {
                    parts.push((name, Some(fields.next_value()?)));
                }
                Some((_, Wanted::Presence)) => {
                    fields.next_value::<IgnoredAny>()?;
                    parts.push((name, None));
                }
                None => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(parts)
    }
}

/// What is said of NaN and infinity, which Python writes into JSON and JSON does not have.
fn not_a_number(text: &str, error: &serde_json::Error) -> Option<String> {
    let line = text.lines().nth(error.line().checked_sub(1)?)?;
    // The column is that of the letter at which the parser gave up, which is one of the word.
    let reached = line.get(..error.column().min(line.len()))?;
    let is_of_word = |c: char| c.is_ascii_alphabetic() || c == '-';
    let start = reached.trim_end_matches(is_of_word).len();
    let word = line[start..].split(|c: char| !is_of_word(c)).next()?;
    if !["NaN", "Infinity", "-Infinity"].contains(&word) {
        return None;
    }
    let key = line[..start].trim_end().strip_suffix(':')?.trim_end().strip_suffix('"')?;
    let key = shortened(key.rsplit('"').next()?);
    Some(format!("`{key}` is {word}, which is not a number in JSON (line {})", error.line()))
}

/// Reads a TOML file.
///
/// # Errors
/// The file is absent, unreadable, or not such a document.
pub fn read_toml<T: DeserializeOwned>(what: &'static str, path: &Path) -> Result<T, FormatError> {
    let text = read_text(what, path)?;
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let reason = format!("{} at line {line} column {column}", error.message());
        FormatError::Malformed { what, path: path.to_owned(), reason: reason.replace('\n', ", ") }
    })
}

/// Reads a UTF-8 text file.
///
/// # Errors
/// The file is absent, unreadable, or not UTF-8.
pub fn read_text(what: &'static str, path: &Path) -> Result<String, FormatError> {
    String::from_utf8(read_file(what, path)?).map_err(|error| malformed(what, path, &error))
}

/// Opens a text file to be read bit by bit, unpacked, on a thread of its own, where it is gzipped.
///
/// # Errors
/// The file is absent or unreadable.
pub fn open_text(what: &'static str, path: &Path) -> Result<Box<dyn BufRead>, FormatError> {
    let failed = |error| FormatError::reading(what, path, error);
    let mut file = BufReader::new(open_file(what, path)?);
    let gzipped = file.fill_buf().map_err(failed)?.starts_with(&[0x1F, 0x8B]);
    Ok(if gzipped {
        Box::new(ReadAhead::new(MultiGzDecoder::new(file)).map_err(failed)?)
    } else {
        Box::new(file)
    })
}

/// Writes indented JSON atomically.
///
/// # Errors
/// The file cannot be written.
pub fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), FormatError> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| unserialisable(path, error))?;
    text.push('\n');
    write_atomically(path, |file| file.write_all(text.as_bytes()))
}

/// Writes TOML atomically.
///
/// # Errors
/// The file cannot be written.
pub fn write_toml<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), FormatError> {
    let text = toml::to_string_pretty(value).map_err(|error| unserialisable(path, error))?;
    write_atomically(path, |file| file.write_all(text.as_bytes()))
}

/// Writes bytes atomically.
///
/// # Errors
/// The file cannot be written.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), FormatError> {
    write_atomically(path, |file| file.write_all(bytes))
}

/// Writes a file so that a reader sees the old content or the new, never a part: into a temporary
/// file in the same folder, flushed to the disk, then renamed. Missing parent folders are created.
///
/// # Errors
/// The folder or file cannot be written; the temporary file is removed.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<(), FormatError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|error| FormatError::io("create", folder, error))?;
    let failed = |error| FormatError::io("write", path, error);

    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    // Temporary files are private by default; what is renamed into place is an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut temporary = builder.tempfile_in(folder).map_err(failed)?;
    write(temporary.as_file_mut()).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    // The rename itself survives a power cut only once the folder is on the disk too.
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(())
}

/// Tries whether a file can be written where it is to go, so that this shows before the work and not after it. Nothing is left
/// behind.
///
/// # Errors
/// A folder has that name, or nothing can be written there.
pub fn check_output_file(path: &Path) -> Result<(), FormatError> {
    if path.is_dir() {
        let error = std::io::Error::from(std::io::ErrorKind::IsADirectory);
        return Err(FormatError::io("write", path, error));
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => try_writing(path, parent),
        _ => try_writing(path, Path::new(".")),
    }
}

/// The same of a folder that is to be made, or is there.
///
/// # Errors
/// A file has that name, or nothing can be written there.
pub fn check_output_folder(path: &Path) -> Result<(), FormatError> {
    try_writing(path, path)
}

/// Tries to write a file for `path` into a folder, or into what is there of the folders above it.
fn try_writing(path: &Path, folder: &Path) -> Result<(), FormatError> {
    let failed = |error| FormatError::io("write", path, error);
    let folder = std::path::absolute(folder).map_err(failed)?;
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(&folder);
    if !there.is_dir() {
        return Err(failed(std::io::ErrorKind::NotADirectory.into()));
    }
    tempfile::tempfile_in(there).map(drop).map_err(failed)
}

fn malformed(what: &'static str, path: &Path, error: &dyn std::error::Error) -> FormatError {
    FormatError::Malformed { what, path: path.to_owned(), reason: error.to_string() }
}

fn unserialisable(
    path: &Path,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> FormatError {
    FormatError::io("write", path, std::io::Error::other(error))
}
