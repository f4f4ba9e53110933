//! Bounds on what a template may use: they come from strangers, and Jinja is a programming language.
//!
//! minijinja counts the steps and most of the bytes that a template makes as fuel. What follows adds what is not counted
//! there: values that hold themselves or are lists of lists without end, lists that grow by being added to themselves, and
//! a few methods whose result may be far longer than what they are given.

use std::fmt::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, StringInput, Tuple, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};
use minijinja_contrib::pycompat;
use serde::{Serialize, Serializer};

/// Fuel of one conversation: instructions, and 64 bytes each. A conversation takes thousands; this is 25 MB.
pub(super) const FUEL: u64 = 400_000;
/// Bytes that one unit of fuel stands for.
const BYTES: usize = 64;
/// Bytes of a list's place in a value.
const SLOT: usize = 24;
/// Bytes of the longest template.
pub(super) const LONGEST_TEMPLATE: usize = 1 << 20;
/// Levels of lists and maps within each other.
const DEPTH: usize = 64;
/// What a template may take in all, where fuel does not stop it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Stack of the thread that it runs on; pages of it that are not used take no memory.
const STACK: usize = 128 << 20;
/// What the function that looks at kept values is called in templates.
const KEPT: &str = "__kept";

/// Runs something on a thread with a stack of known size and waits for it, but not for ever. `None` if it takes too long: the
/// thread is then left to itself until its fuel is used up.
pub(super) fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<Option<T>> {
    let (sender, receiver) = mpsc::channel();
    let send = move || drop(sender.send(work()));
    let thread = thread::Builder::new().name("chat template".to_owned()).stack_size(STACK);
    thread.spawn(send)?;
    match receiver.recv_timeout(PATIENCE) {
        Ok(done) => Ok(Some(done)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(std::io::Error::other("it has failed")),
    }
}

/// The seconds of [`PATIENCE`].
pub(super) fn patience() -> u64 {
    PATIENCE.as_secs()
}

/// Adds the bounds to what templates can call.
pub(super) fn apply(environment: &mut Environment<'_>) {
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.add_filter("join", join);
    environment.add_function(KEPT, kept);
}

/// The template with every value that it keeps under a name handed through [`kept`]; lines stay where they are.
pub(super) fn guarded(source: &str, syntax: SyntaxConfig) -> Result<String, Error> {
    let mut text = String::with_capacity(source.len());
    let mut written = 0;
    let tokens = tokenize(source, false, syntax).collect::<Result<Vec<_>, _>>()?;
    let mut at = 0;
    while at < tokens.len() {
        at += 1;
        if !matches!(tokens[at - 1].0, Token::BlockStart)
            || !matches!(tokens.get(at), Some((Token::Ident("set"), _)))
        {
            continue;
        }
        let tag = &tokens[at..];
        let end = tag.iter().position(|(token, _)| matches!(token, Token::BlockEnd));
        let Some(end) = end else { break };
        let mut open = 0_usize;
        let assigned = tag[..end].iter().position(|(token, _)| {
            match token {
                Token::ParenOpen => open += 1,
                Token::ParenClose => open = open.saturating_sub(1),
                _ => {}
            }
            open == 0 && matches!(token, Token::Assign)
        });
        // A block's content is a text, and counted.
        let Some(assigned) = assigned else { continue };
        let shared = tag[..assigned].iter().any(|(token, _)| matches!(token, Token::Dot));
        let from = tag[assigned].1.end_offset as usize;
        let to = tag[end].1.start_offset as usize;
        let (Some(before), Some(value)) = (source.get(written..from), source.get(from..to)) else {
            continue;
        };
        text.push_str(before);
        write!(text, " {KEPT}({shared}, ({value}))").expect("a String takes everything");
        written = to;
        at += end;
    }
    text.push_str(source.get(written..).unwrap_or_default());
    Ok(text)
}

/// A value that a template keeps: lists as they are now instead of how they come about, and not too deep. What goes into a
/// namespace is `shared`, and the linear layers of it are copied too, so that none can hold itself; a macro there is no macro any more.
fn kept(state: &State, shared: bool, value: &Value) -> Result<Value, Error> {
    copied(state, value, shared, 0)
}

fn copied(state: &State, value: &Value, maps: bool, depth: usize) -> Result<Value, Error> {
    if depth > DEPTH {
        let reason = format!("values are nested more than {DEPTH} deep");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()?.checked() {
                state.consume_fuel(1)?;
                items.push(copied(state, &item?, maps, depth + 1)?);
            }
            Ok(if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
        }
        ValueKind::Map if maps => {
            let fields = value.try_iter()?.checked().map(|key| {
                state.consume_fuel(1)?;
                let key = key?;
                let field = copied(state, &value.get_item(&key)?, maps, depth + 1)?;
                Ok((key, field))
            });
            fields.collect::<Result<_, Error>>().map(|fields| Value::from(Serde(Pairs(fields))))
        }
        _ => Ok(value.clone()),
    }
}

/// The fields of a map, in their order.
struct Pairs(Vec<(Value, Value)>);

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// Pays for the text of a value before it is written.
pub(super) fn pay_for(state: &State, value: &Value) -> Result<(), Error> {
    pay_for_parts(state, value, 0)
}

fn pay_for_parts(state: &State, value: &Value, depth: usize) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable if depth <= DEPTH => {
            for item in value.try_iter()?.checked() {
                pay_for_parts(state, &item?, depth + 1)?;
            }
            pay(state, SLOT)
        }
        ValueKind::Map if depth <= DEPTH => {
            for key in value.try_iter()?.checked() {
                let key = key?;
                pay_for_parts(state, &key, depth + 1)?;
                pay_for_parts(state, &value.get_item(&key)?, depth + 1)?;
            }
            pay(state, SLOT)
        }
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            let reason = format!("values are nested more than {DEPTH} deep");
            Err(Error::new(ErrorKind::InvalidOperation, reason))
        }
        _ => pay(state, value.as_str().map_or(SLOT, str::len)),
    }
}

/// Pays for bytes that are about to be made.
fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes.div_ceil(BYTES) as u64)
}

/// The methods of Python's types; those are paid for beforehand whose result can be far longer than what they are given.
fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (value.as_str(), name) {
        (Some(format), "format") => {
            pay(state, widths(format))?;
            let fields = format.matches('{').count();
            for argument in arguments {
                for _ in 0..fields {
                    pay_for(state, argument)?;
                }
            }
        }
        (Some(_), "join") => {
            for values in arguments {
                pay_for(state, values)?;
            }
        }
        (Some(text), "split" | "splitlines") => {
            let separator = arguments.first().and_then(Value::as_str);
            let parts = match separator {
                Some(separator) if !separator.is_empty() => text.matches(separator).count(),
                _ => text.len(),
            };
            pay(state, parts.saturating_mul(2 * SLOT))?;
        }
        _ => {}
    }
    pycompat::unknown_method_callback(state, value, name, arguments)
}

/// All numbers of a format together, which are widths and precisions at most.
fn widths(format: &str) -> usize {
    let digits = format.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    digits.map(|digits| digits.parse().unwrap_or(usize::MAX)).fold(0, usize::saturating_add)
}

/// Jinja's own filter, the items being paid for beforehand.
fn join(
    state: &mut State,
    value: &Value,
    joiner: Option<StringInput<'_>>,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    if attribute.is_none() && !value.is_undefined() {
        pay_for(state, value)?;
    }
    filters::join(state, value, joiner, attribute, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(source: &str) -> String {
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        guarded(source, syntax.unwrap()).unwrap()
    }

    #[test]
    fn every_set_tag_is_wrapped_and_line_numbers_are_kept() {
        let pairs = [
            ("{% set a = 1 %}", "{% set a = __kept(false, ( 1 )) %}"),
            ("{%- set n.a=[n] -%} x", "{%- set n.a= __kept(true, ([n] ))-%} x"),
            ("{% set a, b = 1, f(c=2) %}", "{% set a, b = __kept(false, ( 1, f(c=2) )) %}"),
            ("{% set a\n=\n1 %}\n{{ a }}", "{% set a\n= __kept(false, (\n1 )) %}\n{{ a }}"),
        ];
        for (source, expected) in pairs {
            let written = rewritten(source);
            let plain = |text: &str| text.replace(' ', "");
            assert_eq!(plain(&written), plain(expected), "{source}");
            assert_eq!(written.lines().count(), source.lines().count());
        }
        // What only looks like a tag is left alone.
        for source in [
            "{{ '{% set a = 1 %}' }}",
            "{# {% set a = 1 %} #}",
            "{% raw %}{% set a = 1 %}{% endraw %}",
            "{% set a %}b=c{% endset %}",
            "{% if set == 1 %}{% endif %}",
        ] {
            assert_eq!(rewritten(source), source);
        }
        // And one behind such a thing is not.
        let hidden = "{{ \"{%\" }}{% set n.x = n %}";
        assert!(rewritten(hidden).contains(KEPT), "{}", rewritten(hidden));
    }
}
