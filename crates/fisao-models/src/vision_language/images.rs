//! Images on their way into a model: pixels on a device, and the image tokens made of them.

use burn::tensor::{Device, Tensor};

use crate::image::PixelValues;
use crate::parameters::from_floats;

/// Pixels of several images on a device.
#[derive(Debug, Clone)]
pub struct ImageBatch {
    /// `[Σ tiles, 3, height, width]`, the whole of each image before its tiles.
    pub(super) pixels: Tensor<4>,
    /// Tiles of each image.
    pub(super) tiles: Vec<usize>,
    /// Width and height of each image before it was prepared.
    pub(super) sizes: Vec<(u32, u32)>,
}

impl ImageBatch {
    /// Puts what a processor made on a device.
    ///
    /// # Panics
    /// There is no image, or their tiles differ in size.
    pub fn new<'a>(images: impl IntoIterator<Item = &'a PixelValues>, device: &Device) -> Self {
        let (mut values, mut tiles, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        let mut tile_size = None;
        for image in images {
            let known = *tile_size.get_or_insert(image.tile_size);
            assert!(known == image.tile_size, "images of one processor have tiles of one size");
            values.extend_from_slice(&image.values);
            tiles.push(image.tiles());
            sizes.push(image.original_size);
        }
        let (width, height) = tile_size.expect("at least one image");
        let shape = [tiles.iter().sum(), 3, height as usize, width as usize];
        Self { pixels: from_floats(values, shape, device), tiles, sizes }
    }

    /// The whole of each image: `[images, 3, height, width]`.
    pub fn whole(&self) -> Tensor<4> {
        if self.pixels.dims()[0] == self.tiles.len() {
            return self.pixels.clone();
        }
        let mut first = 0;
        let whole = self.tiles.iter().map(|tiles| {
            let image = self.pixels.clone().narrow(0, first, 1);
            first += tiles;
            image
        });
        Tensor::cat(whole.collect(), 0)
    }
}

/// Images that are seen whole: `[images, 3, height, width]`.
impl From<Tensor<4>> for ImageBatch {
    fn from(pixels: Tensor<4>) -> Self {
        let [count, _, height, width] = pixels.dims();
        let size = (width as u32, height as u32);
        Self { pixels, tiles: vec![1; count], sizes: vec![size; count] }
    }
}

/// Projected image tokens of several images, which may differ in number.
#[derive(Debug, Clone)]
pub struct ImageFeatures {
    /// `[Σ tokens, hidden]`, one image after the other.
    tokens: Tensor<2>,
    /// Tokens of each image.
    counts: Vec<usize>,
}

impl ImageFeatures {
    /// Tokens of images one after the other, `[Σ counts, hidden]`.
    ///
    /// # Panics
    /// The counts do not add up to the tokens.
    pub fn new(tokens: Tensor<2>, counts: Vec<usize>) -> Self {
        let (there, counted) = (tokens.dims()[0], counts.iter().sum::<usize>());
        assert!(there == counted, "{there} image tokens, but {counted} were counted");
        Self { tokens, counts }
    }

    /// All images' tokens: `[Σ tokens, hidden]`.
    pub fn tokens(&self) -> &Tensor<2> {
        &self.tokens
    }

    /// Number of tokens of each image.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Those of several images together.
    ///
    /// # Panics
    /// There is none.
    pub fn cat(parts: Vec<Self>) -> Self {
        let counts = parts.iter().flat_map(|part| part.counts.iter().copied()).collect();
        let tokens = parts.into_iter().map(|part| part.tokens).collect();
        Self::new(Tensor::cat(tokens, 0), counts)
    }

    /// Those of each image on its own.
    pub fn split(&self) -> Vec<Self> {
        let mut first = 0;
        let one = |&count: &usize| {
            let tokens = self.tokens.clone().narrow(0, first, count);
            first += count;
            Self::new(tokens, vec![count])
        };
        self.counts.iter().map(one).collect()
    }
}
