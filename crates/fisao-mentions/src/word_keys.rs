//! Words as numbers.

use super::words::Word;

/// First and last eight bytes of a word, its ASCII letters in lower case, and its length: all
/// there is to know of a word in ASCII of up to sixteen letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    head: u64,
    /// 0 for words of up to eight bytes.
    tail: u64,
    length: usize,
}

/// The bit that lower-case letters have and upper-case letters have not. Digits have it too.
const LOWER_CASE: u64 = 0x2020_2020_2020_2020;
const NOT_ASCII: u64 = 0x8080_8080_8080_8080;
/// The golden ratio's digits, odd: every letter reaches the highest bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Key {
    /// Of a word of a text.
    #[inline]
    pub(crate) fn of(text: &str, word: Word) -> Self {
        let length = word.end - word.start;
        let head = eight_bytes(text.as_bytes(), word.start) | LOWER_CASE;
        // Both are read from every word, since no one can foresee which words are long.
        let long = length > 8;
        let tail_at = if long { word.end - 8 } else { word.start };
        let tail = eight_bytes(text.as_bytes(), tail_at) | LOWER_CASE;
        Self {
            head: head & (u64::MAX >> (64 - 8 * length.min(8))),
            tail: if long { tail } else { 0 },
            length,
        }
    }

    /// Of a whole string, which may be empty.
    pub(crate) fn of_whole(word: &str) -> Self {
        if word.is_empty() {
            return Self { head: 0, tail: 0, length: 0 };
        }
        Self::of(word, Word { start: 0, end: word.len() })
    }

    /// Words with the same key have the same hash. Its lowest and its highest bits are both mixed well.
    #[inline]
    pub(crate) fn hash(self) -> u64 {
        let tail = self.tail.wrapping_add(self.length as u64).rotate_left(32);
        let product = (self.head ^ tail.wrapping_mul(SPREAD)).wrapping_mul(SPREAD);
        product ^ product >> 32
    }

    /// Whether a word in ASCII is known by its key alone.
    #[inline]
    pub(crate) fn is_exact(self) -> bool {
        self.length <= 16
    }

    /// Whether `word`, whose key this is, holds ASCII only.
    #[inline]
    pub(crate) fn is_ascii(self, text: &str, word: Word) -> bool {
        (self.head | self.tail) & NOT_ASCII == 0 && (self.is_exact() || word.of(text).is_ascii())
    }
}

/// The bytes from `at` on, zeros after the end.
#[inline]
fn eight_bytes(bytes: &[u8], at: usize) -> u64 {
    match bytes[at..].first_chunk::<8>() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => last_bytes(bytes, at),
    }
}

/// The same within eight bytes of the end.
fn last_bytes(bytes: &[u8], at: usize) -> u64 {
    match bytes.last_chunk::<8>() {
        Some(eight) => u64::from_le_bytes(*eight) >> (8 * (at + 8 - bytes.len())),
        None => bytes[at..].iter().rev().fold(0, |read, byte| read << 8 | u64::from(*byte)),
    }
}
