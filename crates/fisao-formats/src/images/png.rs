//! Metadata of PNG files, wherever in the file they stand: PIL reads on behind the pixels before it turns a picture.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

const SIGNATURE: usize = 8;
/// Length, type and check sum of a chunk.
const FRAME: usize = 12;
/// Bytes that a compressed text may unfold to, PIL's own limit.
const LONGEST_TEXT: u64 = 1 << 20;
/// Key of the text that some programs write EXIF into, in hexadecimal digits.
const RAW_PROFILE: &[u8] = b"Raw profile type exif";
const XMP: &[u8] = b"XML:com.adobe.xmp";

/// What a file says about its picture.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    /// The TIFF block that EXIF wraps.
    pub(super) exif: Vec<u8>,
    /// The XMP document.
    pub(super) xmp: Vec<u8>,
}

/// Reads the chunks of a file; a broken one ends the reading, and what came before it counts.
pub(super) fn metadata(bytes: &[u8]) -> Metadata {
    let mut found = Metadata::default();
    let (mut raw_profile, mut animated, mut pixels) = (None, false, false);
    let mut rest = bytes.get(SIGNATURE..).unwrap_or_default();
    while let Some((kind, body, behind)) = chunk(rest) {
        rest = behind;
        match kind {
            b"eXIf" => found.exif = body.to_vec(),
            b"tEXt" | b"zTXt" | b"iTXt" => {
                let Some((key, text)) = text(kind, body) else { continue };
                if key == XMP {
                    found.xmp = text;
                } else if key == RAW_PROFILE {
                    raw_profile = Some(text);
                }
            }
            b"acTL" => animated = true,
            b"IDAT" => pixels = true,
            // PIL reads no further than to the second picture of several.
            b"fcTL" if animated && pixels => break,
            b"IEND" => break,
            _ => {}
        }
    }
    if found.exif.is_empty() {
        found.exif = raw_profile.and_then(|text| from_hexadecimal(&text)).unwrap_or_default();
    }
    found
}

/// Type and content of the first chunk, and what follows it.
fn chunk(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(FRAME - 4)?;
    let (length, kind) = head.split_at(4);
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let (body, rest) = rest.split_at_checked(length)?;
    Some((kind, body, rest.get(4..)?))
}

/// Key and text of a chunk of text, unpacked.
fn text<'a>(kind: &[u8], body: &'a [u8]) -> Option<(&'a [u8], Vec<u8>)> {
    let (key, rest) = split_at_nul(body)?;
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
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(16 * digit(pair[0])? + digit(pair[1])?)).collect()
}
