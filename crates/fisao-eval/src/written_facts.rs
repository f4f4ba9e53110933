//! What rows say beside their caption, where they say it as this project does; anything else is passed over.

use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};

/// How many tokens a caption has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrittenTokens {
    /// Their number.
    pub(crate) count: usize,
    /// Whether the tokens themselves were written.
    pub(crate) listed: bool,
}

/// Reads a text.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let fact = deserializer.deserialize_any(AnyFact)?;
    Ok(if let Fact::Text(text) = fact { Some(text) } else { None })
}

/// Reads a number of tokens, or a list of them.
pub(crate) fn tokens<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<WrittenTokens>, D::Error> {
    Ok(match deserializer.deserialize_any(AnyFact)? {
        Fact::Number(count) => Some(WrittenTokens { count, listed: false }),
        Fact::List(count) => Some(WrittenTokens { count, listed: true }),
        Fact::Text(_) | Fact::Other => None,
    })
}

/// A value of any kind.
enum Fact {
    Text(String),
    Number(usize),
    /// So many entries.
    List(usize),
    Other,
}

struct AnyFact;

impl<'de> Visitor<'de> for AnyFact {
    type Value = Fact;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Fact, E> {
        Ok(Fact::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Fact, E> {
        Ok(Fact::Text(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Fact, E> {
        Ok(usize::try_from(number).map_or(Fact::Other, Fact::Number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Fact, E> {
        Ok(Fact::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Fact, E> {
        Ok(Fact::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Fact, E> {
        Ok(Fact::Other)
    }

    fn visit_unit<E>(self) -> Result<Fact, E> {
        Ok(Fact::Other)
    }

    fn visit_none<E>(self) -> Result<Fact, E> {
        Ok(Fact::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Fact, A::Error> {
        let mut count = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Fact::List(count))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Fact, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Fact::Other)
    }
}
