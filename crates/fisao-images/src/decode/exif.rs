//! Which way up an image is, from the TIFF block that EXIF wraps, by PIL's reading of it.
//!
//! PIL compares the entry's first value with a number, whatever the type it is written in: cameras write SHORT, and some
//! programs LONG, signed integers, several values or even fractions. Bytes and text are not numbers to it.

use image::metadata::Orientation;

/// The tag of the orientation.
const ORIENTATION: u16 = 0x0112;

/// Numbers of one byte order.
#[derive(Clone, Copy)]
struct Block<'a> {
    bytes: &'a [u8],
    little: bool,
}

/// One entry of a directory.
enum Entry {
    Orientation(f64),
    /// Of another tag, or without a value.
    Other,
}

/// The orientation that a block tells, if the first directory has the tag at all: a value that means nothing turns nothing.
/// The block may begin with the marker `Exif` that JPEG puts before it.
pub(super) fn orientation(mut bytes: &[u8]) -> Option<Orientation> {
    while let Some(rest) = bytes.strip_prefix(b"Exif\0\0") {
        bytes = rest;
    }
    let little = match bytes.get(..4)? {
        b"II\x2a\0" | b"II\0\x2a" => true,
        b"MM\0\x2a" | b"MM\x2a\0" => false,
        _ => return None,
    };
    let block = Block { bytes, little };
    let directory = block.u32(4)? as usize;
    let entries = usize::from(block.u16(directory)?);
    let mut number = None;
    for entry in 0..entries {
        // PIL reads no further than to an entry whose values lie outside of the block. Of a tag that stands twice the last counts.
        let Some(entry) = block.entry(directory + 2 + 12 * entry) else { break };
        if let Entry::Orientation(found) = entry {
            number = Some(found);
        }
    }
    number.map(meant)
}

/// The orientation that the value of an entry tells, by its type.
pub(super) fn orientation_of(kind: u16, value: &[u8], little: bool) -> Option<Orientation> {
    if value.is_empty() {
        return None;
    }
    Block { bytes: value, little }.first(kind, 0).map(meant)
}

/// The orientation of a number; one that means nothing turns nothing.
fn meant(number: f64) -> Orientation {
    let meant = (1..=8_u8).find(|&meant| f64::from(meant).total_cmp(&number).is_eq());
    meant.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}

impl Block<'_> {
    /// What an entry says; `None` where its values lie outside of the block.
    fn entry(self, at: usize) -> Option<Entry> {
        let (tag, kind) = (self.u16(at)?, self.u16(at + 2)?);
        let count = self.u32(at + 4)? as usize;
        let size = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16 => 8,
            // PIL passes over types that it does not know.
            _ => return Some(Entry::Other),
        };
        let length = count.checked_mul(size)?;
        let start = if length > 4 { self.u32(at + 8)? as usize } else { at + 8 };
        self.bytes.get(start..start.checked_add(length)?)?;
        if tag != ORIENTATION || count == 0 {
            return Some(Entry::Other);
        }
        self.first(kind, start).map(Entry::Orientation)
    }

    /// The first value of a type, NaN where it is not a number.
    fn first(self, kind: u16, start: usize) -> Option<f64> {
        match kind {
            3 => self.u16(start).map(f64::from),
            4 | 13 => self.u32(start).map(f64::from),
            // Infinite or NaN where the lower number is 0.
            5 => Some(f64::from(self.u32(start)?) / f64::from(self.u32(start + 4)?)),
            6 => self.bytes.get(start).map(|&byte| f64::from(byte.cast_signed())),
            8 => self.u16(start).map(|number| f64::from(number.cast_signed())),
            9 => self.u32(start).map(|number| f64::from(number.cast_signed())),
            10 => {
                let signed = |at| self.u32(at).map(|number| f64::from(number.cast_signed()));
                Some(signed(start)? / signed(start + 4)?)
            }
            11 => self.u32(start).map(|bits| f64::from(f32::from_bits(bits))),
            12 => self.u64(start).map(f64::from_bits),
            16 => self.u64(start).map(|number| number as f64),
            _ => Some(f64::NAN),
        }
    }

    fn u16(self, at: usize) -> Option<u16> {
        let bytes = self.number::<2>(at)?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn u32(self, at: usize) -> Option<u32> {
        let bytes = self.number::<4>(at)?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn u64(self, at: usize) -> Option<u64> {
        let bytes = self.number::<8>(at)?;
        Some(if self.little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) })
    }

    fn number<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of one entry; `value` stands in it, or behind the directory where it is longer than four bytes.
    fn block(little: bool, kind: u16, count: u32, value: &[u8]) -> Vec<u8> {
        let short = |x: u16| if little { x.to_le_bytes() } else { x.to_be_bytes() };
        let long = |x: u32| if little { x.to_le_bytes() } else { x.to_be_bytes() };
        let mut bytes = if little { b"II\x2a\0".to_vec() } else { b"MM\0\x2a".to_vec() };
        bytes.extend(long(8));
        bytes.extend(short(1));
        bytes.extend(short(ORIENTATION));
        bytes.extend(short(kind));
        bytes.extend(long(count));
        let mut inside = value.to_vec();
        inside.resize(4, 0);
        bytes.extend(if value.len() > 4 {
            long(26)
        } else {
            inside.try_into().expect("four bytes")
        });
        bytes.extend(long(0));
        bytes.extend(value.iter().filter(|_| value.len() > 4));
        bytes
    }

    #[test]
    fn orientation_is_read_from_every_numeric_type_of_pil() {
        let turned = Some(Orientation::Rotate90);
        let none = Some(Orientation::NoTransforms);
        for little in [true, false] {
            let short = |x: u16| if little { x.to_le_bytes() } else { x.to_be_bytes() };
            let long = |x: u32| if little { x.to_le_bytes() } else { x.to_be_bytes() };
            let double = |x: f64| if little { x.to_le_bytes() } else { x.to_be_bytes() };
            let cases = [
                ("SHORT", 3, 1, short(6).to_vec(), turned),
                ("SHORT, two of them", 3, 2, [short(6), short(1)].concat(), turned),
                ("SHORT, three of them", 3, 3, [short(6), short(1), short(1)].concat(), turned),
                ("LONG", 4, 1, long(6).to_vec(), turned),
                ("LONG, two of them", 4, 2, [long(6), long(3)].concat(), turned),
                ("IFD", 13, 1, long(6).to_vec(), turned),
                ("SBYTE", 6, 1, vec![6], turned),
                ("SSHORT", 8, 1, short(6).to_vec(), turned),
                ("SLONG", 9, 1, long(6).to_vec(), turned),
                ("RATIONAL", 5, 1, [long(12), long(2)].concat(), turned),
                ("SRATIONAL", 10, 1, [long(6), long(1)].concat(), turned),
                ("FLOAT", 11, 1, long(6.0_f32.to_bits()).to_vec(), turned),
                ("DOUBLE", 12, 1, double(6.0).to_vec(), turned),
                ("BYTE", 1, 1, vec![6], none),
                ("ASCII", 2, 2, b"6\0".to_vec(), none),
                ("UNDEFINED", 7, 1, vec![6], none),
                ("a number that means nothing", 3, 1, short(9).to_vec(), none),
                ("a fraction", 5, 1, [long(13), long(2)].concat(), none),
                ("no value", 3, 0, short(6).to_vec(), None),
                ("an unknown type", 99, 1, short(6).to_vec(), None),
            ];
            for (name, kind, count, value, expected) in cases {
                let found = orientation(&block(little, kind, count, &value));
                assert_eq!(found, expected, "{name}, little-endian: {little}");
            }
        }
        let marked = [b"Exif\0\0".as_slice(), &block(true, 3, 1, &[6, 0])].concat();
        assert_eq!(orientation(&marked), turned);
    }

    #[test]
    fn damaged_exif_block_has_no_orientation() {
        let whole = block(true, 4, 2, &[6, 0, 0, 0, 1, 0, 0, 0]);
        for length in 0..whole.len() {
            assert_eq!(orientation(&whole[..length]), None, "{length} of {} bytes", whole.len());
        }
        let mut far = whole.clone();
        far[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(orientation(&far), None);
        let mut many = block(true, 3, u32::MAX, &[6, 0]);
        assert_eq!(orientation(&many), None);
        many[8..10].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(orientation(&many), None);
    }
}
