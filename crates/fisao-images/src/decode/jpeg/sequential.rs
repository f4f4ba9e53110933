//! Scans of baseline and extended sequential files: every block is there in full.

use super::JpegError;
use super::bits::{Bits, Restarts};
use super::frame::{Frame, Scan};
use super::huffman::HuffmanTable;
use super::segments::{Tables, ZIGZAG};
use super::transform::blocks_to_samples;

/// What the blocks of one component need.
struct Coding<'a> {
    dc: &'a HuffmanTable,
    ac: &'a HuffmanTable,
    /// Value at frequency 0 of the block before.
    previous: i32,
    /// Blocks of an MCU, across and down.
    blocks: (usize, usize),
    /// Blocks in a row of the plane.
    across: usize,
    /// One row of MCUs.
    coefficients: Vec<[i16; 64]>,
}

/// Decodes a scan into the planes of its components; returns the bytes read.
pub(super) fn decode_scan(
    frame: &mut Frame,
    scan: &Scan,
    tables: &Tables,
    data: &[u8],
    restart_interval: usize,
) -> Result<usize, JpegError> {
    let missing = JpegError::Damaged("a code table is missing");
    let (layout, across, down) = scan.layout(frame);
    let mut codings = Vec::new();
    for (of, &blocks) in scan.components.iter().zip(&layout) {
        let (Some(dc), Some(ac)) = (&tables.dc[of.dc], &tables.ac[of.ac]) else {
            return Err(missing);
        };
        let stored = frame.components[of.index].blocks_stored;
        let coefficients = vec![[0; 64]; stored * blocks.1];
        codings.push(Coding { dc, ac, previous: 0, blocks, across: stored, coefficients });
    }
    let mut bits = Bits::new(data);
    let mut restarts = Restarts::new(restart_interval);
    for row in 0..down {
        for coding in &mut codings {
            coding.coefficients.fill([0; 64]);
        }
        for mcu in 0..across {
            if restarts.before(&mut bits)? {
                for coding in &mut codings {
                    coding.previous = 0;
                }
            }
            for coding in &mut codings {
                coding.mcu(&mut bits, mcu)?;
            }
        }
        for (of, coding) in scan.components.iter().zip(&codings) {
            let component = &mut frame.components[of.index];
            let steps = component.steps.as_ref().expect("set when the scan header was read");
            let samples = coding.coefficients.len() * 64;
            let plane = &mut component.plane[row * samples..][..samples];
            blocks_to_samples(&coding.coefficients, coding.across, steps, plane);
        }
    }
    Ok(bits.position())
}

impl Coding<'_> {
    #[inline(always)]
    fn mcu(&mut self, bits: &mut Bits<'_>, mcu: usize) -> Result<(), JpegError> {
        let (across, down) = self.blocks;
        for y in 0..down {
            for x in 0..across {
                let at = y * self.across + mcu * across + x;
                let block = &mut self.coefficients[at];
                decode_block(bits, self.dc, self.ac, &mut self.previous, block)?;
            }
        }
        Ok(())
    }
}

/// Reads the difference of a block's value at frequency 0 from the block before.
#[inline(always)]
pub(super) fn decode_dc(bits: &mut Bits<'_>, table: &HuffmanTable) -> Result<i32, JpegError> {
    bits.load();
    let size = table.decode(bits)?;
    if size > 15 {
        return Err(JpegError::Damaged("a difference has more than 15 bits"));
    }
    Ok(bits.difference(u32::from(size)))
}

#[inline(always)]
fn decode_block(
    bits: &mut Bits<'_>,
    dc: &HuffmanTable,
    ac: &HuffmanTable,
    previous: &mut i32,
    block: &mut [i16; 64],
) -> Result<(), JpegError> {
    *previous = previous.wrapping_add(decode_dc(bits, dc)?);
    block[0] = *previous as i16;
    let mut at = 1;
    while at < 64 {
        bits.load();
        let symbol = ac.decode(bits)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run < 15 {
                break;
            }
            at += 16;
            continue;
        }
        at += run;
        let Some(&position) = ZIGZAG.get(at) else {
            return Err(JpegError::Damaged("a block has more than 64 coefficients"));
        };
        block[usize::from(position)] = bits.difference(size) as i16;
        at += 1;
    }
    bits.check()
}
