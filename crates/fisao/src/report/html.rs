//! Text into HTML: escaping, template filling, numbers.

use std::ops::Range;

/// A whole page that makes no request to anywhere: a title, which is escaped here, and what stands in `main`.
pub(crate) fn page(title: &str, main: &str) -> String {
    let values =
        [("title", escape(title)), ("style", super::STYLE.to_owned()), ("main", main.to_owned())];
    let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
    fill(include_str!("page.html"), &values)
}

/// A text, escaped, with some of its words marked: each by its bytes and by what `mark` makes of the word as written. A
/// word that does not lie on character boundaries behind the one before it is left out rather than shown in the wrong place.
pub(crate) fn marked<Word>(
    text: &str,
    words: impl IntoIterator<Item = (Range<usize>, Word)>,
    mark: impl Fn(&str, Word) -> String,
) -> String {
    let mut html = String::new();
    let mut position = 0;
    for (bytes, word) in words {
        let (Some(between), Some(written)) =
            (text.get(position..bytes.start), text.get(bytes.clone()))
        else {
            continue;
        };
        html.push_str(&escape(between));
        html.push_str(&mark(written, word));
        position = bytes.end;
    }
    html.push_str(&escape(text.get(position..).unwrap_or_default()));
    html
}

/// Escapes text for use in HTML content and in double-quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Replaces each `{{name}}` of the template by its value, in one pass: a value that itself
/// contains `{{…}}` is left as it is. A name without a value stays visible in the result.
pub(crate) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len() * 4);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let value = after.split_once("}}").and_then(|(name, remainder)| {
            let (_, value) = values.iter().find(|(known, _)| *known == name)?;
            Some((*value, remainder))
        });
        if let Some((value, remainder)) = value {
            filled.push_str(value);
            rest = remainder;
        } else {
            filled.push_str("{{");
            rest = after;
        }
    }
    filled.push_str(rest);
    filled
}

/// A number with a fixed count of decimals and a true minus sign; a dash if it is not finite.
pub(crate) fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = format!("{:.decimals$}", value.abs());
    let is_zero = digits.chars().all(|digit| matches!(digit, '0' | '.'));
    if value < 0.0 && !is_zero { format!("−{digits}") } else { digits }
}

/// [`number`] with a plus sign in front of what is not negative; `±` in front of zero.
pub(crate) fn signed(value: f64, decimals: usize) -> String {
    let text = number(value, decimals);
    let is_zero = text.chars().all(|digit| matches!(digit, '0' | '.'));
    if is_zero {
        format!("±{text}")
    } else if value > 0.0 {
        format!("+{text}")
    } else {
        text
    }
}
