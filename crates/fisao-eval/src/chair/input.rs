//! Captions to be judged, from JSON text.

use std::io::BufRead;

use serde::{Deserialize, Serialize};

use crate::image_id::ImageId;
use crate::rows::{Place, RowError, read_rows, shortened};

/// A caption to be judged. Several captions of one image are several inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChairInput {
    /// Image the caption describes; the ground truth may call it by another of its names.
    pub image_id: String,
    /// What the model wrote.
    pub caption: String,
}

#[derive(Deserialize)]
struct CaptionRow {
    image_id: Option<ImageId>,
    image: Option<ImageId>,
    caption: Option<String>,
}

/// Reads `{"image_id" | "image": …, "caption": …}` rows, as a list or one per line; further fields are left
/// alone.
///
/// # Errors
/// The first row that is not such an object or has no caption, named by its line or place in the list.
pub fn read_captions(reader: impl BufRead) -> Result<Vec<ChairInput>, RowError> {
    let mut captions = Vec::new();
    read_rows(reader, r#"{"image_id": …, "caption": "…"}"#, |place, row: CaptionRow| {
        let Some(ImageId(image_id)) = row.image_id.or(row.image) else {
            let reason = "names no image; add \"image_id\" (or \"image\")".to_owned();
            return Err(RowError::Meaning { place, reason });
        };
        let caption = row.caption.ok_or_else(|| no_caption(place, &image_id))?;
        captions.push(ChairInput { image_id, caption });
        Ok(())
    })?;
    Ok(captions)
}

/// A caption that is null or not there: whether the model wrote nothing, or nobody asked it, is for the user to say.
pub(crate) fn no_caption(place: Place, image_id: &str) -> RowError {
    let image_id = shortened(image_id);
    let reason = format!(
        "image '{image_id}' has no caption, or null; write \"\" if it is empty, or remove the row"
    );
    RowError::Meaning { place, reason }
}
