//! What can be wrong with an image file.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::Format;
use crate::limits::MAX_PIXELS;

/// An image that could not be read; every variant names the file, or what the caller called the bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file is not there.
    #[error("no image at {}", path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The operating system refused to open or read it.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It is not an image at all.
    #[error("{} is not an image: it {content}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What it is instead, such as "is text" or "is empty".
        content: String,
    },
    /// An image of a format that is not read.
    #[error("{} is a {format} image, a format that is not read (PNG, JPEG, WebP, BMP, GIF and TIFF are)", path.display())]
    UnreadFormat {
        /// The file.
        path: PathBuf,
        /// Its format, by content.
        format: &'static str,
    },
    /// An image of more pixels than are decoded.
    #[error(
        "{} is a {format} image of {width}×{height} pixels, more than the {MAX_PIXELS} that are decoded",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its format, by content.
        format: Format,
        /// Pixels from left to right.
        width: u64,
        /// Pixels from top to bottom.
        height: u64,
    },
    /// An image that is truncated or damaged.
    #[error("{} is a damaged {format} image: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its format, by content.
        format: Format,
        /// The decoder's reason.
        reason: String,
    },
    /// An image of a kind that its format allows but that is not read.
    #[error("{} is a {format} image of a kind that is not read: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Its format, by content.
        format: Format,
        /// What is unusual about it.
        reason: String,
    },
}

impl ImageError {
    /// The file, or what the caller called the bytes.
    pub fn path(&self) -> &Path {
        match self {
            Self::NotFound { path }
            | Self::Io { path, .. }
            | Self::NotAnImage { path, .. }
            | Self::UnreadFormat { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Damaged { path, .. }
            | Self::Unsupported { path, .. } => path,
        }
    }

    pub(crate) fn reading(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            Self::NotFound { path }
        } else {
            Self::Io { path, source }
        }
    }
}
