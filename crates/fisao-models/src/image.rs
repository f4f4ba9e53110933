//! Pictures to pixels, bit for bit as Pillow and transformers' `CLIPImageProcessor` do it.
//!
//! The horizontal pass of a resize comes first, as in Pillow up to 12; Pillow 13 takes the vertical one
//! first for some pictures whose height shrinks more than their width, and rounds differently there.

use image::RgbImage;
use serde::{Deserialize, Serialize};

/// How a picture is brought to size before cropping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resize {
    /// The shorter side gets this many pixels, the other keeps the aspect ratio (rounded down).
    ShortestEdge(u32),
    /// Both sides are given.
    Exact {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
}

/// Resize, centre crop, rescale, normalise.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// Bicubic resize, if any.
    pub resize: Option<Resize>,
    /// Width and height of the centre crop, if any; what lies outside the picture is black.
    pub crop: Option<(u32, u32)>,
    /// Factor on the 0–255 values.
    pub rescale: f32,
    /// Subtracted per channel after rescaling.
    pub mean: [f32; 3],
    /// Divides per channel.
    pub std: [f32; 3],
}

impl ImageProcessor {
    /// OpenAI CLIP's processing at a given side: shortest edge, centre crop, CLIP's mean and s.d.
    pub fn clip(side: u32) -> Self {
        Self {
            resize: Some(Resize::ShortestEdge(side)),
            crop: Some((side, side)),
            rescale: 1.0 / 255.0,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }

    /// Normalised pixels in channel, row, column order, with the picture's size `(width, height)`
    /// after resize and crop.
    pub fn process(&self, picture: &RgbImage) -> (Vec<f32>, (u32, u32)) {
        let resized = match self.resize {
            None => picture.clone(),
            Some(Resize::Exact { width, height }) => bicubic(picture, width, height),
            Some(Resize::ShortestEdge(side)) => {
                let (width, height) = picture.dimensions();
                let scaled = |long: u32, short: u32| {
                    (u64::from(side) * u64::from(long) / u64::from(short)) as u32
                };
                if width <= height {
                    bicubic(picture, side, scaled(height, width))
                } else {
                    bicubic(picture, scaled(width, height), side)
                }
            }
        };
        let cropped = match self.crop {
            Some((width, height)) => centre_crop(&resized, width, height),
            None => resized,
        };
        (self.normalise(&cropped), cropped.dimensions())
    }

    fn normalise(&self, picture: &RgbImage) -> Vec<f32> {
        let (width, height) = picture.dimensions();
        let mut values = Vec::with_capacity((width * height * 3) as usize);
        for channel in 0..3 {
            values.extend(picture.pixels().map(|pixel| {
                (f32::from(pixel.0[channel]) * self.rescale - self.mean[channel])
                    / self.std[channel]
            }));
        }
        values
    }
}

/// Centre crop with transformers' rounding; a smaller picture is padded with black.
fn centre_crop(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    if picture.dimensions() == (width, height) {
        return picture.clone();
    }
    let (full_width, full_height) = (i64::from(picture.width()), i64::from(picture.height()));
    let offset = |full: i64, part: u32| (full - i64::from(part)).div_euclid(2);
    let (left, top) = (offset(full_width, width), offset(full_height, height));
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (i64::from(x) + left, i64::from(y) + top);
        if (0..full_width).contains(&x) && (0..full_height).contains(&y) {
            *picture.get_pixel(x as u32, y as u32)
        } else {
            image::Rgb([0, 0, 0])
        }
    })
}

/// Bits of the fixed-point filter weights in Pillow's 8-bit resampling.
const PRECISION: u32 = 32 - 8 - 2;

/// The source pixels of one output pixel and their fixed-point weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Pillow's `Image.resize(BICUBIC)`: separable, antialiased, 8-bit between the passes.
pub fn bicubic(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (source_width, source_height) = picture.dimensions();
    if (source_width, source_height) == (width, height) {
        return picture.clone();
    }
    let horizontal = taps(source_width, width);
    let vertical = taps(source_height, height);
    let pixel = |source: &RgbImage, taps: &Taps, at: &dyn Fn(u32) -> (u32, u32)| {
        let mut sums = [1_i32 << (PRECISION - 1); 3];
        for (index, &weight) in taps.weights.iter().enumerate() {
            let (x, y) = at((taps.first + index) as u32);
            let value = source.get_pixel(x, y).0;
            for (sum, value) in sums.iter_mut().zip(value) {
                *sum += i32::from(value) * weight;
            }
        }
        image::Rgb(sums.map(|sum| (sum >> PRECISION).clamp(0, 255) as u8))
    };
    let wide = if source_width == width {
        picture.clone()
    } else {
        RgbImage::from_fn(width, source_height, |x, y| {
            pixel(picture, &horizontal[x as usize], &|column| (column, y))
        })
    };
    if source_height == height {
        return wide;
    }
    RgbImage::from_fn(width, height, |x, y| pixel(&wide, &vertical[y as usize], &|row| (x, row)))
}

fn taps(source: u32, target: u32) -> Vec<Taps> {
    let scale = f64::from(source) / f64::from(target);
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    (0..target)
        .map(|index| {
            let centre = (f64::from(index) + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(source as usize);
            let raw: Vec<f64> =
                (first..last).map(|at| cubic((at as f64 - centre + 0.5) / stretch)).collect();
            let total: f64 = raw.iter().sum();
            let fixed = f64::from(1_u32 << PRECISION);
            let weights = raw.iter().map(|w| (w / total * fixed).round() as i32).collect();
            Taps { first, weights }
        })
        .collect()
}

/// The Keys cubic with a = −0.5.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}
