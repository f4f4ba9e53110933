//! Image files, read by `fisao-images`, and folders of them.

mod within;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use fisao_images::RgbImage;
use fisao_images::decode;
use fisao_images::format::{EXTENSIONS, UNREAD_EXTENSIONS};

pub use self::within::is_within;
use crate::FormatError;

/// Opens an image file.
///
/// # Errors
/// The file is absent, is not an image (the error says what it looks like), is truncated, or has more pixels than are decoded.
pub fn open_image(path: &Path) -> Result<RgbImage, FormatError> {
    Ok(decode::open_image(path)?)
}

/// Decodes an image file that is in memory; `name` is what errors call it.
///
/// # Errors
/// The bytes are not an image (the error says what they look like), are truncated, or have more pixels than are decoded.
pub fn decode_image(name: &str, bytes: &[u8]) -> Result<RgbImage, FormatError> {
    Ok(decode::decode_image(name, bytes)?)
}

/// Looks at an image file's header, without decoding its pixels.
///
/// # Errors
/// As for [`open_image`], but for damage behind the header.
pub fn check_image(path: &Path) -> Result<(), FormatError> {
    Ok(decode::check_image(path)?)
}

/// The same of one that is in memory.
///
/// # Errors
/// As for [`decode_image`], but for damage behind the header.
pub fn check_encoded_image(name: &str, bytes: &[u8]) -> Result<(), FormatError> {
    Ok(decode::check_encoded_image(name, bytes)?)
}

/// The image files of a folder (not of its subfolders), sorted by name. Hidden files, which macOS for instance leaves beside
/// every image (`._photo.jpg`), are passed over.
///
/// # Errors
/// The folder is absent, or holds no file with one of [`EXTENSIONS`].
pub fn list_images(folder: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let images = files_with(EXTENSIONS, folder)?;
    if images.is_empty() {
        let extensions = EXTENSIONS.iter().map(|extension| format!("*.{extension}"));
        let extensions = extensions.collect::<Vec<_>>().join(", ");
        return Err(FormatError::NoImages { path: folder.to_owned(), extensions });
    }
    Ok(images)
}

/// The files of a folder that are images by their extension, of formats that are not read; sorted by name.
///
/// # Errors
/// The folder is absent.
pub fn list_unread_images(folder: &Path) -> Result<Vec<PathBuf>, FormatError> {
    files_with(UNREAD_EXTENSIONS, folder)
}

fn files_with(extensions: &[&str], folder: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let entries = fs::read_dir(folder)
        .map_err(|error| FormatError::reading("image folder", folder, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| FormatError::io("read", folder, error))?.path();
        let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
        let wanted = extension.is_some_and(|extension| extensions.contains(&extension.as_str()));
        if wanted && !is_hidden(&path) && path.is_file() {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Whether a file's name begins with a full stop.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
