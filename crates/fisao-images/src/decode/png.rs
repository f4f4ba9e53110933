//! PNG files: pixels without any of the profiles and texts that a file may carry packed, and of its metadata what says how the
//! camera was held, wherever in the file it stands: PIL reads on behind the pixels before it turns an image.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use flate2::read::ZlibDecoder;
use image::RgbImage;
use png::{ColorType, Decoder, Limits, Transformations};

use super::{DecodeError, LONGEST_METADATA, Metadata, check_pixels, on_white, upright};

const SIGNATURE: u64 = 8;
/// Bytes of a chunk's length and type.
const HEAD: usize = 8;
/// Bytes of its check sum.
const CHECK_SUM: i64 = 4;
/// Bytes that the decoder may hold besides rows of pixels.
const DECODER_BYTES: usize = 16 << 20;
/// Bytes that a compressed text may unfold to, PIL's own limit.
const LONGEST_TEXT: u64 = 1 << 20;
/// Key of the text that some programs write EXIF into, in hexadecimal digits.
const RAW_PROFILE: &[u8] = b"Raw profile type exif";
const XMP: &[u8] = b"XML:com.adobe.xmp";

/// Decodes a file, of which the first image is taken.
pub(super) fn decode(mut data: impl BufRead + Seek) -> Result<RgbImage, DecodeError> {
    let image = pixels(&mut data)?;
    // A file whose metadata are damaged is still an image, as it is for PIL.
    let metadata = metadata(&mut data).unwrap_or_default();
    Ok(upright(image, &metadata))
}

/// Width and height, by the header.
pub(super) fn size(data: impl BufRead + Seek) -> Result<(u32, u32), DecodeError> {
    let mut decoder = Decoder::new(data);
    let header = decoder.read_header_info().map_err(|error| DecodeError::damaged(&error))?;
    Ok(header.size())
}

fn pixels(data: impl BufRead + Seek) -> Result<RgbImage, DecodeError> {
    let wrong = |error: png::DecodingError| DecodeError::damaged(&error);
    let mut decoder = Decoder::new(data);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(wrong)?;
    let (width, height) = header.size();
    check_pixels(width, height)?;
    // Up to 8 bytes a pixel, and two rows of them.
    decoder.set_limits(Limits { bytes: DECODER_BYTES + 16 * width as usize });
    // Palettes and less than 8 bits are expanded, and of 16 bits the high byte is kept.
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(wrong)?;
    let size = reader.output_buffer_size();
    let size = size.ok_or_else(|| DecodeError::Large(width.into(), height.into()))?;
    let mut bytes = vec![0; size];
    reader.next_frame(&mut bytes).map_err(wrong)?;
    let rgb = match reader.output_color_type().0 {
        ColorType::Rgb => bytes,
        ColorType::Rgba => {
            bytes.as_chunks().0.iter().flat_map(|&[r, g, b, a]| on_white([r, g, b], a)).collect()
        }
        ColorType::Grayscale => bytes.iter().flat_map(|&level| [level; 3]).collect(),
        ColorType::GrayscaleAlpha => bytes
            .as_chunks()
            .0
            .iter()
            .flat_map(|&[level, a]| [on_white([level], a)[0]; 3])
            .collect(),
        ColorType::Indexed => return Err(DecodeError::Damaged("it has no palette".to_owned())),
    };
    RgbImage::from_raw(width, height, rgb)
        .ok_or_else(|| DecodeError::Damaged("its first image is smaller than it".to_owned()))
}

/// Reads the chunks of a file; a broken one ends the reading, and what came before it counts.
fn metadata(data: &mut (impl Read + Seek)) -> io::Result<Metadata> {
    let mut found = Metadata::default();
    let (mut raw_profile, mut animated, mut pixels) = (None, false, false);
    data.seek(SeekFrom::Start(SIGNATURE))?;
    loop {
        let mut head = [0; HEAD];
        if data.read_exact(&mut head).is_err() {
            break;
        }
        let [a, b, c, d, kind @ ..] = head;
        let length = u32::from_be_bytes([a, b, c, d]);
        let wanted = matches!(&kind, b"eXIf" | b"tEXt" | b"zTXt" | b"iTXt");
        let mut body = Vec::new();
        if wanted && u64::from(length) <= LONGEST_METADATA {
            data.take(length.into()).read_to_end(&mut body)?;
            if body.len() as u64 != u64::from(length) {
                break;
            }
            data.seek_relative(CHECK_SUM)?;
        } else {
            data.seek_relative(i64::from(length) + CHECK_SUM)?;
        }
        match &kind {
            b"eXIf" => found.exif = body,
            b"tEXt" | b"zTXt" | b"iTXt" => {
                let Some((key, text)) = text(&kind, &body) else { continue };
                if key == XMP {
                    found.xmp = text;
                } else if key == RAW_PROFILE {
                    raw_profile = Some(text);
                }
            }
            b"acTL" => animated = true,
            b"IDAT" => pixels = true,
            // PIL reads no further than to the second image of several.
            b"fcTL" if animated && pixels => break,
            b"IEND" => break,
            _ => {}
        }
    }
    if found.exif.is_empty() {
        found.exif = raw_profile.and_then(|text| from_hexadecimal(&text)).unwrap_or_default();
    }
    Ok(found)
}

/// Key and text of a chunk of text, unpacked; of those alone that may say how the camera was held.
fn text<'a>(kind: &[u8], body: &'a [u8]) -> Option<(&'a [u8], Vec<u8>)> {
    let (key, rest) = split_at_nul(body)?;
    if ![XMP, RAW_PROFILE].contains(&key) {
        return None;
    }
    let (packed, rest) = match kind {
        b"tEXt" => (false, rest),
        b"zTXt" => (true, rest.get(1..)?),
        _ => {
            // Whether it is packed, how, then language and translated key.
            let (language, rest) = (rest.get(2..)?, rest);
            let (_, translated) = split_at_nul(language)?;
            (rest[0] != 0, split_at_nul(translated)?.1)
        }
    };
    if !packed {
        return Some((key, rest.to_vec()));
    }
    let mut text = Vec::new();
    ZlibDecoder::new(rest).take(LONGEST_TEXT).read_to_end(&mut text).ok()?;
    Some((key, text))
}

fn split_at_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// The bytes that a raw profile spells, behind three lines of name and length.
fn from_hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.split(|&byte| byte == b'\n').skip(3).flatten();
    let digits: Vec<u8> = digits.copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(16 * digit(pair[0])? + digit(pair[1])?)).collect()
}
