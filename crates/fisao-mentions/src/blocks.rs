//! Which bytes of a text belong to words, 64 at a time.

use super::letters::is_word_letter;

/// Bytes in a block.
pub(crate) const BLOCK: usize = 64;

const EVERY: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * EVERY;
/// The bit that tells lower case from upper case.
const CASE: u64 = 0x20 * EVERY;

/// One bit for every byte, the first byte's the lowest.
#[derive(Debug)]
pub(crate) struct Block {
    /// Bytes that belong to words.
    pub(crate) word: u64,
    /// Bytes of letters and signs that are not ASCII.
    pub(crate) other: u64,
}

impl Block {
    /// Of the bytes from `start` on, with nothing after the text's end. Knows ASCII letters and
    /// digits only; see [`Self::with_letters`].
    #[inline]
    pub(crate) fn read(bytes: &[u8], start: usize) -> Self {
        let rest = &bytes[start..];
        if let Some(whole) = rest.first_chunk() {
            return Self::of(whole);
        }
        // The last block of a long text is cut from the 64 bytes before its end, without a copy.
        if let Some(last) = bytes.last_chunk() {
            let Self { word, other } = Self::of(last);
            let missing = (BLOCK - rest.len()) as u32;
            let moved = |bits: u64| bits.checked_shr(missing).unwrap_or(0);
            return Self { word: moved(word), other: moved(other) };
        }
        let mut padded = [0; BLOCK];
        padded[..rest.len()].copy_from_slice(rest);
        Self::of(&padded)
    }

    #[inline]
    fn of(bytes: &[u8; BLOCK]) -> Self {
        let (eights, _) = bytes.as_chunks::<8>();
        let eights = eights.iter().map(|eight| u64::from_le_bytes(*eight));
        let gathered = |high: fn(u64) -> u64| {
            let bits = eights.clone().enumerate();
            bits.fold(0, |mask, (at, eight)| mask | (gather(high(eight)) << (8 * at)))
        };
        let ascii = eights.clone().fold(0, |all, eight| all | eight) & HIGH == 0;
        let other = if ascii { 0 } else { gathered(|eight| eight) };
        Self { word: gathered(letters_and_digits), other }
    }

    /// The same with the letters that are not ASCII. `spill` are the bytes of this block that belong
    /// to a letter begun in the one before. With it come those of the next.
    #[cold]
    pub(crate) fn with_letters(mut self, text: &str, start: usize, spill: u64) -> (Self, u64) {
        self.word |= spill;
        let mut next = 0;
        let mut left = self.other;
        while left != 0 {
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            let at = start + bit;
            // Bytes that continue a letter are no place to read one from.
            let Some(letter) = text.get(at..).and_then(|rest| rest.chars().next()) else {
                continue;
            };
            if is_word_letter(letter) {
                let bytes = u128::from((1_u8 << letter.len_utf8()) - 1) << bit;
                self.word |= bytes as u64;
                next |= (bytes >> BLOCK) as u64;
            }
        }
        (self, next)
    }
}

/// The high bit of every byte that is an ASCII letter or digit.
#[inline]
fn letters_and_digits(eight: u64) -> u64 {
    let low = eight & !HIGH;
    let letter = between(low | CASE, b'a', b'z');
    (letter | between(low, b'0', b'9')) & !eight & HIGH
}

/// The high bit of every byte from `first` to `last`, of bytes below 0x80. Other bits are noise.
#[inline]
fn between(eight: u64, first: u8, last: u8) -> u64 {
    let reaches = eight + EVERY * u64::from(0x80 - first);
    let exceeds = eight + EVERY * u64::from(0x7f - last);
    reaches & !exceeds
}

/// The high bit of every byte, as eight bits side by side.
#[inline]
fn gather(high: u64) -> u64 {
    // Every product lands on a bit of its own, so nothing carries.
    ((high & HIGH) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}
