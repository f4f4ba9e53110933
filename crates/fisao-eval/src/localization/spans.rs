//! Spans as files write them, and how those of two lists match.

use std::ops::Range;

use serde::Serialize;
use serde_json::{Map, Value};

use super::offsets::{Offsets, overlap, trimmed};
use super::problems::{Fault, Problem};
use crate::rates::rate;
use crate::rows::shortened;

/// A span of a row, of labels or of predictions.
#[derive(Clone, Debug)]
pub(super) struct WrittenSpan {
    /// Without white space at its ends.
    pub(super) bytes: Range<usize>,
    pub(super) label: Option<String>,
}

impl WrittenSpan {
    /// Of `[start, end]`, `[start, end, "label"]`, `{"start", "end"}` or `{"text"}`, the last two with a label under
    /// `label`, `type` or `label_type`.
    pub(super) fn read(value: &Value, text: &str, offsets: Offsets) -> Result<Self, Fault> {
        match value {
            Value::Array(parts) => {
                let (start, end, label) = match &parts[..] {
                    [start, end] => (start, end, None),
                    [start, end, Value::String(label)] => (start, end, Some(label.clone())),
                    _ => return Err(no_span(value)),
                };
                let bytes = located(text, offsets, start, end, None)?;
                Ok(Self { bytes, label })
            }
            Value::Object(fields) => {
                let label =
                    ["label", "type", "label_type"].iter().find_map(|name| fields.get(*name));
                let label = label.filter(|label| !label.is_null());
                let label = label
                    .map(|label| label.as_str().map(str::to_owned).ok_or_else(|| no_span(value)));
                Ok(Self {
                    bytes: bytes_of(fields, value, text, offsets)?,
                    label: label.transpose()?,
                })
            }
            _ => Err(no_span(value)),
        }
    }
}

fn bytes_of(
    fields: &Map<String, Value>,
    value: &Value,
    text: &str,
    offsets: Offsets,
) -> Result<Range<usize>, Fault> {
    let said = fields.get("text").and_then(Value::as_str);
    match (fields.get("start"), fields.get("end"), said) {
        (Some(start), Some(end), said) => located(text, offsets, start, end, said),
        (None, None, Some(said)) => found(text, said),
        _ => Err(no_span(value)),
    }
}

fn no_span(value: &Value) -> Fault {
    Fault::shape(format!(
        "{} is not a span; give {{\"start\": …, \"end\": …}}, [start, end] or {{\"text\": \"…\"}}",
        shortened(&value.to_string())
    ))
}

/// The bytes between two offsets, which should cover `said`.
fn located(
    text: &str,
    offsets: Offsets,
    start: &Value,
    end: &Value,
    said: Option<&str>,
) -> Result<Range<usize>, Fault> {
    let number = |value: &Value| {
        let whole = value.as_f64().filter(|number| number.fract() == 0.0);
        whole.ok_or_else(|| {
            Fault::shape(format!("offset {} is not a whole number", shortened(&value.to_string())))
        })
    };
    let (start, end) = (number(start)?, number(end)?);
    let unit = match offsets {
        Offsets::Characters => "characters",
        Offsets::Bytes => "bytes",
    };
    let outside = || {
        let length = match offsets {
            Offsets::Characters => text.chars().count(),
            Offsets::Bytes => text.len(),
        };
        let reason = format!(
            "span {start} to {end} is outside the text of {length} {unit}; --offsets says what offsets count"
        );
        Fault::of(Problem::OutsideText, reason)
    };
    // No text is as long as numbers that f64 rounds.
    let inside =
        |number: f64| (0.0..=text.len() as f64).contains(&number).then_some(number as usize);
    let range = inside(start).zip(inside(end)).filter(|(start, end)| start <= end);
    let bytes =
        range.and_then(|(start, end)| offsets.bytes(text, start, end)).ok_or_else(outside)?;
    if let Some(said) = said {
        same_text(text, &bytes, said)?;
    }
    let empty = || Fault::of(Problem::Empty, format!("span {start} to {end} covers no word"));
    trimmed(text, &bytes).ok_or_else(empty)
}

/// Whether bytes hold what is said of them, but for case, white space and ASCII punctuation, as `HalLoc`'s own check has it.
pub(super) fn same_text(text: &str, bytes: &Range<usize>, said: &str) -> Result<(), Fault> {
    let bare = |text: &str| -> String {
        let kept = text.chars().filter(|c| !c.is_whitespace() && !c.is_ascii_punctuation());
        kept.flat_map(char::to_lowercase).collect()
    };
    let covered = &text[bytes.clone()];
    if covered == said || bare(covered) == bare(said) {
        return Ok(());
    }
    let (covered, said) = (shortened(covered), shortened(said));
    let reason =
        format!("offsets of '{said}' cover '{covered}'; --offsets says what offsets count");
    Err(Fault::of(Problem::OtherText, reason))
}

/// The one place where a text occurs.
pub(super) fn found(text: &str, said: &str) -> Result<Range<usize>, Fault> {
    let said = said.trim();
    if said.is_empty() {
        return Err(Fault::of(Problem::Empty, "a span without offsets has an empty text"));
    }
    let mut places = text.match_indices(said).map(|(start, _)| start..start + said.len());
    let shown = shortened(said);
    let first = places.next().ok_or_else(|| {
        Fault::of(
            Problem::Missing,
            format!("span '{shown}' does not occur in the text; give offsets"),
        )
    })?;
    // Overlapping occurrences count too: "aa" in "aaa".
    let after = first.start + text[first.clone()].chars().next().map_or(1, char::len_utf8);
    if text[after..].contains(said) {
        let reason = format!("span '{shown}' occurs more than once in the text; give offsets");
        return Err(Fault::of(Problem::Ambiguous, reason));
    }
    Ok(first)
}

/// How predicted spans match labelled ones. Sums over texts.
#[derive(derive_more::Add, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpanMatches {
    /// Predicted spans, different ones of a text.
    pub predicted: usize,
    /// Labelled spans, different ones of a text.
    pub labelled: usize,
    /// Spans that are both: from the same character to the same character.
    pub exact: usize,
    /// Predicted spans that share a character with a labelled one.
    pub predicted_overlapping: usize,
    /// Labelled spans that share a character with a predicted one.
    pub labelled_overlapping: usize,
    /// Characters in predicted spans.
    pub predicted_characters: usize,
    /// Characters in labelled spans.
    pub labelled_characters: usize,
    /// Characters in both.
    pub shared_characters: usize,
}

impl SpanMatches {
    /// Of one text; spans of either list that are equal count once.
    pub fn of(text: &str, predicted: &[Range<usize>], labelled: &[Range<usize>]) -> Self {
        let (predicted, labelled) = (distinct(predicted), distinct(labelled));
        let overlapping = |spans: &[Range<usize>], others: &[Range<usize>]| {
            spans.iter().filter(|span| others.iter().any(|other| overlap(span, other))).count()
        };
        let inside =
            |spans: &[Range<usize>], byte: usize| spans.iter().any(|span| span.contains(&byte));
        let mut characters = [0; 3];
        for (byte, _) in text.char_indices() {
            let (said, is) = (inside(&predicted, byte), inside(&labelled, byte));
            characters[0] += usize::from(said);
            characters[1] += usize::from(is);
            characters[2] += usize::from(said && is);
        }
        Self {
            predicted: predicted.len(),
            labelled: labelled.len(),
            exact: predicted.iter().filter(|span| labelled.contains(span)).count(),
            predicted_overlapping: overlapping(&predicted, &labelled),
            labelled_overlapping: overlapping(&labelled, &predicted),
            predicted_characters: characters[0],
            labelled_characters: characters[1],
            shared_characters: characters[2],
        }
    }

    /// Precision, recall and F1 of exact matches.
    pub fn exact(&self) -> [Option<f64>; 3] {
        precision_recall_f1([self.exact, self.predicted], [self.exact, self.labelled])
    }

    /// Precision, recall and F1 where one shared character is a match.
    pub fn overlap(&self) -> [Option<f64>; 3] {
        precision_recall_f1(
            [self.predicted_overlapping, self.predicted],
            [self.labelled_overlapping, self.labelled],
        )
    }

    /// Precision, recall and F1 of characters.
    pub fn characters(&self) -> [Option<f64>; 3] {
        precision_recall_f1(
            [self.shared_characters, self.predicted_characters],
            [self.shared_characters, self.labelled_characters],
        )
    }
}

/// Precision and recall as (found, of how many), and their harmonic mean; that is 0 where one of them is 0 or of nothing,
/// and `None` where both are of nothing.
fn precision_recall_f1(precision: [usize; 2], recall: [usize; 2]) -> [Option<f64>; 3] {
    let (p, r) = (rate(precision[0], precision[1]), rate(recall[0], recall[1]));
    let f1 = match (p.unwrap_or(0.0), r.unwrap_or(0.0)) {
        _ if p.is_none() && r.is_none() => None,
        (p, r) if p + r > 0.0 => Some(2.0 * p * r / (p + r)),
        _ => Some(0.0),
    };
    [p, r, f1]
}

fn distinct(spans: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut spans = spans.to_vec();
    spans.sort_unstable_by_key(|span| (span.start, span.end));
    spans.dedup();
    spans
}
