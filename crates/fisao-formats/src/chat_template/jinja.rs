//! Jinja as transformers sets it up: what is switched on, and the functions it adds.

use std::borrow::Cow;
use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use serde_json::Map;

use super::json;
use super::limits::{self, LONGEST_TEMPLATE};

/// Spaces of an indentation, and bytes of what stands between two values.
const LONGEST_SEPARATOR: usize = 64;

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

/// Renders a template, within bounds on its steps, its memory, its depth and its time.
pub(super) fn render(
    source: &str,
    context: &Map<String, serde_json::Value>,
) -> Result<String, Failure> {
    let length = source.len();
    if length > LONGEST_TEMPLATE {
        let reason = format!("is {length} bytes long, and at most {LONGEST_TEMPLATE} are read");
        return Err(Failure { line: None, reason });
    }
    let (source, context) = (source.to_owned(), context.clone());
    match limits::run(move || render_here(&source, &context)) {
        Ok(Some(rendered)) => rendered,
        Ok(None) => {
            let reason = format!("takes more than {} seconds", limits::patience());
            Err(Failure { line: None, reason })
        }
        Err(error) => {
            let reason = format!("cannot be rendered on a thread of its own: {error}");
            Err(Failure { line: None, reason })
        }
    }
}

fn render_here(source: &str, context: &Map<String, serde_json::Value>) -> Result<String, Failure> {
    let source = without_generation_tags(source);
    let environment = environment();
    let invalid = |error: Error| Failure {
        line: error.line(),
        reason: format!("is not valid: {}", said(&error)),
    };
    let source = limits::guarded(&source, syntax()).map_err(invalid)?;
    let template = environment.template_from_str(&source).map_err(invalid)?;
    template.render(Value::from(Serde(context))).map_err(|error| failure(&error))
}

fn syntax() -> SyntaxConfig {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    syntax.expect("only white space differs from the default")
}

fn environment<'a>() -> Environment<'a> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax());
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    limits::apply(&mut environment);
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
fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    limits::pay_for(state, value)?;
    let mut value = serde_json::to_value(value).map_err(|error| {
        Error::new(ErrorKind::BadSerialization, "cannot be JSON").with_source(error)
    })?;
    if options.get::<Option<bool>>("sort_keys")?.unwrap_or(false) {
        value.sort_all_objects();
    }
    let indent = options.get::<Option<Value>>("indent")?.map(|indent| {
        if let Some(text) = indent.as_str() {
            return text.to_owned();
        }
        let spaces = usize::try_from(indent).unwrap_or(0);
        " ".repeat(spaces.min(LONGEST_SEPARATOR + 1))
    });
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let between = separators.iter().flatten().chain(&indent);
    if between.into_iter().any(|text| text.len() > LONGEST_SEPARATOR) {
        let reason = format!("tojson separates values by at most {LONGEST_SEPARATOR} characters");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
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
        let Some(length) = rest[at + 2..].find("%}").map(|length| length + 2) else { break };
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
    fn strftime_now_returns_the_current_date() {
        let before = jiff::Zoned::now().date();
        let written = render("{{ strftime_now('%Y-%m-%d') }}").ok().unwrap();
        let after = jiff::Zoned::now().date();
        assert!([before, after].iter().any(|date| date.to_string() == written), "{written}");
        assert!(render("{{ strftime_now('%') }}").is_err());
    }

    #[test]
    fn incomplete_generation_tag_is_a_template_error() {
        for source in ["{%}generation", "{% generation", "{%%}generation{%", "generation{%}%}"] {
            assert!(render(source).is_err(), "{source}");
        }
        let source =
            "{% generation %}a{% endgeneration %}{%- generation -%} b {%- endgeneration -%}";
        assert_eq!(render(source).ok().unwrap(), "ab");
    }

    #[test]
    fn long_running_template_exceeds_the_work_limit() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let failure = render(source).err().unwrap();
        assert!(failure.reason.contains("fuel"), "{}", failure.reason);
    }

    /// Templates that would take all memory, all of the stack or for ever.
    #[test]
    fn template_memory_stack_and_time_are_bounded() {
        let itself = "{% set n = namespace() %}{% set n.x = n %}";
        let two = itself.to_owned() + "{% set m = namespace() %}{% set m.x = m %}";
        let nested = "{% set n = namespace(x=[]) %}{% for i in range(90000) %}{% set n.x = [n.x] %}{% endfor %}";
        let big = "{% set s = 'x' * 100000 %}";
        let refused = [
            "{{ '{:>10000000000}'.format(5) }}".to_owned(),
            "{{ '{:.3000000000f}'.format(5.0) }}".to_owned(),
            "{{ ('%10000000000d'|format(5)) }}".to_owned(),
            format!("{big}{{{{ '{}'.format(s) }}}}", "{0}".repeat(5000)),
            "{{ ('x' * 10**10)|length }}".to_owned(),
            "{{ ('x' * 10**8)|length }}".to_owned(),
            "{{ ([1] * 10**8)|list|length }}".to_owned(),
            "{{ range(10**12)|length }}".to_owned(),
            format!("{big}{{{{ ''.join([s] * 100000)|length }}}}"),
            format!("{big}{{{{ ([s] * 100000)|join|length }}}}"),
            format!("{big}{{{{ ([s] * 100000)|tojson|length }}}}"),
            format!("{big}{{{{ ([s] * 100000)|string|length }}}}"),
            format!("{big}{{{{ (([s] * 100000) ~ '')|length }}}}"),
            format!("{big}{{{{ ([s] * 100000)|pprint|length }}}}"),
            format!("{big}{{{{ [s] * 100000 }}}}"),
            "{{ [1]|tojson(indent=10**9) }}".to_owned(),
            "{{ ('a\n' * 1000)|indent(10**8)|length }}".to_owned(),
            "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}".to_owned(),
            "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = n.x.replace('a', 'aaaa') %}{% endfor %}".to_owned(),
            "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}".to_owned(),
            format!("{{% set x = [1] %}}{}", "{% set x = x + x %}".repeat(60)),
            "{% set n = namespace(x=[1]) %}{% for i in range(90000) %}{% set n.x = n.x[::1] %}{% endfor %}{{ n.x }}".to_owned(),
            "{% macro f(s) %}{{ f(s ~ s) }}{% endmacro %}{{ f('aaaaaaaa') }}".to_owned(),
            "{% macro f(s) %}{{ f([s]) }}{% endmacro %}{{ f([]) }}".to_owned(),
            "{% set x %}{% for i in range(90000) %}{% for j in range(9000) %}aaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}{% endfor %}{% endset %}".to_owned(),
            nested.to_owned(),
            format!("{nested}{{{{ n.x }}}}"),
            "x".repeat(LONGEST_TEMPLATE + 1),
        ];
        for source in refused {
            let began = std::time::Instant::now();
            let shown = source.chars().take(120).collect::<String>();
            assert!(render(&source).is_err(), "{shown}");
            assert!(began.elapsed().as_secs() < 10, "{shown}");
        }
        // A namespace in itself is one in a copy of itself.
        for end in [
            "{{ n }}",
            "{{ n|string }}",
            "{{ n ~ '' }}",
            "{{ n == m }}",
            "{{ n in [m] }}",
            "{{ {n: 1} }}",
            "{{ n < m }}",
            "{{ n|tojson }}",
            "{{ [n, m]|sort }}",
            "{{ '{}'.format(n) }}",
            "{{ n|pprint }}",
        ] {
            assert!(
                render(&format!("{two}{end}x")).is_ok_and(|text| text.ends_with('x'))
                    || end == "{{ n < m }}",
                "{end}"
            );
        }
    }

    #[test]
    fn limits_do_not_change_template_output() {
        let pairs = [
            (
                "{% set n = namespace(a=1) %}{% for i in range(3) %}{% set n.a = n.a + i %}{% endfor %}{{ n.a }}",
                "4",
            ),
            ("{% set x = [1] %}{% set x = x + [2, [3]] %}{{ x }}{{ x|length }}", "[1, 2, [3]]3"),
            (
                "{% set n = namespace(l=[]) %}{% for w in 'a b'.split(' ') %}{% set n.l = n.l + [w|upper] %}{% endfor %}{{ n.l|join('-') }}",
                "A-B",
            ),
            ("{% set a, b = 1, (2, 3) %}{{ a }}{{ b }}", "1(2, 3)"),
            (
                "{% set x = missing %}{{ x is defined }}{% set y = none %}{{ y is none }}",
                "FalseTrue",
            ),
            (
                "{% set m = {'b': 1, 'a': {'c': [1]}} %}{% set n = namespace() %}{% set n.m = m %}{{ n.m|tojson }}{{ n.m.b }}{{ n.m.u is defined }}",
                "{\"b\": 1, \"a\": {\"c\": [1]}}1False",
            ),
            ("{% set n = namespace() %}{% set m = n %}{% set m.x = 1 %}{{ n.x }}", "1"),
            ("{{ '{:>4}|{}'.format('a', 'b') }}{{ ', '.join(['a', 'b']) }}", "   a|ba, b"),
            ("{% macro f(a) %}<{{ a }}>{% endmacro %}{% set g = f %}{{ g(1) }}", "<1>"),
        ];
        for (source, expected) in pairs {
            assert_eq!(render(source).map_err(|failure| failure.reason).unwrap(), expected);
        }
    }
}
