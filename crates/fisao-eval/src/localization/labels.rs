//! Texts whose hallucinated parts are labelled.
//!
//! Layouts are told by their fields, row by row: `HalLoc`'s (`hallucinated_text`, and `annotations` by type, each a
//! list of parts `{"name", "char_index": "start:end"}`), M-HalDetect's (`annotations`, a list of segments with `label`),
//! `RAGTruth`'s (`labels`, a list of spans with `label_type`), Mu-SHROOM's (`hard_labels`, a list of pairs), spans of one's
//! own (`spans`), and tokens with a label each.

use std::io::BufRead;
use std::ops::Range;

use serde_json::{Map, Value};

use super::offsets::Offsets;
use super::problems::{Broken, Fault, Problem, Skipped};
use super::rows::{About, Ids, Row, list, present, tokens};
use super::spans::{WrittenSpan, found, same_text};
use super::tokens::align;
use crate::rows::{RowError, read_rows, shortened};

/// Type of a labelled hallucination that has none.
pub const UNTYPED: &str = "hallucination";

/// Types of `HalLoc`, and what its files call them. `all` says that something is hallucinated, and not how.
const HALLOC_TYPES: [(&str, &str); 7] = [
    ("object", "object"),
    ("attribute", "attribute"),
    ("relationship", "relationship"),
    ("relation", "relationship"),
    ("scene", "scene"),
    ("other", "other"),
    ("all", UNTYPED),
];

/// Fields that hold spans; `labels` may also hold one label for each token.
const SPAN_FIELDS: [&str; 4] = ["spans", "annotations", "labels", "hard_labels"];

/// Fields that hold one label for each token.
const TOKEN_FIELDS: [&str; 3] = ["token_labels", "tags", "ner_tags"];

/// More types than a mask of 64 bits holds are not types.
const MOST_TYPES: usize = 64;

/// How labels are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelOptions {
    /// What offsets of spans count; those of `HalLoc`'s `char_index` are characters.
    pub offsets: Offsets,
    /// Labels of spans that are right, in any case.
    pub clean: Vec<String>,
    /// Labels of spans that are neither, whose words are left out of all measures, in any case.
    pub ignored: Vec<String>,
    /// Whether the tokens that labels give are wanted, and so have to be found in the text; those of token labels are always.
    pub with_tokens: bool,
    /// The field that holds the text, where it is not one that can be told.
    pub text_field: Option<String>,
    /// What is done about texts whose labels do not fit.
    pub broken: Broken,
}

impl Default for LabelOptions {
    /// M-HalDetect's classes: accurate and analysis are right, unsure is neither.
    fn default() -> Self {
        Self {
            offsets: Offsets::default(),
            clean: ["accurate", "analysis"].map(str::to_owned).to_vec(),
            ignored: vec!["unsure".to_owned()],
            with_tokens: false,
            text_field: None,
            broken: Broken::default(),
        }
    }
}

/// A hallucinated part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSpan {
    /// Bytes of the text.
    pub bytes: Range<usize>,
    /// Position of its type in [`Labels::types`].
    pub kind: usize,
}

/// A text and its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledText {
    /// What the file calls it.
    pub id: Option<String>,
    /// The image it is about.
    pub image: Option<String>,
    /// What the model wrote.
    pub text: String,
    /// What is hallucinated; spans of different types may overlap.
    pub spans: Vec<LabelSpan>,
    /// Bytes that are left out of all measures.
    pub ignored: Vec<Range<usize>>,
    /// Bytes of the tokens that the labels give, if they give any and these are wanted.
    pub tokens: Option<Vec<Range<usize>>>,
}

/// All texts of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// In the order of the file.
    pub texts: Vec<LabelledText>,
    /// Types of hallucination, in the order in which they are first met; those of `HalLoc` in its own.
    pub types: Vec<String>,
    /// Texts left out.
    pub skipped: Skipped,
}

/// Reads labelled texts, as a list or one per line.
///
/// # Errors
/// A row without a text, a type that `HalLoc` does not have, an id that another text has; a label that does not fit its text,
/// unless such texts are skipped. Each with its place.
pub fn read_labels(reader: impl BufRead, options: &LabelOptions) -> Result<Labels, RowError> {
    let mut labels = Labels::default();
    let mut ids = Ids::default();
    read_rows(reader, r#"{"image": …, "text": "…", "spans": […]}"#, |place, row: Row| {
        let mut types = std::mem::take(&mut labels.types);
        let text = labelled(&row, options, &mut types);
        labels.types = types;
        let text = match text {
            Ok(text) => text,
            Err(fault) => return labels.skipped.meet(options.broken, place, fault),
        };
        ids.add(text.id.as_ref(), place)?;
        labels.texts.push(text);
        Ok(())
    })?;
    Ok(labels)
}

fn labelled(
    row: &Row,
    options: &LabelOptions,
    types: &mut Vec<String>,
) -> Result<LabelledText, Fault> {
    let tokens = tokens(row)?;
    let about = About::of(row, options.text_field.as_deref())?;
    let (id, image, text) = about.text_or(tokens.as_deref())?;
    let mut labelled =
        LabelledText { id, image, text, spans: Vec::new(), ignored: Vec::new(), tokens: None };
    let mut reader = SpanReader { labelled: &mut labelled, types, options };
    if let Some(by_type) = present(row, "annotations").and_then(Value::as_object) {
        reader.halloc(by_type)?;
    } else {
        let names = [&SPAN_FIELDS[..], &TOKEN_FIELDS].concat();
        let (name, values) = list(row, &names)?.ok_or_else(|| {
            let names =
                names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            Fault::shape(format!("no labels; they are looked for in {names}"))
        })?;
        let of_tokens = TOKEN_FIELDS.contains(&name)
            || values.iter().any(|value| !value.is_object() && !value.is_array());
        match &tokens {
            Some(tokens) if of_tokens => reader.of_tokens(tokens, values)?,
            None if of_tokens => {
                let reason =
                    format!("\"{name}\" holds labels of tokens, but there are no \"tokens\"");
                return Err(Fault::shape(reason));
            }
            _ => values.iter().try_for_each(|value| reader.span(value))?,
        }
    }
    if options.with_tokens {
        let aligned = tokens.map(|tokens| align(&labelled.text, tokens)).transpose()?;
        labelled.tokens = aligned.map(|tokens| tokens.into_iter().flatten().collect());
    }
    Ok(labelled)
}

/// Adds spans to a text.
struct SpanReader<'a> {
    labelled: &'a mut LabelledText,
    types: &'a mut Vec<String>,
    options: &'a LabelOptions,
}

impl SpanReader<'_> {
    /// Types with their annotations, whose parts are each a span of their own.
    fn halloc(&mut self, by_type: &Map<String, Value>) -> Result<(), Fault> {
        // In the order of the paper, whichever a file has first.
        for kind in ["object", "attribute", "relationship", "scene"] {
            self.kind(kind)?;
        }
        for (name, annotations) in by_type {
            let known = HALLOC_TYPES.iter().find(|(written, _)| written == name);
            let kind = known.map(|(_, kind)| *kind).ok_or_else(|| {
                let known = "object, attribute, relationship, scene, other";
                let name = shortened(name);
                Fault::shape(format!("HalLoc has no type '{name}'; its types are {known}"))
            })?;
            let list = annotations.as_array().ok_or_else(|| no_annotation(name))?;
            for annotation in list {
                let parts = annotation.as_object().ok_or_else(|| no_annotation(name))?;
                for part in parts.values().filter(|part| !part.is_null()) {
                    let bytes = self.halloc_part(part, name)?;
                    let kind = self.kind(kind)?;
                    self.labelled.spans.push(LabelSpan { bytes, kind });
                }
            }
        }
        Ok(())
    }

    /// `{"name": "…", "char_index": "start:end"}`, the end past the last character, or one character's "start".
    fn halloc_part(&self, part: &Value, kind: &str) -> Result<Range<usize>, Fault> {
        let text = &self.labelled.text;
        let field = |name: &str| part.get(name).and_then(Value::as_str);
        let name = field("name").ok_or_else(|| no_annotation(kind))?;
        let Some(index) = field("char_index") else { return found(text, name) };
        let number = |digits: &str| digits.trim().parse::<usize>().ok();
        let (start, end) = match index.split_once(':') {
            Some((start, end)) => (number(start), number(end)),
            None => (number(index), number(index).and_then(|start| start.checked_add(1))),
        };
        let (Some(start), Some(end)) = (start, end) else {
            let index = shortened(index);
            return Err(Fault::shape(format!(
                "char_index '{index}' of type '{kind}' is not \"start:end\""
            )));
        };
        let range = Some((start, end)).filter(|(start, end)| start <= end);
        let bytes = range.and_then(|(start, end)| Offsets::Characters.bytes(text, start, end));
        let bytes = bytes.ok_or_else(|| {
            let (name, length) = (shortened(name), text.chars().count());
            let reason = format!(
                "char_index '{index}' of '{name}' is outside the text of {length} characters"
            );
            Fault::of(Problem::OutsideText, reason)
        })?;
        same_text(text, &bytes, name)?;
        let empty = || Fault::of(Problem::Empty, format!("char_index '{index}' covers no word"));
        super::offsets::trimmed(text, &bytes).ok_or_else(empty)
    }

    fn span(&mut self, value: &Value) -> Result<(), Fault> {
        let WrittenSpan { bytes, label } =
            WrittenSpan::read(value, &self.labelled.text, self.options.offsets)?;
        self.add(bytes, label.as_deref().unwrap_or(UNTYPED))
    }

    /// One label for each token, of neighbours one span: 0 or 1, true or false, or BIO tags with a type or without.
    fn of_tokens(&mut self, tokens: &[&str], values: &[Value]) -> Result<(), Fault> {
        if tokens.len() != values.len() {
            let (tokens, labels) = (tokens.len(), values.len());
            return Err(Fault::shape(format!(
                "{tokens} tokens but {labels} labels; give each token one"
            )));
        }
        let places = align(&self.labelled.text, tokens.iter().copied())?;
        // The span that goes on, with its label.
        let mut open: Option<(Range<usize>, String)> = None;
        for (token, value) in places.iter().zip(values) {
            let tag = Tag::read(value)?;
            let Some(token) = token else { continue };
            match (tag, &mut open) {
                (Some(tag), Some((span, label))) if !tag.begins && *label == tag.label => {
                    span.end = token.end;
                }
                (tag, open) => {
                    let next = tag.map(|tag| (token.clone(), tag.label));
                    if let Some((span, label)) = std::mem::replace(open, next) {
                        self.add(span, &label)?;
                    }
                }
            }
        }
        open.map_or(Ok(()), |(span, label)| self.add(span, &label))
    }

    fn add(&mut self, bytes: Range<usize>, label: &str) -> Result<(), Fault> {
        let among =
            |labels: &[String]| labels.iter().any(|other| other.eq_ignore_ascii_case(label.trim()));
        if among(&self.options.ignored) {
            self.labelled.ignored.push(bytes);
        } else if !among(&self.options.clean) {
            let kind = self.kind(label)?;
            self.labelled.spans.push(LabelSpan { bytes, kind });
        }
        Ok(())
    }

    /// The position of a type, which is added if it is new.
    fn kind(&mut self, label: &str) -> Result<usize, Fault> {
        let label = label.trim().to_lowercase();
        if let Some(position) = self.types.iter().position(|known| *known == label) {
            return Ok(position);
        }
        if label.is_empty() || self.types.len() == MOST_TYPES {
            let label = shortened(&label);
            return Err(Fault::shape(format!(
                "label '{label}' is one more than {MOST_TYPES} different ones, or empty; is it a type of hallucination?"
            )));
        }
        self.types.push(label);
        Ok(self.types.len() - 1)
    }
}

fn no_annotation(kind: &str) -> Fault {
    let kind = shortened(kind);
    Fault::shape(format!(
        "type '{kind}' does not hold annotations; expected a list of {{\"part\": {{\"name\": \"…\", \"char_index\": \"start:end\"}}}}"
    ))
}

/// The label of a hallucinated token.
struct Tag {
    /// Whether it does not go on with the span before it.
    begins: bool,
    label: String,
}

impl Tag {
    /// `None` of a token that is not hallucinated.
    fn read(value: &Value) -> Result<Option<Self>, Fault> {
        let untyped = Self { begins: false, label: UNTYPED.to_owned() };
        match value {
            Value::Bool(hallucinated) => Ok(hallucinated.then_some(untyped)),
            Value::Number(number) if number.as_f64() == Some(0.0) => Ok(None),
            Value::Number(number) if number.as_f64() == Some(1.0) => Ok(Some(untyped)),
            Value::String(tag) if matches!(tag.as_str(), "O" | "0" | "") => Ok(None),
            Value::String(tag) => Ok(Some(match tag.split_at_checked(2) {
                Some(("B-", label)) => Self { begins: true, label: label.to_owned() },
                Some(("I-", label)) => Self { begins: false, label: label.to_owned() },
                _ if tag == "B" => Self { begins: true, ..untyped },
                _ if matches!(tag.as_str(), "I" | "1") => untyped,
                _ => Self { begins: false, label: tag.clone() },
            })),
            other => {
                let other = shortened(&other.to_string());
                Err(Fault::shape(format!(
                    "{other} is not a label of a token; give 0 or 1, or BIO tags"
                )))
            }
        }
    }
}
