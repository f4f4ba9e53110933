//! The marker segments of a file: tables, application data and where frames and scans begin.

use super::JpegError;
use super::huffman::HuffmanTable;

/// Natural position (row × 8 + column) of each coefficient in the order they are stored.
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The markers that a decoder acts upon; [`Segments`] deals with the others.
pub(super) enum Marker {
    /// A frame header follows.
    Frame {
        /// Whether its scans refine each other.
        progressive: bool,
    },
    /// A scan header and then coded data follow.
    Scan,
    /// Nothing follows.
    End,
}

/// Four tables of each kind, as far as defined.
#[derive(Default)]
pub(super) struct Tables {
    /// Steps in natural order; multiplied in 16 bits, as vector code does.
    pub(super) quantization: [Option<[i16; 64]>; 4],
    /// Codes of the coefficient at frequency 0.
    pub(super) dc: [Option<Box<HuffmanTable>>; 4],
    /// Codes of the others.
    pub(super) ac: [Option<Box<HuffmanTable>>; 4],
}

/// A file read segment by segment.
pub(super) struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Tables defined so far.
    pub(super) tables: Tables,
    /// MCUs between restart markers; 0 if there are none.
    pub(super) restart_interval: usize,
    /// Whether a JFIF segment was there, which promises YCbCr.
    pub(super) jfif: bool,
    /// The colour transform of Adobe's segment.
    pub(super) adobe: Option<u8>,
    /// The TIFF block of the EXIF segments.
    pub(super) exif: Vec<u8>,
    /// The XMP segment.
    pub(super) xmp: Vec<u8>,
}

impl<'a> Segments<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 2,
            tables: Tables::default(),
            restart_interval: 0,
            jfif: false,
            adobe: None,
            exif: Vec::new(),
            xmp: Vec::new(),
        }
    }

    /// Reads on to the next marker that concerns the image. What lies between segments is skipped.
    pub(super) fn next(&mut self) -> Result<Marker, JpegError> {
        loop {
            match self.marker()? {
                0xc0 | 0xc1 => return Ok(Marker::Frame { progressive: false }),
                0xc2 => return Ok(Marker::Frame { progressive: true }),
                0xc3 => return Err(JpegError::Unsupported("lossless JPEG")),
                0xc5..=0xc7 => return Err(JpegError::Unsupported("hierarchical JPEG")),
                0xc9..=0xcb | 0xcd..=0xcf => {
                    return Err(JpegError::Unsupported("arithmetic coding"));
                }
                0xc4 => self.huffman()?,
                0xda => return Ok(Marker::Scan),
                0xdb => self.quantization()?,
                0xdd => self.restart()?,
                0xd9 => return Ok(Marker::End),
                0xe0 => self.jfif |= self.body()?.starts_with(b"JFIF\0"),
                0xe1 => self.metadata()?,
                0xee => {
                    if let Some([_, _, _, _, _, _, transform, ..]) =
                        self.body()?.strip_prefix(b"Adobe")
                    {
                        self.adobe = Some(*transform);
                    }
                }
                // Restart markers outside a scan, TEM and a second SOI stand alone.
                0xd0..=0xd8 | 0x01 => {}
                _ => {
                    self.body()?;
                }
            }
        }
    }

    /// The segment's contents after its length.
    pub(super) fn body(&mut self) -> Result<&'a [u8], JpegError> {
        let rest = self.rest();
        let [high, low, ..] = *rest else { return Err(JpegError::Truncated) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < 2 {
            return Err(JpegError::Damaged("a segment has an impossible length"));
        }
        let body = rest.get(2..length).ok_or(JpegError::Truncated)?;
        self.at += length;
        Ok(body)
    }

    /// All that has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Passes over bytes that someone else has read.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    fn marker(&mut self) -> Result<u8, JpegError> {
        let rest = self.rest();
        let after =
            rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff));
        let after = after.ok_or(JpegError::Truncated)?;
        self.at += after + 2;
        Ok(rest[after + 1])
    }

    fn quantization(&mut self) -> Result<(), JpegError> {
        let mut body = self.body()?;
        while let Some((&kind, rest)) = body.split_first() {
            let wide = kind >> 4 != 0;
            let table = self.tables.quantization.get_mut(usize::from(kind & 15));
            let table =
                table.ok_or(JpegError::Damaged("a quantization table has no such number"))?;
            let size = if wide { 128 } else { 64 };
            let (steps, rest) = rest.split_at_checked(size).ok_or(JpegError::Damaged(SHORT))?;
            let mut natural = [0; 64];
            for (index, &position) in ZIGZAG.iter().enumerate() {
                let step = if wide {
                    u16::from_be_bytes([steps[2 * index], steps[2 * index + 1]])
                } else {
                    u16::from(steps[index])
                };
                natural[usize::from(position)] = step as i16;
            }
            *table = Some(natural);
            body = rest;
        }
        Ok(())
    }

    fn huffman(&mut self) -> Result<(), JpegError> {
        let mut body = self.body()?;
        while let Some((&kind, rest)) = body.split_first() {
            let (counts, rest) = rest.split_first_chunk().ok_or(JpegError::Damaged(SHORT))?;
            let total = counts.iter().map(|&count: &u8| usize::from(count)).sum();
            let (symbols, rest) = rest.split_at_checked(total).ok_or(JpegError::Damaged(SHORT))?;
            let tables = match kind >> 4 {
                0 => &mut self.tables.dc,
                1 => &mut self.tables.ac,
                _ => return Err(JpegError::Damaged("a code table is of no known class")),
            };
            let table = tables.get_mut(usize::from(kind & 15));
            let table = table.ok_or(JpegError::Damaged("a code table has no such number"))?;
            *table = Some(Box::new(HuffmanTable::new(counts, symbols)?));
            body = rest;
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), JpegError> {
        let [high, low] = *self.body()? else { return Err(JpegError::Damaged(SHORT)) };
        self.restart_interval = usize::from(u16::from_be_bytes([high, low]));
        Ok(())
    }

    fn metadata(&mut self) -> Result<(), JpegError> {
        let body = self.body()?;
        if let Some(tiff) = body.strip_prefix(b"Exif\0\0") {
            self.exif.extend_from_slice(tiff);
        } else if let Some(document) = body.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
            self.xmp = document.to_vec();
        }
        Ok(())
    }
}

const SHORT: &str = "a table is shorter than it says";
