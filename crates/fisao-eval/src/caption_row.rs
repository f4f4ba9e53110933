//! Captions as every command writes and reads them: `{"image_id": …, "caption": "…"}`.

use std::io::BufRead;

use serde::Deserialize;

use crate::image_id::ImageId;
use crate::rows::{Place, RowError, read_rows, shortened};
use crate::written_facts::{self, WrittenTokens};

#[derive(Deserialize)]
struct CaptionRow {
    image_id: Option<ImageId>,
    image: Option<ImageId>,
    caption: Option<String>,
    /// As earlier versions of `fisao caption` wrote it.
    text: Option<String>,
    #[serde(default, deserialize_with = "written_facts::text")]
    prompt: Option<String>,
    #[serde(default, deserialize_with = "written_facts::tokens")]
    tokens: Option<WrittenTokens>,
    #[serde(default, deserialize_with = "written_facts::text")]
    finish_reason: Option<String>,
}

/// What a row says of how its caption was made.
pub(crate) struct Making {
    /// What was asked.
    pub(crate) prompt: Option<String>,
    /// Tokens of the caption, the end token not counted.
    pub(crate) tokens: Option<usize>,
    /// Whether the number of tokens was used up.
    pub(crate) cut_off: Option<bool>,
}

/// Hands image and caption of every row, of a list or one per line, to `each`; further fields are left alone.
///
/// # Errors
/// The first row that is not such an object, names no image or has no caption; what `each` returns.
pub(crate) fn visit_captions(
    reader: impl BufRead,
    mut each: impl FnMut(Place, String, String) -> Result<(), RowError>,
) -> Result<(), RowError> {
    visit_made_captions(reader, |place, image_id, caption, _| each(place, image_id, caption))
}

/// The same with what the rows say of how the captions were made.
///
/// # Errors
/// As [`visit_captions`].
pub(crate) fn visit_made_captions(
    reader: impl BufRead,
    mut each: impl FnMut(Place, String, String, Making) -> Result<(), RowError>,
) -> Result<(), RowError> {
    read_rows(reader, r#"{"image_id": …, "caption": "…"}"#, |place, row: CaptionRow| {
        let Some(ImageId(image_id)) = row.image_id.or(row.image) else {
            let reason = "names no image; add \"image_id\" (or \"image\")".to_owned();
            return Err(RowError::Meaning { place, reason });
        };
        let caption = row.caption.or(row.text).ok_or_else(|| no_caption(place, &image_id))?;
        let cut_off = row.finish_reason.map(|reason| reason == "length");
        // `fisao caption` lists the end token with the others, which `fisao eval` does not count.
        let tokens = row.tokens.map(|WrittenTokens { count, listed }| {
            count - usize::from(listed && cut_off == Some(false) && count > 0)
        });
        let making = Making { prompt: row.prompt, tokens, cut_off };
        each(place, image_id, caption, making)
    })
}

/// A caption that is null or not there: whether the model wrote nothing, or nobody asked it, is for the user to say.
fn no_caption(place: Place, image_id: &str) -> RowError {
    let image_id = shortened(image_id);
    let reason = format!(
        "image '{image_id}' has no caption, or null; write \"\" if it is empty, or remove the row"
    );
    RowError::Meaning { place, reason }
}
