//! What a WebP file says of itself: its metadata, and how large the images in it are.

use std::io::{self, Read, Seek, SeekFrom};

use super::{LONGEST_METADATA, Metadata};

/// Bytes of a chunk's name and length.
const HEAD: u64 = 8;
/// Bytes of the header of an animation's frame, before the chunks of its image.
const FRAME_HEAD: u64 = 16;

/// What the chunks of a file say.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) metadata: Metadata,
    /// Width and height of the largest lossy image, which is decoded before it is compared with the canvas.
    pub(super) largest: (u32, u32),
}

/// Reads the chunks of a file from its beginning; a broken one ends the reading.
pub(super) fn survey(file: &mut (impl Read + Seek)) -> io::Result<Survey> {
    let mut found = Survey::default();
    let end = file.seek(SeekFrom::End(0))?;
    // Behind "RIFF", the file's length and "WEBP".
    let mut at = HEAD + 4;
    while at + HEAD <= end {
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        let [kind @ .., a, b, c, d] = head;
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        let kept = length <= LONGEST_METADATA && at + HEAD + length <= end;
        match &kind {
            b"EXIF" if kept && found.metadata.exif.is_empty() => {
                file.take(length).read_to_end(&mut found.metadata.exif)?;
            }
            b"XMP " if kept && found.metadata.xmp.is_empty() => {
                file.take(length).read_to_end(&mut found.metadata.xmp)?;
            }
            b"VP8 " => {
                let mut start = Vec::new();
                file.take(10).read_to_end(&mut start)?;
                if let [_, _, _, _, _, _, w0, w1, h0, h1] = start[..] {
                    // The highest two bits are a scale that nobody uses.
                    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3FFF);
                    let (width, height) = (side(w0, w1), side(h0, h1));
                    let area = |(width, height)| u64::from(width) * u64::from(height);
                    if area((width, height)) > area(found.largest) {
                        found.largest = (width, height);
                    }
                }
            }
            // The chunks of the frame follow.
            b"ANMF" => {
                at += HEAD + FRAME_HEAD;
                continue;
            }
            _ => {}
        }
        at += HEAD + length + length % 2;
    }
    Ok(found)
}
