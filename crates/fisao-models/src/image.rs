//! Images to pixels as transformers' `CLIPImageProcessor`, `SiglipImageProcessor`, `LlavaImageProcessor`,
//! `LlavaNextImageProcessor`, `LlavaOnevisionImageProcessor` and `Qwen2VLImageProcessor` do it with Pillow 13, to the bit up to the
//! normalisation.

mod pixel_budget;
mod tiles;

use std::ops::Range;
use std::sync::Arc;

pub use fisao_images::resample::Filter;
use fisao_images::resample::{Canvas, resize_part};
use image::RgbImage;
use serde::{Deserialize, Serialize};

pub use pixel_budget::PixelBudget;
pub use tiles::{BestResolution, Resolution, TileLayout};

/// How an image is brought to size before cropping.
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
    /// Whole squares of pixels, as many as a budget allows.
    Budget(PixelBudget),
}

/// What an [`ImageProcessor`] makes of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelValues {
    /// Normalised, `[tiles, 3, height, width]`. The first tile is the whole image; only processors that
    /// cut images into [`tiles`](ImageProcessor::tiles) make more.
    pub values: Vec<f32>,
    /// Width and height of a tile.
    pub tile_size: (u32, u32),
    /// Width and height of the image itself.
    pub original_size: (u32, u32),
}

impl PixelValues {
    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.values.len() / (3 * self.tile_size.0 as usize * self.tile_size.1 as usize)
    }
}

/// Pad, resize, centre crop, rescale, normalise.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// Colour of the bars that first make the image square, if it is to be.
    pub pad: Option<[u8; 3]>,
    /// Size before cropping, if it changes.
    pub resize: Option<Resize>,
    /// How it is changed.
    pub filter: Filter,
    /// Width and height of the centre crop, if any; what lies outside the image is black.
    pub crop: Option<(u32, u32)>,
    /// Factor on the 0–255 values.
    pub rescale: f32,
    /// Subtracted per channel after rescaling.
    pub mean: [f32; 3],
    /// Divides per channel.
    pub std: [f32; 3],
    /// How the image is cut, where tiles of it follow the whole.
    pub tiles: Option<Arc<dyn TileLayout>>,
}

/// Image processing that yields something else than the model takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessorMismatch {
    /// Pixels.
    #[error(
        "images are prepared as {}×{} pixels, but the vision tower takes {}×{}",
        found.0, found.1, expected.0, expected.1
    )]
    Size {
        /// Width and height of what is prepared.
        found: (u32, u32),
        /// Of what the tower takes.
        expected: (u32, u32),
    },
    /// No tiles.
    #[error(
        "images are prepared whole, but the model looks at tiles of them too: preprocessor_config.json \
         has no `image_grid_pinpoints`"
    )]
    Whole,
    /// Tiles.
    #[error(
        "images are cut into other tiles than the model looks at: `image_grid_pinpoints` of \
         preprocessor_config.json are not those of config.json"
    )]
    Tiles,
    /// Squares of pixels and their number.
    #[error(
        "images are not brought to squares of {} pixels, {} to {} pixels in all, as the model takes them: `patch_size` and \
         `merge_size` of preprocessor_config.json are not those of config.json",
        expected.factor, expected.least, expected.most
    )]
    Budget {
        /// What the model takes.
        expected: PixelBudget,
    },
}

impl ImageProcessor {
    /// OpenAI CLIP's processing at a given side: shortest edge, centre crop, CLIP's mean and s.d.
    pub fn clip(side: u32) -> Self {
        Self {
            pad: None,
            resize: Some(Resize::ShortestEdge(side)),
            filter: Filter::Bicubic,
            crop: Some((side, side)),
            rescale: 1.0 / 255.0,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            tiles: None,
        }
    }

    /// Normalised pixels of an image.
    pub fn process(&self, image: &RgbImage) -> PixelValues {
        let tiles = match &self.tiles {
            Some(layout) => layout.tiles(image, self),
            None => vec![self.whole(image)],
        };
        PixelValues {
            values: tiles.iter().flat_map(|tile| self.normalise(tile)).collect(),
            tile_size: tiles[0].dimensions(),
            original_size: image.dimensions(),
        }
    }

    /// The whole image, brought to size. Nothing is computed that the crop takes away again, so that the memory this takes
    /// does not depend on how much longer one side is than the other.
    pub(crate) fn whole(&self, image: &RgbImage) -> RgbImage {
        let canvas = match self.pad {
            Some(colour) => Canvas::square(image, colour),
            None => Canvas::bare(image),
        };
        let size = self.size_before_crop(canvas.size());
        let (width, height) = self.crop.unwrap_or((side(size.0), side(size.1)));
        let (across, down) = (Crop::centred(size.0, width), Crop::centred(size.1, height));
        let part = resize_part(&canvas, size, across.kept.clone(), down.kept.clone(), self.filter);
        if part.dimensions() == (width, height) {
            return part;
        }
        let mut cropped = RgbImage::new(width, height);
        image::imageops::replace(&mut cropped, &part, across.margin, down.margin);
        cropped
    }

    /// Width and height that the whole of an image of this size is brought to, nothing of it being
    /// computed.
    pub fn output_size(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let side = width.max(height);
        let padded = if self.pad.is_some() { (side, side) } else { (width, height) };
        self.crop.unwrap_or_else(|| {
            let (width, height) = self.size_before_crop(padded);
            (self::side(width), self::side(height))
        })
    }

    /// The part of an image of this size that is seen whole: its left, upper, right and lower edge as fractions of the image's width
    /// and height. Below 0 and above 1 is what the image is padded with.
    pub fn region(&self, (width, height): (u32, u32)) -> [f64; 4] {
        let longest = width.max(height);
        let canvas = if self.pad.is_some() { (longest, longest) } else { (width, height) };
        let before = self.size_before_crop(canvas);
        let edges = |image: u32, canvas: u32, before: u64, crop: Option<u32>| {
            let part = crop.map_or(1.0, |crop| f64::from(crop) / before as f64);
            let padding = f64::from(canvas - image) / 2.0;
            [0.5 - part / 2.0, 0.5 + part / 2.0]
                .map(|edge| (edge * f64::from(canvas) - padding) / f64::from(image))
        };
        let [left, right] = edges(width, canvas.0, before.0, self.crop.map(|crop| crop.0));
        let [top, bottom] = edges(height, canvas.1, before.1, self.crop.map(|crop| crop.1));
        [left, top, right, bottom]
    }

    /// Whether images come out as squares of this side, pixels.
    ///
    /// # Errors
    /// [`ProcessorMismatch::Size`] says how they come out.
    pub fn check_size(&self, side: u32) -> Result<(), ProcessorMismatch> {
        let (found, expected) = (self.output_size((4, 3)), (side, side));
        if found == expected { Ok(()) } else { Err(ProcessorMismatch::Size { found, expected }) }
    }

    /// The whole of an image as [`process`](Self::process) brought it to size: what the model is shown.
    pub fn image(&self, pixels: &PixelValues) -> RgbImage {
        let (width, height) = pixels.tile_size;
        let plane = width as usize * height as usize;
        RgbImage::from_fn(width, height, |x, y| {
            let at = y as usize * width as usize + x as usize;
            image::Rgb(std::array::from_fn(|channel| {
                let value = pixels.values[channel * plane + at];
                let level = (value * self.std[channel] + self.mean[channel]) / self.rescale;
                level.round().clamp(0.0, 255.0) as u8
            }))
        })
    }

    /// Of an image whose sides differ very much, the longer one is longer than any image's.
    fn size_before_crop(&self, (width, height): (u32, u32)) -> (u64, u64) {
        let scaled =
            |side: u32, long: u32, short: u32| u64::from(side) * u64::from(long) / u64::from(short);
        match self.resize {
            None => (width.into(), height.into()),
            Some(Resize::Exact { width, height }) => (width.into(), height.into()),
            Some(Resize::Budget(budget)) => budget.size((width, height)),
            Some(Resize::ShortestEdge(side)) if width <= height => {
                (side.into(), scaled(side, height, width))
            }
            Some(Resize::ShortestEdge(side)) => (scaled(side, width, height), side.into()),
        }
    }

    fn normalise(&self, image: &RgbImage) -> Vec<f32> {
        let (pixels, _) = image.as_raw().as_chunks::<3>();
        let mut values = Vec::with_capacity(pixels.len() * 3);
        for channel in 0..3 {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let levels: [f32; 256] =
                std::array::from_fn(|level| (level as f32 * self.rescale - mean) / std);
            values.extend(pixels.iter().map(|pixel| levels[usize::from(pixel[channel])]));
        }
        values
    }
}

/// One direction of a centre crop, with transformers' rounding.
struct Crop {
    /// Pixels that are kept.
    kept: Range<u64>,
    /// Black pixels before them, where the image is smaller than the crop.
    margin: i64,
}

impl Crop {
    fn centred(full: u64, part: u32) -> Self {
        // Negative where the image is smaller, and then a position inside the crop.
        let offset = (i128::from(full) - i128::from(part)).div_euclid(2);
        let start = u64::try_from(offset).unwrap_or(0);
        let margin = u64::try_from(-offset).unwrap_or(0);
        let length = (u64::from(part) - margin).min(full - start);
        Self { kept: start..start + length, margin: margin as i64 }
    }
}

/// A side of an image that is really made.
fn side(length: u64) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
