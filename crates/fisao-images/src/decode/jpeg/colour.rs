//! What the components mean, and their conversion to RGB: YCbCr in libjpeg's 16-bit fixed point, four
//! inks as Pillow does it, which takes every file with them for an inverted one, as Adobe writes them.

use image::RgbImage;

use super::JpegError;
use super::frame::Frame;
use super::segments::Segments;
use super::upsampling::Rows;

/// What the components of a file mean.
#[derive(Clone, Copy)]
pub(in super::super) enum Colour {
    Grey,
    Rgb,
    /// Luma and two colour differences.
    YCbCr,
    /// Four inks.
    Cmyk,
    /// Three inks as luma and differences, and black.
    Ycck,
}

impl Colour {
    /// Components that it takes.
    pub(super) fn components(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk | Self::Ycck => 4,
        }
    }

    /// Libjpeg's rules: a JFIF segment is believed first, then Adobe's, then the components' names.
    pub(super) fn of(frame: &Frame, segments: &Segments<'_>) -> Result<Self, JpegError> {
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        Ok(match (ids.len(), segments.adobe) {
            (1, _) => Self::Grey,
            (3, adobe)
                if !segments.jfif && adobe.map_or(ids == b"RGB", |transform| transform == 0) =>
            {
                Self::Rgb
            }
            (3, _) => Self::YCbCr,
            (4, None | Some(0)) => Self::Cmyk,
            (4, Some(_)) => Self::Ycck,
            _ => return Err(JpegError::Unsupported("other than one, three or four components")),
        })
    }
}

/// The whole image.
pub(super) fn image(frame: &Frame, colour: Colour) -> Result<RgbImage, JpegError> {
    let mut components = frame
        .components
        .iter()
        .map(|component| Rows::new(component, frame))
        .collect::<Result<Vec<_>, _>>()?;
    let mut pixels = vec![0; frame.width * frame.height * 3];
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for (y, row) in pixels.chunks_exact_mut(frame.width * 3).enumerate() {
                convert(colour, &mut components, y, row.as_chunks_mut().0);
            }
        },
    );
    let (width, height) = (frame.width as u32, frame.height as u32);
    Ok(RgbImage::from_raw(width, height, pixels).expect("three bytes per pixel"))
}

#[inline(always)]
fn convert(colour: Colour, components: &mut [Rows<'_>], y: usize, pixels: &mut [[u8; 3]]) {
    match (colour, components) {
        (Colour::Grey, [grey]) => {
            for (pixel, &value) in pixels.iter_mut().zip(grey.get(y)) {
                *pixel = [value; 3];
            }
        }
        (Colour::Rgb, [r, g, b]) => {
            let values = r.get(y).iter().zip(g.get(y)).zip(b.get(y));
            for (pixel, ((&r, &g), &b)) in pixels.iter_mut().zip(values) {
                *pixel = [r, g, b];
            }
        }
        (Colour::YCbCr, [luma, blue, red]) => {
            let values = luma.get(y).iter().zip(blue.get(y)).zip(red.get(y));
            for (pixel, ((&luma, &blue), &red)) in pixels.iter_mut().zip(values) {
                *pixel = rgb(luma, blue, red);
            }
        }
        (Colour::Cmyk, [c, m, y_, k]) => {
            let values = c.get(y).iter().zip(m.get(y)).zip(y_.get(y)).zip(k.get(y));
            for (pixel, (((&c, &m), &y), &k)) in pixels.iter_mut().zip(values) {
                *pixel = printed([255 - c, 255 - m, 255 - y], k);
            }
        }
        (Colour::Ycck, [luma, blue, red, k]) => {
            let values = luma.get(y).iter().zip(blue.get(y)).zip(red.get(y)).zip(k.get(y));
            for (pixel, (((&luma, &blue), &red), &k)) in pixels.iter_mut().zip(values) {
                // The transform is one of inks' complements, and the inks are stored inverted.
                *pixel = printed(rgb(luma, blue, red), k);
            }
        }
        _ => unreachable!("the number of components decides on the colour"),
    }
}

/// YCbCr of JFIF to RGB.
#[inline(always)]
fn rgb(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    // 1.402, 1.772, 0.34414 and 0.71414 in units of 2⁻¹⁶.
    const HALF: i32 = 1 << 15;
    let (luma, blue, red) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
    let clipped = |value: i32| value.clamp(0, 255) as u8;
    [
        clipped(luma + ((91_881 * red + HALF) >> 16)),
        clipped(luma + ((-22_554 * blue - 46_802 * red + HALF) >> 16)),
        clipped(luma + ((116_130 * blue + HALF) >> 16)),
    ]
}

/// Inks and the complement of black to RGB: every ink takes its fraction of what black lets through.
#[inline(always)]
pub(in super::super) fn printed(inks: [u8; 3], white: u8) -> [u8; 3] {
    inks.map(|ink| {
        let product = u32::from(ink) * u32::from(white) + 128;
        // Division by 255, rounded.
        white - (((product >> 8) + product) >> 8) as u8
    })
}
