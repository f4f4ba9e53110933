//! The first directory of a file: its tags and their values.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use super::super::{DecodeError, LONGEST_METADATA};

/// Numbers of the tags that say how an image is stored.
pub(super) mod tag {
    pub(crate) const WIDTH: u16 = 256;
    pub(crate) const HEIGHT: u16 = 257;
    pub(crate) const BITS: u16 = 258;
    pub(crate) const COMPRESSION: u16 = 259;
    pub(crate) const PHOTOMETRIC: u16 = 262;
    pub(crate) const FILL_ORDER: u16 = 266;
    pub(crate) const STRIP_OFFSETS: u16 = 273;
    pub(crate) const ORIENTATION: u16 = 274;
    pub(crate) const SAMPLES: u16 = 277;
    pub(crate) const ROWS_PER_STRIP: u16 = 278;
    pub(crate) const STRIP_LENGTHS: u16 = 279;
    pub(crate) const PLANAR: u16 = 284;
    pub(crate) const PREDICTOR: u16 = 317;
    pub(crate) const COLOUR_MAP: u16 = 320;
    pub(crate) const TILE_WIDTH: u16 = 322;
    pub(crate) const TILE_HEIGHT: u16 = 323;
    pub(crate) const TILE_OFFSETS: u16 = 324;
    pub(crate) const TILE_LENGTHS: u16 = 325;
    pub(crate) const EXTRA_SAMPLES: u16 = 338;
    pub(crate) const SAMPLE_FORMAT: u16 = 339;
    pub(crate) const JPEG_TABLES: u16 = 347;
    pub(crate) const XMP: u16 = 700;
}

/// Most entries of a directory; the classic form has room for no more.
const MOST_ENTRIES: u64 = u16::MAX as u64;
/// Most numbers of a tag: strips of one row each of an image a million pixels high.
const MOST_NUMBERS: u64 = 1 << 20;

/// A directory, of which no value is read that is not asked for.
pub(super) struct Directory {
    entries: BTreeMap<u16, Entry>,
    little: bool,
}

/// Where a tag's values are.
#[derive(Clone, Copy)]
struct Entry {
    kind: u16,
    /// Number of values.
    count: u64,
    /// Their first byte in the file.
    at: u64,
}

impl Entry {
    /// Bytes of its values, where its type is known.
    fn length(self) -> Option<u64> {
        self.count.checked_mul(match self.kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => return None,
        })
    }
}

impl Directory {
    /// Reads the entries of a file's first directory.
    pub(super) fn read(data: &mut (impl Read + Seek)) -> Result<Self, DecodeError> {
        let mut head = [0; 4];
        read_exact(data, &mut head)?;
        let little = head[0] == b'I';
        let mut numbers = Numbers { data, little };
        let big = numbers.int::<2>([head[2], head[3]]) == 43;
        let (word, at) = if big {
            // The size of offsets, and nothing.
            numbers.data.seek(SeekFrom::Start(8))?;
            (8, numbers.next::<8>()?)
        } else {
            (4, numbers.next::<4>()?)
        };
        numbers.data.seek(SeekFrom::Start(at))?;
        let count = if big { numbers.next::<8>()? } else { numbers.next::<2>()? };
        if count > MOST_ENTRIES {
            return Err(DecodeError::Damaged("its directory has an impossible length".to_owned()));
        }
        let mut entries = BTreeMap::new();
        let mut here = at + if big { 8 } else { 2 };
        for _ in 0..count {
            let (tag, kind) = (numbers.short()?, numbers.short()?);
            let count = if big { numbers.next::<8>()? } else { numbers.next::<4>()? };
            let offset = if big { numbers.next::<8>()? } else { numbers.next::<4>()? };
            let mut entry = Entry { kind, count, at: offset };
            if entry.length().is_some_and(|length| length <= word) {
                entry.at = here + 4 + word;
            }
            entries.insert(tag, entry);
            here += 4 + 2 * word;
        }
        Ok(Self { entries, little })
    }

    /// Whether numbers begin with their lowest byte.
    pub(super) fn is_little(&self) -> bool {
        self.little
    }

    /// Type and bytes of a tag's values, where they can be read and are not longer than metadata may be.
    pub(super) fn value(&self, tag: u16, data: &mut (impl Read + Seek)) -> Option<(u16, Vec<u8>)> {
        let entry = self.entries.get(&tag)?;
        let length = entry.length().filter(|&length| length <= LONGEST_METADATA)?;
        data.seek(SeekFrom::Start(entry.at)).ok()?;
        let mut value = Vec::new();
        data.take(length).read_to_end(&mut value).ok()?;
        (value.len() as u64 == length).then_some((entry.kind, value))
    }

    /// The whole numbers of a tag.
    pub(super) fn numbers(
        &self,
        tag: u16,
        data: &mut (impl Read + Seek),
    ) -> Result<Option<Vec<u64>>, DecodeError> {
        let Some(&entry) = self.entries.get(&tag) else { return Ok(None) };
        let wrong = |what: &str| DecodeError::Damaged(format!("its tag {tag} {what}"));
        if entry.count > MOST_NUMBERS {
            return Err(wrong("has too many values"));
        }
        let size = match entry.kind {
            1 => 1,
            3 => 2,
            4 | 13 => 4,
            16 | 18 => 8,
            _ => return Err(wrong("does not hold whole numbers")),
        };
        let value = self.value(tag, data);
        let (_, value) = value.ok_or_else(|| wrong("lies outside of the file"))?;
        let number = |bytes: &[u8]| {
            let join = |number: u64, &byte: &u8| (number << 8) | u64::from(byte);
            if self.little { bytes.iter().rev().fold(0, join) } else { bytes.iter().fold(0, join) }
        };
        Ok(Some(value.chunks_exact(size).map(number).collect()))
    }

    /// The first number of a tag, or a default where the tag is not there.
    pub(super) fn number(
        &self,
        tag: u16,
        default: u64,
        data: &mut (impl Read + Seek),
    ) -> Result<u64, DecodeError> {
        let numbers = self.numbers(tag, data)?;
        Ok(numbers.and_then(|numbers| numbers.first().copied()).unwrap_or(default))
    }
}

/// A file's bytes as numbers of its byte order.
struct Numbers<'a, R> {
    data: &'a mut R,
    little: bool,
}

impl<R: Read> Numbers<'_, R> {
    fn next<const BYTES: usize>(&mut self) -> Result<u64, DecodeError> {
        let mut bytes = [0; BYTES];
        read_exact(self.data, &mut bytes)?;
        Ok(self.int(bytes))
    }

    fn short(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::try_from(self.next::<2>()?).expect("two bytes"))
    }

    fn int<const BYTES: usize>(&self, mut bytes: [u8; BYTES]) -> u64 {
        if self.little {
            bytes.reverse();
        }
        bytes.iter().fold(0, |number, &byte| (number << 8) | u64::from(byte))
    }
}

/// Fills a buffer from a file that may be too short.
fn read_exact(data: &mut impl Read, bytes: &mut [u8]) -> Result<(), DecodeError> {
    data.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => DecodeError::Damaged("it is truncated".to_owned()),
        _ => error.into(),
    })
}
