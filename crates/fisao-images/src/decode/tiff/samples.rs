//! Samples of any size to bytes, and those to RGB.

use image::RgbImage;

use super::super::jpeg::printed;
use super::super::on_white;
use super::form::{Alpha, Colour, Compression, Form};

/// A row of a chunk, which is unpacked piece by piece.
pub(super) struct Row {
    bits: usize,
    /// Samples stored for each pixel of the chunk.
    stored: usize,
    /// Which of a pixel's bytes the first of them becomes, how many of them are used, and how many bytes a pixel has.
    first: usize,
    used: usize,
    stride: usize,
    little: bool,
    /// Whether samples are differences, and what they add up to so far.
    differences: bool,
    sums: [u16; 8],
    /// What a sample of few bits is multiplied by, so that the largest becomes 255.
    scale: u16,
}

impl Row {
    /// A row of a chunk of one plane.
    pub(super) fn new(form: &Form, plane: usize) -> Self {
        let scale = match (form.bits, &form.colour) {
            (1..=7, Colour::Grey { .. }) => 255 / ((1 << form.bits) - 1),
            _ => 1,
        };
        let stride = form.used_samples();
        let (first, stored, used) =
            if form.planar { (plane, 1, 1) } else { (0, form.samples, stride) };
        Self {
            bits: form.bits,
            stored,
            first,
            used,
            stride,
            little: form.order.little,
            differences: form.differences,
            sums: [0; 8],
            scale,
        }
    }

    /// Bytes that hold some pixels.
    pub(super) fn bytes(&self, pixels: usize) -> usize {
        (pixels * self.stored * self.bits).div_ceil(8)
    }

    /// Begins a row.
    pub(super) fn begin(&mut self) {
        self.sums = [0; 8];
    }

    /// Unpacks the pixels that follow those before; `pixels` has room for those of them that are shown.
    pub(super) fn unpack(&mut self, bytes: &[u8], pixels: &mut [u8]) {
        for (index, pixel) in pixels.chunks_exact_mut(self.stride).enumerate() {
            for sample in 0..self.stored {
                let mut value = self.sample(bytes, index * self.stored + sample);
                if self.differences {
                    value = self.sums[sample].wrapping_add(value);
                    self.sums[sample] = value;
                }
                if sample < self.used {
                    // Of 16 bits the high byte is kept.
                    let [low, high] = value.to_le_bytes();
                    pixel[self.first + sample] = if self.bits == 16 { high } else { low };
                }
            }
        }
    }

    fn sample(&self, bytes: &[u8], at: usize) -> u16 {
        match self.bits {
            8 => bytes[at].into(),
            16 => {
                let pair = [bytes[2 * at], bytes[2 * at + 1]];
                if self.little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
            }
            bits => {
                let bit = at * bits;
                let byte = u16::from(bytes[bit / 8]);
                let value = (byte >> (8 - bits - bit % 8)) & ((1 << bits) - 1);
                value * self.scale
            }
        }
    }
}

/// The image whose pixels are some bytes each.
pub(super) fn image(form: &Form, levels: Vec<u8>) -> RgbImage {
    let rgb = match (&form.compression, &form.colour, form.alpha) {
        (Compression::Jpeg(_), Colour::Grey { inverted: true }, _) => {
            levels.into_iter().map(|level| 255 - level).collect()
        }
        (Compression::Jpeg(_), ..) | (_, Colour::Rgb, Alpha::None) => levels,
        _ => {
            let pixels = levels.chunks_exact(form.used_samples());
            pixels.flat_map(|pixel| seen(form, pixel)).collect()
        }
    };
    RgbImage::from_raw(form.width, form.height, rgb).expect("three bytes per pixel")
}

/// What is seen of a pixel over white.
fn seen(form: &Form, pixel: &[u8]) -> [u8; 3] {
    let colour = match (&form.colour, pixel) {
        (Colour::Grey { inverted: false }, [level, ..]) => [*level; 3],
        (Colour::Grey { inverted: true }, [level, ..]) => [255 - level; 3],
        (Colour::Palette(palette), [index, ..]) => {
            palette.get(usize::from(*index)).copied().unwrap_or_default()
        }
        (Colour::Cmyk, [c, m, y, k, ..]) => printed([*c, *m, *y], 255 - k),
        (_, [r, g, b, ..]) => [*r, *g, *b],
        _ => unreachable!("a pixel has as many bytes as its colour takes"),
    };
    match (form.alpha, pixel.last()) {
        (Alpha::Straight, Some(&alpha)) => on_white(colour, alpha),
        (Alpha::Premultiplied, Some(&alpha)) => on_white(divided(colour, alpha), alpha),
        _ => colour,
    }
}

/// A colour that alpha no longer darkens, with Pillow's rounding.
fn divided(colour: [u8; 3], alpha: u8) -> [u8; 3] {
    if alpha == 0 {
        return [0; 3];
    }
    let level = |level: u8| (u32::from(level) * 255 / u32::from(alpha)).min(255);
    colour.map(|part| u8::try_from(level(part)).expect("at most 255"))
}
