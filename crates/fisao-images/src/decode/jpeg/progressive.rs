//! Scans of progressive files, each of which adds a band of coefficients or one more bit of them.

use super::JpegError;
use super::bits::{Bits, Restarts};
use super::frame::{Frame, Scan};
use super::huffman::HuffmanTable;
use super::segments::{Tables, ZIGZAG};
use super::sequential::decode_dc;
use super::transform::blocks_to_samples;

/// Decodes a scan into the coefficients of its components; returns the bytes read.
pub(super) fn decode_scan(
    frame: &mut Frame,
    scan: &Scan,
    tables: &Tables,
    data: &[u8],
    restart_interval: usize,
) -> Result<usize, JpegError> {
    let mut bits = Bits::new(data);
    let restarts = Restarts::new(restart_interval);
    match (scan.spectrum.0, scan.refines) {
        (0, _) => decode_averages(frame, scan, tables, &mut bits, restarts)?,
        (_, refines) => {
            let of = scan.components[0];
            let table = tables.ac[of.ac].as_deref().ok_or(MISSING)?;
            let mut band = Band { table, scan, waiting: 0 };
            let component = &mut frame.components[of.index];
            let stored = component.blocks_stored;
            let rows = component.coefficients.chunks_exact_mut(stored).take(component.blocks.1);
            let mut restarts = restarts;
            for block in rows.flat_map(|row| &mut row[..component.blocks.0]) {
                if restarts.before(&mut bits)? {
                    band.waiting = 0;
                }
                if refines {
                    band.refine(&mut bits, block)?;
                } else {
                    band.begin(&mut bits, block)?;
                }
                bits.check()?;
            }
        }
    }
    Ok(bits.position())
}

/// Turns the coefficients of a progressive file into samples.
pub(super) fn finish(frame: &mut Frame) {
    if !frame.progressive {
        return;
    }
    for component in &mut frame.components {
        if let Some(steps) = &component.steps {
            let across = component.blocks_stored;
            blocks_to_samples(&component.coefficients, across, steps, &mut component.plane);
        }
        component.coefficients = Vec::new();
    }
}

const MISSING: JpegError = JpegError::Damaged("a code table is missing");
const OUTSIDE: JpegError = JpegError::Damaged("a coefficient lies outside its scan's band");

/// Frequency 0 of any number of components.
fn decode_averages(
    frame: &mut Frame,
    scan: &Scan,
    tables: &Tables,
    bits: &mut Bits<'_>,
    mut restarts: Restarts,
) -> Result<(), JpegError> {
    let (layout, across, down) = scan.layout(frame);
    let mut previous = vec![0_i32; layout.len()];
    for row in 0..down {
        for mcu in 0..across {
            if restarts.before(bits)? {
                previous.fill(0);
            }
            for ((of, &blocks), previous) in scan.components.iter().zip(&layout).zip(&mut previous)
            {
                let component = &mut frame.components[of.index];
                for index in 0..blocks.0 * blocks.1 {
                    let (x, y) = (index % blocks.0, index / blocks.0);
                    let x = mcu * blocks.0 + x;
                    let y = row * blocks.1 + y;
                    let block = &mut component.coefficients[y * component.blocks_stored + x];
                    if scan.refines {
                        block[0] |= i16::from(bits.bit()) << scan.low_bit;
                    } else {
                        let table = tables.dc[of.dc].as_deref().ok_or(MISSING)?;
                        *previous = previous.wrapping_add(decode_dc(bits, table)?);
                        block[0] = (*previous << scan.low_bit) as i16;
                    }
                }
            }
            bits.check()?;
        }
    }
    Ok(())
}

/// Higher frequencies of one component.
struct Band<'a> {
    table: &'a HuffmanTable,
    scan: &'a Scan,
    /// Blocks to come that have no further coefficients.
    waiting: u32,
}

impl Band<'_> {
    /// Reads how many blocks have ended, this one included.
    fn run_of_ends(bits: &mut Bits<'_>, run: usize) -> u32 {
        (1 << run) + bits.take(run as u32)
    }

    /// The first scan of a band (T.81, G.1.2.2).
    fn begin(&mut self, bits: &mut Bits<'_>, block: &mut [i16; 64]) -> Result<(), JpegError> {
        if self.waiting > 0 {
            self.waiting -= 1;
            return Ok(());
        }
        let (first, last) = self.scan.spectrum;
        let mut at = first;
        while at <= last {
            bits.load();
            let symbol = self.table.decode(bits)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 {
                if run < 15 {
                    self.waiting = Self::run_of_ends(bits, run) - 1;
                    break;
                }
                at += 16;
                continue;
            }
            at += run;
            if at > last {
                return Err(OUTSIDE);
            }
            block[usize::from(ZIGZAG[at])] = (bits.difference(size) << self.scan.low_bit) as i16;
            at += 1;
        }
        Ok(())
    }

    /// A later scan (T.81, G.1.2.3): one more bit of the coefficients that are not zero, and those that
    /// only now stop being so.
    fn refine(&mut self, bits: &mut Bits<'_>, block: &mut [i16; 64]) -> Result<(), JpegError> {
        let (first, last) = self.scan.spectrum;
        let mut at = first;
        while self.waiting == 0 && at <= last {
            bits.load();
            let symbol = self.table.decode(bits)?;
            let (run, size) = (usize::from(symbol >> 4), symbol & 15);
            let mut zeros = run;
            let mut value = None;
            if size != 0 {
                let one = 1_i16 << self.scan.low_bit;
                value = Some(if bits.take(1) == 1 { one } else { -one });
            } else if run < 15 {
                self.waiting = Self::run_of_ends(bits, run);
                break;
            }
            // Passes over so many zeros, and refines what stands between them.
            while at <= last {
                let coefficient = &mut block[usize::from(ZIGZAG[at])];
                if *coefficient != 0 {
                    self.refine_one(bits, coefficient);
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            if let Some(value) = value {
                if at > last {
                    return Err(OUTSIDE);
                }
                block[usize::from(ZIGZAG[at])] = value;
            }
            at += 1;
        }
        if self.waiting > 0 {
            for &position in ZIGZAG.get(at..=last).unwrap_or_default() {
                let coefficient = &mut block[usize::from(position)];
                if *coefficient != 0 {
                    self.refine_one(bits, coefficient);
                }
            }
            self.waiting -= 1;
        }
        Ok(())
    }

    #[inline(always)]
    fn refine_one(&self, bits: &mut Bits<'_>, coefficient: &mut i16) {
        let one = 1_i16 << self.scan.low_bit;
        if bits.bit() && *coefficient & one == 0 {
            *coefficient = coefficient.wrapping_add(if *coefficient < 0 { -one } else { one });
        }
    }
}
