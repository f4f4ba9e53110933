//! Rows of JSON, as a list or one object per line, read one at a time, so that memory does not grow with
//! the file.

use std::fmt;
use std::io::{self, BufRead};
use std::marker::PhantomData;

use serde::Deserializer as _;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Where a row stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    kind: &'static str,
    /// Counted from 1.
    pub number: usize,
}

impl Place {
    /// A line, counted from 1.
    pub(crate) fn line(number: usize) -> Self {
        Self { kind: "line", number }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.number)
    }
}

/// Text that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The text cannot be read.
    #[error("cannot be read: {source}")]
    Io {
        /// What the system said.
        source: io::Error,
    },
    /// The text as a whole is not a JSON list.
    #[error("not a JSON list: {error}; give a list of objects or one object per line")]
    List {
        /// What the parser met.
        error: serde_json::Error,
    },
    /// One line is not UTF-8.
    #[error("{place} is not UTF-8 from byte {byte} on; convert the file to UTF-8")]
    Encoding {
        /// Which.
        place: Place,
        /// Byte of the line, counted from 1.
        byte: usize,
    },
    /// One row is broken.
    #[error("{}; expected {expected}", at_column(*place, error))]
    Row {
        /// Which.
        place: Place,
        /// Shape of a good row.
        expected: &'static str,
        /// What the parser met; no source of its own, as it counts lines from the row's beginning.
        error: serde_json::Error,
    },
    /// A row that parses but says something that cannot be.
    #[error("{place}: {reason}")]
    Meaning {
        /// Which.
        place: Place,
        /// What is wrong with it, and what to do.
        reason: String,
    },
}

/// What the parser met, with the column where it knows it, of a line; that of an entry counts from the beginning of the entry, which
/// nobody can find again.
pub(crate) fn at_column(place: Place, error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    match text.strip_suffix(&format!(" at line {line} column {column}")) {
        Some(text) if place.kind == "line" => {
            format!("{place}, column {column}: {}", shortened(text))
        }
        Some(text) => format!("{place}: {}", shortened(text)),
        None => format!("{place}: {}", shortened(&text)),
    }
}

/// A text that quotes a file, which may hold an image where an id was expected: without the middle where it is long.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 300;
    const START: usize = 120;
    const END: usize = 80;
    let count = text.chars().count();
    if count <= LONGEST {
        return text.to_owned();
    }
    let start: String = text.chars().take(START).collect();
    let end: String = text.chars().skip(count - END).collect();
    format!("{start} … {end}")
}

/// Hands every row of a JSON list, or of JSON lines, to `each`. Which of the two it is shows in the first
/// character; a byte order mark and blank lines are passed over. `expected` is the shape of a good row, for
/// error messages.
///
/// # Errors
/// The first row that is broken, with its place; what `each` returns.
pub fn read_rows<Row: DeserializeOwned>(
    mut reader: impl BufRead,
    expected: &'static str,
    mut each: impl FnMut(Place, Row) -> Result<(), RowError>,
) -> Result<(), RowError> {
    let first = first_character(&mut reader).map_err(|source| RowError::Io { source })?;
    if first == Some(b'[') {
        read_list(reader, expected, &mut each)
    } else {
        read_lines(reader, expected, &mut each)
    }
}

/// The next byte that is neither white space nor a byte order mark, which stays unread.
pub(crate) fn first_character(reader: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let mark = [0xEF, 0xBB, 0xBF];
        let blank = |byte: &u8| byte.is_ascii_whitespace() || mark.contains(byte);
        let count = buffer.iter().take_while(|&byte| blank(byte)).count();
        let next = buffer.get(count).copied();
        // Line numbers count blank lines too, so what comes before lines of objects is left to them.
        if next.is_some_and(|byte| byte != b'[') {
            return Ok(next);
        }
        reader.consume(count);
        if next.is_some() {
            return Ok(next);
        }
    }
}

fn read_lines<Row: DeserializeOwned>(
    mut reader: impl BufRead,
    expected: &'static str,
    each: &mut impl FnMut(Place, Row) -> Result<(), RowError>,
) -> Result<(), RowError> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = reader.read_until(b'\n', &mut line);
        if read.map_err(|source| RowError::Io { source })? == 0 {
            break;
        }
        let place = Place::line(number);
        let text = std::str::from_utf8(&line)
            .map_err(|error| RowError::Encoding { place, byte: error.valid_up_to() + 1 })?;
        let text = text.trim_start_matches('\u{feff}').trim_end();
        if !text.is_empty() {
            let row = serde_json::from_str(text).map_err(|error| RowError::Row {
                place,
                expected,
                error,
            })?;
            each(place, row)?;
        }
    }
    Ok(())
}

fn read_list<Row: DeserializeOwned>(
    reader: impl BufRead,
    expected: &'static str,
    each: &mut impl FnMut(Place, Row) -> Result<(), RowError>,
) -> Result<(), RowError> {
    let mut failure = None;
    let list = List { expected, each, failure: &mut failure, row: PhantomData };
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    let done = deserializer.deserialize_seq(list).and_then(|()| deserializer.end());
    match (failure, done) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(RowError::List { error }),
        (None, Ok(())) => Ok(()),
    }
}

/// A list whose entries are handed on as they are met.
struct List<'a, Row, Each> {
    expected: &'static str,
    each: &'a mut Each,
    failure: &'a mut Option<RowError>,
    row: PhantomData<Row>,
}

impl<'de, Row, Each> Visitor<'de> for List<'_, Row, Each>
where
    Row: DeserializeOwned,
    Each: FnMut(Place, Row) -> Result<(), RowError>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.expected)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        for number in 1.. {
            let place = Place { kind: "entry", number };
            // The text of an entry is taken first, so that a list that is truncated is told from an entry that is something
            // else. As a value it would take a hundred times the memory of its text where it is nested deeply.
            let Some(text) = entries.next_element::<Box<RawValue>>()? else { break };
            let expected = self.expected;
            let row = serde_json::from_str(text.get()).map_err(|error| RowError::Row {
                place,
                expected,
                error,
            });
            if let Err(failure) = row.and_then(|row| (self.each)(place, row)) {
                *self.failure = Some(failure);
                return Err(serde::de::Error::custom("told above"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &[u8]) -> Result<Vec<(usize, u32)>, String> {
        let mut found = Vec::new();
        read_rows(text, "a number", |place, row: u32| {
            found.push((place.number, row));
            Ok(())
        })
        .map_err(|error| error.to_string())?;
        Ok(found)
    }

    #[test]
    fn json_lists_and_json_lines_are_read_alike() {
        assert_eq!(numbers(b" \n[1,2 ,\n 3] "), Ok(vec![(1, 1), (2, 2), (3, 3)]));
        assert_eq!(numbers(b"\xEF\xBB\xBF1\r\n\n  2\n3"), Ok(vec![(1, 1), (3, 2), (4, 3)]));
        assert_eq!(numbers(b"\xEF\xBB\xBF[1]"), Ok(vec![(1, 1)]));
        assert_eq!(numbers(b""), Ok(Vec::new()));
        assert_eq!(numbers(b" \n\n"), Ok(Vec::new()));
        assert_eq!(numbers(b"[]"), Ok(Vec::new()));
    }

    #[test]
    fn invalid_rows_are_reported_by_line_or_entry() {
        let said = |text: &[u8]| numbers(text).unwrap_err();
        assert!(said(b"1\n\n\"x\"").starts_with("line 3, column 3: invalid type: string"));
        assert!(said(b"1\n2 3").starts_with("line 2, column 3: trailing characters"));
        assert!(said(b"[1, \"x\"]").starts_with("entry 2: invalid type: string"));
        assert!(said(b"[1, 2").starts_with("not a JSON list: EOF"));
        assert!(said(b"[1] 2").starts_with("not a JSON list: trailing"));
        let long = said(format!("1\n\"{}\"", "A".repeat(300_000)).as_bytes());
        assert!(long.starts_with("line 2, column 300002: invalid type: string \"AAAA"), "{long}");
        assert!(long.len() < 400, "{long}");
        assert_eq!(
            said(b"1\n\"\xE9\""),
            "line 2 is not UTF-8 from byte 2 on; convert the file to UTF-8"
        );
    }
}
