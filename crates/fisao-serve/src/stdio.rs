//! One JSON object a line, both ways: for a program that starts the server and talks to nobody else.

use std::io::{self, BufRead, ErrorKind, Write};

use serde::Serialize;

use crate::engine::Engine;
use crate::protocol::{ErrorCode, Failure, Reply, Request, RequestId};

/// Answers requests in their order until there are no more.
///
/// * `longest` — most bytes of a line; a longer one is read to its end and refused.
///
/// # Errors
/// What is said cannot be read or written. A reader who went away is the end, not an error.
pub fn serve(
    engine: &Engine,
    mut requests: impl BufRead,
    mut replies: impl Write,
    longest: usize,
) -> io::Result<()> {
    if !say(&mut replies, &engine.greeting())? {
        return Ok(());
    }
    let mut line = Vec::new();
    loop {
        let reply = match read_line(&mut requests, &mut line, longest)? {
            Line::End => return Ok(()),
            Line::Whole if line.trim_ascii().is_empty() => continue,
            Line::Whole => reply(engine, &line),
            Line::TooLong => {
                let message = format!("a line is longer than {} MB", longest >> 20);
                let failure = Failure::new(ErrorCode::TooLarge, message).hint(
                    "ask for fewer samples at once, or start the server with a larger --body-mb",
                );
                Reply::new(RequestId::default(), Err(failure))
            }
        };
        if !say(&mut replies, &reply)? {
            return Ok(());
        }
    }
}

fn reply(engine: &Engine, line: &[u8]) -> Reply {
    let text = match std::str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => {
            let failure =
                Failure::new(ErrorCode::InvalidJson, format!("the line is not UTF-8: {error}"));
            return Reply::new(RequestId::default(), Err(failure));
        }
    };
    match Request::parse(text) {
        Ok(request) => {
            let id = request.id.clone();
            Reply::new(id, engine.answer(request))
        }
        Err((id, failure)) => Reply::new(id, Err(failure)),
    }
}

/// What was read of a line.
enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads a line without its end; of one that is too long nothing is kept.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>, longest: usize) -> io::Result<Line> {
    line.clear();
    let mut seen = false;
    let mut too_long = false;
    loop {
        let available = match from.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(match (seen, too_long) {
                (false, _) => Line::End,
                (true, false) => Line::Whole,
                (true, true) => Line::TooLong,
            });
        }
        seen = true;
        let end = available.iter().position(|&byte| byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        too_long |= line.len() + part.len() > longest;
        if too_long {
            line.clear();
        } else {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() {
            return Ok(if too_long { Line::TooLong } else { Line::Whole });
        }
    }
}

/// Writes a line; `false` where nobody reads any more.
fn say(to: &mut impl Write, value: &impl Serialize) -> io::Result<bool> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    match to.write_all(&text).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_one_read() {
        let mut from = io::BufReader::with_capacity(4, "12345678\nabc\n\nend".as_bytes());
        let mut line = Vec::new();
        let mut next = |line: &mut Vec<u8>| read_line(&mut from, line, 5).unwrap();
        assert!(matches!(next(&mut line), Line::TooLong));
        assert!(matches!(next(&mut line), Line::Whole));
        assert_eq!(line, b"abc");
        assert!(matches!(next(&mut line), Line::Whole));
        assert!(line.is_empty());
        assert!(matches!(next(&mut line), Line::Whole));
        assert_eq!(line, b"end");
        assert!(matches!(next(&mut line), Line::End));
    }
}
