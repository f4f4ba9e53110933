//! Text into HTML: escaping, template filling, numbers.

use std::ops::Range;

use minijinja::{Environment, UndefinedBehavior, Value};

/// A whole page that makes no request to anywhere: a title, which is escaped here, and what stands in `main`.
pub fn page(title: &str, main: &str) -> String {
    let values =
        [("title", escape(title)), ("style", super::STYLE.to_owned()), ("main", main.to_owned())];
    let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
    fill(include_str!("page.html"), &values)
}

/// A text, escaped, with some of its words marked: each by its bytes and by what `mark` makes of the word as written. A
/// word that does not lie on character boundaries behind the one before it is left out rather than shown in the wrong place.
pub fn marked<Word>(
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
pub fn escape(text: &str) -> String {
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

/// Fills a template: each `{{ name }}` becomes its value, as it is.
///
/// # Panics
/// The template is no template, or names something that has no value.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let values = values.iter().map(|&(name, value)| (name, Value::from(value)));
    let mut filled = environment
        .render_str(template, Value::from_pairs(values))
        .expect("a template and its values belong together");
    // The engine drops a line break at the end of a template.
    if template.ends_with('\n') && !filled.ends_with('\n') {
        filled.push('\n');
    }
    filled
}

/// How many of something there are: `1 seed`, `5 seeds`.
pub fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A number with a fixed count of decimals and a true minus sign; a dash if it is not finite.
pub fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = format!("{:.decimals$}", value.abs());
    let is_zero = digits.chars().all(|digit| matches!(digit, '0' | '.'));
    if value < 0.0 && !is_zero { format!("−{digits}") } else { digits }
}

/// [`number`] with a plus sign in front of what is not negative; `±` in front of zero.
pub fn signed(value: f64, decimals: usize) -> String {
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
