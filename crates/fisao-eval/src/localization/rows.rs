//! What rows of labels and of predictions have in common: whose text they are about.

use std::collections::HashMap;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::problems::Fault;
use crate::image_id::ImageId;
use crate::rows::{Place, RowError, shortened};

pub(super) type Row = Map<String, Value>;

/// Fields that hold the text; the first that a row has counts. `answer` and `text` may be the question or a
/// reference in some files, so that they come last.
const TEXT_FIELDS: [&str; 7] =
    ["hallucinated_text", "response", "caption", "model_output_text", "output", "text", "answer"];
const ID_FIELDS: [&str; 2] = ["id", "question_id"];
const IMAGE_FIELDS: [&str; 2] = ["image_id", "image"];

/// Which text a row is about.
#[derive(Debug)]
pub(super) struct About {
    pub(super) id: Option<String>,
    pub(super) image: Option<String>,
    /// `None` where a row has tokens only.
    pub(super) text: Option<String>,
}

impl About {
    pub(super) fn of(row: &Row, text_field: Option<&str>) -> Result<Self, Fault> {
        let field = |names: &[&'static str]| {
            names.iter().find_map(|name| present(row, name).map(|value| (*name, value)))
        };
        let id = |names: &[&'static str]| -> Result<Option<String>, Fault> {
            let Some((name, value)) = field(names) else { return Ok(None) };
            let written = ImageId::deserialize(value).map_err(|_| {
                let value = shortened(&value.to_string());
                Fault::shape(format!("\"{name}\" is {value}; an id is a text or a whole number"))
            })?;
            Ok(Some(written.0))
        };
        let text = match text_field {
            Some(name) => {
                let missing =
                    || Fault::shape(format!("no text in \"{name}\", which --text-field names"));
                Some((name, present(row, name).ok_or_else(missing)?))
            }
            None => field(&TEXT_FIELDS),
        };
        let text = text.map(|(name, value)| {
            let text = value.as_str().map(str::to_owned);
            text.ok_or_else(|| Fault::shape(format!("\"{name}\" holds no text")))
        });
        Ok(Self { id: id(&ID_FIELDS)?, image: id(&IMAGE_FIELDS)?, text: text.transpose()? })
    }

    /// The text, or what tokens spell with single spaces between them.
    pub(super) fn text_or(
        self,
        tokens: Option<&[&str]>,
    ) -> Result<(Option<String>, Option<String>, String), Fault> {
        let text = self.text.or_else(|| tokens.map(|tokens| tokens.join(" ")));
        let fields = TEXT_FIELDS.map(|name| format!("\"{name}\"")).join(", ");
        let text = text.ok_or_else(|| {
            Fault::shape(format!(
                "no text; it is looked for in {fields}, or where --text-field says"
            ))
        })?;
        Ok((self.id, self.image, text))
    }
}

/// Ids of the rows that were read, with their places.
#[derive(Debug, Default)]
pub(super) struct Ids(HashMap<String, Place>);

impl Ids {
    /// Takes in the id of another row.
    ///
    /// # Errors
    /// An earlier row has it.
    pub(super) fn add(&mut self, id: Option<&String>, place: Place) -> Result<(), RowError> {
        let Some(id) = id else { return Ok(()) };
        let Some(earlier) = self.0.insert(id.clone(), place) else { return Ok(()) };
        let reason =
            format!("id '{}' stands on {earlier} already; keep one of the two", shortened(id));
        Err(RowError::Meaning { place, reason })
    }
}

/// A field that is there and not null.
pub(super) fn present<'a>(row: &'a Row, name: &str) -> Option<&'a Value> {
    row.get(name).filter(|value| !value.is_null())
}

/// The first of some lists that a row has.
pub(super) fn list<'a>(
    row: &'a Row,
    names: &[&'static str],
) -> Result<Option<(&'static str, &'a [Value])>, Fault> {
    let found = names.iter().find_map(|name| present(row, name).map(|value| (*name, value)));
    let Some((name, value)) = found else { return Ok(None) };
    let list = value.as_array().ok_or_else(|| Fault::shape(format!("\"{name}\" is not a list")))?;
    Ok(Some((name, list)))
}

/// The tokens of a row, if it has any.
pub(super) fn tokens(row: &Row) -> Result<Option<Vec<&str>>, Fault> {
    let Some((name, values)) = list(row, &["tokens", "tokenized_text"])? else { return Ok(None) };
    // `fisao caption` writes tokens as objects with their ids, which say nothing here.
    if values.iter().all(Value::is_object) {
        return Ok(None);
    }
    let tokens: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
    tokens
        .map(Some)
        .ok_or_else(|| Fault::shape(format!("\"{name}\" holds something that is not text")))
}
