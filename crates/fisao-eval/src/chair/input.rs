//! Captions to be judged, from JSON text.

use std::io::BufRead;

use serde::{Deserialize, Serialize};

use super::Lengths;
use crate::caption_row::{visit_captions, visit_made_captions};
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

/// Captions with what their rows say of how they were made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MadeCaptions {
    /// The captions.
    pub captions: Vec<ChairInput>,
    /// Per caption.
    makings: Vec<Making>,
    /// What the rows were asked, while it is one and the same.
    prompt: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Making {
    tokens: Option<usize>,
    cut_off: Option<bool>,
}

impl MadeCaptions {
    /// Leaves out the captions that are not to be kept; one choice for each.
    pub fn retain(&mut self, kept: &[bool]) {
        let keep = |at: &mut std::slice::Iter<bool>| at.next().copied().unwrap_or(false);
        let mut of_captions = kept.iter();
        self.captions.retain(|_| keep(&mut of_captions));
        let mut of_makings = kept.iter();
        self.makings.retain(|_| keep(&mut of_makings));
    }

    /// The prompt, where it is the same for all captions.
    pub fn prompt(&self) -> Option<&str> {
        self.prompt.as_deref()
    }

    /// Tokens of the captions, where every row tells.
    pub fn tokens(&self) -> Option<Lengths> {
        let tokens: Option<Vec<usize>> = self.makings.iter().map(|making| making.tokens).collect();
        Lengths::of(&tokens?)
    }

    /// Captions that were cut off, where every row tells.
    pub fn cut_off(&self) -> Option<usize> {
        let cut_off: Option<Vec<bool>> = self.makings.iter().map(|making| making.cut_off).collect();
        cut_off.filter(|all| !all.is_empty()).map(|all| all.iter().filter(|cut| **cut).count())
    }
}

/// As [`read_captions`], with what the rows say in `prompt`, `tokens` (a number, or a list) and `finish_reason`.
///
/// # Errors
/// As [`read_captions`].
pub fn read_made_captions(reader: impl BufRead) -> Result<MadeCaptions, RowError> {
    let mut made = MadeCaptions::default();
    let mut prompts = 0;
    visit_made_captions(reader, |_, image_id, caption, making| {
        if made.captions.is_empty() || made.prompt != making.prompt {
            prompts += 1;
            made.prompt = making.prompt;
        }
        made.captions.push(ChairInput { image_id, caption });
        made.makings.push(Making { tokens: making.tokens, cut_off: making.cut_off });
        Ok(())
    })?;
    if prompts > 1 {
        made.prompt = None;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: &[&str]) -> MadeCaptions {
        read_made_captions(rows.join("\n").as_bytes()).unwrap()
    }

    #[test]
    fn rows_tell_how_their_captions_were_made() {
        let rows = [
            r#"{"image_id": 1, "caption": "a b", "prompt": "Go.", "tokens": 3, "finish_reason": "stop"}"#,
            r#"{"image_id": 2, "caption": "a", "prompt": "Go.", "tokens": [{"id": 4}, {"id": 2}], "finish_reason": "stop"}"#,
            r#"{"image_id": 3, "caption": "a b c", "prompt": "Go.", "tokens": [1, 2, 3, 4, 5], "finish_reason": "length"}"#,
        ];
        let mut made = read(&rows);
        assert_eq!(made.prompt(), Some("Go."));
        assert_eq!(made.tokens(), Some(Lengths { mean: 3.0, max: 5 }));
        assert_eq!(made.cut_off(), Some(1));
        made.retain(&[true, true, false]);
        assert_eq!((made.captions.len(), made.tokens().unwrap().max), (2, 3));
        assert_eq!(made.cut_off(), Some(0));
    }

    #[test]
    fn what_rows_do_not_tell_is_not_known() {
        let rows = [
            r#"{"image_id": 1, "caption": "a", "prompt": "Go.", "tokens": 3}"#,
            r#"{"image_id": 2, "caption": "a", "prompt": [{"role": "user"}], "tokens": {"a": [1]}}"#,
        ];
        let made = read(&rows);
        assert_eq!((made.prompt(), made.tokens(), made.cut_off()), (None, None, None));
        let two = [
            r#"{"image": 1, "caption": "", "prompt": "A"}"#,
            r#"{"image": 1, "caption": "", "prompt": "B"}"#,
        ];
        assert_eq!(read(&two).prompt(), None);
        assert_eq!(read(&[]).cut_off(), None);
    }
}
