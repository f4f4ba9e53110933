//! Ids as files write them: as text, or as whole numbers of any kind.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Reads an id as text. Whole numbers lose the `.0` that pandas gives those of a column with gaps.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_any(Id)
}

struct Id;

impl Visitor<'_> for Id {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id: a text or a whole number")
    }

    fn visit_str<E>(self, id: &str) -> Result<String, E> {
        Ok(id.to_owned())
    }

    fn visit_string<E>(self, id: String) -> Result<String, E> {
        Ok(id)
    }

    fn visit_u64<E>(self, id: u64) -> Result<String, E> {
        Ok(id.to_string())
    }

    fn visit_i64<E>(self, id: i64) -> Result<String, E> {
        Ok(id.to_string())
    }

    fn visit_f64<E: Error>(self, id: f64) -> Result<String, E> {
        if id.fract() == 0.0 {
            Ok(format!("{id:.0}"))
        } else {
            Err(E::custom(format!("{id} is not a whole number")))
        }
    }
}

/// Reads a whole number, which pandas may have written with `.0`.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_any(Whole)
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_unit<E>(self) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Option<u64>, D::Error> {
        value.deserialize_any(self)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Option<u64>, E> {
        Ok(Some(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Option<u64>, E> {
        // Beyond 2⁵³ neighbours are written alike.
        if number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number) {
            Ok(Some(number as u64))
        } else {
            Err(E::custom(format!("{number} is not a whole number")))
        }
    }
}
