//! Images on their way into a model: pixels on a device, and the image tokens made of them.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use fisao_cuda::CudaError;

use crate::image::PixelValues;
use crate::parameters::from_floats;
use crate::vision::{VisionOutput, VisionTower};

/// Most tiles that a tower sees at once.
pub(super) const TILES: usize = 32;

/// Pixels of several images on a device.
#[derive(Debug, Clone)]
pub struct ImageBatch {
    /// `[Σ tiles, 3, height, width]`, the whole of each image before its tiles; of images that differ in size, which are seen whole,
    /// one `[1, 3, height, width]` each.
    pixels: Vec<Tensor<4>>,
    /// Tiles of each image.
    pub(super) tiles: Vec<usize>,
    /// Width and height of each image before it was prepared.
    pub(super) sizes: Vec<(u32, u32)>,
    /// What each image is looked at for, where the image encoder reads it: ids of its own tokenizer. Else empty.
    pub(super) instructions: Vec<Vec<u32>>,
    /// Images that each prompt shows, where some show several; else empty.
    pub(super) shown: Vec<usize>,
}

impl ImageBatch {
    /// Puts what a processor made on a device.
    ///
    /// # Panics
    /// There is no image, or images in tiles differ in the size of these.
    pub fn new<'a>(images: impl IntoIterator<Item = &'a PixelValues>, device: &Device) -> Self {
        let images: Vec<&PixelValues> = images.into_iter().collect();
        let tiles: Vec<usize> = images.iter().map(|image| image.tiles()).collect();
        let sizes = images.iter().map(|image| image.original_size).collect();
        let tile_size = images.first().expect("at least one image").tile_size;
        let on_device = |values, count, (width, height): (u32, u32)| {
            from_floats(values, [count, 3, height as usize, width as usize], device)
        };
        let pixels = if images.iter().all(|image| image.tile_size == tile_size) {
            let values = images.iter().map(|image| image.values.as_slice()).collect::<Vec<_>>();
            vec![on_device(values.concat(), tiles.iter().sum(), tile_size)]
        } else {
            assert!(tiles.iter().all(|&tiles| tiles == 1), "tiles of one processor have one size");
            let one = |image: &&PixelValues| on_device(image.values.clone(), 1, image.tile_size);
            images.iter().map(one).collect()
        };
        Self { pixels, tiles, sizes, instructions: Vec::new(), shown: Vec::new() }
    }

    /// All tiles, `[Σ tiles, 3, height, width]`.
    ///
    /// # Panics
    /// They differ in size.
    fn stacked(&self) -> &Tensor<4> {
        let [all] = &self.pixels[..] else { panic!("this image encoder takes images of one size") };
        all
    }

    /// The images on their own, `[1, 3, height, width]`, for a model that sees them whole and in their own sizes.
    ///
    /// # Panics
    /// They are in tiles.
    pub(super) fn each(&self) -> Vec<Tensor<4>> {
        assert!(self.tiles.iter().all(|&tiles| tiles == 1), "this model sees images whole");
        let mut each = Vec::with_capacity(self.tiles.len());
        for pixels in &self.pixels {
            each.extend((0..pixels.dims()[0]).map(|at| pixels.clone().narrow(0, at, 1)));
        }
        each
    }

    /// The same with the instruction of each image, for an image encoder that reads it, so that image tokens depend on the prompt;
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

    /// The same for prompts some of which show several: the next `shown[i]` images, in their order, are those of prompt `i`, whose
    /// [features stand for one image](ImageFeatures::shown_together).
    ///
    /// # Panics
    /// They are not as many as there are images.
    #[must_use]
    pub fn shown_together(self, shown: Vec<usize>) -> Self {
        let (images, taken) = (self.tiles.len(), shown.iter().sum::<usize>());
        assert!(images == taken, "{images} images, of which {taken} are shown");
        Self { shown, ..self }
    }

    /// Width and height of each image before it was prepared.
    pub fn sizes(&self) -> &[(u32, u32)] {
        &self.sizes
    }

    /// The whole of each image: `[images, 3, height, width]`.
    ///
    /// # Panics
    /// The images differ in size.
    pub fn whole(&self) -> Tensor<4> {
        let pixels = self.stacked();
        if pixels.dims()[0] == self.tiles.len() {
            return pixels.clone();
        }
        let whole = self.wholes().map(|at| pixels.clone().narrow(0, at, 1));
        Tensor::cat(whole.collect(), 0)
    }

    /// Where the whole of each image stands among the tiles.
    fn wholes(&self) -> impl Iterator<Item = usize> {
        self.tiles.iter().scan(0, |next, tiles| Some(std::mem::replace(next, *next + tiles)))
    }

    /// Runs the first `depth` layers of a tower on all tiles, a few at a time, and brings their states `[tiles, positions, width]` into
    /// the decoder's space `[tiles · tokens, hidden]`; if `output` is asked for, with the states of the whole of each image. `connect` is
    /// told which tiles it is given.
    ///
    /// # Errors
    /// Those of the tower's card, and of `connect`.
    pub(super) fn through_tower(
        &self,
        tower: &VisionTower,
        depth: usize,
        output: bool,
        connect: impl Fn(Tensor<3>, Range<usize>) -> Result<Tensor<2>, CudaError>,
    ) -> Result<(Tensor<2>, Option<VisionOutput>), CudaError> {
        let all = self.stacked();
        let count = all.dims()[0];
        let (mut parts, mut wholes) = (Vec::new(), Vec::new());
        for first in (0..count).step_by(TILES) {
            let end = count.min(first + TILES);
            let pixels = all.clone().narrow(0, first, end - first);
            let states = tower.hidden_states(pixels, depth)?;
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
            parts.push(connect(states, first..end)?);
        }
        let output = output.then(|| VisionOutput { states: joined(wholes), depth });
        Ok((joined(parts), output))
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
        let (tiles, sizes) = (vec![1; count], vec![size; count]);
        let (instructions, shown) = (Vec::new(), Vec::new());
        Self { pixels: vec![pixels], tiles, sizes, instructions, shown }
    }
}

/// Projected image tokens of several images, which may differ in number. What stands for an image here may be several that one prompt
/// shows, [put together](Self::shown_together).
#[derive(Debug, Clone)]
pub struct ImageFeatures {
    /// `[Σ tokens, hidden]`, one image after the other.
    tokens: Tensor<2>,
    /// Tokens of each image.
    counts: Vec<usize>,
    /// Rows and columns of each image's tokens, where a decoder has positions for them; else empty. Several for images that are shown
    /// together.
    grids: Vec<Vec<[usize; 2]>>,
    /// `[Σ tokens, hidden]` each, in most models none.
    deep: Vec<Tensor<2>>,
}

impl ImageFeatures {
    /// Tokens of images one after the other, `[Σ counts, hidden]`.
    ///
    /// # Panics
    /// The counts do not add up to the tokens.
    pub fn new(tokens: Tensor<2>, counts: Vec<usize>) -> Self {
        let (there, counted) = (tokens.dims()[0], counts.iter().sum::<usize>());
        assert!(there == counted, "{there} image tokens, but {counted} were counted");
        Self { tokens, counts, grids: Vec::new(), deep: Vec::new() }
    }

    /// The same with rows and columns of each image's tokens, or of none.
    ///
    /// # Panics
    /// There are not as many as images, or one has other tokens.
    #[must_use]
    pub fn with_grids(self, grids: Vec<[usize; 2]>) -> Self {
        self.with_grids_together(grids.into_iter().map(|grid| vec![grid]).collect())
    }

    fn with_grids_together(self, grids: Vec<Vec<[usize; 2]>>) -> Self {
        let filled = |grids: &Vec<[usize; 2]>| {
            grids.iter().map(|[rows, columns]| rows * columns).sum::<usize>()
        };
        assert!(
            grids.is_empty() || grids.iter().map(filled).eq(self.counts.iter().copied()),
            "grids are of all tokens"
        );
        Self { grids, ..self }
    }

    /// The same with what is added at the image's places [behind the decoder's first layers](crate::llama::Pass::deep).
    ///
    /// # Panics
    /// Any of it is not as large as the tokens are.
    #[must_use]
    pub fn with_deep(self, deep: Vec<Tensor<2>>) -> Self {
        let fits = deep.iter().all(|deep| deep.dims() == self.tokens.dims());
        assert!(fits, "deep features are as many as tokens");
        Self { deep, ..self }
    }

    /// All images' tokens: `[Σ tokens, hidden]`.
    pub fn tokens(&self) -> &Tensor<2> {
        &self.tokens
    }

    /// Number of tokens of each image.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Rows and columns of an image's tokens, or of each of several that are shown together, where the decoder has positions for them;
    /// else empty.
    pub fn grids(&self, image: usize) -> &[[usize; 2]] {
        self.grids.get(image).map_or(&[], Vec::as_slice)
    }

    /// For each of the decoder's first layers what is added behind it, `[Σ tokens, hidden]`; in most models nothing.
    pub fn deep(&self) -> &[Tensor<2>] {
        &self.deep
    }

    /// Those of several images together.
    ///
    /// # Panics
    /// There is none, or they are of different models.
    pub fn cat(parts: Vec<Self>) -> Self {
        let counts = parts.iter().flat_map(|part| part.counts.iter().copied()).collect();
        let grids = parts.iter().flat_map(|part| part.grids.iter().cloned()).collect();
        let layers = parts.first().expect("at least one").deep.len();
        let of_layer = |layer: usize| {
            joined(parts.iter().map(|part| part.deep[layer].clone()).collect::<Vec<_>>())
        };
        let deep = (0..layers).map(of_layer).collect();
        let tokens = parts.into_iter().map(|part| part.tokens).collect::<Vec<_>>();
        Self::new(joined(tokens), counts).with_grids_together(grids).with_deep(deep)
    }

    /// Those of images that prompts show together: the next `shown[i]` images, in their order, stand for image `i` of the result.
    ///
    /// # Panics
    /// They are not as many as there are images.
    #[must_use]
    pub fn shown_together(self, shown: &[usize]) -> Self {
        let (images, taken) = (self.counts.len(), shown.iter().sum::<usize>());
        assert!(images == taken, "{images} images, of which {taken} are shown");
        let groups = |first: &mut usize, count: &usize| {
            let group = *first..*first + count;
            *first = group.end;
            Some(group)
        };
        let groups: Vec<Range<usize>> = shown.iter().scan(0, groups).collect();
        let counts = groups.iter().map(|group| self.counts[group.clone()].iter().sum()).collect();
        let grids = match &self.grids[..] {
            [] => Vec::new(),
            grids => groups.iter().map(|group| grids[group.clone()].concat()).collect(),
        };
        Self { counts, grids, ..self }
    }

    /// Those of each image on its own.
    pub fn split(&self) -> Vec<Self> {
        let mut first = 0;
        let one = |(image, &count): (usize, &usize)| {
            let own = |all: &Tensor<2>| all.clone().narrow(0, first, count);
            let (tokens, deep) = (own(&self.tokens), self.deep.iter().map(own).collect());
            first += count;
            let grids = self.grids.get(image).into_iter().cloned().collect();
            Self::new(tokens, vec![count]).with_grids_together(grids).with_deep(deep)
        };
        self.counts.iter().enumerate().map(one).collect()
    }
}
