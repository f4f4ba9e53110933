//! Images that a model sees whole and in tiles.

use std::fmt::Debug;

use fisao_images::resample::{Filter, resize};
use image::{Rgb, RgbImage, imageops};
use serde::{Deserialize, Serialize};

use super::ImageProcessor;

/// How an image becomes several of the processor's output size. Each family has its own.
pub trait TileLayout: Debug + Send + Sync {
    /// The image as it is shown whole, then its tiles.
    fn tiles(&self, image: &RgbImage, processor: &ImageProcessor) -> Vec<RgbImage>;

    /// The resolutions that an image may be brought to before it is cut, where these are a list.
    fn resolutions(&self) -> Option<&[Resolution]> {
        None
    }
}

/// Layouts are the same where they say the same of themselves.
impl PartialEq for dyn TileLayout {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// The tiles of LLaVA-NeXT and LLaVA-OneVision: of several resolutions the one that fits best, black bars around the image.
///
/// Paper: Li et al. 2024, arXiv 2408.03326, §3.2. Reference: transformers' `LlavaNextImageProcessor` and
/// `LlavaOnevisionImageProcessor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BestResolution {
    /// Each is a multiple of the [output size](ImageProcessor::output_size); at least one.
    pub resolutions: Vec<Resolution>,
}

impl TileLayout for BestResolution {
    fn tiles(&self, image: &RgbImage, processor: &ImageProcessor) -> Vec<RgbImage> {
        let whole = processor.whole(image);
        let resolution = Resolution::best(&self.resolutions, image.dimensions());
        let tiles = cut(image, resolution, whole.dimensions(), processor.filter);
        std::iter::once(whole).chain(tiles).collect()
    }

    fn resolutions(&self) -> Option<&[Resolution]> {
        Some(&self.resolutions)
    }
}

/// A size that images may be brought to before they are cut into tiles, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// From top to bottom.
    pub height: u32,
    /// From left to right.
    pub width: u32,
}

impl Resolution {
    /// The one of `resolutions` that keeps most pixels of an image `(width, height)`, and of several the
    /// one that wastes fewest of its own.
    ///
    /// # Panics
    /// `resolutions` is empty.
    pub fn best(resolutions: &[Self], (width, height): (u32, u32)) -> Self {
        let judged = resolutions.iter().map(|&resolution| {
            let scale = resolution.scale((width, height));
            let scaled = |side: u32| (f64::from(side) * scale) as u64;
            let whole = u64::from(width) * u64::from(height);
            let kept = (scaled(width) * scaled(height)).min(whole);
            let wasted = u64::from(resolution.width) * u64::from(resolution.height) - kept;
            (kept, wasted, resolution)
        });
        let better = |best: (u64, u64, Self), next: (u64, u64, Self)| {
            if next.0 > best.0 || (next.0 == best.0 && next.1 < best.1) { next } else { best }
        };
        judged.reduce(better).expect("a list of resolutions is never empty").2
    }

    /// What brings an image to the largest size that fits.
    fn scale(self, (width, height): (u32, u32)) -> f64 {
        let (across, down) = self.scales((width, height));
        across.min(down)
    }

    fn scales(self, (width, height): (u32, u32)) -> (f64, f64) {
        (f64::from(self.width) / f64::from(width), f64::from(self.height) / f64::from(height))
    }

    /// Width and height of an image that fills this resolution one way and keeps its aspect ratio.
    fn fitted(self, (width, height): (u32, u32)) -> (u32, u32) {
        let (across, down) = self.scales((width, height));
        let scaled = |side: u32, scale: f64| (f64::from(side) * scale).ceil() as u32;
        if across < down {
            (self.width, scaled(height, across).min(self.height))
        } else {
            (scaled(width, down).min(self.width), self.height)
        }
    }
}

/// Brings an image to a resolution, black bars around it, and cuts that into tiles `(width, height)`,
/// row by row.
fn cut(
    image: &RgbImage,
    resolution: Resolution,
    (width, height): (u32, u32),
    filter: Filter,
) -> Vec<RgbImage> {
    let (fitted_width, fitted_height) = resolution.fitted(image.dimensions());
    let fitted = resize(image, fitted_width, fitted_height, filter);
    let mut canvas = RgbImage::from_pixel(resolution.width, resolution.height, Rgb([0; 3]));
    let (left, top) =
        ((resolution.width - fitted_width) / 2, (resolution.height - fitted_height) / 2);
    imageops::replace(&mut canvas, &fitted, left.into(), top.into());
    let (rows, columns) = (resolution.height / height, resolution.width / width);
    let corners = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    corners
        .map(|(row, column)| {
            imageops::crop_imm(&canvas, column * width, row * height, width, height).to_image()
        })
        .collect()
}
