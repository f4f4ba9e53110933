//! Changes to valid files, of the kinds that damage and malice are made of.

use serde_json::{Map, Value, json};

/// Longest input, bytes, so that repeated doubling has an end.
const LONGEST: usize = 1 << 20;
/// Levels of nesting that parsers are tried with.
const DEEP: usize = 2000;
/// Numbers at the ends of what types hold, and words that are none.
const NUMBERS: [&str; 24] = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "255",
    "65535",
    "65536",
    "1000000",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "1152921504606846976",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e-308",
    "-0.5",
    "1.5",
    "NaN",
];

/// What a file consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Bytes.
    Bytes,
    /// Text.
    Text,
    /// One JSON value.
    Json,
    /// One JSON value on each line.
    JsonLines,
    /// The length of a JSON header, the header, and bytes.
    Safetensors,
}

/// A stream of random numbers (`SplitMix64`).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The stream of one input.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ number);
        random.0 = random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below another; 0 below 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % (bound.max(1) as u64)) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// One of the files with one to four changes.
pub(super) fn mutate(form: Form, files: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut file = random.pick(files).clone();
    for _ in 0..=random.below(4) {
        let structured = random.below(3) > 0;
        let other: &Vec<u8> = random.pick(files);
        file = match form {
            Form::Json if structured => change_json(&file, random),
            Form::JsonLines if structured => change_line(&file, random),
            Form::Safetensors if structured => change_header(&file, random),
            Form::Bytes => change_bytes(file, other, random),
            _ if random.below(2) == 0 => change_text(file, random),
            _ => change_bytes(file, other, random),
        };
        file.truncate(LONGEST);
    }
    file
}

fn change_bytes(mut file: Vec<u8>, other: &[u8], random: &mut Random) -> Vec<u8> {
    let length = file.len();
    let at = random.below(length);
    let part = |random: &mut Random, length: usize| {
        let start = random.below(length);
        // Short ones mostly.
        let longest = if random.below(4) == 0 { length - start } else { (length - start).min(16) };
        start..start + random.below(longest + 1)
    };
    match random.below(9) {
        _ if length == 0 => file.extend_from_slice(other),
        0 | 1 => file[at] ^= 1 << random.below(8),
        2 => file[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'\n']),
        3 => file.truncate(at),
        4 => drop(file.drain(part(random, length))),
        5 => {
            let copy = file[part(random, length)].to_vec();
            let copies = 1 + random.below(3) * random.below(200);
            file.splice(at..at, copy.repeat(copies));
        }
        6 => {
            let piece = if other.is_empty() {
                Vec::new()
            } else {
                other[part(random, other.len())].to_vec()
            };
            file.splice(at..at, piece);
        }
        7 => {
            // A number of the file's own: little- or big-endian, of 2, 4 or 8 bytes.
            let number =
                *random.pick(&[0, 1, u64::MAX, 1 << 31, 0xffff_ffff, 1 << 40, 0x7fff, 0xffff]);
            let width = *random.pick(&[2, 4, 8]);
            let little = number.to_le_bytes()[..width].to_vec();
            let bytes =
                if random.below(2) == 0 { little } else { little.into_iter().rev().collect() };
            let end = (at + width).min(length);
            file.splice(at..end, bytes);
        }
        _ => {
            let bytes = (0..random.below(16)).map(|_| random.next() as u8).collect::<Vec<_>>();
            file.splice(at..at, bytes);
        }
    }
    file
}

/// Numbers and brackets of a text.
fn change_text(file: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let is_number = |byte: &u8| byte.is_ascii_digit();
    let start = random.below(file.len());
    let number = file[start.min(file.len())..].iter().position(is_number).map(|at| start + at);
    match random.below(4) {
        0 | 1 if number.is_some() => {
            let from = number.unwrap_or_default();
            let digits = file[from..].iter().take_while(|byte| is_number(byte)).count();
            let mut changed = file;
            changed.splice(from..from + digits, random.pick(&NUMBERS).bytes());
            changed
        }
        2 => {
            let open = *random.pick(&["[", "{\"a\":", "(", "{{", "{%", "\"", "<"]);
            let mut changed = file;
            let depth = 1 + random.below(DEEP);
            changed.splice(start..start, open.repeat(depth).into_bytes());
            changed
        }
        _ => {
            let word = *random.pick(&[
                "null", "true", "-1", "\u{feff}", "\u{9b}", "é", "\0", "1e999", "NaN", "\r\n",
                "../",
            ]);
            let mut changed = file;
            changed.splice(start..start, word.bytes());
            changed
        }
    }
}

fn change_json(file: &[u8], random: &mut Random) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(file) else {
        return change_text(file.to_vec(), random);
    };
    change_value(&mut value, random);
    value.to_string().into_bytes()
}

fn change_line(file: &[u8], random: &mut Random) -> Vec<u8> {
    let mut lines = file.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let at = random.below(lines.len());
    match random.below(6) {
        0 => lines.insert(at, lines[at].clone()),
        1 => drop(lines.remove(at)),
        _ => lines[at] = change_json(&lines[at], random),
    }
    lines.join(&b'\n')
}

/// The header, with its length set right most of the time.
fn change_header(file: &[u8], random: &mut Random) -> Vec<u8> {
    let parts = file.split_first_chunk::<8>().and_then(|(length, rest)| {
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
    });
    let Some((header, data)) = parts else { return change_bytes(file.to_vec(), file, random) };
    let header = change_json(header, random);
    let length = match random.below(8) {
        0 => random.next() >> random.below(64),
        _ => header.len() as u64,
    };
    [&length.to_le_bytes()[..], &header, data].concat()
}

/// One place of a value, changed, moved, doubled or removed.
fn change_value(value: &mut Value, random: &mut Random) {
    let copy = pick_place(value, random).clone();
    let place = pick_place(value, random);
    match (random.below(8), place) {
        (0, Value::Object(fields)) => {
            if let Some(key) = pick_key(fields, random) {
                fields.remove(&key);
            }
        }
        (1, Value::Object(fields)) => {
            if let Some(key) = pick_key(fields, random) {
                let inner = fields.remove(&key);
                let other =
                    pick_key(fields, random).unwrap_or_else(|| "x".repeat(random.below(300)));
                fields.insert(other, inner.unwrap_or_default());
            }
        }
        (0, Value::Array(items)) if !items.is_empty() => {
            drop(items.remove(random.below(items.len())));
        }
        (1, Value::Array(items)) if !items.is_empty() => {
            let item = random.pick(items).clone();
            let copies = 1 + random.below(3) * random.below(300);
            items.extend(std::iter::repeat_n(item, copies));
        }
        (2, place) => *place = copy,
        (3, place @ Value::Number(_)) => *place = number(random),
        (_, place) => *place = odd_value(random),
    }
}

fn pick_key(fields: &Map<String, Value>, random: &mut Random) -> Option<String> {
    fields.keys().nth(random.below(fields.len())).cloned()
}

/// A place anywhere inside a value, deeper ones no less likely than the first.
fn pick_place<'a>(value: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let mut place = value;
    loop {
        if random.below(5) == 0 {
            return place;
        }
        let count = match &*place {
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            _ => 0,
        };
        if count == 0 {
            return place;
        }
        let at = random.below(count);
        place = match place {
            Value::Array(items) => &mut items[at],
            Value::Object(fields) => fields.values_mut().nth(at).expect("there are as many"),
            _ => unreachable!("a scalar has nothing inside"),
        };
    }
}

fn number(random: &mut Random) -> Value {
    let number: &&str = random.pick(&NUMBERS);
    serde_json::from_str(number).unwrap_or(Value::Null)
}

fn odd_value(random: &mut Random) -> Value {
    match random.below(12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!([]),
        3 => json!({}),
        4 => json!(""),
        5 => json!("x".repeat(random.below(20_000))),
        6 => json!("../../\u{0}\u{9b}\u{202e}\n"),
        7 => {
            // Deeper than parsers go is tried with text.
            (0..random.below(120)).fold(json!(0), |inner, _| json!([inner]))
        }
        8 => (0..random.below(120))
            .fold(json!(0), |inner, _| json!({ "type": "Sequence", "a": inner })),
        9 => json!(vec![0; random.below(5000)]),
        _ => number(random),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_inputs_are_reproducible_by_seed_and_number() {
        let files = [br#"{"a": [1, {"b": "c"}]}"#.to_vec(), b"12".to_vec()];
        let inputs = |seed| {
            let make = |number| mutate(Form::Json, &files, &mut Random::new(seed, number));
            (0..200).map(make).collect::<Vec<_>>()
        };
        assert_eq!(inputs(3), inputs(3));
        assert_ne!(inputs(3), inputs(4));
        let mut distinct = inputs(3);
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 150, "{}", distinct.len());
    }

    #[test]
    fn mutations_of_every_form_respect_the_length_limit() {
        let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let file = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
        let files = [file, Vec::new(), b"{\"a\": 1}\n{\"a\": 2}\n".to_vec()];
        for form in [Form::Bytes, Form::Text, Form::Json, Form::JsonLines, Form::Safetensors] {
            for number in 0..5000 {
                assert!(mutate(form, &files, &mut Random::new(1, number)).len() <= LONGEST);
            }
        }
    }
}
