//! Strips and tiles, unpacked piece by piece, so that no more of one is held than a few thousand pixels.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use flate2::bufread::ZlibDecoder;

use super::super::DecodeError;
use super::super::jpeg::{self, Colour as JpegColour};
use super::form::{Colour, Compression, Form};
use super::lzw::Lzw;
use super::samples::Row;

/// Pixels that are unpacked at once, a multiple of 8 so that pieces end where bytes do.
const PIECE: usize = 4096;
/// Bytes that a chunk's readers hold.
const BUFFER: usize = 16 << 10;
/// More bytes than a pixel of a JPEG can take.
const PIXEL_BYTES: usize = 6;

/// The samples of an image that have a meaning, a byte each; those of a JPEG are RGB.
pub(super) fn read<R: BufRead + Seek>(form: &Form, data: &mut R) -> Result<Vec<u8>, DecodeError> {
    let mut budget = Budget::new(form, check_length(form, data)?);
    let (width, height) = (form.width as usize, form.height as usize);
    let mut levels = Levels { stride: form.used_samples(), bytes: Vec::new(), width };
    if let Compression::Jpeg(_) = form.compression {
        levels.stride = 3;
    }
    levels.bytes = vec![0; width * height * levels.stride];
    let (across, down) = form.grid();
    let planes = if form.planar { form.used_samples() } else { 1 };
    for plane in 0..planes {
        for index in 0..across * down {
            let chunk = Chunk {
                plane,
                index: plane * across * down + index,
                left: index % across * form.chunks.width as usize,
                top: index / across * form.chunks.height as usize,
            };
            match &form.compression {
                Compression::Jpeg(tables) => chunk.read_jpeg(form, tables, data, &mut levels)?,
                _ => chunk.read_rows(form, data, &mut levels)?,
            }
            budget.take(form, chunk.index, data)?;
        }
    }
    Ok(levels.bytes)
}

/// Bytes that may still be read. Chunks may lie on top of each other, as those of one colour do in files that were made small, but
/// not so that a small file is unpacked without end.
struct Budget(u64);

impl Budget {
    /// The length of the file, and for each pixel of each chunk what the worst packing makes of it, with a few headers.
    fn new(form: &Form, file: u64) -> Self {
        const HEADERS: u64 = 4096;
        let area = u64::from(form.chunks.width) * u64::from(form.chunks.height);
        let pixel = (form.samples * form.bits).div_ceil(8).max(PIXEL_BYTES) as u64;
        let ahead = if form.chunks.lengths.is_some() { 0 } else { BUFFER as u64 };
        let chunk = area.saturating_mul(2 * pixel).saturating_add(HEADERS + ahead);
        Self(chunk.saturating_mul(form.chunks.offsets.len() as u64).saturating_add(file))
    }

    /// Takes what was read of a chunk.
    fn take(&mut self, form: &Form, chunk: usize, data: &mut impl Seek) -> Result<(), DecodeError> {
        let tables =
            if let Compression::Jpeg(tables) = &form.compression { tables.len() } else { 0 };
        let stored = data.stream_position()?.saturating_sub(form.chunks.offsets[chunk]);
        let reason = "its strips or tiles are longer than what they hold";
        let left = self.0.checked_sub(stored + tables as u64);
        self.0 = left.ok_or_else(|| DecodeError::Damaged(reason.to_owned()))?;
        Ok(())
    }
}

/// Refuses a file that is too short for its image, however well it is packed, before room is made for it. Returns its length.
fn check_length(form: &Form, data: &mut impl Seek) -> Result<u64, DecodeError> {
    let end = data.seek(SeekFrom::End(0))?;
    let stored =
        |(index, &offset): (usize, &u64)| form.stored_length(index).min(end.saturating_sub(offset));
    let stored: u64 = form.chunks.offsets.iter().enumerate().map(stored).sum();
    let pixels = u64::from(form.width) * u64::from(form.height);
    let bytes = pixels * (form.used_samples() * form.bits) as u64 / 8;
    let needed = match form.compression {
        Compression::None => bytes,
        // Runs of 128 bytes in two, matches of 258 in two bits, and strings of 4,096 in twelve.
        Compression::PackBits => bytes / 64,
        Compression::Deflate => bytes / 1032,
        Compression::Lzw => bytes / 2731,
        // A block of 64 samples takes at least a bit.
        Compression::Jpeg(_) => pixels / 512,
    };
    if stored < needed { Err(truncated()) } else { Ok(end) }
}

/// An image in the making.
struct Levels {
    bytes: Vec<u8>,
    /// Pixels of a row.
    width: usize,
    /// Bytes of a pixel.
    stride: usize,
}

impl Levels {
    /// Some pixels of a row, from `x` on.
    fn pixels(&mut self, x: usize, y: usize, count: usize) -> &mut [u8] {
        &mut self.bytes[(y * self.width + x) * self.stride..][..count * self.stride]
    }
}

/// A strip or tile.
struct Chunk {
    /// The plane that it is of.
    plane: usize,
    /// Its place among all of them.
    index: usize,
    /// Its first column and row.
    left: usize,
    top: usize,
}

impl Chunk {
    /// Columns and rows that are in the image.
    fn visible(&self, form: &Form) -> (usize, usize) {
        let (width, height) = (form.chunks.width as usize, form.chunks.height as usize);
        let (right, below) = (form.width as usize - self.left, form.height as usize - self.top);
        (width.min(right), height.min(below))
    }

    /// Its bytes as they are stored.
    fn stored<'a, R: BufRead + Seek>(
        &self,
        form: &Form,
        data: &'a mut R,
    ) -> Result<Stored<'a, R>, DecodeError> {
        data.seek(SeekFrom::Start(form.chunks.offsets[self.index]))?;
        Ok(Stored {
            data: data.take(form.stored_length(self.index)),
            reversed: form.order.reversed,
        })
    }

    fn read_rows<R: BufRead + Seek>(
        &self,
        form: &Form,
        data: &mut R,
        levels: &mut Levels,
    ) -> Result<(), DecodeError> {
        let stored = self.stored(form, data)?;
        let packed = |stored| BufReader::with_capacity(BUFFER, stored);
        let mut unpacked: Box<dyn Read + '_> = match form.compression {
            Compression::None | Compression::Jpeg(_) => Box::new(stored),
            Compression::PackBits => Box::new(PackBits { packed: packed(stored), run: Run::None }),
            Compression::Lzw => Box::new(Lzw::new(packed(stored))),
            Compression::Deflate => Box::new(ZlibDecoder::new(packed(stored))),
        };
        let (columns, rows) = self.visible(form);
        let width = form.chunks.width as usize;
        let mut row = Row::new(form, self.plane);
        let mut piece = vec![0; row.bytes(PIECE.min(width))];
        for y in self.top..self.top + rows {
            row.begin();
            for start in (0..width).step_by(PIECE) {
                let count = PIECE.min(width - start);
                let bytes = &mut piece[..row.bytes(count)];
                unpacked.read_exact(bytes).map_err(damage)?;
                let shown = count.min(columns.saturating_sub(start));
                if shown > 0 {
                    row.unpack(bytes, levels.pixels(self.left + start, y, shown));
                }
            }
        }
        Ok(())
    }

    fn read_jpeg<R: BufRead + Seek>(
        &self,
        form: &Form,
        tables: &[u8],
        data: &mut R,
        levels: &mut Levels,
    ) -> Result<(), DecodeError> {
        /// What the headers can take.
        const HEADERS: usize = 1 << 20;
        /// Pixels of a tile however small the image is.
        const FREE: usize = 1 << 21;
        let (columns, rows) = self.visible(form);
        let padded = |side: usize| side.next_multiple_of(16);
        let pixels = padded(form.width as usize).saturating_mul(padded(form.height as usize));
        let most = pixels.max(FREE);
        // Without the marker of its end; what follows begins with a marker like that of its beginning.
        let mut bytes = tables.strip_suffix(b"\xFF\xD9").unwrap_or(tables).to_vec();
        let longest = PIXEL_BYTES * most + HEADERS;
        self.stored(form, data)?.take(longest as u64).read_to_end(&mut bytes)?;
        let (width, height) = jpeg::size(&bytes)?;
        if width * height > most as u64
            || width > form.chunks.width.into()
            || height > form.chunks.height.into()
            || width < columns as u64
            || height < rows as u64
        {
            let reason = "one of its JPEGs is of another size than its strip or tile";
            return Err(DecodeError::Damaged(reason.to_owned()));
        }
        let colour = match form.colour {
            Colour::YCbCr => JpegColour::YCbCr,
            Colour::Rgb => JpegColour::Rgb,
            _ => JpegColour::Grey,
        };
        let image = jpeg::decode(&bytes, Some(colour))?.pixels;
        let stride = 3 * image.width() as usize;
        for (y, row) in image.as_raw().chunks_exact(stride).take(rows).enumerate() {
            levels.pixels(self.left, self.top + y, columns).copy_from_slice(&row[..3 * columns]);
        }
        Ok(())
    }
}

fn truncated() -> DecodeError {
    DecodeError::Damaged("it is truncated".to_owned())
}

/// What an error on unpacking says about the file.
fn damage(error: io::Error) -> DecodeError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => truncated(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            DecodeError::damaged(&error)
        }
        _ => error.into(),
    }
}

/// Bytes of a chunk as the file holds them, with the highest bit first.
struct Stored<'a, R> {
    data: io::Take<&'a mut R>,
    reversed: bool,
}

impl<R: Read> Read for Stored<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.data.read(buffer)?;
        if self.reversed {
            buffer[..count].iter_mut().for_each(|byte| *byte = byte.reverse_bits());
        }
        Ok(count)
    }
}

/// `PackBits`: runs of one byte, and of bytes as they are.
struct PackBits<R> {
    packed: R,
    run: Run,
}

/// What is left of a run.
enum Run {
    None,
    /// Bytes as they are.
    Copied(usize),
    /// One byte, some times over.
    Repeated(u8, usize),
}

impl<R: BufRead> PackBits<R> {
    /// The next byte, unless all have been read.
    fn byte(&mut self) -> io::Result<Option<u8>> {
        let byte = self.packed.fill_buf()?.first().copied();
        self.packed.consume(usize::from(byte.is_some()));
        Ok(byte)
    }
}

impl<R: BufRead> Read for PackBits<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.run {
                Run::None => {
                    let Some(head) = self.byte()? else { return Ok(0) };
                    self.run = match head {
                        0..=127 => Run::Copied(usize::from(head) + 1),
                        // Nothing, by the definition.
                        128 => Run::None,
                        129..=255 => {
                            let Some(byte) = self.byte()? else { return Ok(0) };
                            Run::Repeated(byte, 257 - usize::from(head))
                        }
                    };
                }
                Run::Copied(left) => {
                    let count = left.min(buffer.len());
                    let count = self.packed.read(&mut buffer[..count])?;
                    self.run = if count < left { Run::Copied(left - count) } else { Run::None };
                    return Ok(count);
                }
                Run::Repeated(byte, left) => {
                    let count = left.min(buffer.len());
                    buffer[..count].fill(byte);
                    self.run =
                        if count < left { Run::Repeated(byte, left - count) } else { Run::None };
                    return Ok(count);
                }
            }
        }
    }
}
