//! Stage 1: a CLIP pair trained on clean texts with the pairwise sigmoid loss.
//!
//! Zhai et al. 2023, arXiv 2303.15343: every (image, text) pair of a batch is its own binary question,
//! `−log σ(z · (t · cos − b))` with `z = ±1`. A text about someone else's scene that happens to be true
//! here as well counts as true: the world knows.
//!
//! Whole images alone teach a small tower slowly: nothing says which of its patches a text is about. So
//! texts that name one thing are also asked of every patch, as Zhong et al. 2022, arXiv 2112.09106,
//! do with regions: the patch's final state through the same norm and projection must match the names
//! of what covers it. Where images are hard to see, people tell of what stands out in them, and at times of what goes
//! with it: what is less prominent than the recipe says counts as absent from the image as a whole, and some of what is
//! typical as present. Patches are always asked for the truth.
//!
//! The biases `b` exist in training only; the saved model is an ordinary CLIP.

use burn::tensor::{Device, Tensor, activation};
use fisao_models::clip::Clip;
use fisao_models::parameters::{
    GradientMap, ParameterMut, Parameters, collect_gradients, floats, from_floats,
};
use fisao_models::text::Tokenizer;
use fisao_models::weights::{RandomWeights, WeightSource};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::training::{Observer, RecipeError, Stage, Start, train};
use super::vocabularies::TokenizerFile;
use super::{RecipeConfig, image_processor, patches};
use crate::phrase::name_of;
use crate::{CATEGORIES, IMAGE_SIZE, Insertion, Split, World, clean_caption, phrase};

/// Probability that a scene's longer text is a whole caption instead of a phrase.
const CAPTION_RATE: f64 = 0.06;

/// Starting value of the training-only biases.
const BIAS: f64 = 4.0;

/// Fraction of a patch from which what covers it must be recognised there.
const COVERED: f64 = 0.2;

/// Fraction of a patch below which nothing is asked about what covers it.
const TOUCHED: f64 = 0.04;

/// Weight of all patches of an image against the image as a whole.
const PATCH_WEIGHT: f64 = 4.0;

/// Tokens by which texts embedded together may differ in length.
const PADDING: usize = 6;

/// The pair with the loss's biases.
#[derive(Clone)]
struct Pair {
    clip: Clip,
    bias: Tensor<1>,
    patch_bias: Tensor<1>,
}

impl Parameters for Pair {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.clip.visit_mut(prefix, visitor);
        visitor(&format!("{prefix}logit_bias"), ParameterMut::Scalar(&mut self.bias));
        visitor(&format!("{prefix}patch_bias"), ParameterMut::Scalar(&mut self.patch_bias));
    }
}

/// A text with what it says is there.
struct Text {
    ids: Vec<u32>,
    mentioned: Vec<&'static str>,
    /// The category, where it is a name and nothing else.
    name: Option<usize>,
}

struct Item {
    pixels: Vec<f32>,
    /// Categories that texts about the whole image may name.
    present: Vec<&'static str>,
    /// Per patch, what covers it and how much of it.
    patches: Vec<Vec<(usize, f64)>>,
    /// A longer text about the scene.
    text: Text,
    /// Position in the stream of scenes.
    index: u64,
}

struct Contrastive<'a> {
    world: &'a World,
    tokenizer: &'a dyn Tokenizer,
    seed: u64,
    /// See [`RecipeConfig::least_prominence`].
    least_prominence: f64,
    /// See [`RecipeConfig::image_insertion`].
    insertion: Insertion,
    device: Device,
    patch: u32,
}

/// Trains a CLIP from where `start` says.
///
/// # Errors
/// [`RecipeError`]; [`RecipeError::Stopped`] when the observer asked to stop.
pub fn train_clip(
    config: &RecipeConfig,
    world: &World,
    file: &TokenizerFile,
    tokenizer: &dyn Tokenizer,
    device: &Device,
    start: Start<'_>,
    observer: &mut dyn Observer,
) -> Result<Clip, RecipeError> {
    let is_new = matches!(start, Start::Random);
    let mut random = RandomWeights::new(config.seed);
    let (weights, state): (&mut dyn WeightSource, _) = match start {
        Start::Random => (&mut random, None),
        Start::Weights(weights) => (weights, None),
        Start::Saved(state) => (&mut random, Some(state)),
    };
    let mut clip = Clip::load(config.clip(file), weights, device)?;
    // Trained weights and a saved state bring their own first layer.
    if is_new {
        patches::prepare(&mut clip, world, config.seed, device);
    }
    let patch = clip.config().vision.patch_size as u32;
    let bias = || from_floats(vec![BIAS as f32], [1], device);
    let mut pair = Pair { clip, bias: bias(), patch_bias: bias() };
    let stage = Contrastive {
        world,
        tokenizer,
        seed: config.seed,
        least_prominence: config.least_prominence,
        insertion: config.image_insertion,
        device: device.clone(),
        patch,
    };
    train(&stage, &mut pair, &config.contrastive, state, observer)?;
    Ok(pair.clip)
}

impl Contrastive<'_> {
    /// A generator for one purpose at one place of the stream of scenes.
    fn rng(&self, purpose: u64, index: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ purpose);
        rng.set_stream(index);
        rng
    }

    /// One text for every category, in the words drawn for the fraction that begins at `index`.
    fn names(&self, index: u64) -> Result<Vec<Text>, RecipeError> {
        let mut rng = self.rng(0x0C11_9001, index);
        CATEGORIES
            .iter()
            .enumerate()
            .map(|(category, known)| {
                let ids = self.tokenizer.encode(&name_of(category, &mut rng), true)?;
                Ok(Text { ids, mentioned: vec![known.name()], name: Some(category) })
            })
            .collect()
    }
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
        let mut rng = self.rng(0x0C11_9000, index);
        let told = self.world.standing_out(&scene, self.least_prominence);
        let longer = if rng.random_bool(CAPTION_RATE) {
            clean_caption(&told, &mut rng)
        } else {
            phrase(&told, &mut rng)
        };
        let ids = self.tokenizer.encode(&longer.text, true)?;
        let text = Text { ids, mentioned: longer.mentioned, name: None };
        let pixels = image_processor().process(&self.world.render(&scene)).values;
        let patches = self.world.patch_contents(&scene, self.patch);
        let mut present: Vec<_> = told.categories().into_iter().collect();
        let typical = self.insertion.draw(&scene, &mut self.rng(0x0C11_9002, index));
        present.extend(typical.into_iter().map(|category| CATEGORIES[category].name()));
        Ok(Item { pixels, present, patches, text, index })
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
        let (images, patches) = pair.clip.embed_patches(pair.clip.vision.encode(pixels)?)?;
        let names = self.names(items[0].index)?;
        let mut texts: Vec<&Text> =
            names.iter().chain(items.iter().map(|item| &item.text)).collect();
        texts.sort_by_key(|text| (text.name.is_none(), text.ids.len()));
        let names = names.len();
        let embedded = embed(&pair.clip, &texts);

        let truths = truths(items, &texts);
        let cosines = images.matmul(embedded.clone().transpose());
        let logits = cosines * pair.clip.scale().unsqueeze() - pair.bias.clone().unsqueeze();
        let whole = self.loss(logits, truths);

        let answers = patch_answers(items, &texts[..names]);
        let [count, patch_count, width] = patches.dims();
        let patches = patches.reshape([count * patch_count, width]);
        let cosines = patches.matmul(embedded.narrow(0, 0, names).transpose());
        let logits = cosines * pair.clip.scale().unsqueeze() - pair.patch_bias.clone().unsqueeze();
        let parts = self.loss(logits, answers) * (PATCH_WEIGHT / patch_count as f64);

        let loss = (whole + parts) / batch as f64;
        let value = f64::from(floats(&loss)[0]);
        let gradients = collect_gradients(pair, &loss.backward())?;
        Ok((value, gradients))
    }
}

impl Contrastive<'_> {
    /// `−Σ log σ(z · logit)` over the pairs with `z = ±1`; those with `z = 0` are not asked.
    fn loss(&self, logits: Tensor<2>, answers: Vec<f32>) -> Tensor<1> {
        let shape = logits.dims();
        let answers = from_floats(answers, shape, &self.device);
        // log σ(0) = −ln 2 of the pairs left out is a constant; it is taken off again.
        let left_out = answers.clone().abs().sub_scalar(1.0).abs();
        let unasked = left_out.sum() * std::f64::consts::LN_2;
        activation::log_sigmoid(logits * answers).sum().neg() - unasked
    }
}

/// Unit embeddings of the texts in their order; texts of like length are embedded together, so that names
/// are not padded to captions.
fn embed(clip: &Clip, texts: &[&Text]) -> Tensor<2> {
    let mut groups: Vec<Vec<Vec<u32>>> = Vec::new();
    let mut longest_fitting = 0;
    let mut shortest = usize::MAX;
    for text in texts {
        let length = text.ids.len();
        if groups.is_empty() || length > longest_fitting || length < shortest {
            groups.push(Vec::new());
            shortest = length;
            longest_fitting = length + PADDING;
        }
        if let Some(group) = groups.last_mut() {
            group.push(text.ids.clone());
        }
    }
    Tensor::cat(groups.iter().map(|ids| clip.embed_text(ids)).collect(), 0)
}

/// Whether each text is true of each image: 1 or −1, `[images, texts]`.
fn truths(items: &[Item], texts: &[&Text]) -> Vec<f32> {
    let pairs = items.iter().flat_map(|item| texts.iter().map(move |text| (item, text)));
    pairs
        .map(|(item, text)| {
            let is_true = text.mentioned.iter().all(|category| item.present.contains(category));
            if is_true { 1.0 } else { -1.0 }
        })
        .collect()
}

/// Whether each name is true of each patch: 1, −1, or 0 where the patch shows too little of the thing
/// to tell; `[images · patches, names]`.
fn patch_answers(items: &[Item], names: &[&Text]) -> Vec<f32> {
    let patches = items.iter().flat_map(|item| &item.patches);
    patches
        .flat_map(|contents| {
            names.iter().map(move |text| {
                let found = contents.iter().find(|(category, _)| text.name == Some(*category));
                match found.map_or(0.0, |&(_, fraction)| fraction) {
                    fraction if fraction >= COVERED => 1.0,
                    fraction if fraction < TOUCHED => -1.0,
                    _ => 0.0,
                }
            })
        })
        .collect()
}
