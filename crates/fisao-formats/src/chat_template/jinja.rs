//! Jinja as transformers sets it up: what is switched on, and the functions it adds.

use std::borrow::Cow;
use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde_json::Map;

use super::json;

/// Instructions after which a template is stopped. A conversation takes thousands; templates come
/// from strangers.
const FUEL: u64 = 10_000_000;

/// Why a template wrote nothing.
pub(super) struct Failure {
    /// The line, counted from 1.
    pub(super) line: Option<usize>,
    /// What is wrong, after "the chat template".
    pub(super) reason: String,
}

/// What a template gave to `raise_exception`.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Renders a template.
pub(super) fn render(
    source: &str,
    context: &Map<String, serde_json::Value>,
) -> Result<String, Failure> {
    let source = without_generation_tags(source);
    let environment = environment();
    let template = environment.template_from_str(&source).map_err(|error| Failure {
        line: error.line(),
        reason: format!("is not valid: {}", said(&error)),
    })?;
    template.render(Value::from(Serde(context))).map_err(|error| failure(&error))
}

fn environment<'a>() -> Environment<'a> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("only white space differs from the default"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", to_json);
    // To Python, a text is a sequence too.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String) || value.is_undefined()
    });
    environment
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Refused(message)))
}

/// The local time, by the directives of C's `strftime`.
fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Python's `json.dumps`, without the escapes for HTML that Jinja's own filter has.
#[expect(clippy::needless_pass_by_value, reason = "minijinja hands options over by value")]
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let mut value = serde_json::to_value(value).map_err(|error| {
        Error::new(ErrorKind::BadSerialization, "cannot be JSON").with_source(error)
    })?;
    if options.get::<Option<bool>>("sort_keys")?.unwrap_or(false) {
        value.sort_all_objects();
    }
    let indent = match options.get::<Option<Value>>("indent")? {
        None => None,
        Some(indent) => match indent.as_str() {
            Some(text) => Some(text.to_owned()),
            None => Some(" ".repeat(usize::try_from(indent).unwrap_or(0))),
        },
    };
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        // Python leaves no space at the end of a line.
        _ if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        _ => (", ".to_owned(), ": ".to_owned()),
    };
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    options.assert_all_used()?;
    Ok(json::Style { item, key, indent, ascii }.write(&value))
}

/// `{% generation %}` marks what the assistant said for training; it writes nothing. A block without a
/// condition stands in for it, with the same control of white space.
fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return source.into();
    }
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(length) = rest[at..].find("%}") else { break };
        let (before, tag, after) =
            (&rest[..at], &rest[at..at + length + 2], &rest[at + length + 2..]);
        text.push_str(before);
        let word = tag[2..length].trim_matches(|c: char| "-+".contains(c)).trim();
        match word {
            "generation" => text.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => text.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => text.push_str(tag),
        }
        rest = after;
    }
    text.push_str(rest);
    text.into()
}

fn failure(error: &Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Refused(message)) = current.downcast_ref() {
            return Failure { line: None, reason: format!("refuses this conversation: {message}") };
        }
        cause = current.source();
    }
    Failure { line: error.line(), reason: format!("fails: {}", said(error)) }
}

/// An error without its place, which is told elsewhere.
fn said(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, Failure> {
        super::render(source, &Map::new())
    }

    #[test]
    fn the_time_is_todays() {
        let before = jiff::Zoned::now().date();
        let written = render("{{ strftime_now('%Y-%m-%d') }}").ok().unwrap();
        let after = jiff::Zoned::now().date();
        assert!([before, after].iter().any(|date| date.to_string() == written), "{written}");
        assert!(render("{{ strftime_now('%') }}").is_err());
    }

    #[test]
    fn a_template_without_end_is_stopped() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let failure = render(source).err().unwrap();
        assert!(failure.reason.contains("fuel"), "{}", failure.reason);
    }
}
