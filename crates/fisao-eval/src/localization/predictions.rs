//! What a detector says of texts: lines of `fisao verify --format json`, or spans with scores from anywhere.

use std::io::BufRead;
use std::ops::Range;

use serde::Serialize;
use serde_json::Value;

use super::labels::LabelOptions;
use super::offsets::Offsets;
use super::problems::{Fault, Skipped};
use super::rows::{About, Ids, Row, list, present, tokens};
use super::spans::WrittenSpan;
use super::tokens::align;
use crate::rows::{RowError, read_rows, shortened};

/// Where scores come from. In all, higher means more likely hallucinated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Orientation {
    /// Scores of spans, as the file gives them.
    Given,
    /// `p_hallucinated` of `fisao verify`.
    Probability,
    /// The score of `fisao verify` without a calibration, with its sign changed: it is high where the object is in the image.
    NegatedScore,
}

/// A part of a text and what a detector says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictedSpan {
    /// Bytes of the text.
    pub bytes: Range<usize>,
    /// Higher is more likely hallucinated.
    pub score: f64,
    /// Whether the detector calls it hallucinated, where it decides.
    pub verdict: Option<bool>,
}

/// A text and what a detector says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictedText {
    /// What the file calls it.
    pub id: Option<String>,
    /// The image it is about.
    pub image: Option<String>,
    /// The text that was looked at.
    pub text: String,
    /// What the detector has an opinion on.
    pub spans: Vec<PredictedSpan>,
    /// Whether each span is a token, so that neighbours that are flagged are one.
    pub of_tokens: bool,
}

/// All predictions of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    /// In the order of the file.
    pub texts: Vec<PredictedText>,
    /// Where the scores come from; `None` of no span.
    pub orientation: Option<Orientation>,
    /// Texts left out.
    pub skipped: Skipped,
}

/// Reads predictions, as a list or one per line: what `fisao verify --format json` prints, `{"text", "spans": [{"start", "end",
/// "score"}]}` with or without verdicts (`hallucinated`), or `{"tokens", "scores"}`. A span with neither score nor verdict is
/// one that the detector calls hallucinated.
///
/// # Errors
/// A row without a text or predictions, a score that is not finite, scores of two kinds, an id that another row has; a span that
/// does not fit its text, unless such texts are skipped. Each with its place.
pub fn read_predictions(
    reader: impl BufRead,
    options: &LabelOptions,
) -> Result<Predictions, RowError> {
    let mut predictions = Predictions::default();
    let mut ids = Ids::default();
    read_rows(
        reader,
        r#"{"image": …, "text": "…", "spans": [{"start", "end", "score"}]}"#,
        |place, row: Row| {
            let mut orientation = predictions.orientation;
            let text = match predicted(&row, options, &mut orientation) {
                Ok(text) => text,
                Err(fault) => return predictions.skipped.meet(options.broken, place, fault),
            };
            predictions.orientation = orientation;
            ids.add(text.id.as_ref(), place)?;
            predictions.texts.push(text);
            Ok(())
        },
    )?;
    Ok(predictions)
}

fn predicted(
    row: &Row,
    options: &LabelOptions,
    orientation: &mut Option<Orientation>,
) -> Result<PredictedText, Fault> {
    let tokens = tokens(row)?;
    let (id, image, text) =
        About::of(row, options.text_field.as_deref())?.text_or(tokens.as_deref())?;
    let mut of_tokens = false;
    let spans = if let Some((_, mentions)) = list(row, &["mentions"])? {
        verified(mentions, &text, orientation)?
    } else if let Some((_, scores)) = list(row, &["scores"])? {
        let tokens = tokens.ok_or_else(|| {
            Fault::shape("\"scores\" are those of tokens, but there are no \"tokens\"")
        })?;
        if tokens.len() != scores.len() {
            let (tokens, scores) = (tokens.len(), scores.len());
            return Err(Fault::shape(format!(
                "{tokens} tokens but {scores} scores; give each token one, or null"
            )));
        }
        of_tokens = true;
        let mut spans = Vec::with_capacity(tokens.len());
        for (bytes, score) in align(&text, tokens)?.into_iter().zip(scores) {
            if let Some(bytes) = bytes.filter(|_| !score.is_null()) {
                one_kind(orientation, Orientation::Given)?;
                spans.push(PredictedSpan { bytes, score: number(score)?, verdict: None });
            }
        }
        spans
    } else {
        let names = ["spans", "predictions", "soft_labels", "hard_labels"];
        let (_, values) = list(row, &names)?.ok_or_else(|| {
            let names = names.map(|name| format!("\"{name}\"")).join(", ");
            Fault::shape(format!(
                "no predictions; they are looked for in {names}, \"mentions\" and \"scores\""
            ))
        })?;
        values
            .iter()
            .map(|value| given(value, &text, options.offsets, orientation))
            .collect::<Result<_, _>>()?
    };
    Ok(PredictedText { id, image, text, spans, of_tokens })
}

/// Mentions of `fisao verify`; negated ones have no score.
fn verified(
    mentions: &[Value],
    text: &str,
    orientation: &mut Option<Orientation>,
) -> Result<Vec<PredictedSpan>, Fault> {
    let mut spans = Vec::with_capacity(mentions.len());
    for mention in mentions {
        let bytes = WrittenSpan::read(mention, text, Offsets::Characters)?.bytes;
        if mention.get("negated") == Some(&Value::Bool(true)) {
            continue;
        }
        let probability = mention.get("p_hallucinated").filter(|value| !value.is_null());
        let score = match (probability, mention.get("score")) {
            (Some(probability), _) => {
                one_kind(orientation, Orientation::Probability)?;
                number(probability)?
            }
            (None, Some(score)) => {
                one_kind(orientation, Orientation::NegatedScore)?;
                -number(score)?
            }
            (None, None) => {
                return Err(Fault::shape("a mention has neither \"p_hallucinated\" nor \"score\""));
            }
        };
        spans.push(PredictedSpan { bytes, score, verdict: verdict(mention)? });
    }
    Ok(spans)
}

/// A span with a score, a verdict, both or neither.
fn given(
    value: &Value,
    text: &str,
    offsets: Offsets,
    orientation: &mut Option<Orientation>,
) -> Result<PredictedSpan, Fault> {
    let bytes = WrittenSpan::read(value, text, offsets)?.bytes;
    one_kind(orientation, Orientation::Given)?;
    let names = ["score", "p_hallucinated", "probability", "prob"];
    let score =
        value.as_object().and_then(|fields| names.iter().find_map(|name| present(fields, name)));
    let (score, verdict) = match (score.map(number).transpose()?, verdict(value)?) {
        (Some(score), verdict) => (score, verdict),
        (None, verdict) => {
            let flagged = verdict.unwrap_or(true);
            (f64::from(u8::from(flagged)), Some(flagged))
        }
    };
    Ok(PredictedSpan { bytes, score, verdict })
}

fn verdict(value: &Value) -> Result<Option<bool>, Fault> {
    match value.get("hallucinated") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flagged)) => Ok(Some(*flagged)),
        Some(other) => {
            let other = shortened(&other.to_string());
            Err(Fault::shape(format!("\"hallucinated\" is {other}; give true or false")))
        }
    }
}

fn number(value: &Value) -> Result<f64, Fault> {
    value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| {
        let value = shortened(&value.to_string());
        Fault::shape(format!(
            "score {value} is not a finite number; higher is more likely hallucinated"
        ))
    })
}

fn one_kind(orientation: &mut Option<Orientation>, kind: Orientation) -> Result<(), Fault> {
    if *orientation.get_or_insert(kind) == kind {
        return Ok(());
    }
    Err(Fault::shape(
        "scores of this row and of an earlier one are of different kinds, such as with a calibration and without; give one kind",
    ))
}
