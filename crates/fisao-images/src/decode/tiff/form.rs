//! In which of its many forms a file stores its image.

use std::io::{Read, Seek};

use super::super::DecodeError;
use super::directory::{Directory, tag};

/// How the samples of an image are stored, and what they mean.
pub(super) struct Form {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) colour: Colour,
    pub(super) alpha: Alpha,
    /// Bits of a sample: 1, 2, 4, 8 or 16.
    pub(super) bits: usize,
    /// Samples stored for each pixel, those without a meaning included.
    pub(super) samples: usize,
    /// Whether each of them has a plane of its own.
    pub(super) planar: bool,
    pub(super) compression: Compression,
    /// Whether samples are stored as differences to those of the pixel before.
    pub(super) differences: bool,
    pub(super) order: Order,
    pub(super) chunks: Chunks,
}

/// In which order bits and bytes are stored.
#[derive(Clone, Copy)]
pub(super) struct Order {
    /// Whether bytes begin with their lowest bit.
    pub(super) reversed: bool,
    /// Whether numbers of two bytes begin with the lower one.
    pub(super) little: bool,
}

/// What the samples of a pixel mean, alpha aside.
pub(super) enum Colour {
    Grey {
        /// Whether 0 is white.
        inverted: bool,
    },
    Palette(Vec<[u8; 3]>),
    Rgb,
    /// Four inks.
    Cmyk,
    /// Luma and two colour differences, which occurs in JPEGs alone here.
    YCbCr,
}

impl Colour {
    /// Samples that tell a colour.
    pub(super) fn samples(&self) -> usize {
        match self {
            Self::Grey { .. } | Self::Palette(_) => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }
}

/// What the sample behind the colour's means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Alpha {
    None,
    Straight,
    /// Colours are multiplied by it already.
    Premultiplied,
}

/// How the bytes of a strip or tile are packed.
pub(super) enum Compression {
    None,
    PackBits,
    Lzw,
    Deflate,
    /// JPEGs, with tables that all of them share.
    Jpeg(Vec<u8>),
}

/// The strips or tiles that an image is cut into, row by row, and in planes one after the other.
pub(super) struct Chunks {
    pub(super) width: u32,
    pub(super) height: u32,
    /// First byte of each.
    pub(super) offsets: Vec<u64>,
    /// Bytes of each, where the file says so.
    pub(super) lengths: Option<Vec<u64>>,
}

/// Width and height, before the image is turned.
pub(super) fn size(
    directory: &Directory,
    data: &mut (impl Read + Seek),
) -> Result<(u32, u32), DecodeError> {
    let mut side = |tag| u32::try_from(directory.number(tag, 0, data)?).map_err(|_| no_pixels());
    let (width, height) = (side(tag::WIDTH)?, side(tag::HEIGHT)?);
    if width == 0 || height == 0 { Err(no_pixels()) } else { Ok((width, height)) }
}

fn no_pixels() -> DecodeError {
    DecodeError::Damaged("it has no pixels".to_owned())
}

fn unsupported(what: impl Into<String>) -> DecodeError {
    DecodeError::Unsupported(what.into())
}

impl Form {
    /// Reads what a directory says, which has to be something that is read.
    pub(super) fn read(
        directory: &Directory,
        data: &mut (impl Read + Seek),
    ) -> Result<Self, DecodeError> {
        let (width, height) = size(directory, data)?;
        let mut number = |tag, default| directory.number(tag, default, data);
        let compression = number(tag::COMPRESSION, 1)?;
        let photometric = number(tag::PHOTOMETRIC, 0)?;
        let samples = number(tag::SAMPLES, 1)?;
        let planar = match number(tag::PLANAR, 1)? {
            1 => false,
            2 => true,
            other => return Err(unsupported(format!("planar configuration {other}"))),
        };
        let reversed = match number(tag::FILL_ORDER, 1)? {
            1 => false,
            2 => true,
            other => return Err(unsupported(format!("fill order {other}"))),
        };
        let predictor = number(tag::PREDICTOR, 1)?;
        let compression = compression_of(compression, directory, data)?;
        let samples = match usize::try_from(samples) {
            Ok(0) => return Err(DecodeError::Damaged("its pixels have no samples".to_owned())),
            Ok(samples) if samples <= MOST_SAMPLES => samples,
            _ => return Err(unsupported(format!("{samples} samples per pixel"))),
        };
        let bits = bits(directory, samples, data)?;
        let colour = colour(photometric, bits, directory, data)?;
        let alpha = alpha(&colour, bits, samples, directory, data)?;
        let mut form = Self {
            width,
            height,
            colour,
            alpha,
            bits,
            samples,
            planar: planar && samples > 1,
            differences: predictor == 2
                && matches!(compression, Compression::Lzw | Compression::Deflate),
            compression,
            order: Order { reversed, little: directory.is_little() },
            chunks: Chunks { width, height, offsets: Vec::new(), lengths: None },
        };
        form.check_combination(predictor)?;
        form.chunks = chunks(&form, directory, data)?;
        Ok(form)
    }

    /// Refuses what each part of allows and no decoder reads.
    fn check_combination(&self, predictor: u64) -> Result<(), DecodeError> {
        if predictor > 2 {
            return Err(unsupported("predictor of floating-point numbers"));
        }
        if self.differences && self.bits < 8 {
            return Err(unsupported(format!("differences of {} bits", self.bits)));
        }
        let jpeg = matches!(self.compression, Compression::Jpeg(_));
        if jpeg {
            let colours = !matches!(self.colour, Colour::Cmyk | Colour::Palette(_));
            if !colours || self.bits != 8 || self.planar || self.samples != self.colour.samples() {
                return Err(unsupported("JPEG compression of other than grey and three colours"));
            }
        } else if matches!(self.colour, Colour::YCbCr) {
            return Err(unsupported("YCbCr without JPEG compression"));
        }
        Ok(())
    }

    /// Samples of a pixel that have a meaning.
    pub(super) fn used_samples(&self) -> usize {
        self.colour.samples() + usize::from(self.alpha != Alpha::None)
    }

    /// Bytes of a strip or tile at most. Uncompressed samples are as many as they are, whatever the file says.
    pub(super) fn stored_length(&self, chunk: usize) -> u64 {
        let Chunks { width, height, lengths, .. } = &self.chunks;
        match (&self.compression, lengths) {
            (Compression::None, _) => {
                let samples = if self.planar { 1 } else { self.samples };
                let row = (u64::from(*width) * (samples * self.bits) as u64).div_ceil(8);
                row.saturating_mul((*height).into())
            }
            (_, Some(lengths)) => lengths[chunk],
            (_, None) => u64::MAX,
        }
    }

    /// Strips or tiles in a row and in a column, of one plane.
    pub(super) fn grid(&self) -> (usize, usize) {
        let across = self.width.div_ceil(self.chunks.width) as usize;
        (across, self.height.div_ceil(self.chunks.height) as usize)
    }
}

/// More than Pillow reads.
const MOST_SAMPLES: usize = 6;

fn compression_of(
    number: u64,
    directory: &Directory,
    data: &mut (impl Read + Seek),
) -> Result<Compression, DecodeError> {
    let name = match number {
        1 => return Ok(Compression::None),
        5 => return Ok(Compression::Lzw),
        7 => {
            let tables = directory.value(tag::JPEG_TABLES, data);
            return Ok(Compression::Jpeg(tables.map(|(_, tables)| tables).unwrap_or_default()));
        }
        8 | 32_946 => return Ok(Compression::Deflate),
        32_773 => return Ok(Compression::PackBits),
        2..=4 => "CCITT fax",
        6 => "old-style JPEG",
        34_676 | 34_677 => "SGI LogLuv",
        34_712 => "JPEG 2000",
        34_925 => "LZMA",
        50_000 => "Zstandard",
        50_001 => "WebP",
        _ => return Err(unsupported(format!("compression {number}"))),
    };
    Err(unsupported(format!("{name} compression")))
}

/// Bits of a sample, which are whole numbers, all of one size.
fn bits(
    directory: &Directory,
    samples: usize,
    data: &mut (impl Read + Seek),
) -> Result<usize, DecodeError> {
    let bits = directory.numbers(tag::BITS, data)?.unwrap_or_else(|| vec![1]);
    let bits = &bits[..samples.min(bits.len())];
    let format = directory.numbers(tag::SAMPLE_FORMAT, data)?.unwrap_or_default();
    match format.iter().find(|&&format| format != 1) {
        None => {}
        Some(2) => return Err(unsupported("samples with a sign")),
        Some(3) => return Err(unsupported("floating-point samples")),
        Some(_) => return Err(unsupported("samples of no known type")),
    }
    match bits {
        [] => Err(DecodeError::Damaged("its samples have no bits".to_owned())),
        [first, rest @ ..] if rest.iter().any(|other| other != first) => {
            Err(unsupported("samples of different sizes"))
        }
        [bits, ..] => {
            let known = [1_u8, 2, 4, 8, 16].into_iter().find(|&known| u64::from(known) == *bits);
            known.map(usize::from).ok_or_else(|| unsupported(format!("samples of {bits} bits")))
        }
    }
}

fn colour(
    photometric: u64,
    bits: usize,
    directory: &Directory,
    data: &mut (impl Read + Seek),
) -> Result<Colour, DecodeError> {
    let colour = match photometric {
        0 => Colour::Grey { inverted: true },
        1 => Colour::Grey { inverted: false },
        2 => Colour::Rgb,
        3 => Colour::Palette(palette(bits, directory, data)?),
        5 => Colour::Cmyk,
        6 => Colour::YCbCr,
        4 => return Err(unsupported("a mask")),
        8..=10 => return Err(unsupported("CIE L*a*b* colours")),
        32_803 => return Err(unsupported("the raw image of a camera")),
        _ => return Err(unsupported(format!("photometric interpretation {photometric}"))),
    };
    if bits < 8 && colour.samples() > 1 {
        return Err(unsupported(format!("colours of {bits} bits")));
    }
    Ok(colour)
}

/// The colours of indices, of whose 16 bits the high byte is kept.
fn palette(
    bits: usize,
    directory: &Directory,
    data: &mut (impl Read + Seek),
) -> Result<Vec<[u8; 3]>, DecodeError> {
    if bits > 8 {
        return Err(unsupported(format!("a palette for {bits} bits")));
    }
    let map = directory.numbers(tag::COLOUR_MAP, data)?.unwrap_or_default();
    let colours = 1 << bits;
    if map.len() != 3 * colours {
        return Err(DecodeError::Damaged("its palette has a wrong length".to_owned()));
    }
    let byte = |number: u64| number.to_le_bytes()[1];
    Ok((0..colours).map(|at| [0, 1, 2].map(|part| byte(map[part * colours + at]))).collect())
}

/// What follows the samples of the colour; of several the first may be alpha, and the others have no meaning.
fn alpha(
    colour: &Colour,
    bits: usize,
    samples: usize,
    directory: &Directory,
    data: &mut (impl Read + Seek),
) -> Result<Alpha, DecodeError> {
    let Some(extra) = samples.checked_sub(colour.samples()) else {
        return Err(unsupported(format!("{samples} samples per pixel of this colour")));
    };
    let meanings = directory.numbers(tag::EXTRA_SAMPLES, data)?.unwrap_or_default();
    match (extra, meanings.first(), colour) {
        (0, ..) | (_, Some(0), _) => Ok(Alpha::None),
        (_, Some(1), Colour::Grey { .. } | Colour::Rgb) => Ok(Alpha::Premultiplied),
        (_, Some(2), Colour::Grey { .. } | Colour::Rgb)
        // Some programs do not say what it is, or use a number of their own.
        | (1, None | Some(999), Colour::Rgb) => Ok(Alpha::Straight),
        (_, Some(2), Colour::Palette(_)) if bits == 8 => Ok(Alpha::Straight),
        _ => Err(unsupported(format!("{samples} samples per pixel of this colour"))),
    }
}

fn chunks(
    form: &Form,
    directory: &Directory,
    data: &mut (impl Read + Seek),
) -> Result<Chunks, DecodeError> {
    /// Pixels that tiles may have beside those of the image; a small one may lie in a large tile.
    const FREE: u64 = 1 << 26;
    let side = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let strips = directory.numbers(tag::STRIP_OFFSETS, data)?;
    let tiled = strips.is_none();
    let (mut offsets, lengths, width, height) = if let Some(offsets) = strips {
        let lengths = directory.numbers(tag::STRIP_LENGTHS, data)?;
        let rows = directory.number(tag::ROWS_PER_STRIP, form.height.into(), data)?;
        (offsets, lengths, form.width, side(rows).min(form.height))
    } else {
        let offsets = directory.numbers(tag::TILE_OFFSETS, data)?.unwrap_or_default();
        let lengths = directory.numbers(tag::TILE_LENGTHS, data)?;
        let width = directory.number(tag::TILE_WIDTH, 0, data)?;
        let height = directory.number(tag::TILE_HEIGHT, 0, data)?;
        (offsets, lengths, side(width), side(height))
    };
    if width == 0 || height == 0 {
        return Err(DecodeError::Damaged("its strips or tiles have no pixels".to_owned()));
    }
    let across = u64::from(form.width.div_ceil(width));
    let down = u64::from(form.height.div_ceil(height));
    let pixels = u64::from(form.width) * u64::from(form.height);
    let stored = (across * u64::from(width)).saturating_mul(down * u64::from(height));
    if tiled && stored > 16 * pixels + FREE {
        return Err(unsupported("tiles that are much larger than the image"));
    }
    let planes = if form.planar { form.samples as u64 } else { 1 };
    let needed = across * down * planes;
    let found = [Some(&offsets), lengths.as_ref()].into_iter().flatten().map(Vec::len).min();
    let found = found.unwrap_or(0) as u64;
    if found < needed {
        let reason = format!("it says where {found} strips or tiles are, and consists of {needed}");
        return Err(DecodeError::Damaged(reason));
    }
    // Those behind have no length.
    offsets.truncate(usize::try_from(needed).unwrap_or(usize::MAX));
    Ok(Chunks { width, height, offsets, lengths })
}
