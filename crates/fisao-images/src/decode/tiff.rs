//! TIFF files, of which the first image is read, as Pillow reads them.
//!
//! Written from Adobe's TIFF 6.0 and the description of `BigTIFF`. Read are grey, palettes, RGB and CMYK, of 1 to 16 bits where the
//! standard has them, with and without alpha, in strips or tiles, samples side by side or in planes of their own; uncompressed
//! or by `PackBits`, LZW, Deflate or JPEG. Whatever else a file may hold is named in the error. (The `tiff` crate reads neither
//! palettes nor reversed bits, and its JPEG decoder rounds differently.)

mod chunks;
mod directory;
mod form;
mod lzw;
mod samples;

use std::io::{BufRead, Seek};

use image::RgbImage;

use self::directory::{Directory, tag};
use self::form::Form;
use super::{DecodeError, check_pixels, exif, turned, xmp_orientation};

/// Decodes a file.
pub(super) fn decode(mut data: impl BufRead + Seek) -> Result<RgbImage, DecodeError> {
    let directory = Directory::read(&mut data)?;
    let form = form(&directory, &mut data)?;
    let levels = chunks::read(&form, &mut data)?;
    let image = samples::image(&form, levels);
    let orientation = match directory.value(tag::ORIENTATION, &mut data) {
        Some((kind, value)) => exif::orientation_of(kind, &value, directory.is_little()),
        None => None,
    };
    let orientation = orientation.or_else(|| {
        let (_, document) = directory.value(tag::XMP, &mut data)?;
        xmp_orientation(&document)
    });
    Ok(turned(image, orientation))
}

/// Width and height of a file that can be decoded, by its header.
pub(super) fn size(mut data: impl BufRead + Seek) -> Result<(u32, u32), DecodeError> {
    let directory = Directory::read(&mut data)?;
    let form = form(&directory, &mut data)?;
    Ok((form.width, form.height))
}

fn form(directory: &Directory, data: &mut (impl BufRead + Seek)) -> Result<Form, DecodeError> {
    let (width, height) = form::size(directory, data)?;
    check_pixels(width, height)?;
    Form::read(directory, data)
}
