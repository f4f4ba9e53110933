//! Which bytes of a decoded text each token spelled.
//!
//! A decoder is a black box from tokens to text: it strips a leading space, joins the bytes of a
//! character spread over several tokens, drops prefixes. So spans come from decoding prefixes: what
//! the text of the first `i` tokens has in common with the whole text is settled, and what token
//! `i` adds to the settled part is its own. A prefix that ends within a character shows replacement
//! characters instead of it; such a token is *open*, and shares the character with the tokens that
//! complete it.

use std::ops::Range;

use fisao_models::text::{DecodedText, TextError};

/// Tokens decoded afresh for each new one. Decoding every prefix in full would be quadratic in the
/// length of the text.
const WINDOW: usize = 16;

/// Decodes `ids`, and attributes the bytes of the text to them. Spans are ordered, lie on character
/// boundaries, and together cover the text; a token that is not `spelled` has an empty one.
pub(super) fn decode_with_spans(
    ids: &[u32],
    spelled: &[bool],
    decode: impl Fn(&[u32]) -> Result<String, TextError>,
) -> Result<DecodedText, TextError> {
    let text = decode(ids)?;
    let tokens = ids.iter().zip(spelled).filter(|(_, spelled)| **spelled).map(|(&id, _)| id);
    let tokens = tokens.collect::<Vec<_>>();
    let progress = match windowed_progress(&tokens, &text, &decode)? {
        Some(progress) => progress,
        None => prefix_progress(&tokens, &text, &decode)?,
    };
    let mut own = spans_of(&text, &progress).into_iter().peekable();
    let mut spans = Vec::with_capacity(ids.len());
    for &spelled in spelled {
        let span = if spelled { own.next() } else { own.peek().map(|next| next.start..next.start) };
        spans.push(span.unwrap_or(text.len()..text.len()));
    }
    Ok(DecodedText { text, spans })
}

/// How far the text stands after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    /// Bytes that the text so far has in common with the whole text.
    common: usize,
    /// Whether the text so far goes on differently: it ends within a character.
    open: bool,
}

impl Progress {
    fn of(so_far: &str, text: &str) -> Self {
        let common = so_far
            .char_indices()
            .zip(text.chars())
            .find(|((_, a), b)| a != b)
            .map_or(so_far.len().min(text.len()), |((index, _), _)| index);
        Self { common, open: common < so_far.len() }
    }
}

/// The definition: every prefix decoded in full.
fn prefix_progress(
    tokens: &[u32],
    text: &str,
    decode: impl Fn(&[u32]) -> Result<String, TextError>,
) -> Result<Vec<Progress>, TextError> {
    (1..=tokens.len()).map(|end| Ok(Progress::of(&decode(&tokens[..end])?, text))).collect()
}

/// The same from a window of tokens: what the window's decoding adds to that of its first part, whose
/// end in the text is known. `None` if the decoder looks further than that.
fn windowed_progress(
    tokens: &[u32],
    text: &str,
    decode: impl Fn(&[u32]) -> Result<String, TextError>,
) -> Result<Option<Vec<Progress>>, TextError> {
    let mut progress = Vec::<Progress>::with_capacity(tokens.len());
    let mut window = 0;
    // Text of the window's first part, and where that part ends in the whole text.
    let (mut context, mut settled) = (String::new(), 0);
    for end in 1..=tokens.len() {
        let decoded = decode(&tokens[window..end])?;
        let Some(added) = decoded.strip_prefix(context.as_str()) else { return Ok(None) };
        let mut step = Progress::of(added, &text[settled..]);
        step.common += settled;
        progress.push(step);
        if end - window >= WINDOW && !step.open {
            let first = end - WINDOW / 2;
            let before = progress[first - 1];
            let part = decode(&tokens[first..end])?;
            // The part keeps its leading space only if something stands before it, so its own
            // text must be what the whole text has there, but for that space.
            let whole = &text[before.common.min(step.common)..step.common];
            if before.open || part.is_empty() || part.trim_start() != whole.trim_start() {
                continue;
            }
            (window, context, settled) = (first, part, step.common);
        }
    }
    let complete = progress.last().is_none_or(|last| !last.open && last.common == text.len());
    Ok(complete.then_some(progress))
}

fn spans_of(text: &str, progress: &[Progress]) -> Vec<Range<usize>> {
    // Text is settled only if no later token changes it again.
    let mut ends = progress.iter().map(|step| step.common).collect::<Vec<_>>();
    for index in (1..ends.len()).rev() {
        ends[index - 1] = ends[index - 1].min(ends[index]);
    }
    let mut start = 0;
    let spans = ends.iter().zip(progress).map(|(&end, step)| {
        let character = if step.open || end < step.common {
            text[end..].chars().next().map_or(0, char::len_utf8)
        } else {
            0
        };
        let span = start..end + character;
        start = end;
        span
    });
    spans.collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Words joined by a space, or bytes where the id is above 1000, as Llama's decoder would.
    fn decode(ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if id >= 1000 {
                bytes.push(u8::try_from(id - 1000).expect("a byte"));
            } else {
                bytes.extend_from_slice(format!(" w{id}").as_bytes());
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.strip_prefix(' ').unwrap_or(&text).to_owned()
    }

    #[test]
    fn windowed_spans_equal_prefix_spans_at_linear_cost() {
        let bytes = "叫".bytes().map(|byte| 1000 + u32::from(byte));
        let ids = (0..300).flat_map(|id| bytes.clone().take(3 * (id as usize % 2)).chain([id]));
        let ids = ids.collect::<Vec<_>>();
        let text = decode(&ids);
        let decoded = Cell::new(0);
        let counting = |ids: &[u32]| {
            decoded.set(decoded.get() + ids.len());
            Ok(decode(ids))
        };
        let windowed = windowed_progress(&ids, &text, counting).expect("decoding cannot fail");
        assert!(decoded.get() <= 2 * WINDOW * ids.len(), "{} ids decoded", decoded.get());
        let whole = prefix_progress(&ids, &text, |ids| Ok(decode(ids)));
        assert_eq!(windowed, Some(whole.expect("decoding cannot fail")));
    }

    #[test]
    fn decoder_with_long_context_falls_back_to_full_prefixes() {
        // Every token is spelled as the number of tokens before it.
        let decode = |ids: &[u32]| {
            let numbers = (0..ids.len()).map(|index| format!("{index};"));
            Ok(numbers.collect::<Vec<_>>().concat())
        };
        let ids = [7; 60];
        let decoded = decode_with_spans(&ids, &[true; 60], decode).expect("it cannot fail");
        assert_eq!(&decoded.text[decoded.spans[59].clone()], "59;");
    }
}
