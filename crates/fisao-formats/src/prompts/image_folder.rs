//! Where the images are that a prompt file names.

use std::path::{Path, PathBuf};

use super::reading::ImageReference;
use crate::images::is_within;

/// The folder that names of images are looked up in.
pub(super) struct ImageFolder {
    folder: PathBuf,
    /// Whether names may lead out of it.
    outside: bool,
}

impl ImageFolder {
    pub(super) fn new(folder: &Path, outside: bool) -> Self {
        Self { folder: folder.to_owned(), outside }
    }

    /// The file of a name. Links within the folder are followed wherever they lead: whoever made the folder put them there.
    ///
    /// # Errors
    /// The name leads out of the folder, be it through `..` or as an absolute path.
    pub(super) fn file(&self, name: &str) -> Result<PathBuf, String> {
        if !self.outside && !is_within(&self.folder, Path::new(name)) {
            return Err(format!(
                "its image `{}` is outside the folder of images, {}; --allow-outside-images reads it, --images names another \
                 folder",
                shortened(name),
                if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder }
                    .display()
            ));
        }
        Ok(self.folder.join(name))
    }

    /// Refuses what [`Self::file`] refuses.
    pub(super) fn check(&self, image: &ImageReference) -> Result<(), String> {
        match image {
            ImageReference::Path(name) => self.file(name).map(drop),
            _ => Ok(()),
        }
    }
}

/// A text from a file for a message, cut where it is long.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} characters)", &text[..end], text.chars().count()),
    }
}
