//! An object of JSON as a list of its keys and values, in the order of the file.

use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Keys and values in order.
struct Keyed<Value>(Vec<(String, Value)>);

/// Reads an object whose values are all alike.
pub(crate) fn read_keyed<Value: DeserializeOwned>(
    reader: impl Read,
) -> Result<Vec<(String, Value)>, serde_json::Error> {
    serde_json::from_reader(reader).map(|Keyed(entries)| entries)
}

impl<'de, Value: Deserialize<'de>> Deserialize<'de> for Keyed<Value> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

struct Entries<Value>(PhantomData<Value>);

impl<'de, Value: Deserialize<'de>> Visitor<'de> for Entries<Value> {
    type Value = Keyed<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            // The parser's own words do not say in which of thousands of values it stands.
            let value = map.next_value().map_err(|e| A::Error::custom(format!("'{key}': {e}")))?;
            entries.push((key, value));
        }
        Ok(Keyed(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_values_keep_their_order_and_errors_name_the_key() {
        let read = |text: &str| read_keyed::<u8>(text.as_bytes()).map_err(|e| e.to_string());
        let expected = [("b".to_owned(), 1), ("a".to_owned(), 2)];
        assert_eq!(read(r#"{"b": 1, "a": 2}"#).unwrap(), expected);
        assert!(read(r#"{"b": 1, "a": "x"}"#).unwrap_err().starts_with("'a': invalid type"));
        assert!(read("[]").unwrap_err().contains("expected an object"));
        assert!(read("{} {}").is_err());
    }
}
