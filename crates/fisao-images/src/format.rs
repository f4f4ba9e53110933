//! Which kind of file something is, by its first bytes.

use std::fmt;

/// Bytes of a file that are looked at.
pub(crate) const LOOKED_AT: u64 = 512;

/// Extensions of the formats that are read, lower case.
pub const EXTENSIONS: &[&str] =
    &["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// Extensions of images in formats that are not read, lower case.
pub const UNREAD_EXTENSIONS: &[&str] = &["avif", "heic", "heif", "ico", "jxl", "jp2"];

/// A format of images that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG with Huffman codes, of 8 bits.
    Jpeg,
    /// WebP, lossy or lossless.
    WebP,
    /// Windows' bitmaps.
    Bmp,
    /// GIF, of which the first image is read.
    Gif,
    /// TIFF and `BigTIFF`, of which the first image is read.
    Tiff,
}

impl Format {
    /// The format of a file that begins with these bytes, 12 of which are enough.
    ///
    /// ```
    /// use fisao_images::format::Format;
    ///
    /// assert_eq!(Format::of(b"GIF89a"), Some(Format::Gif));
    /// assert_eq!(Format::of(b"<html>"), None);
    /// ```
    pub fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Self::Png),
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [b'B', b'M', ..] => Some(Self::Bmp),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'I', b'I', b'*' | b'+', 0, ..] | [b'M', b'M', 0, b'*' | b'+', ..] => Some(Self::Tiff),
            _ => None,
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WEBP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a file that begins with these bytes is an image, of a format that is read or of another; 32 bytes are enough
/// for nearly all.
///
/// ```
/// use fisao_images::format::is_image;
///
/// assert!(is_image(b"\xFF\xD8\xFF\xE0"), "a JPEG");
/// assert!(is_image(b"8BPS\0\x01"), "Photoshop's, which is not read");
/// assert!(!is_image(b"a shopping list"));
/// ```
pub fn is_image(start: &[u8]) -> bool {
    !matches!(Content::of(start), Content::Other(_))
}

/// What the first bytes of a file promise.
pub(crate) enum Content {
    /// An image that is read.
    Read(Format),
    /// An image of a format that is not read: its name.
    Unread(&'static str),
    /// No image: what it is, as in "it is a PDF document".
    Other(&'static str),
}

impl Content {
    /// What begins with these bytes.
    pub(crate) fn of(start: &[u8]) -> Self {
        if let Some(format) = Format::of(start) {
            return Self::Read(format);
        }
        match unread(start) {
            Some(name) => Self::Unread(name),
            None => Self::Other(other(start)),
        }
    }
}

fn unread(start: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&[u8], &str); 11] = [
        (b"\0\0\x01\0", "ICO"),
        (b"\xFF\x0A", "JPEG XL"),
        (b"\0\0\0\x0CJXL ", "JPEG XL"),
        (b"\0\0\0\x0CjP  ", "JPEG 2000"),
        (b"\xFF\x4F\xFF\x51", "JPEG 2000"),
        (b"8BPS", "Photoshop"),
        (b"qoif", "QOI"),
        (b"DDS ", "DDS"),
        (b"\x76\x2F\x31\x01", "OpenEXR"),
        (b"#?RADIANCE", "Radiance HDR"),
        (b"<svg", "SVG"),
    ];
    if let Some((_, name)) = SIGNATURES.iter().find(|(bytes, _)| start.starts_with(bytes)) {
        return Some(name);
    }
    if let [b'P', b'1'..=b'7', b' ' | b'\t' | b'\r' | b'\n', ..] = start {
        return Some("PNM");
    }
    if start.starts_with(b"<?xml") && start.windows(4).any(|bytes| bytes == b"<svg") {
        return Some("SVG");
    }
    // Files of ISO's base media format name their kinds ("brands") in the first box.
    let length = usize::try_from(u32::from_be_bytes(start.get(..4)?.try_into().ok()?)).ok()?;
    let [b'f', b't', b'y', b'p', brands @ ..] = start.get(4..length.min(start.len()))? else {
        return None;
    };
    let any = |names: &[&[u8; 4]]| brands.as_chunks().0.iter().any(|brand| names.contains(&brand));
    if any(&[b"avif", b"avis"]) {
        Some("AVIF")
    } else if any(&[b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"]) {
        Some("HEIC")
    } else {
        None
    }
}

fn other(start: &[u8]) -> &'static str {
    const SIGNATURES: [(&[u8], &str); 7] = [
        (b"%PDF", "is a PDF document"),
        (b"PK\x03\x04", "is a ZIP archive"),
        (b"\x1f\x8b", "is a gzip archive"),
        (b"version https://git-lfs", "is a Git LFS pointer, not the file it stands for"),
        (b"<!DOCTYPE html", "is a web page"),
        (b"<html", "is a web page"),
        (
            b"\0\x05\x16\x07",
            "is an AppleDouble file, which holds what macOS knows about another file",
        ),
    ];
    if start.is_empty() {
        return "is empty";
    }
    if let Some((_, name)) = SIGNATURES.iter().find(|(bytes, _)| start.starts_with(bytes)) {
        return name;
    }
    // The last character may be cut by the limit, which is not the file's fault.
    let text = match str::from_utf8(start) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && error.valid_up_to() > 0,
    };
    if text && !start.contains(&0) {
        "is text"
    } else {
        "is in no format that is read (PNG, JPEG, WebP, BMP, GIF, TIFF)"
    }
}
