//! Captions to be judged, from JSON text.

use std::io::BufRead;

use serde::{Deserialize, Serialize};

use crate::caption_row::visit_captions;
use crate::rows::RowError;

/// A caption to be judged. Several captions of one image are several inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChairInput {
    /// Image the caption describes; the ground truth may call it by another of its names.
    pub image_id: String,
    /// What the model wrote.
    pub caption: String,
}

/// Reads `{"image_id" | "image": …, "caption" | "text": …}` rows, as a list or one per line; further fields are left
/// alone.
///
/// # Errors
/// The first row that is not such an object or has no caption, named by its line or place in the list.
pub fn read_captions(reader: impl BufRead) -> Result<Vec<ChairInput>, RowError> {
    let mut captions = Vec::new();
    visit_captions(reader, |_, image_id, caption| {
        captions.push(ChairInput { image_id, caption });
        Ok(())
    })?;
    Ok(captions)
}
