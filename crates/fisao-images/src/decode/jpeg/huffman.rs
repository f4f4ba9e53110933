//! Code tables (T.81, annexes C and F.2.2.3).

use super::JpegError;
use super::bits::Bits;

/// Codes up to this length are found by one look-up.
const LOOKUP: u32 = 9;

/// A canonical prefix code of bytes.
pub(super) struct HuffmanTable {
    /// By the next [`LOOKUP`] bits: symbol × 256 + length, or 0 if the code is longer.
    short: [u16; 1 << LOOKUP],
    /// First 16-bit word beyond the codes of each length.
    beyond: [u32; 17],
    /// What to add to a code of each length for its place among the symbols.
    offset: [i32; 17],
    symbols: [u8; 256],
}

impl HuffmanTable {
    /// The code with that many words of 1 to 16 bits.
    pub(super) fn new(counts: &[u8; 16], values: &[u8]) -> Result<Self, JpegError> {
        let mut symbols = [0; 256];
        symbols
            .get_mut(..values.len())
            .ok_or(JpegError::Damaged("a code table has more than 256 symbols"))?
            .copy_from_slice(values);
        let mut table = Self { short: [0; 1 << LOOKUP], beyond: [0; 17], offset: [0; 17], symbols };
        let (mut code, mut index) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            let count = u32::from(counts[length as usize - 1]);
            table.offset[length as usize] = index as i32 - code as i32;
            if code + count > 1 << length {
                return Err(JpegError::Damaged("a code table is over-full"));
            }
            for _ in 0..count {
                if length <= LOOKUP {
                    let first = (code << (LOOKUP - length)) as usize;
                    let entry = u16::from(symbols[index]) << 8 | length as u16;
                    table.short[first..first + (1 << (LOOKUP - length))].fill(entry);
                }
                code += 1;
                index += 1;
            }
            table.beyond[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }

    /// The next symbol. At least 16 bits have to be loaded.
    #[inline(always)]
    pub(super) fn decode(&self, bits: &mut Bits<'_>) -> Result<u8, JpegError> {
        let entry = self.short[bits.peek(LOOKUP) as usize];
        if entry != 0 {
            bits.consume(u32::from(entry & 0xff));
            return Ok((entry >> 8) as u8);
        }
        self.decode_long(bits)
    }

    #[cold]
    fn decode_long(&self, bits: &mut Bits<'_>) -> Result<u8, JpegError> {
        let word = bits.peek(16);
        let Some(length) = (LOOKUP + 1..=16).find(|&at| word < self.beyond[at as usize]) else {
            return Err(JpegError::Damaged("the data hold a code that its table lacks"));
        };
        bits.consume(length);
        let code = (word >> (16 - length)) as i32;
        let index = code + self.offset[length as usize];
        Ok(self.symbols[index as usize & 0xff])
    }
}
