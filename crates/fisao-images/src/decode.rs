//! Image files as the three colour channels that models see, the way an image processor of transformers turns out what PIL opens.
//!
//! The format is told by the content, never by the name. EXIF orientation is applied, grey and palettes are expanded, and of
//! 16-bit channels the high byte is kept. What is transparent is put on white, as `convert_to_rgb` of transformers 5 does it in
//! all processors; transformers 4, and `load_image` of both, drop transparency instead.
//!
//! Pixels are PIL's to the bit but for two kinds of file: 16-bit grey in PNG and TIFF, which PIL clips to white instead
//! of scaling it, and BMP of 16 bits a pixel, whose 5- and 6-bit channels differ by up to 1 of 255.
//!
//! ```no_run
//! use fisao_images::decode::{check_image, open_image};
//!
//! # fn main() -> Result<(), fisao_images::ImageError> {
//! # let path = std::path::Path::new("photo.jpg");
//! check_image(path)?; // the header alone
//! let image = open_image(path)?;
//! println!("{}×{} pixels", image.width(), image.height());
//! # Ok(())
//! # }
//! ```

mod exif;
mod gif;
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the decoder's inner loops, on coefficients and samples with bounds"
)]
mod jpeg;
mod png;
mod tiff;
mod webp;

use std::fs::{self, File, FileType};
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use image::codecs::bmp::BmpDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, RgbImage};

pub use crate::limits::MAX_PIXELS;

use self::jpeg::JpegError;
use crate::ImageError;
use crate::format::{Content, Format, LOOKED_AT};

/// Longest piece of metadata that is looked at, bytes; PIL's limit of all text is 64 MiB.
const LONGEST_METADATA: u64 = 16 << 20;

/// What a file says about its image.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metadata {
    /// The TIFF block that EXIF wraps.
    exif: Vec<u8>,
    /// The XMP document.
    xmp: Vec<u8>,
}

/// Why a file could not be decoded.
#[derive(Debug, thiserror::Error)]
enum DecodeError {
    /// It cannot be read at all.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The data are damaged.
    #[error("{0}")]
    Damaged(String),
    /// A variety of the format that is not read.
    #[error("{0}")]
    Unsupported(String),
    /// More pixels than are decoded.
    #[error("{0}×{1} pixels are too many")]
    Large(u64, u64),
}

impl DecodeError {
    fn damaged(reason: &impl ToString) -> Self {
        Self::Damaged(reason.to_string())
    }
}

/// Reads an image file.
///
/// # Errors
/// The file is absent, is not an image (the error says what it looks like), is truncated, or has more than [`MAX_PIXELS`].
pub fn open_image(path: &Path) -> Result<RgbImage, ImageError> {
    decode(path, opened(path)?)
}

/// Decodes an image file that is in memory; `name` is what errors call it.
///
/// # Errors
/// The bytes are not an image (the error says what they look like), are truncated, or have more than [`MAX_PIXELS`].
///
/// ```
/// use fisao_images::ImageError;
/// use fisao_images::decode::decode_image;
///
/// let error = decode_image("photo.jpg", b"\xFF\xD8\xFF\xE0").unwrap_err();
/// assert!(matches!(error, ImageError::Damaged { .. }));
/// assert_eq!(error.to_string(), "photo.jpg is a damaged JPEG image: it is truncated");
/// ```
pub fn decode_image(name: &str, bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode(Path::new(name), Cursor::new(bytes))
}

/// Looks at an image file's header, without decoding its pixels.
///
/// # Errors
/// As for [`open_image`], but for damage behind the header.
pub fn check_image(path: &Path) -> Result<(), ImageError> {
    check(path, opened(path)?)
}

/// The same of one that is in memory.
///
/// # Errors
/// As for [`decode_image`], but for damage behind the header.
pub fn check_encoded_image(name: &str, bytes: &[u8]) -> Result<(), ImageError> {
    check(Path::new(name), Cursor::new(bytes))
}

/// Opens a regular file, which a symbolic link may lead to. A named pipe may never say anything, and a device never stop.
fn opened(path: &Path) -> Result<BufReader<File>, ImageError> {
    let failed = |error| ImageError::reading(path, error);
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() {
        let content = format!("is {}", describe(kind));
        return Err(ImageError::NotAnImage { path: path.to_owned(), content });
    }
    Ok(BufReader::new(File::open(path).map_err(failed)?))
}

/// What something is that is no regular file.
fn describe(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if kind.is_fifo() {
            return "a named pipe";
        } else if kind.is_socket() {
            return "a socket";
        } else if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_dir() { "a folder" } else { "no regular file" }
}

fn decode(path: &Path, mut data: impl BufRead + Seek) -> Result<RgbImage, ImageError> {
    let format = recognise(path, &mut data)?;
    let image = match format {
        Format::Png => png::decode(data),
        Format::Jpeg => decode_jpeg(data),
        Format::WebP => decode_webp(data),
        Format::Bmp => decode_bmp(data),
        Format::Gif => gif::decode(data),
        Format::Tiff => tiff::decode(data),
    };
    let image = image.map_err(|error| unusable(path, format, error))?;
    check_size(image.dimensions()).map_err(|error| unusable(path, format, error))?;
    Ok(image)
}

fn check(path: &Path, mut data: impl BufRead + Seek) -> Result<(), ImageError> {
    let format = recognise(path, &mut data)?;
    let size = match format {
        Format::Png => png::size(data),
        Format::Jpeg => jpeg_size(data),
        Format::WebP => webp_decoder(data).map(|(decoder, _)| decoder.dimensions()),
        Format::Bmp => bmp_decoder(data).map(|decoder| decoder.dimensions()),
        Format::Gif => gif::size(data),
        Format::Tiff => tiff::size(data),
    };
    size.and_then(check_size).map_err(|error| unusable(path, format, error))
}

/// The format of a file, which has to be one that is read.
fn recognise(path: &Path, data: &mut (impl BufRead + Seek)) -> Result<Format, ImageError> {
    let failed = |error| ImageError::reading(path, error);
    let mut start = Vec::new();
    data.by_ref().take(LOOKED_AT).read_to_end(&mut start).map_err(failed)?;
    data.rewind().map_err(failed)?;
    let path = path.to_owned();
    match Content::of(&start) {
        Content::Read(format) => Ok(format),
        Content::Unread(format) => Err(ImageError::UnreadFormat { path, format }),
        Content::Other(content) => {
            Err(ImageError::NotAnImage { path, content: content.to_owned() })
        }
    }
}

/// Why a file cannot be used.
fn unusable(path: &Path, format: Format, error: DecodeError) -> ImageError {
    let path = path.to_owned();
    match error {
        DecodeError::Io(source) => ImageError::Io { path, source },
        DecodeError::Damaged(reason) => ImageError::Damaged { path, format, reason },
        DecodeError::Unsupported(reason) => ImageError::Unsupported { path, format, reason },
        DecodeError::Large(width, height) => ImageError::TooLarge { path, format, width, height },
    }
}

/// Refuses an image without pixels, or with more than are decoded.
fn check_size((width, height): (u32, u32)) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        return Err(DecodeError::Damaged("it has no pixels".to_owned()));
    }
    check_pixels(width, height)
}

/// Refuses images with more pixels than are decoded.
fn check_pixels(width: impl Into<u64>, height: impl Into<u64>) -> Result<(), DecodeError> {
    let (width, height) = (width.into(), height.into());
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(DecodeError::Large(width, height));
    }
    Ok(())
}

/// Width and height of a JPEG, by the header of its image.
fn jpeg_size(mut data: impl Read + Seek) -> Result<(u32, u32), DecodeError> {
    /// Bytes in which most headers are; in front of it may lie profiles and smaller images.
    const USUAL: u64 = 64 << 10;
    let mut bytes = Vec::new();
    for most in [USUAL, JPEG_START] {
        data.rewind()?;
        bytes.clear();
        (&mut data).take(most).read_to_end(&mut bytes)?;
        match jpeg::size(&bytes) {
            Err(JpegError::Truncated) if bytes.len() as u64 == most => {}
            size => {
                let (width, height) = size?;
                check_pixels(width, height)?;
                let side = |side| u32::try_from(side).map_err(|_| no_image());
                return Ok((side(width)?, side(height)?));
            }
        }
    }
    Err(no_image())
}

/// Bytes of a JPEG in which the header of the image has to be found.
const JPEG_START: u64 = 32 << 20;

fn no_image() -> DecodeError {
    DecodeError::Damaged("no image begins in its first 32 MiB".to_owned())
}

fn decode_jpeg(mut data: impl Read + Seek) -> Result<RgbImage, DecodeError> {
    const START: u64 = JPEG_START;
    /// More than a pixel can take; what follows behind the image, a film for instance, is not read.
    const PIXEL_BYTES: u64 = 12;
    let length = data.seek(SeekFrom::End(0))?;
    data.rewind()?;
    // Room is made at once: a vector that grows is held twice while it moves.
    let mut bytes = Vec::with_capacity(length.min(START) as usize);
    (&mut data).take(START).read_to_end(&mut bytes)?;
    if length > START {
        let (width, height) = match jpeg::size(&bytes) {
            Err(JpegError::Truncated) => return Err(no_image()),
            size => size?,
        };
        let rest = (length - START).min(PIXEL_BYTES * width * height);
        bytes.reserve_exact(usize::try_from(rest).map_err(|_| JpegError::Truncated)?);
        data.take(rest).read_to_end(&mut bytes)?;
    }
    let jpeg = jpeg::decode(&bytes, None)?;
    Ok(upright(jpeg.pixels, &jpeg.metadata))
}

impl From<JpegError> for DecodeError {
    fn from(error: JpegError) -> Self {
        match error {
            JpegError::Large(width, height) => Self::Large(width as u64, height as u64),
            JpegError::Unsupported(_) => Self::Unsupported(error.to_string()),
            JpegError::Truncated | JpegError::Damaged(_) => Self::damaged(&error),
        }
    }
}

fn decode_webp(data: impl BufRead + Seek) -> Result<RgbImage, DecodeError> {
    let (decoder, metadata) = webp_decoder(data)?;
    Ok(upright(pixels(decoder)?, &metadata))
}

/// A decoder that has read the header, and what the file says about its image.
fn webp_decoder<R: BufRead + Seek>(mut data: R) -> Result<(WebPDecoder<R>, Metadata), DecodeError> {
    let webp::Survey { metadata, largest } = webp::survey(&mut data).unwrap_or_default();
    check_pixels(largest.0, largest.1)?;
    data.rewind()?;
    let decoder = WebPDecoder::new(data).map_err(|error| DecodeError::damaged(&error))?;
    let (width, height) = decoder.dimensions();
    if u64::from(largest.0) > u64::from(width) || u64::from(largest.1) > u64::from(height) {
        return Err(DecodeError::Damaged("an image in it is larger than it is".to_owned()));
    }
    Ok((decoder, metadata))
}

fn decode_bmp(data: impl BufRead + Seek) -> Result<RgbImage, DecodeError> {
    pixels(bmp_decoder(data)?)
}

fn bmp_decoder<R: BufRead + Seek>(data: R) -> Result<BmpDecoder<R>, DecodeError> {
    BmpDecoder::new(data).map_err(|error| DecodeError::damaged(&error))
}

fn pixels(decoder: impl ImageDecoder) -> Result<RgbImage, DecodeError> {
    let (width, height) = decoder.dimensions();
    check_pixels(width, height)?;
    let image = DynamicImage::from_decoder(decoder);
    let image = image.map_err(|error| DecodeError::damaged(&error))?;
    let DynamicImage::ImageRgba8(image) = image else { return Ok(image.into_rgb8()) };
    let rgb = image.as_raw().as_chunks().0.iter().flat_map(|&[r, g, b, a]| on_white([r, g, b], a));
    let rgb = rgb.collect();
    Ok(RgbImage::from_raw(width, height, rgb).expect("three bytes for four"))
}

/// What is seen of a colour over white, as PIL's `alpha_composite` rounds it.
fn on_white<const CHANNELS: usize>(colour: [u8; CHANNELS], alpha: u8) -> [u8; CHANNELS] {
    const BITS: u32 = 7;
    let alpha = u32::from(alpha);
    colour.map(|level| {
        let sum = (u32::from(level) * alpha + 255 * (255 - alpha) + 128) << BITS;
        let byte = u8::try_from((((sum >> 8) + sum) >> 8) >> BITS);
        byte.expect("a mean of bytes is a byte")
    })
}

/// Turns an image as its metadata say, of which EXIF goes first.
fn upright(image: RgbImage, Metadata { exif, xmp }: &Metadata) -> RgbImage {
    turned(image, exif::orientation(exif).or_else(|| xmp_orientation(xmp)))
}

fn turned(image: RgbImage, orientation: Option<Orientation>) -> RgbImage {
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    image.into_rgb8()
}

/// The orientation in an XMP document, found as PIL finds it: without parsing the XML.
fn xmp_orientation(document: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    let values = document.windows(NAME.len()).enumerate().filter(|&(_, found)| found == NAME);
    let digit = values.filter_map(|(at, _)| match &document[at + NAME.len()..] {
        [b'=', b'"', digit @ b'0'..=b'9', ..] | [b'>', digit @ b'0'..=b'9', ..] => Some(*digit),
        _ => None,
    });
    Orientation::from_exif(digit.into_iter().next()? - b'0')
}
