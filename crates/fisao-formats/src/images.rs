//! Image files as the three colour channels models see, the way transformers' `load_image` and
//! PIL's `convert("RGB")` turn them out.
//!
//! The format is told by the content, never by the name. EXIF orientation is applied, transparency is
//! dropped, grey and palettes are expanded, and of 16-bit channels the high byte is kept.
//!
//! Pixels are PIL's to the bit but for two kinds of file: 16-bit grey, which PIL clips to white instead
//! of scaling it, and BMP of 16 bits a pixel, whose 5- and 6-bit channels differ by up to 1 of 255.

mod exif;
mod gif;
mod jpeg;
mod png;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, RgbImage};

use self::jpeg::JpegError;
use crate::FormatError;

/// Pixels of the largest picture, the number at which PIL refuses a decompression bomb.
const MAX_PIXELS: usize = 178_956_970;

/// Extensions that a folder is searched for, lower case.
pub const IMAGE_EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "bmp", "gif"];

/// Opens an image file.
///
/// # Errors
/// The file is absent, is not an image (the error says what it looks like), or breaks off.
pub fn open_image(path: &Path) -> Result<RgbImage, FormatError> {
    if path.is_dir() {
        return Err(FormatError::NotAnImage { path: path.into(), content: "is a folder" });
    }
    let file = File::open(path).map_err(|error| FormatError::reading("image", path, error))?;
    decode(path, BufReader::new(file))
}

/// Decodes an image file that is in memory; `name` is what errors call it.
///
/// # Errors
/// The bytes are not an image (the error says what they look like), or break off.
pub fn decode_image(name: &str, bytes: &[u8]) -> Result<RgbImage, FormatError> {
    decode(Path::new(name), Cursor::new(bytes))
}

fn decode(path: &Path, data: impl BufRead + Seek) -> Result<RgbImage, FormatError> {
    let failed = |error| FormatError::io("read", path, error);
    let reader = ImageReader::new(data).with_guessed_format().map_err(failed)?;
    let format = reader.format();
    let damaged = |reason: String| FormatError::DamagedImage {
        path: path.to_owned(),
        format: format.map_or_else(String::new, |format| format!("{format:?}").to_uppercase()),
        reason,
    };
    let picture = match format {
        None => {
            let mut data = reader.into_inner();
            data.rewind().map_err(failed)?;
            let content = describe(data).map_err(failed)?;
            return Err(FormatError::NotAnImage { path: path.into(), content });
        }
        Some(ImageFormat::Jpeg) => {
            let bytes = whole(reader.into_inner()).map_err(failed)?;
            jpeg::decode(&bytes).map(|jpeg| upright(jpeg.pixels, &jpeg.exif, &jpeg.xmp)).map_err(
                |error| match error {
                    JpegError::Unsupported(_) => FormatError::UnsupportedImage {
                        path: path.to_owned(),
                        format: "JPEG".to_owned(),
                        reason: error.to_string(),
                    },
                    _ => damaged(error.to_string()),
                },
            )?
        }
        Some(ImageFormat::Gif) => {
            let mut data = reader.into_inner();
            data.rewind().map_err(failed)?;
            gif::decode(data).map_err(|error| damaged(error.to_string()))?
        }
        Some(ImageFormat::Png) => {
            let bytes = whole(reader.into_inner()).map_err(failed)?;
            let reader = ImageReader::with_format(Cursor::new(&bytes), ImageFormat::Png);
            let picture = reader.into_decoder().and_then(DynamicImage::from_decoder);
            let picture = into_rgb(picture.map_err(|error| damaged(error.to_string()))?);
            let png::Metadata { exif, xmp } = png::metadata(&bytes);
            upright(picture, &exif, &xmp)
        }
        Some(_) => decode_other(reader).map_err(|error| damaged(error.to_string()))?,
    };
    if picture.is_empty() {
        return Err(damaged("it has no pixels".to_owned()));
    }
    Ok(picture)
}

/// All of a file, from its beginning.
fn whole(mut data: impl Read + Seek) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    data.rewind()?;
    data.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn decode_other(reader: ImageReader<impl BufRead + Seek>) -> Result<RgbImage, ImageError> {
    let mut decoder = reader.into_decoder()?;
    // A file whose metadata are damaged is still a picture, as it is for PIL.
    let exif = decoder.exif_metadata().ok().flatten().unwrap_or_default();
    let xmp = decoder.xmp_metadata().ok().flatten().unwrap_or_default();
    let image = DynamicImage::from_decoder(decoder)?;
    Ok(upright(into_rgb(image), &exif, &xmp))
}

/// Turns a picture as its metadata say, of which EXIF goes first.
fn upright(picture: RgbImage, exif: &[u8], xmp: &[u8]) -> RgbImage {
    let orientation = exif::orientation(exif).or_else(|| xmp_orientation(xmp));
    let mut image = DynamicImage::ImageRgb8(picture);
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

/// The image files of a folder (not of its subfolders), sorted by name.
///
/// # Errors
/// The folder is absent, or holds no file with one of [`IMAGE_EXTENSIONS`].
pub fn list_images(folder: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let entries = fs::read_dir(folder)
        .map_err(|error| FormatError::reading("image folder", folder, error))?;
    let mut images = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| FormatError::io("read", folder, error))?.path();
        if has_image_extension(&path) && path.is_file() {
            images.push(path);
        }
    }
    if images.is_empty() {
        let extensions = IMAGE_EXTENSIONS.map(|extension| format!("*.{extension}")).join(", ");
        return Err(FormatError::NoImages { path: folder.to_owned(), extensions });
    }
    images.sort_unstable();
    Ok(images)
}

fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| IMAGE_EXTENSIONS.contains(&extension.as_str()))
}

fn into_rgb(image: DynamicImage) -> RgbImage {
    let high_byte = |value: u16| (value >> 8) as u8;
    match image {
        DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_)
        | DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_) => {
            let wide = image.into_rgb16();
            let (width, height) = wide.dimensions();
            let bytes = wide.into_raw().into_iter().map(high_byte).collect();
            RgbImage::from_raw(width, height, bytes).expect("three bytes per pixel, as before")
        }
        other => other.into_rgb8(),
    }
}

/// What data that are no image look like, by their first bytes.
fn describe(data: impl Read) -> io::Result<&'static str> {
    const LOOKED_AT: u64 = 512;
    let mut start = Vec::new();
    data.take(LOOKED_AT).read_to_end(&mut start)?;
    let signatures: [(&[u8], &str); 7] = [
        (b"%PDF", "is a PDF document"),
        (b"PK\x03\x04", "is a ZIP archive"),
        (b"\x1f\x8b", "is a gzip archive"),
        (b"version https://git-lfs", "is a Git LFS pointer, not the file it stands for"),
        (b"<!DOCTYPE html", "is a web page"),
        (b"<html", "is a web page"),
        (b"<svg", "is an SVG drawing"),
    ];
    if start.is_empty() {
        return Ok("is empty");
    }
    if let Some((_, name)) = signatures.iter().find(|(bytes, _)| start.starts_with(bytes)) {
        return Ok(name);
    }
    // The last character may be cut by the limit, which is not the file's fault.
    let text = match str::from_utf8(&start) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && error.valid_up_to() > 0,
    };
    if text && !start.contains(&0) {
        Ok("is text")
    } else {
        Ok("is in no format that is read (PNG, JPEG, WebP, BMP, GIF)")
    }
}
