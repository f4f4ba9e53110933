//! The fields of a row that mean something here, whichever format they come from.

use std::fmt;

use bytes::Bytes;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// Fields that say which image a row is about, the first that is there going first.
pub(super) const IMAGE_FIELDS: [&str; 2] = ["image", "images"];

/// Every field that is read. All others are passed over.
const RECOGNISED: [&str; 17] = [
    "image",
    "images",
    "prompt",
    "question",
    "text",
    "prompts",
    "conversations",
    "messages",
    "response",
    "answer",
    "completion",
    "caption",
    "chosen",
    "rejected",
    "id",
    "question_id",
    "uid",
];

/// The name of a field that is read, or `None` for any other.
pub(super) fn recognised(name: &str) -> Option<&'static str> {
    RECOGNISED.into_iter().find(|&known| known == name)
}

/// Fields within a field that are read: of images, turns, and parts of turns.
const PARTS: [&str; 8] = ["bytes", "path", "from", "value", "role", "content", "type", "text"];

/// The name of a field within a field, or `None` if it is not read.
pub(super) fn recognised_part(name: &str) -> Option<&'static str> {
    PARTS.into_iter().find(|&known| known == name)
}

/// A value of a JSON or Parquet file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Flag,
    /// As it is written.
    Number(String),
    Text(String),
    Bytes(Bytes),
    List(Vec<Cell>),
    /// Recognised parts alone.
    Struct(Vec<(&'static str, Cell)>),
}

impl Cell {
    /// The value of a field of a structure, unless that is null.
    pub(super) fn field(&self, name: &str) -> Option<&Cell> {
        let Self::Struct(fields) = self else { return None };
        let (_, value) = fields.iter().find(|(field, _)| *field == name)?;
        (*value != Self::Null).then_some(value)
    }

    /// What it is, for error messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Flag => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Struct(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Cell, E> {
        Ok(Cell::Flag)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(Cell::Number(value.to_string()))
    }

    /// A whole number without its `.0`, which is how pandas writes the ids of a column with gaps.
    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cell, E> {
        Ok(Cell::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Cell, E> {
        Ok(Cell::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Cell, A::Error> {
        let mut cells = Vec::new();
        while let Some(cell) = entries.next_element()? {
            cells.push(cell);
        }
        Ok(Cell::List(cells))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Cell, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = entries.next_key_seed(Name(recognised_part))? {
            match name {
                Some(name) => fields.push((name, entries.next_value()?)),
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Cell::Struct(fields))
    }
}

/// The recognised fields of one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(Vec<(&'static str, Cell)>);

impl Fields {
    /// Collects fields that are already recognised.
    pub(super) fn new(fields: Vec<(&'static str, Cell)>) -> Self {
        Self(fields)
    }

    /// The value of a field, unless it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&Cell> {
        let (_, value) = self.0.iter().find(|(field, _)| *field == name)?;
        (*value != Cell::Null).then_some(value)
    }

    /// The first of several fields that is there, with its name.
    pub(super) fn first_of(&self, names: &[&'static str]) -> Option<(&'static str, &Cell)> {
        names.iter().find_map(|&name| Some((name, self.get(name)?)))
    }

    /// Whether the row has a field, be it null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(field, _)| *field == name)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an image and a prompt")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = entries.next_key_seed(Name(recognised))? {
            match name {
                Some(name) => fields.push((name, entries.next_value()?)),
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Fields(fields))
    }
}

/// A field's name, looked up.
struct Name(fn(&str) -> Option<&'static str>);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok((self.0)(name))
    }
}
