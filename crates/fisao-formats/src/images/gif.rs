//! The first picture of a GIF, as Pillow shows it: what it leaves uncovered of the screen has the
//! colour of its transparent entry, or of the first.

use std::io::{Error, Read};

use gif::{ColorOutput, DecodeOptions, DecodingError};
use image::{Rgb, RgbImage};

use super::MAX_PIXELS;

/// Decodes the first picture.
pub(super) fn decode(data: impl Read) -> Result<RgbImage, DecodingError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let mut decoder = options.read_info(data)?;
    let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let frame = decoder.read_next_frame()?.ok_or(Error::other("it has no picture"))?;
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    // A picture beyond the screen enlarges it.
    let width = width.max(left + u32::from(frame.width));
    let height = height.max(top + u32::from(frame.height));
    if width as usize * height as usize > MAX_PIXELS {
        return Err(Error::other("it has more than 178 956 970 pixels").into());
    }
    let palette = frame.palette.as_deref().or(global.as_deref());
    let colour = |index: u8| match palette {
        None => Rgb([index; 3]),
        Some(palette) => {
            Rgb(palette.as_chunks().0.get(usize::from(index)).copied().unwrap_or_default())
        }
    };
    let mut screen = RgbImage::from_pixel(width, height, colour(frame.transparent.unwrap_or(0)));
    let rows = frame.buffer.chunks_exact(usize::from(frame.width).max(1));
    for (y, row) in rows.enumerate() {
        for (x, &index) in row.iter().enumerate() {
            screen.put_pixel(left + x as u32, top + y as u32, colour(index));
        }
    }
    Ok(screen)
}
