//! Stage 1: a CLIP pair trained on clean texts with the pairwise sigmoid loss.
//!
//! Zhai et al. 2023, arXiv 2303.15343: every (image, text) pair of a batch is its own binary question,
//! `−log σ(z · (t · cos − b))` with `z = ±1`. A text about someone else's scene that happens to be true
//! here as well counts as true: the world knows. The bias `b` exists in training only; the saved model is
//! an ordinary CLIP.

use burn::tensor::{Device, Tensor, activation};
use fisao_models::clip::Clip;
use fisao_models::parameters::{
    GradientMap, ParameterMut, Parameters, collect_gradients, floats, from_floats,
};
use fisao_models::text::Tokenizer;
use fisao_models::weights::RandomWeights;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::training::{Observer, RecipeError, Stage, StageState, train};
use super::vocabularies::TokenizerFile;
use super::{RecipeConfig, image_processor};
use crate::{IMAGE_SIZE, Split, World, clean_caption, phrase};

/// Texts drawn per scene.
const TEXTS: usize = 3;

/// Probability that a text is a whole caption instead of a phrase.
const CAPTION_RATE: f64 = 0.06;

/// Starting value of the training-only bias.
const BIAS: f64 = 4.0;

/// The pair with the loss's bias.
#[derive(Clone)]
struct Pair {
    clip: Clip,
    bias: Tensor<1>,
}

impl Parameters for Pair {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.clip.visit_mut(prefix, visitor);
        visitor(&format!("{prefix}logit_bias"), ParameterMut::Scalar(&mut self.bias));
    }
}

struct Item {
    pixels: Vec<f32>,
    /// Categories in the scene.
    present: Vec<&'static str>,
    texts: Vec<(Vec<u32>, Vec<&'static str>)>,
}

struct Contrastive<'a> {
    world: &'a World,
    tokenizer: &'a dyn Tokenizer,
    seed: u64,
    device: Device,
}

/// Trains a CLIP from random weights, or goes on from `state`.
///
/// # Errors
/// [`RecipeError`]; [`RecipeError::Stopped`] when the observer asked to stop.
pub fn train_clip(
    config: &RecipeConfig,
    world: &World,
    file: &TokenizerFile,
    tokenizer: &dyn Tokenizer,
    device: &Device,
    state: Option<StageState>,
    observer: &mut dyn Observer,
) -> Result<Clip, RecipeError> {
    let clip = Clip::load(config.clip(file), &mut RandomWeights::new(config.seed), device)?;
    let mut pair = Pair { clip, bias: from_floats(vec![BIAS as f32], [1], device) };
    let stage = Contrastive { world, tokenizer, seed: config.seed, device: device.clone() };
    train(&stage, &mut pair, &config.contrastive, state, observer)?;
    Ok(pair.clip)
}

impl Stage for Contrastive<'_> {
    type Model = Pair;
    type Item = Item;

    /// `post_layernorm` and everything else takes part; nothing is frozen in this stage.
    fn trains(_name: &str) -> bool {
        true
    }

    fn draw(&self, index: u64) -> Result<Item, RecipeError> {
        let scene = self.world.scene(Split::Train, self.seed, index);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ 0x0C11_9000);
        rng.set_stream(index);
        let texts = (0..TEXTS)
            .map(|_| {
                let text = if rng.random_bool(CAPTION_RATE) {
                    clean_caption(&scene, &mut rng)
                } else {
                    phrase(&scene, &mut rng)
                };
                Ok((self.tokenizer.encode(&text.text, true)?, text.mentioned))
            })
            .collect::<Result<_, RecipeError>>()?;
        let (pixels, _) = image_processor().process(&self.world.render(&scene));
        Ok(Item { pixels, present: scene.categories().into_iter().collect(), texts })
    }

    fn differentiate(
        &self,
        pair: &mut Pair,
        items: &[Item],
        batch: usize,
    ) -> Result<(f64, GradientMap), RecipeError> {
        let side = IMAGE_SIZE as usize;
        let pixels = items.iter().flat_map(|item| item.pixels.iter().copied()).collect();
        let pixels = from_floats(pixels, [items.len(), 3, side, side], &self.device);
        let images = pair.clip.embed_images(pixels);
        // Texts of like length are embedded together, so that phrases are not padded to captions.
        let mut texts: Vec<_> = items.iter().flat_map(|item| &item.texts).collect();
        texts.sort_by_key(|(ids, _)| ids.len());
        let embedded = texts
            .chunks(texts.len().div_ceil(4))
            .map(|part| {
                let ids: Vec<_> = part.iter().map(|(ids, _)| ids.clone()).collect();
                pair.clip.embed_text(&ids)
            })
            .collect();
        let cosines = images.matmul(Tensor::cat(embedded, 0).transpose());
        let sign: Vec<f32> = items
            .iter()
            .flat_map(|item| texts.iter().map(move |(_, mentioned)| (item, mentioned)))
            .map(|(item, mentioned)| {
                let is_true = mentioned.iter().all(|category| item.present.contains(category));
                if is_true { 1.0 } else { -1.0 }
            })
            .collect();
        let sign = from_floats(sign, [items.len(), texts.len()], &self.device);
        let logits = cosines * pair.clip.scale().unsqueeze() - pair.bias.clone().unsqueeze();
        let loss = activation::log_sigmoid(logits * sign).sum().neg() / batch as f64;
        let value = f64::from(floats(&loss)[0]);
        let gradients = collect_gradients(pair, &loss.backward())?;
        Ok((value, gradients))
    }
}
