//! JPEG files, decoded to the bit as libjpeg-turbo decodes them with its default settings, which is
//! how Pillow and so nearly every vision model's training saw them.
//!
//! Written from ITU T.81 and the integer arithmetic that libjpeg made customary: the "islow" inverse
//! transform, triangle-filter upsampling of halved chroma, and 16-bit fixed-point colour conversion.
//! Other decoders round differently: the `image` crate's in one value of a hundred (4:4:4) to one in six
//! (4:2:0), by up to 7 of 255, and one step is already 0.015 after normalisation.
//!
//! Read are baseline, extended sequential and progressive Huffman files of 8 bits with one, three or
//! four components. Departures from libjpeg: damaged data are an error instead of grey areas, and
//! progressive files that leave out the last refinements are not smoothed across blocks.

#![expect(clippy::inline_always, reason = "code is vectorised where it is inlined into a dispatch")]

mod bits;
mod colour;
mod frame;
mod huffman;
mod progressive;
mod segments;
mod sequential;
mod transform;
mod upsampling;

use image::RgbImage;

pub(super) use colour::{Colour, printed};
use frame::Frame;
use segments::{Marker, Segments};

use super::Metadata;

/// Why a file could not be decoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum JpegError {
    /// The data end too early.
    #[error("it is truncated")]
    Truncated,
    /// The data contradict themselves or the standard.
    #[error("{0}")]
    Damaged(&'static str),
    /// A kind of JPEG that is not read.
    #[error("{0}")]
    Unsupported(&'static str),
    /// More pixels than are decoded.
    #[error("{0}×{1} pixels are too many")]
    Large(usize, usize),
}

/// A decoded file.
pub(super) struct Jpeg {
    /// The pixels, as they are stored.
    pub(super) pixels: RgbImage,
    /// What says how the camera was held, if anything does.
    pub(super) metadata: Metadata,
}

/// How often a file's scans may go over all of its blocks before it is refused. Encoders write about ten scans; the standard
/// has room for 2,688 that each add something, and files with thousands take minutes.
const MAX_PASSES: usize = 100;

/// Blocks that the scans of any file may decode, however few it has: a tenth of a second.
const FREE_BLOCKS: usize = 10_000_000;

/// Decodes a whole file, whose components mean what it says itself unless `colour` does.
pub(super) fn decode(bytes: &[u8], colour: Option<Colour>) -> Result<Jpeg, JpegError> {
    let mut segments = Segments::new(bytes);
    let mut frame = None;
    let mut decoded_blocks = 0_usize;
    loop {
        match segments.next()? {
            Marker::Frame { progressive } => {
                if frame.is_some() {
                    return Err(JpegError::Damaged("it has two frames"));
                }
                frame = Some(Frame::read(segments.body()?, progressive, bytes.len())?);
            }
            Marker::Scan => {
                let frame =
                    frame.as_mut().ok_or(JpegError::Damaged("a scan precedes the frame"))?;
                let scan = frame.read_scan(segments.body()?, &segments.tables)?;
                decoded_blocks = decoded_blocks.saturating_add(scan.blocks(frame));
                if decoded_blocks > frame.blocks().saturating_mul(MAX_PASSES).max(FREE_BLOCKS) {
                    return Err(JpegError::Unsupported("its scans decode it more than 100 times"));
                }
                let (data, interval) = (segments.rest(), segments.restart_interval);
                let used = if frame.progressive {
                    progressive::decode_scan(frame, &scan, &segments.tables, data, interval)?
                } else {
                    sequential::decode_scan(frame, &scan, &segments.tables, data, interval)?
                };
                segments.skip(used);
            }
            Marker::End => break,
        }
    }
    let mut frame = frame.ok_or(JpegError::Damaged("it has no frame"))?;
    progressive::finish(&mut frame);
    let colour = match colour {
        Some(colour) if colour.components() != frame.components.len() => {
            return Err(JpegError::Damaged("it has another number of components than it should"));
        }
        Some(colour) => colour,
        None => Colour::of(&frame, &segments)?,
    };
    let pixels = colour::image(&frame, colour)?;
    let metadata = Metadata { exif: segments.exif, xmp: segments.xmp };
    Ok(Jpeg { pixels, metadata })
}

/// Width and height that the beginning of a file tells.
pub(super) fn size(bytes: &[u8]) -> Result<(u64, u64), JpegError> {
    let mut segments = Segments::new(bytes);
    let Marker::Frame { .. } = segments.next()? else {
        return Err(JpegError::Damaged("it has no frame"));
    };
    let (width, height) = frame::size(segments.body()?)?;
    Ok((width as u64, height as u64))
}
