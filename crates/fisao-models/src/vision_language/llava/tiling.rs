//! How the image tokens of LLaVA-NeXT and LLaVA-OneVision are put together from tiles: the tokens of the whole image,
//! then those of its tiles, row by row over the image, each row ended by a learned vector. LLaVA-OneVision thins the latter out
//! where they are too many.
//!
//! Paper: Li et al. 2024, arXiv 2408.03326, §3.2. Reference: transformers' `LlavaNextModel.pack_image_features` and
//! `LlavaOnevisionModel.pack_image_features`.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::image::Resolution;
use crate::parameters::{from_floats, indices};

/// Tokens of the tiles may be this many times more in each direction than there is room for before they
/// are thinned out.
const TOLERATED: f64 = 1.1;

/// How images are cut into tiles, and how many tokens these may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TilingConfig {
    /// Sizes that an image may be brought to; multiples of the tower's input.
    pub resolutions: Vec<Resolution>,
    /// So many tiles' worth of tokens an image may take beside those of the whole of it, as in LLaVA-OneVision; as many as it has
    /// in LLaVA-NeXT.
    #[serde(default)]
    pub max_tiles: Option<usize>,
}

/// Where an image's tokens are among those of its tiles. Sizes are in tokens, rows before columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenGrid {
    /// Tokens along the side of a tile.
    side: usize,
    /// Number of tiles.
    tiles: (usize, usize),
    /// Black bars on either side.
    bars: (usize, usize),
    /// What the image takes between the bars.
    shown: (usize, usize),
    /// What that is thinned out to.
    size: (usize, usize),
}

impl TilingConfig {
    /// So many tiles' worth of tokens an image takes at most beside those of the whole of it, for tiles of `pixels` a side.
    pub(super) fn most_tiles(&self, pixels: usize) -> usize {
        let tiles = |resolution: &Resolution| {
            (resolution.height as usize / pixels) * (resolution.width as usize / pixels)
        };
        self.max_tiles.unwrap_or_else(|| self.resolutions.iter().map(tiles).max().unwrap_or(0))
    }

    /// The grid of an image `(width, height)`, for tiles of `pixels` and `side` tokens a side.
    pub(super) fn grid(&self, pixels: usize, side: usize, image: (u32, u32)) -> TokenGrid {
        let best = Resolution::best(&self.resolutions, image);
        let tiles = (best.height as usize / pixels, best.width as usize / pixels);
        let (rows, columns) = (tiles.0 * side, tiles.1 * side);
        let (width, height) = (f64::from(image.0), f64::from(image.1));
        let bars = if width / height > columns as f64 / rows as f64 {
            let taken = rounded(height * (columns as f64 / width));
            ((rows - taken) / 2, 0)
        } else {
            let taken = rounded(width * (rows as f64 / height));
            (0, (columns - taken) / 2)
        };
        let shown = (rows - 2 * bars.0, columns - 2 * bars.1);
        let size = self.max_tiles.map_or(shown, |tiles| thinned_out(shown, tiles * side * side));
        TokenGrid { side, tiles, bars, shown, size }
    }
}

/// What tokens (rows, columns) are thinned out to where there is only so much room.
fn thinned_out(shown: (usize, usize), room: usize) -> (usize, usize) {
    let excess = ((shown.0 * shown.1) as f64 / room as f64).sqrt();
    let thinned = |tokens: usize| (tokens as f64 / excess).floor() as usize;
    if excess > TOLERATED { (thinned(shown.0), thinned(shown.1)) } else { shown }
}

/// A length as the reference rounds it: to 7 decimals first, so that a whole number that missed itself by
/// a rounding error is met.
fn rounded(length: f64) -> usize {
    let decimals = format!("{length:.7}");
    decimals.parse::<f64>().expect("a formatted number is a number") as usize
}

impl TokenGrid {
    /// Number of tiles, the whole image included.
    pub(super) fn tiles(&self) -> usize {
        1 + self.tiles.0 * self.tiles.1
    }

    /// Number of image tokens, those of the whole image and the ends of rows included.
    pub(super) fn tokens(&self) -> usize {
        self.side * self.side + self.size.0 * (self.size.1 + 1)
    }

    /// Puts the tokens of an image together.
    ///
    /// # Shapes
    /// `tiles`: `[tiles · side², hidden]`, the whole image first; `newline`: `[hidden]` → `[tokens, hidden]`
    pub(super) fn pack(&self, tiles: Tensor<2>, newline: &Tensor<1>) -> Tensor<2> {
        let device = tiles.device();
        let newline = newline.clone().unsqueeze();
        let whole = self.side * self.side;
        let (rows, columns) = self.size;
        let (source, grid): (_, Vec<usize>) = if self.size == self.shown {
            let rows = 0..rows;
            let places =
                rows.flat_map(|row| (0..columns).map(move |column| self.place(row, column)));
            (tiles, places.collect())
        } else {
            let overview = tiles.clone().narrow(0, 0, whole);
            let thinned = Tensor::cat(vec![overview, self.thinned(&tiles)], 0);
            (thinned, (whole..whole + rows * columns).collect())
        };
        let end = source.dims()[0];
        let mut order: Vec<i64> = (0..whole as i64).collect();
        for row in 0..rows {
            order.extend(grid[row * columns..][..columns].iter().map(|&at| at as i64));
            order.push(end as i64);
        }
        Tensor::cat(vec![source, newline], 0).select(0, indices(order, &device))
    }

    /// Position of a token between the bars among those of all tiles.
    fn place(&self, row: usize, column: usize) -> usize {
        let (row, column) = (row + self.bars.0, column + self.bars.1);
        let tile = 1 + row / self.side * self.tiles.1 + column / self.side;
        (tile * self.side + row % self.side) * self.side + column % self.side
    }

    /// Bilinear interpolation between the centres of tokens, as PyTorch's without aligned corners:
    /// `[rows · columns, hidden]`.
    fn thinned(&self, tiles: &Tensor<2>) -> Tensor<2> {
        let device = tiles.device();
        let (rows, columns) = self.size;
        let down = neighbours(self.shown.0, rows);
        let across = neighbours(self.shown.1, columns);
        let corner = |second_row: bool, second_column: bool| {
            let mut places = Vec::with_capacity(rows * columns);
            let mut weights = Vec::with_capacity(rows * columns);
            for row in &down {
                for column in &across {
                    let (row, row_weight) = row.side(second_row);
                    let (column, column_weight) = column.side(second_column);
                    places.push(self.place(row, column) as i64);
                    weights.push(row_weight * column_weight);
                }
            }
            let weights: Tensor<2> = from_floats(weights, [rows * columns, 1], &device);
            tiles.clone().select(0, indices(places, &device)) * weights
        };
        corner(false, false) + corner(false, true) + corner(true, false) + corner(true, true)
    }
}

/// The two positions between which one lies, and the weight of the second.
struct Neighbours {
    first: usize,
    second: usize,
    weight: f32,
}

impl Neighbours {
    fn side(&self, second: bool) -> (usize, f32) {
        if second { (self.second, self.weight) } else { (self.first, 1.0 - self.weight) }
    }
}

/// For each of `to` positions spread over `from`, its neighbours.
fn neighbours(from: usize, to: usize) -> Vec<Neighbours> {
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|at| {
            let centre = (scale * (at as f32 + 0.5) - 0.5).max(0.0);
            let first = (centre as usize).min(from - 1);
            let second = (first + 1).min(from - 1);
            Neighbours { first, second, weight: centre - first as f32 }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(
        resolutions: &[(u32, u32)],
        max_tiles: Option<usize>,
        (pixels, side): (usize, usize),
        image: (u32, u32),
    ) -> TokenGrid {
        let resolutions =
            resolutions.iter().map(|&(height, width)| Resolution { height, width }).collect();
        TilingConfig { resolutions, max_tiles }.grid(pixels, side, image)
    }

    /// LLaVA-OneVision's own resolutions.
    fn published() -> Vec<(u32, u32)> {
        (1..=6).flat_map(|rows| (1..=6).map(move |columns| (384 * rows, 384 * columns))).collect()
    }

    #[test]
    fn image_token_count_matches_transformers() {
        // `LlavaOnevisionProcessor._get_number_of_features` of transformers 5.24, width before height.
        let expected = [
            ((640, 480), 2929),
            ((480, 640), 2943),
            ((384, 384), 1485),
            ((1, 1), 1485),
            ((2000, 30), 1218),
            ((3000, 4000), 7332),
            ((2304, 2304), 7371),
            ((333, 7), 757),
            ((1, 5000), 783),
            ((427, 640), 2727),
        ];
        for (image, tokens) in expected {
            let found = grid(&published(), Some(9), (384, 27), image).tokens();
            assert_eq!(found, tokens, "{image:?}");
        }
    }

    #[test]
    fn a_photograph_takes_as_many_tokens_as_in_transformers_llava_next() {
        // `LlavaNextProcessor._get_number_of_features` of transformers 5.24 without the class token, width before height.
        let resolutions = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];
        let expected = [
            ((640, 480), 2340),
            ((480, 640), 2352),
            ((336, 336), 1176),
            ((1, 1), 1176),
            ((2000, 30), 722),
            ((3000, 4000), 2352),
            ((2304, 2304), 2928),
            ((333, 7), 674),
            ((1, 5000), 600),
            ((427, 640), 2160),
            ((336, 999), 2376),
            ((1000, 667), 2144),
        ];
        for (image, tokens) in expected {
            let found = grid(&resolutions, None, (336, 24), image);
            assert_eq!(found.tokens(), tokens, "{image:?}");
            assert_eq!(found.size, found.shown, "{image:?}");
        }
    }
    #[test]
    fn padding_bars_are_excluded_from_the_token_grid() {
        let wide = grid(&[(384, 768)], Some(9), (384, 27), (900, 300));
        assert_eq!((wide.bars, wide.shown, wide.size), ((4, 0), (19, 54), (19, 54)));
        let tall = grid(&[(384, 384)], Some(9), (384, 27), (100, 400));
        assert_eq!((tall.bars, tall.shown), ((0, 10), (27, 7)));
    }

    #[test]
    fn lengths_just_below_an_integer_are_rounded_up() {
        assert_eq!((rounded(26.999_999_999), rounded(26.999_999), rounded(27.4)), (27, 26, 27));
    }
}
