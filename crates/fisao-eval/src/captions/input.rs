//! Captions to score and what people wrote, from JSON text read as a stream.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::BufRead;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::caption_row::visit_captions;
use crate::image_id::{ImageId, ImageIndex, same_number};
use crate::rows::{RowError, first_character};

const REFERENCE_ROW: &str =
    r#"{"image_id": …, "captions": ["…"]}, or COCO's file with "annotations""#;

/// A caption to be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptionInput {
    /// Image the caption describes.
    pub image_id: String,
    /// What the model wrote; may be empty.
    pub caption: String,
}

/// Captions or references that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptionInputError {
    /// A row is broken.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A file of references is broken.
    #[error("{source}; expected {REFERENCE_ROW}")]
    References {
        /// What the parser met, and where.
        source: serde_json::Error,
    },
}

/// Reads `{"image_id" | "image": …, "caption" | "text": "…"}` rows, as a list or one per line; further fields are left alone.
///
/// # Errors
/// A row that is not such an object, or a second caption of an image, with its place.
pub fn read_caption_rows(reader: impl BufRead) -> Result<Vec<CaptionInput>, CaptionInputError> {
    let mut captions = Vec::new();
    let mut seen = HashSet::new();
    visit_captions(reader, |place, image_id, caption| {
        if !seen.insert(image_id.clone()) {
            let reason = format!(
                "image '{image_id}' has a caption already; give one caption for each image"
            );
            return Err(RowError::Meaning { place, reason });
        }
        captions.push(CaptionInput { image_id, caption });
        Ok(())
    })?;
    Ok(captions)
}

/// What people wrote of images.
#[derive(Clone, Debug, Default)]
pub struct References {
    images: Vec<(String, Vec<String>)>,
    positions: HashMap<String, usize>,
    index: ImageIndex,
    /// What images' files are called, where that is another name than the id.
    files: HashMap<String, String>,
}

/// An entry of "images", or something else of that name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Image {
    Numbered { id: ImageId, file_name: String },
    Other(IgnoredAny),
}

/// COCO's list of images, or something else of that name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Images {
    Listed(Vec<Image>),
    Other(IgnoredAny),
}

impl References {
    /// Adds captions of an image to those it has.
    pub fn add(&mut self, image_id: &str, captions: impl IntoIterator<Item = String>) {
        let position = self.positions.get(image_id).copied().unwrap_or_else(|| {
            let position = self.images.len();
            self.images.push((image_id.to_owned(), Vec::new()));
            self.positions.insert(image_id.to_owned(), position);
            self.index.insert(image_id, position);
            position
        });
        self.images[position].1.extend(captions);
    }

    /// Image ids with their captions, in the order in which they were added.
    pub fn images(&self) -> &[(String, Vec<String>)] {
        &self.images
    }

    /// Finds images by any of their names.
    pub fn index(&self) -> &ImageIndex {
        &self.index
    }

    /// What the file of an image is called: its id, unless the references name a file.
    pub fn file_of<'a>(&'a self, id: &'a str) -> &'a str {
        self.files.get(id).map_or(id, String::as_str)
    }

    fn name_files(&mut self, images: Images) {
        let Images::Listed(images) = images else { return };
        for image in images {
            if let Image::Numbered { id: ImageId(id), file_name } = image
                && !same_number(&id, &file_name)
            {
                self.files.insert(id, file_name);
            }
        }
    }

    /// The same, with files' names to find images by.
    fn with_aliases(mut self) -> Self {
        for (id, file) in &self.files {
            if let Some(&position) = self.positions.get(id) {
                self.index.insert_alias(file, position);
            }
        }
        self
    }
}

/// Reads references: COCO's `captions_*.json` (an object whose "annotations" hold "`image_id`" and "caption"), or rows
/// `{"image_id" | "image": …, "captions": ["…"]}` as a list or one after another; a row may hold one "caption" instead.
/// Captions of one image in several rows are put together. Only captions and image ids are kept in memory.
///
/// # Errors
/// Text that is neither, with line and column.
pub fn read_references(mut reader: impl BufRead) -> Result<References, CaptionInputError> {
    let mut references = References::default();
    let first = first_character(&mut reader).map_err(|source| RowError::Io { source })?;
    // A list is one value; objects follow each other, with white space between them.
    let byte_order_mark = [0xEF, 0xBB, 0xBF];
    let marked = first.is_some() && {
        let buffer = reader.fill_buf().map_err(|source| RowError::Io { source })?;
        buffer.starts_with(&byte_order_mark)
    };
    if marked {
        reader.consume(byte_order_mark.len());
    }
    let mut text = serde_json::Deserializer::from_reader(reader);
    let failed = |source| CaptionInputError::References { source };
    if first == Some(b'[') {
        let list = Rows { references: &mut references };
        text.deserialize_seq(list).and_then(|()| text.end()).map_err(failed)?;
        return Ok(references.with_aliases());
    }
    while text.end().is_err() {
        Row { references: &mut references }.deserialize(&mut text).map_err(failed)?;
    }
    Ok(references.with_aliases())
}

/// A list of rows, handed on as they are met.
struct Rows<'a> {
    references: &'a mut References,
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of captions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(Row { references: self.references })?.is_some() {}
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

/// An object that holds captions of an image, or a list of such objects under "annotations".
struct Row<'a> {
    references: &'a mut References,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with captions")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let (mut image_id, mut captions, mut annotated) = (None, None, false);
        while let Some(key) = fields.next_key::<String>()? {
            match key.as_str() {
                "annotations" => {
                    fields.next_value_seed(Rows { references: self.references })?;
                    annotated = true;
                }
                "images" => self.references.name_files(fields.next_value()?),
                "image_id" => image_id = Some(fields.next_value::<ImageId>()?),
                "image" if image_id.is_none() => image_id = Some(fields.next_value::<ImageId>()?),
                "captions" => captions = Some(fields.next_value::<Vec<String>>()?),
                "caption" => captions = Some(vec![fields.next_value::<String>()?]),
                _ => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        match (image_id, captions) {
            (Some(ImageId(image_id)), Some(captions)) => self.references.add(&image_id, captions),
            _ if annotated => {}
            (None, _) => return Err(serde::de::Error::custom("this object names no image")),
            (_, None) => return Err(serde::de::Error::custom("this object holds no captions")),
        }
        Ok(())
    }
}
