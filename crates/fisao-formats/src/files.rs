//! Opening what a user names as a file.

use std::fs::{self, File, FileType};
use std::io::Read as _;
use std::path::Path;

use crate::FormatError;

/// Opens a regular file, which a symbolic link may lead to; `what` is what the user would call it. A named pipe may never
/// say anything, and a device never stop.
///
/// # Errors
/// The file is absent or unreadable, or is no regular file; the error says what it is.
pub(crate) fn open_file(what: &'static str, path: &Path) -> Result<File, FormatError> {
    let failed = |error| FormatError::reading(what, path, error);
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    if kind.is_file() {
        File::open(path).map_err(failed)
    } else {
        Err(FormatError::NotAFile { what, path: path.to_owned(), found: describe(kind) })
    }
}

/// All bytes of a regular file; `what` is what the user would call it.
///
/// # Errors
/// As for [`open_file`].
pub(crate) fn read_file(what: &'static str, path: &Path) -> Result<Vec<u8>, FormatError> {
    let mut bytes = Vec::new();
    let read = open_file(what, path)?.read_to_end(&mut bytes);
    read.map_err(|error| FormatError::reading(what, path, error))?;
    Ok(bytes)
}

/// What something is that is no regular file.
pub(crate) fn describe(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if kind.is_fifo() {
            return "a named pipe";
        } else if kind.is_socket() {
            return "a socket";
        } else if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_dir() { "a folder" } else { "no regular file" }
}
