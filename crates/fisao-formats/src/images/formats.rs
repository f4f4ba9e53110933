//! Which kind of file something is, by its first bytes.

/// Bytes that are looked at.
pub(super) const LOOKED_AT: u64 = 512;

/// Formats of images that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    WebP,
    Bmp,
    Gif,
}

impl Format {
    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WEBP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
        }
    }
}

/// What the first bytes of a file promise.
pub(super) enum Content {
    /// An image that is read.
    Read(Format),
    /// An image of a format that is not read: its name.
    Unread(&'static str),
    /// No image: what it is, as in "it is a PDF document".
    Other(&'static str),
}

impl Content {
    /// What begins with these bytes.
    pub(super) fn of(start: &[u8]) -> Self {
        if let Some(format) = read(start) {
            return Self::Read(format);
        }
        match unread(start) {
            Some(name) => Self::Unread(name),
            None => Self::Other(other(start)),
        }
    }
}

fn read(start: &[u8]) -> Option<Format> {
    match start {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Format::Png),
        [0xFF, 0xD8, 0xFF, ..] => Some(Format::Jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
        [b'B', b'M', ..] => Some(Format::Bmp),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
        _ => None,
    }
}

fn unread(start: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&[u8], &str); 15] = [
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"MM\0+", "TIFF"),
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
        "is in no format that is read (PNG, JPEG, WebP, BMP, GIF)"
    }
}
