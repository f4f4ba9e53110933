//! Addresses of pages, letters and files.

use super::Found;
use super::text::{Text, blank, space};

const TOP_DOMAINS: [&str; 4] = ["com", "net", "org", "edu"];

const FILE_ENDINGS: &[&str] = &[
    "bat", "bmp", "bz2", "c", "cgi", "class", "cpp", "dll", "doc", "docx", "exe", "gif", "gz", "h",
    "htm", "html", "jar", "java", "jpeg", "jpg", "mov", "mp3", "pdf", "php", "pl", "png", "ppt",
    "ps", "py", "sql", "tar", "txt", "wav", "x", "xml", "zip",
];

/// What no address holds.
fn outside(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\u{c}' | '\r' | '"' | '<' | '>' | '|' | '(' | ')')
}

/// What an address does not end in.
fn closing(character: char) -> bool {
    outside(character) || matches!(character, '.' | '!' | '?' | '{' | '}' | ',' | '-')
}

/// Two characters or more of an address, the last of which may be its end.
fn path(text: &Text, at: usize) -> Option<usize> {
    let run = text.run(at, |it| !outside(it));
    (at + 2..=run).rev().find(|&end| !closing(text.at(end - 1)))
}

/// <https://…>
pub(super) fn full_address(text: &Text, at: usize) -> Option<Found> {
    let start = text.says_any(at, &["http://", "https://"])?;
    Some(Found::plain(path(text, start)?))
}

/// "www.example.org/page" and "example.com".
pub(super) fn likely_address(text: &Text, at: usize) -> Option<Found> {
    let with_page = |host: usize| {
        let page = text.says(host, "/").and_then(|start| path(text, start));
        page.unwrap_or(host)
    };
    let hosts = behind_www(text, at).into_iter().chain(top_domains(text, at));
    Some(Found::plain(hosts.map(with_page).max()?))
}

/// Every end of a host's name that begins with "www.".
fn behind_www(text: &Text, at: usize) -> Vec<usize> {
    let part = |it: char| !closing(it) || it == '-';
    let Some(mut start) = text.says(at, "www.") else { return Vec::new() };
    let mut ends = Vec::new();
    while let Some(next) = text.some(start, usize::MAX, part).and_then(|end| text.says(end, ".")) {
        let letters = text.run(next, |it| it.is_ascii_alphabetic());
        if letters >= next + 2 {
            ends.push(letters.min(next + 4));
        }
        start = next;
    }
    ends
}

/// Every end of a host's name that is a top-level domain. Parts hold no capitals and no digits.
fn top_domains(text: &Text, at: usize) -> Vec<usize> {
    let part = |it: char| {
        let forbidden = matches!(it, ','..='_' | '`' | '\'' | '$');
        !forbidden && (!closing(it) || it == '-')
    };
    let mut start = at;
    let mut ends = Vec::new();
    while let Some(next) = text.some(start, usize::MAX, part).and_then(|end| text.says(end, ".")) {
        ends.extend(text.says_any(next, &TOP_DOMAINS));
        start = next;
    }
    ends
}

/// "name@example.org", perhaps in angle brackets.
pub(super) fn letter_address(text: &Text, at: usize) -> Option<Found> {
    let opened = text.says_any(at, &["<", "&lt;"]).unwrap_or(at);
    let start = text.one(opened, |it| it.is_ascii_alphanumeric())?;
    let end = text.run(start, in_letter_address);
    let ats = (start..end).filter(|&place| text.at(place) == '@');
    let end = ats.filter_map(|place| domain(text, place + 1)).max()?;
    let closed = text.says_any(end, &[">", "&gt;"]);
    Some(Found::plain(closed.unwrap_or(end)))
}

fn in_letter_address(character: char) -> bool {
    !outside(character) && !matches!(character, '\u{a0}' | '{' | '}')
}

/// Parts with a full stop between each two.
fn domain(text: &Text, at: usize) -> Option<usize> {
    let part = |it: char| in_letter_address(it) && it != '.';
    let mut end = text.some(at, usize::MAX, part)?;
    while let Some(next) = text.says(end, ".").and_then(|start| text.some(start, usize::MAX, part))
    {
        end = next;
    }
    Some(end)
}

/// "@name" and "#word".
pub(super) fn tag(text: &Text, at: usize) -> Option<Found> {
    let name = |start| {
        let first = text.one(start, |it| it.is_ascii_alphabetic() || it == '_')?;
        Some(text.run(first, |it| it.is_ascii_alphanumeric() || it == '_'))
    };
    let person = text.says(at, "@").and_then(name);
    let subject = || {
        text.says(at, "#").and_then(|start| {
            let end = text.letters(start);
            (end > start).then_some(end)
        })
    };
    Some(Found::plain(person.or_else(subject)?))
}

/// "photo.jpg" before white space or the end of a sentence.
pub(super) fn file(text: &Text, at: usize) -> Option<Found> {
    let part = |start| text.some(start, usize::MAX, |it| it.is_ascii_alphanumeric());
    let mut end = part(at)?;
    let mut found = None;
    while let Some(start) = text.says(end, ".") {
        for ending in FILE_ENDINGS {
            let closes = |it: char| blank(it) || space(it) || matches!(it, '.' | '?' | '!' | ',');
            let behind = text.says(start, ending).filter(|&end| closes(text.at(end)));
            found = found.max(behind);
        }
        let Some(next) = part(start) else { break };
        end = next;
    }
    Some(Found { reach: found? + 1, ..Found::plain(found?) })
}
