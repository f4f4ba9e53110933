//! The bits of a scan, between its restart markers.

use super::JpegError;

/// Reads coded data, in which a zero byte follows every 0xff.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the highest down; zeros after the end.
    loaded: u64,
    /// How many of them are real; below 0 once more were taken than there are.
    count: i32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, loaded: 0, count: 0 }
    }

    /// Loads at least 48 bits, or what there is before the next marker.
    #[inline(always)]
    pub(super) fn load(&mut self) {
        if self.count < 48 && self.count >= 0 {
            self.load_some();
        }
    }

    #[inline(always)]
    fn load_some(&mut self) {
        if let Some(&word) = self.data.get(self.at..).and_then(|rest| rest.first_chunk()) {
            let word = u64::from_be_bytes(word);
            // No byte is 0xff if no byte of the complement is zero.
            let complement = !word;
            let full = complement.wrapping_sub(0x0101_0101_0101_0101) & !complement;
            if full & 0x8080_8080_8080_8080 == 0 {
                self.loaded |= word >> self.count;
                let bytes = (64 - self.count) / 8;
                self.at += bytes as usize;
                self.count += 8 * bytes;
                // Bits beyond the counted ones have to be zero for the next time.
                if self.count < 64 {
                    self.loaded &= !(u64::MAX >> self.count);
                }
                return;
            }
        }
        self.load_bytes();
    }

    #[inline(never)]
    fn load_bytes(&mut self) {
        while self.count <= 56 {
            let Some(&byte) = self.data.get(self.at) else { return };
            if byte == 0xff {
                if self.data.get(self.at + 1) != Some(&0) {
                    return;
                }
                self.at += 1;
            }
            self.at += 1;
            self.loaded |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next bits, at most 16, without taking them.
    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> u32 {
        (self.loaded >> (64 - count)) as u32
    }

    /// Takes bits that were peeked at.
    #[inline(always)]
    pub(super) fn consume(&mut self, count: u32) {
        self.loaded <<= count;
        self.count -= count as i32;
    }

    /// Takes up to 16 loaded bits as a number.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        // In two steps, because a shift by 64 is none.
        let value = (self.loaded >> 1 >> (63 - count)) as u32;
        self.consume(count);
        value
    }

    /// Loads and takes one bit.
    #[inline(always)]
    pub(super) fn bit(&mut self) -> bool {
        if self.count < 1 {
            self.load();
        }
        self.take(1) == 1
    }

    /// Takes a difference of that many bits (T.81, F.2.2.1): a leading 0 means a negative number.
    #[inline(always)]
    pub(super) fn difference(&mut self, size: u32) -> i32 {
        let value = self.take(size) as i32;
        let negative = value < (1 << size) >> 1;
        if negative { value - (1 << size) + 1 } else { value }
    }

    /// Whether all bits taken so far were there.
    #[inline(always)]
    pub(super) fn check(&self) -> Result<(), JpegError> {
        if self.count < 0 {
            let what = "its data end too early";
            let more = self.data.len() > self.at + 1;
            return Err(if more { JpegError::Damaged(what) } else { JpegError::Truncated });
        }
        Ok(())
    }

    /// Goes on behind a restart marker, which has to be the expected one of the eight.
    pub(super) fn restart(&mut self, expected: u8) -> Result<(), JpegError> {
        let rest = &self.data[self.at..];
        let marker =
            rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff));
        let marker = marker.ok_or(JpegError::Truncated)?;
        if rest[marker + 1] != 0xd0 + expected {
            return Err(JpegError::Damaged("a restart marker is missing"));
        }
        self.at += marker + 2;
        (self.loaded, self.count) = (0, 0);
        Ok(())
    }

    /// Bytes read so far, some of which may only have been loaded.
    pub(super) fn position(&self) -> usize {
        self.at
    }
}

/// Counts MCUs between restart markers.
pub(super) struct Restarts {
    interval: usize,
    left: usize,
    next: u8,
}

impl Restarts {
    /// A marker after every `interval` MCUs; none for 0.
    pub(super) fn new(interval: usize) -> Self {
        Self { interval, left: interval, next: 0 }
    }

    /// Called before each MCU; tells whether a marker stood there.
    #[inline(always)]
    pub(super) fn before(&mut self, bits: &mut Bits<'_>) -> Result<bool, JpegError> {
        if self.interval == 0 {
            return Ok(false);
        }
        let due = self.left == 0;
        if due {
            bits.restart(self.next)?;
            self.next = (self.next + 1) % 8;
            self.left = self.interval;
        }
        self.left -= 1;
        Ok(due)
    }
}
