//! LZW as TIFF has it: the highest bit first, and codes that grow one early.

use std::cmp::Ordering;
use std::io::{self, BufRead, Read};

/// Codes that stand for no string: empty the table, and the end.
const CLEAR: usize = 256;
const END: usize = 257;
/// Codes at most, of 12 bits.
const CODES: usize = 1 << 12;

/// Unpacks what a reader gives.
pub(super) struct Lzw<R> {
    packed: R,
    /// Bits that were read and not used yet, the lowest `bit_count` of them.
    bits: u32,
    bit_count: u32,
    /// Strings by their code: all but the last byte is the string of another code.
    prefixes: Box<[u16; CODES]>,
    last_bytes: Box<[u8; CODES]>,
    /// Codes that stand for something.
    known: usize,
    /// The code before this one since the table was emptied.
    previous: Option<u16>,
    /// The string of the last code, which ends where the buffer does, and where what was not handed on begins.
    string: Box<[u8; CODES]>,
    start: usize,
    ended: bool,
}

impl<R: BufRead> Lzw<R> {
    pub(super) fn new(packed: R) -> Self {
        let mut last_bytes = Box::new([0; CODES]);
        for (byte, last) in (0..=u8::MAX).zip(last_bytes.iter_mut()) {
            *last = byte;
        }
        Self {
            packed,
            bits: 0,
            bit_count: 0,
            prefixes: Box::new([0; CODES]),
            last_bytes,
            known: END + 1,
            previous: None,
            string: Box::new([0; CODES]),
            start: CODES,
            ended: false,
        }
    }

    /// The next code, unless all bits have been read.
    fn code(&mut self) -> io::Result<Option<u16>> {
        let width = match self.known {
            0..511 => 9,
            511..1023 => 10,
            1023..2047 => 11,
            _ => 12,
        };
        while self.bit_count < width {
            let Some(&byte) = self.packed.fill_buf()?.first() else { return Ok(None) };
            self.packed.consume(1);
            self.bits = (self.bits << 8) | u32::from(byte);
            self.bit_count += 8;
        }
        self.bit_count -= width;
        let code = (self.bits >> self.bit_count) & ((1 << width) - 1);
        Ok(Some(u16::try_from(code).expect("at most 12 bits")))
    }

    /// Takes the next string apart; `false` at the end.
    fn next_string(&mut self) -> io::Result<bool> {
        loop {
            let Some(code) = self.code()? else { return Ok(false) };
            match usize::from(code) {
                CLEAR => (self.known, self.previous) = (END + 1, None),
                END => return Ok(false),
                _ => {
                    self.take_apart(code)?;
                    return Ok(true);
                }
            }
        }
    }

    fn take_apart(&mut self, code: u16) -> io::Result<()> {
        let at = usize::from(code);
        let Some(previous) = self.previous.replace(code) else {
            if at > CLEAR {
                return Err(wrong());
            }
            self.expand(code, CODES);
            return Ok(());
        };
        match at.cmp(&self.known) {
            Ordering::Less => self.expand(code, CODES),
            Ordering::Equal => {
                // The string that is defined now: the one before, and its own first byte.
                self.expand(previous, CODES - 1);
                self.string[CODES - 1] = self.string[self.start];
            }
            Ordering::Greater => return Err(wrong()),
        }
        if self.known < CODES {
            self.prefixes[self.known] = previous;
            self.last_bytes[self.known] = self.string[self.start];
            self.known += 1;
        }
        Ok(())
    }

    /// Writes the string of a code so that it ends at a place.
    fn expand(&mut self, code: u16, end: usize) {
        self.start = end;
        let mut code = usize::from(code);
        loop {
            self.start -= 1;
            self.string[self.start] = self.last_bytes[code];
            if code < CLEAR {
                return;
            }
            // Of a smaller code, so that this ends.
            code = usize::from(self.prefixes[code]);
        }
    }
}

impl<R: BufRead> Read for Lzw<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start == CODES && !self.ended {
            self.ended = !self.next_string()?;
        }
        let rest = &self.string[self.start..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.start += count;
        Ok(count)
    }
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a code of its LZW data stands for nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes of 9 bits, packed.
    fn packed(codes: &[u32]) -> Vec<u8> {
        let bits: Vec<bool> = codes
            .iter()
            .flat_map(|code| (0..9).rev().map(move |bit| (code >> bit) & 1 == 1))
            .collect();
        bits.chunks(8)
            .map(|byte| (0..8).fold(0, |sum, bit| sum * 2 + u8::from(byte.get(bit) == Some(&true))))
            .collect()
    }

    fn unpacked(codes: &[u32]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Lzw::new(&packed(codes)[..]).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn strings_grow_and_are_forgotten() {
        // 258 is "ab", 259 "ba" and 260 "aba", which is used as it is defined.
        assert_eq!(unpacked(&[256, 97, 98, 258, 260, 257]).expect("valid"), b"abababa");
        assert_eq!(unpacked(&[97, 98, 256, 99, 257, 97]).expect("valid"), b"abc");
        assert_eq!(unpacked(&[256, 256, 97]).expect("no end is needed"), b"a");
        assert_eq!(unpacked(&[]).expect("nothing"), b"");
    }

    #[test]
    fn codes_without_a_string_are_errors() {
        for codes in [&[256, 258][..], &[256, 97, 259], &[256, 97, 98, 256, 258]] {
            assert!(unpacked(codes).is_err(), "{codes:?}");
        }
    }
}
