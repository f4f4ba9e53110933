//! Images of a folder, by whatever name a file calls them.

use std::path::{Path, PathBuf};

use anyhow::bail;
use fisao_eval::image_id::ImageIndex;
use fisao_formats::images::{is_within, list_images};

use crate::failure::Refusal;

/// A folder of images, which may be called by other names than their files'.
#[derive(Debug)]
pub struct ImageDirectory {
    folder: PathBuf,
    files: Vec<PathBuf>,
    index: ImageIndex,
}

impl ImageDirectory {
    /// Reads which images a folder holds.
    pub fn open(folder: &Path) -> Self {
        // A folder that is not there has no images; the first one that is looked for tells.
        let files = list_images(folder).unwrap_or_default();
        let mut index = ImageIndex::default();
        for (position, file) in files.iter().enumerate() {
            index.insert(&file.file_name().unwrap_or_default().to_string_lossy(), position);
        }
        Self { folder: folder.to_owned(), files, index }
    }

    /// The folder within, if there is one of that name, or this one.
    pub fn within(&self, name: &str) -> Option<Self> {
        let folder = self.folder.join(name);
        (is_within(&self.folder, Path::new(name)) && folder.is_dir()).then(|| Self::open(&folder))
    }

    /// The file of an image: of that name, of that name and an ending, or of the same number in COCO. A name that leads out of
    /// the folder means the file of its last part there.
    pub fn file(&self, name: &str) -> anyhow::Result<PathBuf> {
        if is_within(&self.folder, Path::new(name)) {
            let exact = self.folder.join(name);
            if exact.is_file() {
                return Ok(exact);
            }
        }
        let last = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
        match self.index.find(name).or_else(|| self.index.find(&last)) {
            Some((position, _)) => Ok(self.files[position].clone()),
            None if is_within(&self.folder, Path::new(name)) => bail!(
                Refusal::new(format!("{} has no image {name}", self.folder.display()))
                    .hint("--images names the folder that holds the images")
            ),
            None => bail!(
                Refusal::new(format!(
                    "the image {name} is outside the folder of images, {}, which has none of that name",
                    self.folder.display()
                ))
                .hint("--images names the folder that holds the images")
            ),
        }
    }
}
