//! Captions and ground truth from JSON text, as a list or one object per line.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A caption to be judged. Several captions of one image are several inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChairInput {
    /// Image the caption describes; must have ground truth under the same name.
    pub image_id: String,
    /// What the model wrote.
    pub caption: String,
}

/// Image id → categories really in the image.
pub type GroundTruth = BTreeMap<String, BTreeSet<String>>;

/// Text that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The text as a whole is not a JSON list.
    #[error("not a JSON list: {source}; give a list of objects or one object per line")]
    List {
        /// What the parser met.
        source: serde_json::Error,
    },
    /// One entry is broken.
    #[error("{place} {number}: {source}; expected {expected}")]
    Row {
        /// "line" of JSON lines, "entry" of a list.
        place: &'static str,
        /// Counted from 1.
        number: usize,
        /// Shape of a good row.
        expected: &'static str,
        /// What the parser met.
        source: serde_json::Error,
    },
    /// A row that says nothing about which image it means.
    #[error("{place} {number} names no image; add \"image_id\" (or \"image\")")]
    NoImage {
        /// "line" of JSON lines, "entry" of a list.
        place: &'static str,
        /// Counted from 1.
        number: usize,
    },
    /// Ground truth given twice for one image.
    #[error("image '{image_id}' has ground truth twice; merge its rows into one")]
    Repeated {
        /// The image.
        image_id: String,
    },
}

/// Ids are numbers in COCO's files and names elsewhere.
#[derive(Deserialize)]
#[serde(untagged)]
enum ImageId {
    Name(String),
    Number(u64),
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        match id {
            ImageId::Name(name) => name,
            ImageId::Number(number) => number.to_string(),
        }
    }
}

#[derive(Deserialize)]
struct CaptionRow {
    image_id: Option<ImageId>,
    image: Option<ImageId>,
    caption: String,
}

#[derive(Deserialize)]
struct GroundTruthRow {
    image_id: Option<ImageId>,
    image: Option<ImageId>,
    objects: Vec<String>,
}

/// Reads `{"image_id" | "image": …, "caption": …}` rows; further fields are left alone.
///
/// # Errors
/// A row that is not such an object, named by its line or place in the list.
pub fn read_captions(text: &str) -> Result<Vec<ChairInput>, InputError> {
    rows(text, r#"{"image_id": …, "caption": "…"}"#)?
        .into_iter()
        .map(|(place, number, row): (_, _, CaptionRow)| {
            let id = row.image_id.or(row.image).ok_or(InputError::NoImage { place, number })?;
            Ok(ChairInput { image_id: id.into(), caption: row.caption })
        })
        .collect()
}

/// Reads `{"image_id" | "image": …, "objects": […]}` rows; further fields are left alone.
///
/// # Errors
/// A row that is not such an object, or an image listed twice.
pub fn read_ground_truth(text: &str) -> Result<GroundTruth, InputError> {
    let mut truth = GroundTruth::new();
    for (place, number, row) in rows(text, r#"{"image_id": …, "objects": ["…"]}"#)? {
        let row: GroundTruthRow = row;
        let id = row.image_id.or(row.image).ok_or(InputError::NoImage { place, number })?;
        let image_id = String::from(id);
        if truth.contains_key(&image_id) {
            return Err(InputError::Repeated { image_id });
        }
        truth.insert(image_id, row.objects.into_iter().collect());
    }
    Ok(truth)
}

fn rows<Row: DeserializeOwned>(
    text: &str,
    expected: &'static str,
) -> Result<Vec<(&'static str, usize, Row)>, InputError> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('[') {
        let entries: Vec<serde_json::Value> =
            serde_json::from_str(text).map_err(|source| InputError::List { source })?;
        let row = |(index, entry)| {
            let number = index + 1;
            serde_json::from_value(entry)
                .map(|row| ("entry", number, row))
                .map_err(|source| InputError::Row { place: "entry", number, expected, source })
        };
        return entries.into_iter().enumerate().map(row).collect();
    }
    let row = |(index, line): (usize, &str)| {
        let number = index + 1;
        serde_json::from_str(line)
            .map(|row| ("line", number, row))
            .map_err(|source| InputError::Row { place: "line", number, expected, source })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(row).collect()
}
