//! JSON as Python's `json.dumps` writes it.

use std::fmt::Write as _;

use serde_json::Value;

/// How values are set apart.
#[derive(Clone, Debug)]
pub(super) struct Style {
    /// Between two items.
    pub(super) item: String,
    /// Between a key and its value.
    pub(super) key: String,
    /// What a level is moved in by; `None` for all on one line.
    pub(super) indent: Option<String>,
    /// Whether characters outside ASCII are escaped.
    pub(super) ascii: bool,
}

impl Style {
    pub(super) fn write(&self, value: &Value) -> String {
        let mut text = String::new();
        self.value(value, 0, &mut text);
        text
    }

    fn value(&self, value: &Value, depth: usize, text: &mut String) {
        match value {
            Value::Null => text.push_str("null"),
            Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(number) => text.push_str(&float(number)),
                None => text.push_str(&number.to_string()),
            },
            Value::String(value) => self.string(value, text),
            Value::Array(items) => {
                self.items(['[', ']'], items.iter(), depth, text, |item, text| {
                    self.value(item, depth + 1, text);
                });
            }
            Value::Object(fields) => {
                self.items(['{', '}'], fields.iter(), depth, text, |(name, field), text| {
                    self.string(name, text);
                    text.push_str(&self.key);
                    self.value(field, depth + 1, text);
                });
            }
        }
    }

    fn items<T>(
        &self,
        [open, close]: [char; 2],
        items: impl ExactSizeIterator<Item = T>,
        depth: usize,
        text: &mut String,
        write: impl Fn(T, &mut String),
    ) {
        text.push(open);
        let empty = items.len() == 0;
        for (at, item) in items.enumerate() {
            if at > 0 {
                text.push_str(&self.item);
            }
            self.line(depth + 1, text);
            write(item, text);
        }
        if !empty {
            self.line(depth, text);
        }
        text.push(close);
    }

    fn line(&self, depth: usize, text: &mut String) {
        if let Some(indent) = &self.indent {
            text.push('\n');
            text.push_str(&indent.repeat(depth));
        }
    }

    fn string(&self, value: &str, text: &mut String) {
        let quoted = Value::from(value).to_string();
        if !self.ascii {
            text.push_str(&quoted);
            return;
        }
        for c in quoted.chars() {
            if c.is_ascii() && c != '\u{7f}' {
                text.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(text, "\\u{unit:04x}").expect("writing to a String cannot fail");
                }
            }
        }
    }
}

/// Rust's shortest form has Python's bounds for exponents, but not its sign and two digits.
fn float(number: f64) -> String {
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_formatted_as_in_python() {
        let pairs = [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
        ];
        for (number, written) in pairs {
            assert_eq!(float(number), written);
        }
    }
}
