//! The first image of a GIF, as Pillow shows it: what it leaves uncovered of the screen has the
//! colour of its transparent entry, which is put on white, or of the first.

use std::io::Read;

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};
use image::{Rgb, RgbImage};

use super::{DecodeError, MAX_PIXELS, check_pixels};

/// Width and height of the screen, by the header; an image may enlarge it, where it is nothing, too.
pub(super) fn size(data: impl Read) -> Result<(u32, u32), DecodeError> {
    let decoder = DecodeOptions::new().read_info(data);
    let decoder = decoder.map_err(|error: DecodingError| DecodeError::damaged(&error))?;
    Ok((decoder.width().max(1).into(), decoder.height().max(1).into()))
}

/// Decodes the first image.
pub(super) fn decode(data: impl Read) -> Result<RgbImage, DecodeError> {
    let wrong = |error: DecodingError| DecodeError::damaged(&error);
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Bytes(MAX_PIXELS.try_into().expect("more than 0")));
    let mut decoder = options.read_info(data).map_err(wrong)?;
    let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    check_pixels(width, height)?;
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let mut frame = decoder
        .next_frame_info()
        .map_err(wrong)?
        .ok_or_else(|| DecodeError::Damaged("it has no image".to_owned()))?
        .clone();
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    // An image beyond the screen enlarges it.
    let width = width.max(left + u32::from(frame.width));
    let height = height.max(top + u32::from(frame.height));
    check_pixels(width, height)?;
    let mut indexes = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indexes).map_err(wrong)?;
    frame.buffer = indexes.into();
    let palette = frame.palette.as_deref().or(global.as_deref());
    let colour = |index: u8| match palette {
        _ if frame.transparent == Some(index) => Rgb([255; 3]),
        None => Rgb([index; 3]),
        Some(palette) => {
            Rgb(palette.as_chunks().0.get(usize::from(index)).copied().unwrap_or_default())
        }
    };
    let mut screen = RgbImage::from_pixel(width, height, colour(frame.transparent.unwrap_or(0)));
    let rows = frame.buffer.chunks_exact(usize::from(frame.width).max(1));
    for (y, row) in (top..).zip(rows) {
        for (x, &index) in (left..).zip(row) {
            screen.put_pixel(x, y, colour(index));
        }
    }
    Ok(screen)
}
