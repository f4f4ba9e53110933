//! LLaVA: a CLIP or SigLIP image tower, a two-layer projector and a Llama or Qwen2 decoder.
//! LLaVA-OneVision is the same with tiles of the image beside the whole of it.
//!
//! Papers: Liu et al. 2023, arXiv 2310.03744; Li et al. 2024, arXiv 2408.03326. Reference: transformers'
//! `LlavaForConditionalGeneration` and `LlavaOnevisionForConditionalGeneration`; tensor names mirror the
//! layout of its published checkpoints.

mod images;
mod linear_layers;
mod tiling;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::linear::Linear;
use crate::llama::{Llama, LlamaConfig};
use crate::parameters::{ParameterMut, Parameters, indices};
use crate::text::TextError;
use crate::vision::{VisionConfig, VisionOutput, VisionTower};
use crate::weights::{Init, WeightError, WeightSource, widened};

pub use images::{ImageBatch, ImageFeatures};
pub use tiling::TilingConfig;
use tiling::TokenGrid;

/// Name of the vector that ends a row of tokens.
const IMAGE_NEWLINE: &str = "image_newline";
/// Most tiles that the tower sees at once.
const TILES: usize = 32;

/// Which of the tower's positions become image tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureSelect {
    /// All but the first, which is CLIP's class token.
    Default,
    /// All.
    Full,
}

/// Sizes and token ids of a LLaVA model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlavaConfig {
    /// Decoder.
    pub text: LlamaConfig,
    /// Image tower.
    pub vision: VisionConfig,
    /// Placeholder that image features replace.
    pub image_token_id: u32,
    /// Which hidden state of the tower is used; negative counts from the end, −2 is the one before
    /// the last layer.
    pub vision_feature_layer: i64,
    /// Which positions of it.
    pub vision_feature_select_strategy: FeatureSelect,
    /// Non-linearity between the projector's layers.
    pub projector_hidden_act: Activation,
    /// How images are cut into tiles, for a model that sees more than the whole of them.
    #[serde(default)]
    pub tiling: Option<TilingConfig>,
    /// First token of a prompt.
    pub bos_token_id: u32,
    /// Token that ends a response.
    pub eos_token_id: u32,
    /// Other tokens at which generation stops, such as the end of a turn.
    #[serde(default)]
    pub stop_token_ids: Vec<u32>,
    /// Padding.
    pub pad_token_id: u32,
}

impl LlavaConfig {
    /// Number of tokens that a tile takes before anything is left out.
    pub fn tile_tokens(&self) -> usize {
        match self.vision_feature_select_strategy {
            FeatureSelect::Default => self.vision.positions() - 1,
            FeatureSelect::Full => self.vision.positions(),
        }
    }

    /// Number of tokens that an image `(width, height)` takes in the decoder; its size matters only to
    /// models with [`tiling`](Self::tiling).
    pub fn image_tokens(&self, image: (u32, u32)) -> usize {
        self.grid(image).map_or_else(|| self.tile_tokens(), |grid| grid.tokens())
    }

    fn grid(&self, image: (u32, u32)) -> Option<TokenGrid> {
        let pixels = self.vision.image_size;
        let side = pixels / self.vision.patch_size;
        self.tiling.as_ref().map(|tiling| tiling.grid(pixels, side, image))
    }

    /// Replaces the single image placeholder in `ids` by as many as an image `(width, height)` has
    /// [tokens](Self::image_tokens). A prompt that already holds exactly that many is returned as it is.
    ///
    /// # Errors
    /// [`TextError::ImagePlaceholders`] when there is none or another number.
    pub fn expand_image_token(
        &self,
        ids: &[u32],
        image: (u32, u32),
    ) -> Result<Vec<u32>, TextError> {
        let needed = self.image_tokens(image);
        let found = ids.iter().filter(|&&id| id == self.image_token_id).count();
        if found == needed {
            return Ok(ids.to_vec());
        }
        if found != 1 {
            return Err(TextError::ImagePlaceholders { found });
        }
        let repeat = |id: u32| if id == self.image_token_id { needed } else { 1 };
        Ok(ids.iter().flat_map(|&id| std::iter::repeat_n(id, repeat(id))).collect())
    }

    /// How many layers of the tower are run.
    fn vision_depth(&self) -> usize {
        let layers = self.vision.num_hidden_layers as i64;
        let depth = if self.vision_feature_layer < 0 {
            layers + 1 + self.vision_feature_layer
        } else {
            self.vision_feature_layer
        };
        assert!(
            (0..=layers).contains(&depth),
            "vision_feature_layer {} is outside a tower of {layers} layers",
            self.vision_feature_layer
        );
        depth as usize
    }
}

/// The model.
#[derive(Debug, Clone)]
pub struct Llava {
    config: LlavaConfig,
    /// Image tower; frozen, and shared with the verifier.
    pub vision_tower: VisionTower,
    linear_1: Linear,
    linear_2: Linear,
    /// Ends a row of tiles' tokens, where there are tiles.
    image_newline: Option<Tensor<1>>,
    language_model: Llama,
}

impl Llava {
    /// Loads a model under the names of published checkpoints.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        config: LlavaConfig,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let vision = config.vision.clone();
        let tower = VisionTower::load(vision, weights, "vision_tower.vision_model", device)?;
        Self::with_vision_tower(config, tower, weights, device)
    }

    /// Loads everything but the image tower, which is given.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn with_vision_tower(
        config: LlavaConfig,
        vision_tower: VisionTower,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let hidden = config.text.hidden_size;
        let mut linear = |part: &str, size| {
            Linear::load(weights, &format!("multi_modal_projector.{part}"), size, true, device)
        };
        let linear_1 = linear("linear_1", [config.vision.hidden_size, hidden])?;
        let linear_2 = linear("linear_2", [hidden, hidden])?;
        let image_newline = if config.tiling.is_some() {
            let init = Init::Normal { std: (hidden as f64).sqrt().recip() };
            Some(widened(weights.tensor(IMAGE_NEWLINE, &[hidden], init)?, device))
        } else {
            None
        };
        let language_model = Llama::load(config.text.clone(), weights, "language_model", device)?;
        Ok(Self { config, vision_tower, linear_1, linear_2, image_newline, language_model })
    }

    /// Sizes and token ids.
    pub fn config(&self) -> &LlavaConfig {
        &self.config
    }

    /// The decoder.
    pub fn language_model(&self) -> &Llama {
        &self.language_model
    }

    /// Where the decoder's weights live.
    pub fn device(&self) -> Device {
        self.language_model.device()
    }

    /// Image tokens of images, which the model sees whole or in tiles.
    ///
    /// # Panics
    /// The images have not as many tiles as the model looks at.
    pub fn image_features(&self, images: impl Into<ImageBatch>) -> ImageFeatures {
        self.features_of(images.into(), &mut |_, _| {})
    }

    /// Image tokens of images, and how far the whole of each has come through the image tower: to the layer whose
    /// states the model takes.
    ///
    /// # Panics
    /// The images have not as many tiles as the model looks at.
    pub fn image_features_and_vision_output(
        &self,
        images: impl Into<ImageBatch>,
    ) -> (ImageFeatures, VisionOutput) {
        let images = images.into();
        let mut first = 0;
        let wholes: Vec<usize> = images
            .tiles
            .iter()
            .map(|tiles| {
                first += tiles;
                first - tiles
            })
            .collect();
        let mut states = Vec::new();
        let features = self.features_of(images, &mut |first, part| {
            let end = first + part.dims()[0];
            let within = wholes.iter().filter(|&&whole| (first..end).contains(&whole));
            let within: Vec<usize> = within.map(|whole| whole - first).collect();
            if within.len() == end - first {
                states.push(part.clone());
            } else {
                states.extend(within.into_iter().map(|at| part.clone().narrow(0, at, 1)));
            }
        });
        let states = if states.len() == 1 { states.swap_remove(0) } else { Tensor::cat(states, 0) };
        (features, VisionOutput { states, depth: self.config.vision_depth() })
    }

    /// `seen` gets the tower's states of some tiles, and the number of the first.
    fn features_of(
        &self,
        images: ImageBatch,
        seen: &mut dyn FnMut(usize, &Tensor<3>),
    ) -> ImageFeatures {
        let ImageBatch { pixels, tiles, sizes } = images;
        let count = pixels.dims()[0];
        let depth = self.config.vision_depth();
        let parts = (0..count).step_by(TILES).map(|first| {
            let pixels = pixels.clone().narrow(0, first, TILES.min(count - first));
            let states = self.vision_tower.hidden_states(pixels, depth);
            seen(first, &states);
            self.project(states)
        });
        let parts: Vec<Tensor<2>> = parts.collect();
        let tokens = if parts.len() == 1 { parts[0].clone() } else { Tensor::cat(parts, 0) };
        let each = self.config.tile_tokens();
        let Some(newline) = &self.image_newline else {
            assert!(tiles.iter().all(|&tiles| tiles == 1), "this model sees images whole");
            return ImageFeatures::new(tokens, vec![each; count]);
        };
        let (mut first, mut packed, mut counts) = (0, Vec::new(), Vec::new());
        for (&size, &tiles) in sizes.iter().zip(&tiles) {
            let grid = self.config.grid(size).expect("a model with a newline has tiles");
            assert!(
                tiles == grid.tiles(),
                "an image of {size:?} pixels has {tiles} tiles, but the model looks at {}",
                grid.tiles()
            );
            let own = tokens.clone().narrow(0, first * each, tiles * each);
            packed.push(grid.pack(own, newline));
            counts.push(grid.tokens());
            first += tiles;
        }
        ImageFeatures::new(Tensor::cat(packed, 0), counts)
    }

    /// Runs the projector: the tower's states `[tiles, positions, width]` → `[tiles · tokens, hidden]`.
    fn project(&self, states: Tensor<3>) -> Tensor<2> {
        let [tiles, _, width] = states.dims();
        let kept = self.config.tile_tokens();
        let states = match self.config.vision_feature_select_strategy {
            FeatureSelect::Full => states,
            FeatureSelect::Default => states.narrow(1, 1, kept),
        };
        let x = self.linear_1.forward(states.reshape([tiles * kept, width]));
        self.linear_2.forward(self.config.projector_hidden_act.forward(x))
    }

    /// Embeds padded rows of ids, image placeholders replaced by features in order.
    ///
    /// Placeholders beyond as many as the image has features are what a sampled response wrote: they
    /// show nothing and are embedded like any other token, as they were while sampling.
    ///
    /// # Shapes
    /// * `rows`: `batch` rows of equal length, each with at least as many placeholders as its image has
    ///   tokens
    /// * `images`: which image of `features` each row shows
    /// * result: `[batch · length, hidden]`
    pub fn embed(
        &self,
        rows: &[Vec<u32>],
        images: &[usize],
        features: &ImageFeatures,
    ) -> Tensor<2> {
        let device = self.device();
        let mut ids = Vec::new();
        let length = rows.first().map_or(0, Vec::len);
        let mut order = Vec::with_capacity(rows.len() * length);
        // Features stand behind the text in what rows are gathered from.
        let shown: usize = images.iter().map(|&image| features.counts()[image]).sum();
        let text_count = (rows.len() * length).saturating_sub(shown);
        let firsts: Vec<usize> = features
            .counts()
            .iter()
            .scan(text_count, |next, count| Some(std::mem::replace(next, *next + count)))
            .collect();
        for (row, &image) in rows.iter().zip(images) {
            let tokens = features.counts()[image];
            let mut next = 0;
            for &id in row {
                if id == self.config.image_token_id && next < tokens {
                    order.push((firsts[image] + next) as i64);
                    next += 1;
                } else {
                    order.push(ids.len() as i64);
                    ids.push(i64::from(id));
                }
            }
            assert!(
                next == tokens,
                "a row holds {next} image placeholders but its image has {tokens} features"
            );
        }
        let text = self.language_model.embed(indices(ids, &device));
        Tensor::cat(vec![text, features.tokens().clone()], 0).select(0, indices(order, &device))
    }

    /// Visits projector and decoder, not the image tower.
    pub fn visit_text_side_mut(&mut self, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.linear_1.visit_mut("multi_modal_projector.linear_1", visitor);
        self.linear_2.visit_mut("multi_modal_projector.linear_2", visitor);
        if let Some(newline) = &mut self.image_newline {
            visitor(IMAGE_NEWLINE, ParameterMut::Vector(newline));
        }
        self.language_model.visit_mut("language_model", visitor);
    }
}

impl Parameters for Llava {
    /// Visits the base weights; the adapter is visited by [`Llava::visit_lora_mut`].
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.vision_tower.visit_mut(&format!("{prefix}vision_tower.vision_model"), visitor);
        self.linear_1.visit_mut(&format!("{prefix}multi_modal_projector.linear_1"), visitor);
        self.linear_2.visit_mut(&format!("{prefix}multi_modal_projector.linear_2"), visitor);
        if let Some(newline) = &mut self.image_newline {
            visitor(&format!("{prefix}{IMAGE_NEWLINE}"), ParameterMut::Vector(newline));
        }
        self.language_model.visit_mut(&format!("{prefix}language_model"), visitor);
    }
}
