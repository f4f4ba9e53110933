//! How SmolVLM cuts images, and how its prompts tell the tiles apart.
//!
//! Reference: transformers' `SmolVLMImageProcessor` and `SmolVLMProcessor`.

use fisao_images::resample::resize;
use image::{RgbImage, imageops};
use serde::{Deserialize, Serialize};

use crate::image::{ImageProcessor, TileLayout};
use crate::text::TextError;

/// No side becomes longer before an image is cut, pixels.
const LONGEST: u32 = 4096;

/// Brings an image to a size, cuts it into squares and shows it whole behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitImage {
    /// Side of a tile, pixels.
    pub tile: u32,
    /// What the longer side of an image is brought to first, pixels.
    pub longest_side: u32,
    /// Whether images are cut; else they are shown whole only.
    pub splits: bool,
}

impl SplitImage {
    /// Width and height that an image `(width, height)` is brought to at first: the longer side as asked, the other one even.
    fn first_size((width, height): (u32, u32), longest: u32) -> (u32, u32) {
        let aspect = f64::from(width) / f64::from(height);
        let even = |side: f64| {
            let side = side as u32;
            (side + side % 2).max(1)
        };
        let (width, height) = if width >= height {
            (longest, even(f64::from(longest) / aspect))
        } else {
            (even(f64::from(longest) * aspect), longest)
        };
        Self::below((width, height), LONGEST)
    }

    /// The same where a side would be longer than any may be.
    fn below((width, height): (u32, u32), most: u32) -> (u32, u32) {
        let aspect = f64::from(width) / f64::from(height);
        if width >= height && width > most {
            (most, ((f64::from(most) / aspect) as u32).max(1))
        } else if height > width && height > most {
            (((f64::from(most) * aspect) as u32).max(1), most)
        } else {
            (width, height)
        }
    }

    /// Width and height in whole tiles.
    fn tiled_size(self, (width, height): (u32, u32)) -> (u32, u32) {
        let aspect = f64::from(width) / f64::from(height);
        let whole = |side: u32| side.div_ceil(self.tile).max(1) * self.tile;
        if width >= height {
            let width = whole(width);
            (width, whole((f64::from(width) / aspect) as u32))
        } else {
            let height = whole(height);
            (whole((f64::from(height) * aspect) as u32), height)
        }
    }

    /// Both sizes that an image goes through.
    fn sizes(self, image: (u32, u32)) -> [(u32, u32); 2] {
        let first = Self::first_size(image, self.longest_side);
        [first, if self.splits { self.tiled_size(first) } else { (self.tile, self.tile) }]
    }

    /// Rows and columns of tiles; (0, 0) for an image that is shown whole only.
    pub(super) fn grid(self, image: (u32, u32)) -> (usize, usize) {
        let [_, (width, height)] = self.sizes(image);
        if width <= self.tile && height <= self.tile {
            return (0, 0);
        }
        ((height / self.tile) as usize, (width / self.tile) as usize)
    }
}

impl TileLayout for SplitImage {
    fn tiles(&self, image: &RgbImage, processor: &ImageProcessor) -> Vec<RgbImage> {
        let (tile, filter) = (self.tile, processor.filter);
        let [first, tiled] = self.sizes(image.dimensions());
        // Each step rounds to whole levels, as the reference's does.
        let brought = resize(image, first.0, first.1, filter);
        let brought = resize(&brought, tiled.0, tiled.1, filter);
        if self.grid(image.dimensions()) == (0, 0) {
            return vec![brought];
        }
        let corners = (0..tiled.1)
            .step_by(tile as usize)
            .flat_map(|y| (0..tiled.0).step_by(tile as usize).map(move |x| (x, y)));
        let cut = |(x, y)| imageops::crop_imm(&brought, x, y, tile, tile).to_image();
        std::iter::once(resize(&brought, tile, tile, filter)).chain(corners.map(cut)).collect()
    }
}

/// Ids of the tokens that name tiles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TileTokens {
    /// Before and behind every tile.
    pub fence: u32,
    /// Before the whole image.
    pub whole: u32,
    /// `<row_r_col_c>`, rows and columns from 1, as far as the tokenizer has them.
    pub places: Vec<Vec<u32>>,
    /// What the tokenizer makes of a line break, which ends a row.
    pub line_break: Vec<u32>,
    /// And of two of them, which end the last row.
    pub line_breaks: Vec<u32>,
}

impl TileTokens {
    /// Tiles with their names, `shown` standing for each, and the whole image behind them.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] where the tokenizer has no name for a tile.
    pub(super) fn around(
        &self,
        (rows, columns): (usize, usize),
        shown: &[u32],
    ) -> Result<Vec<u32>, TextError> {
        let mut ids = Vec::new();
        for row in 0..rows {
            for column in 0..columns {
                let place = self.places.get(row).and_then(|places| places.get(column));
                let place = place.ok_or_else(|| {
                    let (row, column) = (row + 1, column + 1);
                    TextError::Tokenizer(format!(
                        "it has no token <row_{row}_col_{column}>, which an image of these sides needs"
                    ))
                })?;
                ids.extend([self.fence, *place]);
                ids.extend(shown);
            }
            ids.extend(if row + 1 == rows { &self.line_breaks } else { &self.line_break });
        }
        ids.extend([self.fence, self.whole]);
        ids.extend(shown);
        ids.push(self.fence);
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_resized_to_whole_tiles() {
        let split = SplitImage { tile: 36, longest_side: 108, splits: true };
        // 190 × 83: 108 × 47.2, even: 108 × 48; in tiles 108 × 72.
        assert_eq!(SplitImage::first_size((190, 83), 108), (108, 48));
        assert_eq!(split.grid((190, 83)), (2, 3));
        assert_eq!(split.grid((71, 173)), (3, 2));
        assert_eq!(SplitImage { splits: false, ..split }.grid((190, 83)), (0, 0));
        assert_eq!(SplitImage { longest_side: 36, ..split }.grid((90, 90)), (0, 0));
    }

    #[test]
    fn tile_tokens_are_written_row_by_row() {
        let tokens = TileTokens {
            fence: 1,
            whole: 2,
            places: vec![vec![11, 12], vec![21, 22]],
            line_break: vec![8],
            line_breaks: vec![9],
        };
        let ids = tokens.around((2, 1), &[7]).unwrap();
        assert_eq!(ids, [1, 11, 7, 8, 1, 21, 7, 9, 1, 2, 7, 1]);
        assert_eq!(tokens.around((0, 0), &[7]).unwrap(), [1, 2, 7, 1]);
        assert!(tokens.around((3, 1), &[7]).is_err());
    }
}
