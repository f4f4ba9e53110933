//! What vision-language families differ in: how many tokens an image takes, where they stand, and what makes them.

use std::fmt::Debug;

use burn::tensor::Device;
use fisao_cuda::CudaError;
use serde::{Deserialize, Serialize};

use super::images::{ImageBatch, ImageFeatures};
use crate::card_part::{ImageMemory, LeftOnCpu, SharedDriver};
use crate::image::{ImageProcessor, ProcessorMismatch};
use crate::linear::LinearVisitor;
use crate::llama::LlamaConfig;
use crate::parameters::ParameterMut;
use crate::text::TextError;
use crate::vision::{VisionConfig, VisionOutput, VisionTower};
use crate::weights::{WeightError, WeightSource};

/// Token ids that generation and training have to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenIds {
    /// Placeholder that image features replace. Where an image stands before the text it is never embedded, and may lie behind the
    /// vocabulary.
    #[serde(rename = "image_token_id")]
    pub image: u32,
    /// First token of a prompt.
    #[serde(rename = "bos_token_id")]
    pub bos: u32,
    /// Token that ends a response.
    #[serde(rename = "eos_token_id")]
    pub eos: u32,
    /// Other tokens at which generation stops, such as the end of a turn.
    #[serde(default, rename = "stop_token_ids")]
    pub stop: Vec<u32>,
    /// Padding.
    #[serde(rename = "pad_token_id")]
    pub pad: u32,
}

impl TokenIds {
    /// Whether generation stops at a token.
    pub fn ends(&self, token: u32) -> bool {
        token == self.eos || self.stop.contains(&token)
    }
}

/// Where an image stands in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImagePlace {
    /// Where the text has its placeholder.
    InText,
    /// Before the text and its first special token; the text has no placeholder.
    BeforeText,
}

/// Where among an image's tokens those stand that show the whole of it row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeImageGrid {
    /// The first of them.
    pub first: usize,
    /// Rows.
    pub rows: usize,
    /// Tokens of a row.
    pub columns: usize,
}

/// A family by its configuration: sizes, ids and the layout of images in a prompt.
pub trait FamilyConfig: Debug {
    /// The `model_type` of its `config.json`.
    fn model_type(&self) -> &'static str;

    /// The decoder.
    fn decoder(&self) -> &LlamaConfig;

    /// Mutable [`decoder`](Self::decoder).
    fn decoder_mut(&mut self) -> &mut LlamaConfig;

    /// Token ids.
    fn tokens(&self) -> &TokenIds;

    /// Number of tokens that an image `(width, height)` takes in the decoder.
    fn image_tokens(&self, image: (u32, u32)) -> usize;

    /// Whether image tokens depend on the size that an image had before it was prepared, and not on its pixels alone.
    fn reads_original_size(&self) -> bool {
        false
    }

    /// Where among the tokens of an image `(width, height)` those are that show the whole of it in a grid; `None` where no token has a
    /// place in the image.
    fn whole_image_grid(&self, image: (u32, u32)) -> Option<WholeImageGrid>;

    /// The image tower, where it is one that a contrastive model may share.
    fn vision(&self) -> Option<&VisionConfig>;

    /// What an image becomes, for people: "576 image tokens of layer -2".
    fn image_description(&self) -> String;

    /// Whether images are prepared as the model takes them.
    ///
    /// # Errors
    /// [`ProcessorMismatch`] says what does not fit.
    fn check_processor(&self, processor: &ImageProcessor) -> Result<(), ProcessorMismatch>;

    /// Loads what makes image tokens; the decoder is loaded behind it.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    fn load_image_encoder(
        &self,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Box<dyn ImageEncoder>, WeightError>;

    /// What stands for an image `(width, height)` in a prompt: as many placeholders as it has [tokens](Self::image_tokens), and
    /// whatever else the family has around them.
    ///
    /// # Errors
    /// The tokenizer lacks something that the image needs.
    fn image_prompt(&self, image: (u32, u32)) -> Result<Vec<u32>, TextError> {
        Ok(vec![self.tokens().image; self.image_tokens(image)])
    }

    /// Where an image stands in a prompt.
    fn image_place(&self) -> ImagePlace {
        ImagePlace::InText
    }

    /// Whether the family was trained on prompts that show several images.
    fn shows_several_images(&self) -> bool {
        false
    }

    /// Replaces the single image placeholder in `ids` by the [prompt](Self::image_prompt) of an image `(width, height)`. A prompt
    /// that already holds exactly as many placeholders, if more than one, is returned as it is.
    ///
    /// # Errors
    /// [`TextError::ImagePlaceholders`] when there is none or another number.
    fn expand_image_token(&self, ids: &[u32], image: (u32, u32)) -> Result<Vec<u32>, TextError> {
        self.expand_image_tokens(ids, &[image])
    }

    /// The same for several images `(width, height)`, in the order of their placeholders.
    ///
    /// # Errors
    /// [`TextError::ImagePlaceholders`] when there are not as many as images.
    fn expand_image_tokens(
        &self,
        ids: &[u32],
        images: &[(u32, u32)],
    ) -> Result<Vec<u32>, TextError> {
        let placeholder = self.tokens().image;
        let found = ids.iter().filter(|&&id| id == placeholder).count();
        if found == images.len() {
            let mut images = images.iter();
            let mut expanded = Vec::with_capacity(ids.len());
            for &id in ids {
                let image = if id == placeholder { images.next() } else { None };
                match image {
                    Some(&image) => expanded.extend(self.image_prompt(image)?),
                    None => expanded.push(id),
                }
            }
            return Ok(expanded);
        }
        if found == images.iter().map(|&image| self.image_tokens(image)).sum::<usize>() {
            return Ok(ids.to_vec());
        }
        Err(TextError::ImagePlaceholders { found, needed: images.len() })
    }
}

/// Makes image tokens of pixels: image tower and what brings its states into the decoder's space.
pub trait ImageEncoder: Debug + Send + Sync {
    /// A copy that shares its tensors.
    fn boxed_clone(&self) -> Box<dyn ImageEncoder>;

    /// Image tokens; and, if `output` is asked for, how far the whole of each image has come through the
    /// [`tower`](Self::tower).
    ///
    /// # Errors
    /// Those of the card's driver.
    ///
    /// # Panics
    /// The images have not as many tiles as the model looks at, or `output` is asked of an encoder without a tower.
    fn encode(
        &self,
        images: ImageBatch,
        output: bool,
    ) -> Result<(ImageFeatures, Option<VisionOutput>), CudaError>;

    /// The image tower, where it is one that a contrastive model may share; frozen.
    fn tower(&self) -> Option<&VisionTower>;

    /// Copies to a card what it computes; the rest, which is returned, stays on the CPU.
    ///
    /// # Errors
    /// Those of [`VisionLanguageModel::use_card_for_images`](super::VisionLanguageModel::use_card_for_images).
    fn use_card(&mut self, driver: &SharedDriver) -> Result<Vec<LeftOnCpu>, CudaError>;

    /// What the copies on a card take of it, with so many tiles at work, whose instructions have so many tokens at most.
    fn card_memory(&self, tiles: usize, instruction: usize) -> ImageMemory;

    /// Visits all weights under their canonical names behind `prefix`.
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>));

    /// Visits what comes behind the image tower.
    fn visit_connector_mut(
        &mut self,
        prefix: &str,
        visitor: &mut dyn FnMut(&str, ParameterMut<'_>),
    );

    /// Visits every linear layer under its canonical name, in a fixed order.
    fn visit_linears_mut(&mut self, visitor: &mut LinearVisitor<'_>);
}

impl Clone for Box<dyn ImageEncoder> {
    fn clone(&self) -> Self {
        self.boxed_clone()
    }
}
