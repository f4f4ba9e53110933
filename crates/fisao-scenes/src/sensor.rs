//! What a poor camera does to an image: blur and noise.

use image::{Rgb, RgbImage};

/// Sets the noise of a sensor apart from the grain of the background that its seed is taken from.
const SENSOR: u64 = 0x5E25_0A00_0000_0000;

/// Blurs with the weights 1, 2, 1 along rows and columns; beyond the border lies the border's own colour.
pub(crate) fn blur(image: &RgbImage) -> RgbImage {
    let along = |image: &RgbImage, right: u32, down: u32| {
        let (width, height) = image.dimensions();
        RgbImage::from_fn(width, height, |x, y| {
            let before = image.get_pixel(x.saturating_sub(right), y.saturating_sub(down));
            let after = image.get_pixel((x + right).min(width - 1), (y + down).min(height - 1));
            let at = image.get_pixel(x, y);
            Rgb(std::array::from_fn(|channel| {
                let [before, at, after] =
                    [before, at, after].map(|pixel| u16::from(pixel[channel]));
                ((before + 2 * at + after + 2) / 4) as u8
            }))
        })
    };
    along(&along(image, 1, 0), 0, 1)
}

/// Changes every channel of every pixel by at most `strength`, always alike for a seed.
pub(crate) fn add_noise(image: &mut RgbImage, strength: u8, seed: u32) {
    let strength = i32::from(strength);
    let mut noise = SENSOR | u64::from(seed) << 1 | 1;
    for channel in image.iter_mut() {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        let shift = (noise >> 33) as i32 % (2 * strength + 1) - strength;
        *channel = (i32::from(*channel) + shift).clamp(0, 255) as u8;
    }
}
