//! A row of a prompt set, as it is handed on.

use std::path::PathBuf;

use fisao_images::RgbImage;

use crate::FormatError;
use crate::images::{check_encoded_image, check_image, decode_image, open_image};

/// One prompt about one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptRow {
    /// The name that the row gives itself, or that of its image; of several prompts of an object followed
    /// by `#` and their number from 1. It need not be unique.
    pub id: String,
    /// What the row calls its image, or else which row of which file it is.
    pub image_name: String,
    /// The image.
    pub image: RowImage,
    /// What the model is asked, without a chat template.
    pub prompt: String,
    /// What is known of a good answer.
    pub answer: Answer,
}

impl PromptRow {
    /// Reads or decodes the image.
    ///
    /// # Errors
    /// It is absent, no image or damaged.
    pub fn open_image(&self) -> Result<RgbImage, FormatError> {
        match &self.image {
            RowImage::File(path) => open_image(path),
            RowImage::Bytes(bytes) => decode_image(&self.image_name, bytes),
        }
    }

    /// Looks at the image as closely as is asked for.
    ///
    /// # Errors
    /// It is absent, no image or damaged, as far as was looked.
    pub fn check_image(&self, check: ImageCheck) -> Result<(), FormatError> {
        match (check, &self.image) {
            (ImageCheck::Decoded, _) => self.open_image().map(drop),
            (ImageCheck::Header, RowImage::File(path)) => check_image(path),
            (ImageCheck::Header, RowImage::Bytes(bytes)) => {
                check_encoded_image(&self.image_name, bytes)
            }
        }
    }

    /// Where the image is: its file, or what the row calls it.
    pub fn image_place(&self) -> String {
        match &self.image {
            RowImage::File(path) => path.display().to_string(),
            RowImage::Bytes(_) => self.image_name.clone(),
        }
    }
}

/// How closely an image is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageCheck {
    /// Whether it is one that is read, and not too large, by its first bytes.
    Header,
    /// All of it.
    Decoded,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowImage {
    /// In a file of its own, which may be missing.
    File(PathBuf),
    /// Here: the content of an image file (PNG, JPEG, …).
    Bytes(Vec<u8>),
}

/// What is known of a good answer to a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    None,
    /// A good one.
    Response(String),
    /// Two, of which one was preferred.
    Pair {
        /// The better one.
        chosen: String,
        /// The worse one.
        rejected: String,
    },
}
