//! The settings of a JSON object, read key by key: whatever is wrong with one is said with the file, its key,
//! its value and what is allowed.
//!
//! A key that is null counts as absent, as it does in transformers.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use crate::FormatError;

/// Characters of a value that a message repeats.
const SHOWN: usize = 120;

/// Whole numbers that a setting may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole {
    pub(crate) least: usize,
    pub(crate) most: usize,
    /// The same in words.
    pub(crate) said: &'static str,
}

/// Numbers that a setting may be, both ends included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Real {
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// The same in words.
    pub(crate) said: &'static str,
}

impl Real {
    pub(crate) fn holds(self, value: f64) -> bool {
        (self.least..=self.most).contains(&value)
    }
}

/// An object of a JSON file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    path: &'a Path,
    /// What stands before a key in messages, such as `text_config.`.
    place: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The object that a whole file is; `what` is what the user would call the file.
    pub(crate) fn of_file(
        what: &'static str,
        path: &'a Path,
        value: &'a Value,
    ) -> Result<Self, FormatError> {
        let map = value.as_object().ok_or_else(|| FormatError::Malformed {
            what,
            path: path.to_owned(),
            reason: format!("it is {}, and no object", shown(value)),
        })?;
        Ok(Self { path, place: "", map })
    }

    /// The object under a key, whose keys are called `place` and their name.
    pub(crate) fn object(
        &self,
        key: &'static str,
        place: &'static str,
    ) -> Result<Option<Self>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { path: self.path, place, map })),
            Some(_) => Err(self.refused(key, "an object")),
        }
    }

    /// The same, where it has to be there.
    pub(crate) fn needed_object(
        &self,
        key: &'static str,
        place: &'static str,
    ) -> Result<Self, FormatError> {
        self.object(key, place)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// The value under a key; absent where it is null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether the file says null, where that is something else than nothing.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    pub(crate) fn whole(&self, key: &str, range: Whole) -> Result<Option<usize>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        match number.filter(|number| (range.least..=range.most).contains(number)) {
            None => Err(self.refused(key, range.said)),
            number => Ok(number),
        }
    }

    pub(crate) fn real(&self, key: &str, range: Real) -> Result<Option<f64>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().filter(|&number| range.holds(number)) {
            None => Err(self.refused(key, range.said)),
            number => Ok(number),
        }
    }

    /// Three numbers, one for each channel.
    pub(crate) fn triple(&self, key: &str, range: Real) -> Result<Option<[f64; 3]>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let numbers = value.as_array().map(|list| list.iter().map(Value::as_f64));
        let numbers = numbers.and_then(Iterator::collect::<Option<Vec<_>>>);
        let three = numbers.and_then(|list| <[f64; 3]>::try_from(list).ok());
        match three.filter(|three| three.iter().all(|&number| range.holds(number))) {
            None => Err(self.refused(key, range.said)),
            three => Ok(three),
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.refused(key, "true or false"))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.refused(key, "a text"))
    }

    /// Refuses settings that are switched off, where only their effect is computed.
    pub(crate) fn refuse_false(&self, keys: &[&str]) -> Result<(), FormatError> {
        for key in keys {
            if self.flag(key)? == Some(false) {
                return Err(self.refused(key, "true"));
            }
        }
        Ok(())
    }

    /// The id of a token of a vocabulary; −1, which PyTorch and old configurations have for "none", is none.
    pub(crate) fn token(&self, key: &str, vocabulary: usize) -> Result<Option<u32>, FormatError> {
        let Some(value) = self.get(key).filter(|value| value.as_i64() != Some(-1)) else {
            return Ok(None);
        };
        match token(value, vocabulary) {
            None => Err(self.refused(key, TOKEN)),
            id => Ok(id),
        }
    }

    /// The ids of one token or of a list of them, as [`token`](Self::token); empty where none is named.
    pub(crate) fn tokens(&self, key: &str, vocabulary: usize) -> Result<Vec<u32>, FormatError> {
        let values = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let named = values.iter().filter(|value| value.as_i64() != Some(-1));
        let ids = named.map(|value| token(value, vocabulary)).collect::<Option<_>>();
        ids.ok_or_else(|| self.refused(key, TOKEN))
    }

    /// The value under a key is not one that is supported.
    pub(crate) fn refused(&self, key: &str, supported: &'static str) -> FormatError {
        let value = self.map.get(key).unwrap_or(&Value::Null);
        self.refused_as(key, shown(value), supported)
    }

    /// The same of a value that is not the file's own, such as a part of it.
    pub(crate) fn refused_as(
        &self,
        key: &str,
        found: String,
        supported: impl Into<Cow<'static, str>>,
    ) -> FormatError {
        let (path, field) = (self.path.to_owned(), format!("{}{key}", self.place));
        let supported = supported.into();
        FormatError::UnsupportedField { path, field, found, supported }
    }

    pub(crate) fn missing(&self, key: &str) -> FormatError {
        FormatError::MissingField {
            path: self.path.to_owned(),
            field: format!("{}{key}", self.place),
        }
    }
}

const TOKEN: &str = "the id of a token below vocab_size";

fn token(value: &Value, vocabulary: usize) -> Option<u32> {
    let id = u32::try_from(value.as_u64()?).ok()?;
    (usize::try_from(id).ok()? < vocabulary).then_some(id)
}

/// A value as it stands in the file, on one line and not longer than a line.
pub(crate) fn shown(value: &Value) -> String {
    shortened(&value.to_string())
}

/// The beginning of a text from a file, on one line, without characters that would steer a terminal.
pub(crate) fn shortened(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars().take(SHOWN) {
        if character.is_control() {
            write!(line, "{}", character.escape_unicode()).expect("a String takes everything");
        } else {
            line.push(character);
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_in_messages_are_shown_on_one_short_line() {
        assert_eq!(shown(&json!({ "a": [1, -2.5, "\n\u{9b}x"] })), r#"{"a":[1,-2.5,"\n\u{9b}x"]}"#);
        let long = shown(&json!("x".repeat(100_000)));
        assert_eq!(long.chars().count(), SHOWN + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn token_ids_must_be_in_the_vocabulary_and_minus_one_is_none() {
        let value = json!({ "none": -1, "null": null, "one": 4, "all": [4, -1, 9], "beyond": 10,
                            "negative": -2, "half": 1.5, "list": [1, 10] });
        let fields = Fields::of_file("file", Path::new("f"), &value).unwrap();
        for (key, id) in [("none", None), ("null", None), ("absent", None), ("one", Some(4))] {
            assert_eq!(fields.token(key, 10).unwrap(), id, "{key}");
        }
        assert_eq!(fields.tokens("all", 10).unwrap(), [4, 9]);
        assert_eq!(fields.tokens("one", 10).unwrap(), [4]);
        assert!(fields.tokens("none", 10).unwrap().is_empty());
        for key in ["beyond", "negative", "half", "list"] {
            assert!(fields.token(key, 10).is_err() && fields.tokens(key, 10).is_err(), "{key}");
        }
    }
}
