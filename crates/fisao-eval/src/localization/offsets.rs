//! Where in a text something stands.

use std::ops::Range;

/// What offsets in a file count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offsets {
    /// Unicode scalar values, as Python counts.
    #[default]
    Characters,
    /// Bytes of UTF-8.
    Bytes,
}

impl Offsets {
    /// The bytes of a text from `start` up to `end`, which is past the last; `None` where they are not in the text
    /// or, in bytes, within a character.
    pub(super) fn bytes(self, text: &str, start: usize, end: usize) -> Option<Range<usize>> {
        let range = match self {
            Self::Bytes => start..end,
            Self::Characters => byte(text, start)?..byte(text, end)?,
        };
        text.get(range.clone()).map(|_| range)
    }
}

/// Byte at which a character begins; the text's length for the one past the last.
fn byte(text: &str, character: usize) -> Option<usize> {
    let ends = std::iter::once(text.len());
    text.char_indices().map(|(byte, _)| byte).chain(ends).nth(character)
}

/// Whether two ranges share a byte.
pub(super) fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

/// A range without white space at its ends; `None` if that is all there is.
pub(super) fn trimmed(text: &str, bytes: &Range<usize>) -> Option<Range<usize>> {
    let inside = text.get(bytes.clone())?;
    let start = bytes.start + (inside.len() - inside.trim_start().len());
    let end = start + inside.trim().len();
    (start < end).then_some(start..end)
}
