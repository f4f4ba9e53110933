//! Foreign text on its way to a terminal: file names, captions and what files say may hold characters that move the cursor,
//! change the colour or turn the order of reading around, and would then show something else than they are.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Longest word that is shown whole, characters; paths are shorter, images in base64 longer.
const LONGEST_WORD: usize = 1024;
/// What is shown of a longer one.
const SHOWN_OF_WORD: usize = 120;

/// A text on one line: every control character, line breaks too, is written as its escape sequence. Words that nobody reads
/// to the end are cut.
pub fn one_line(text: &str) -> Cow<'_, str> {
    let text = escaped(text, |c| !is_control(c));
    if text.split(' ').all(|word| word.len() <= LONGEST_WORD) { text } else { cut(&text).into() }
}

/// A text as this program prints it, which keeps its own line breaks, tabs and colours.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        safe.push_str(&escaped(&rest[..at], |c| !is_control(c) || matches!(c, '\n' | '\t')));
        let length = colour(&rest[at..]);
        if length == 0 {
            safe.push_str("\\u{1b}");
        }
        safe.push_str(&rest[at..at + length]);
        rest = &rest[at + length.max(1)..];
    }
    safe.push_str(&escaped(rest, |c| !is_control(c) || matches!(c, '\n' | '\t')));
    safe.into()
}

/// JSON in which such characters, which only texts hold, are written in JSON's own way.
pub fn json(text: String) -> String {
    if !text.contains(is_control) {
        return text;
    }
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        if is_control(c) && c != '\n' {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
        safe
    })
}

/// Length of the sequence for a colour or weight that a text begins with, or 0.
fn colour(text: &str) -> usize {
    let Some(rest) = text.strip_prefix("\u{1b}[") else { return 0 };
    let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
    if rest.as_bytes().get(digits) == Some(&b'm') { 2 + digits + 1 } else { 0 }
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&keep) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if keep(c) { safe.push(c) } else { safe.extend(c.escape_debug()) }
    }
    safe.into()
}

/// Control characters, and those that steer the direction or the lines of a text.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

fn cut(text: &str) -> String {
    let cut = |word: &str| {
        if word.len() <= LONGEST_WORD {
            return word.to_owned();
        }
        let start: String = word.chars().take(SHOWN_OF_WORD).collect();
        format!("{start}… ({} characters)", word.chars().count())
    };
    text.split(' ').map(cut).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_in_names_are_escaped() {
        let name = "a\nb\u{1b}[2J\u{9b}31m\u{202e}gnp.\u{2066}\u{7f}é叫🦀.png";
        assert_eq!(
            one_line(name),
            "a\\nb\\u{1b}[2J\\u{9b}31m\\u{202e}gnp.\\u{2066}\\u{7f}é叫🦀.png"
        );
        assert_eq!(one_line("plain é"), "plain é");
        let image = "A".repeat(280_000);
        assert!(one_line(&format!("no image at {image} there")).len() < 200);
    }

    #[test]
    fn own_colour_codes_and_line_breaks_are_kept() {
        let text = "\u{1b}[1;31mred\u{1b}[0m\n\ttab\u{1b}[2J\u{9b}1m\u{202e}";
        assert_eq!(printable(text), "\u{1b}[1;31mred\u{1b}[0m\n\ttab\\u{1b}[2J\\u{9b}1m\\u{202e}");
    }

    #[test]
    fn escaped_json_parses_to_the_same_value() {
        let value = "\u{9b}31m \u{202e} \u{7f} é\n";
        let text = json(serde_json::to_string(value).unwrap());
        assert!(text.is_ascii() || !text.contains(is_control), "{text}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), value);
    }
}
