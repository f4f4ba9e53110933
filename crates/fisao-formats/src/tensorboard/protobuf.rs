//! Fields of protocol buffers, proto3: a number's default (0, the empty text) is left out, as every encoder does.

/// Wire types: what tells how long a field is.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

/// A message being written, fields in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// A `double`; left out where it is 0, but not where it is −0.
    pub(super) fn double(mut self, field: u64, value: f64) -> Self {
        if value.to_bits() != 0 {
            self.key(field, FIXED_64);
            self.0.extend(value.to_le_bytes());
        }
        self
    }

    /// A `float` of a `oneof`, which is written even where it is 0.
    pub(super) fn chosen_float(mut self, field: u64, value: f32) -> Self {
        self.key(field, FIXED_32);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// An `int64`, `int32` or `enum` that is not negative; left out where it is 0.
    pub(super) fn integer(mut self, field: u64, value: u64) -> Self {
        if value != 0 {
            self.key(field, VARINT);
            self.varint(value);
        }
        self
    }

    /// A `string` or `bytes`; left out where it is empty.
    pub(super) fn text(self, field: u64, text: &str) -> Self {
        if text.is_empty() { self } else { self.chosen_text(field, text) }
    }

    /// A `string` or `bytes` of a `oneof` or of a `repeated` field, which is written even where it is empty.
    pub(super) fn chosen_text(mut self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes());
        self
    }

    /// A message in this one, written even where it is empty.
    pub(super) fn message(mut self, field: u64, inner: &Self) -> Self {
        self.bytes(field, &inner.0);
        self
    }

    /// A packed `repeated double`.
    pub(super) fn doubles(mut self, field: u64, values: &[f64]) -> Self {
        if !values.is_empty() {
            let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.bytes(field, &packed);
        }
        self
    }

    /// The message as it is written.
    pub(super) fn encoded(self) -> Vec<u8> {
        self.0
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    /// Seven bits to a byte, the lowest first; the eighth says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.0.push(low_byte(value));
    }
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::Message;

    /// The examples of <https://protobuf.dev/programming-guides/encoding/>.
    #[test]
    fn fields_are_encoded_as_in_the_specification() {
        assert_eq!(Message::default().integer(1, 150).encoded(), [0x08, 0x96, 0x01]);
        let testing = Message::default().text(2, "testing").encoded();
        assert_eq!(testing, [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6E, 0x67]);
        let inner = Message::default().integer(1, 150);
        let outer = Message::default().message(3, &inner).encoded();
        assert_eq!(outer, [0x1A, 0x03, 0x08, 0x96, 0x01]);
    }

    #[test]
    fn default_values_are_omitted_unless_set_explicitly() {
        let none = Message::default().integer(1, 0).double(2, 0.0).text(3, "").doubles(4, &[]);
        assert!(none.encoded().is_empty());
        let chosen = Message::default().chosen_float(2, 0.0).chosen_text(8, "");
        assert_eq!(chosen.encoded(), [0x15, 0, 0, 0, 0, 0x42, 0]);
    }
}
