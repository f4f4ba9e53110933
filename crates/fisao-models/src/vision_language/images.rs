//! Images on their way into a model: pixels on a device, and the image tokens made of them.

use std::ops::Range;

use burn::tensor::{Device, Tensor};

use crate::image::PixelValues;
use crate::parameters::from_floats;
use crate::vision::{VisionOutput, VisionTower};

/// Most tiles that a tower sees at once.
const TILES: usize = 32;

/// Pixels of several images on a device.
#[derive(Debug, Clone)]
pub struct ImageBatch {
    /// `[Σ tiles, 3, height, width]`, the whole of each image before its tiles.
    pub(super) pixels: Tensor<4>,
    /// Tiles of each image.
    pub(super) tiles: Vec<usize>,
    /// Width and height of each image before it was prepared.
    pub(super) sizes: Vec<(u32, u32)>,
    /// What each image is looked at for, where the image encoder reads it: ids of its own tokenizer. Else empty.
    pub(super) instructions: Vec<Vec<u32>>,
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
        let pixels = from_floats(values, shape, device);
        Self { pixels, tiles, sizes, instructions: Vec::new() }
    }

    /// The same with the instruction of each image, for an [image encoder that reads it](super::FamilyConfig::reads_instructions);
    /// ids of that encoder's tokenizer. Others ignore it.
    ///
    /// # Panics
    /// There are not as many as images.
    #[must_use]
    pub fn with_instructions(self, instructions: Vec<Vec<u32>>) -> Self {
        let images = self.tiles.len();
        assert!(instructions.len() == images, "{images} images, {} texts", instructions.len());
        Self { instructions, ..self }
    }

    /// The whole of each image: `[images, 3, height, width]`.
    pub fn whole(&self) -> Tensor<4> {
        if self.pixels.dims()[0] == self.tiles.len() {
            return self.pixels.clone();
        }
        let whole = self.wholes().map(|at| self.pixels.clone().narrow(0, at, 1));
        Tensor::cat(whole.collect(), 0)
    }

    /// Where the whole of each image stands among the tiles.
    fn wholes(&self) -> impl Iterator<Item = usize> {
        self.tiles.iter().scan(0, |next, tiles| Some(std::mem::replace(next, *next + tiles)))
    }

    /// Runs the first `depth` layers of a tower on all tiles, a few at a time, and brings their states `[tiles, positions, width]` into
    /// the decoder's space `[tiles · tokens, hidden]`; if `output` is asked for, with the states of the whole of each image. `connect` is
    /// told which tiles it is given.
    pub(super) fn through_tower(
        &self,
        tower: &VisionTower,
        depth: usize,
        output: bool,
        connect: impl Fn(Tensor<3>, Range<usize>) -> Tensor<2>,
    ) -> (Tensor<2>, Option<VisionOutput>) {
        let count = self.pixels.dims()[0];
        let (mut parts, mut wholes) = (Vec::new(), Vec::new());
        for first in (0..count).step_by(TILES) {
            let end = count.min(first + TILES);
            let pixels = self.pixels.clone().narrow(0, first, end - first);
            let states = tower.hidden_states(pixels, depth);
            if output {
                let within: Vec<usize> =
                    self.wholes().filter(|whole| (first..end).contains(whole)).collect();
                if within.len() == end - first {
                    wholes.push(states.clone());
                } else {
                    let one = |whole: usize| states.clone().narrow(0, whole - first, 1);
                    wholes.extend(within.into_iter().map(one));
                }
            }
            parts.push(connect(states, first..end));
        }
        let output = output.then(|| VisionOutput { states: joined(wholes), depth });
        (joined(parts), output)
    }
}

/// Tensors one after the other; one alone is not copied.
fn joined<const D: usize>(mut parts: Vec<Tensor<D>>) -> Tensor<D> {
    if parts.len() == 1 { parts.swap_remove(0) } else { Tensor::cat(parts, 0) }
}

/// Images that are seen whole: `[images, 3, height, width]`.
impl From<Tensor<4>> for ImageBatch {
    fn from(pixels: Tensor<4>) -> Self {
        let [count, _, height, width] = pixels.dims();
        let size = (width as u32, height as u32);
        Self { pixels, tiles: vec![1; count], sizes: vec![size; count], instructions: Vec::new() }
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
