//! The elements of a JSON list, found one after the other without parsing them.
//!
//! The scan knows strings, escapes and brackets and nothing else of JSON: what is between two commas is
//! for a parser to judge. A list of which every element parses is one that parses as a whole.

use std::io::{self, BufRead};

/// Why a text is no list.
#[derive(Debug, thiserror::Error)]
pub(super) enum ElementsError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not a list from here on.
    #[error("{0}")]
    Damaged(&'static str),
}

/// A scan through a list.
pub(super) struct Elements<R> {
    reader: R,
    /// Bytes consumed so far.
    offset: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the opening bracket.
    Before,
    /// Behind the opening bracket.
    First,
    /// Behind a comma.
    Within,
    /// Behind the closing bracket.
    After,
}

/// What ends an element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Comma,
    Bracket,
}

impl<R: BufRead> Elements<R> {
    /// A scan of a text that has not been read from.
    pub(super) fn new(reader: R) -> Self {
        Self { reader, offset: 0, state: State::Before }
    }

    /// The next element, without the white space around it, and the byte of the text at which it begins.
    /// Behind the last one it is made sure that nothing follows.
    ///
    /// # Errors
    /// The text cannot be read, is truncated, or is not a list here.
    pub(super) fn next(&mut self, element: &mut Vec<u8>) -> Result<Option<u64>, ElementsError> {
        if self.state == State::Before {
            if self.skip_blanks()? != Some(b'[') {
                return Err(ElementsError::Damaged("it does not begin with ["));
            }
            self.consume(1);
            self.state = State::First;
        }
        if self.state == State::After {
            return match self.skip_blanks()? {
                None => Ok(None),
                Some(_) => Err(ElementsError::Damaged("something follows the end of the list")),
            };
        }
        self.skip_blanks()?;
        let start = self.offset;
        element.clear();
        let end = self.read_element(element)?;
        element.truncate(element.trim_ascii_end().len());
        let first = self.state == State::First;
        self.state = if end == End::Bracket { State::After } else { State::Within };
        match (element.is_empty(), first && end == End::Bracket) {
            (false, _) => Ok(Some(start)),
            (true, true) => self.next(element),
            (true, false) => Err(ElementsError::Damaged("there is nothing between two commas")),
        }
    }

    /// Collects bytes up to the comma or bracket that ends the element, which is consumed too.
    fn read_element(&mut self, element: &mut Vec<u8>) -> Result<End, ElementsError> {
        let mut depth = 0_usize;
        let mut in_string = false;
        let mut escaped = false;
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Err(ElementsError::Damaged("it is truncated"));
            }
            let mut at = 0;
            let mut end = None;
            while at < buffer.len() && end.is_none() {
                if escaped {
                    escaped = false;
                } else if in_string {
                    // Most of a file is text, which is passed over quickly.
                    let Some(found) = memchr::memchr2(b'"', b'\\', &buffer[at..]) else {
                        at = buffer.len();
                        break;
                    };
                    at += found;
                    in_string = buffer[at] == b'\\';
                    escaped = in_string;
                } else {
                    match buffer[at] {
                        b'"' => in_string = true,
                        b'{' | b'[' => depth += 1,
                        b',' if depth == 0 => end = Some(End::Comma),
                        b']' if depth == 0 => end = Some(End::Bracket),
                        b'}' if depth == 0 => {
                            return Err(ElementsError::Damaged("a } closes nothing"));
                        }
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                }
                at += 1;
            }
            element.extend_from_slice(&buffer[..at - usize::from(end.is_some())]);
            self.consume(at);
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// The next byte that is not white space, which stays unread. A byte order mark before the list
    /// counts as white space.
    fn skip_blanks(&mut self) -> io::Result<Option<u8>> {
        let mark = self.state == State::Before;
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let blank = |byte: &&u8| {
                matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
                    || (mark && [0xEF, 0xBB, 0xBF].contains(*byte))
            };
            let count = buffer.iter().take_while(blank).count();
            let next = buffer.get(count).copied();
            self.consume(count);
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        self.offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The elements as a parser of each one sees them, read through a buffer of a few bytes.
    fn scanned(text: &[u8], buffer: usize) -> Result<Vec<Value>, String> {
        let mut elements = Elements::new(BufReader::with_capacity(buffer, text));
        let (mut element, mut found) = (Vec::new(), Vec::new());
        while let Some(start) = elements.next(&mut element).map_err(|error| error.to_string())? {
            let start = usize::try_from(start).expect("a short text");
            let range = start..start + element.len();
            assert_eq!(&text[range], &element[..], "the place of element {}", found.len() + 1);
            found.push(serde_json::from_slice(&element).map_err(|error| error.to_string())?);
        }
        Ok(found)
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Brackets, commas, quotes, escapes, and characters of one to four bytes.
            "[\\[\\]{},\"\\\\ \n\u{7}aé叫🦀]{0,9}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[a\"\\\\,\\]é]{0,4}", inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn list_elements_equal_those_of_serde_json(
            values in prop::collection::vec(any_value(), 0..8),
            pretty in any::<bool>(),
            buffer in 1_usize..40,
        ) {
            let text = if pretty {
                serde_json::to_vec_pretty(&values)
            } else {
                serde_json::to_vec(&values)
            };
            let text = text.expect("values of JSON");
            prop_assert_eq!(scanned(&text, buffer), Ok(values));
        }

        #[test]
        fn damaged_lists_are_accepted_exactly_when_serde_json_does(
            values in prop::collection::vec(any_value(), 0..5),
            at in any::<prop::sample::Index>(),
            new in prop::sample::select(b"[]{},:\"\\ 0a\xFF".as_slice()),
            cut in any::<bool>(),
        ) {
            let mut text = serde_json::to_vec(&values).expect("values of JSON");
            let at = at.index(text.len());
            if cut { text.truncate(at) } else { text[at] = new }
            let whole = serde_json::from_slice::<Vec<Value>>(&text);
            prop_assert_eq!(scanned(&text, 16).ok(), whole.ok());
        }
    }

    #[test]
    fn whitespace_and_byte_order_mark_are_skipped() {
        let text = b"\xEF\xBB\xBF \n[ 1 ,\t{\"a\": [2]}\r\n,\"]\" ] \n";
        assert_eq!(scanned(text, 3).map(|found| found.len()), Ok(3));
        assert_eq!(scanned(b" [ \n ] ", 3), Ok(Vec::new()));
    }

    #[test]
    fn list_errors_describe_the_problem() {
        let said = |text: &[u8]| scanned(text, 8).expect_err("no list");
        assert_eq!(said(b"{}"), "it does not begin with [");
        assert_eq!(said(b""), "it does not begin with [");
        assert_eq!(said(b"[1, 2"), "it is truncated");
        assert_eq!(said(b"[\"1]"), "it is truncated");
        assert_eq!(said(b"[1,,2]"), "there is nothing between two commas");
        assert_eq!(said(b"[1,]"), "there is nothing between two commas");
        assert_eq!(said(b"[1}]"), "a } closes nothing");
        assert_eq!(said(b"[1] 2"), "something follows the end of the list");
    }
}
