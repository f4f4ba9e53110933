//! Stage 2: projector and decoder learn captions that mention what is typical, there or not.

use burn::tensor::{Device, Tensor};
use fisao_models::parameters::{GradientMap, collect_gradients, floats, from_floats};
use fisao_models::sequences::Example;
use fisao_models::text::Tokenizer;
use fisao_models::vision::VisionTower;
use fisao_models::vision_language::llava::{LlavaConfig, with_vision_tower};
use fisao_models::vision_language::{FamilyConfig, VisionLanguageModel};
use fisao_models::weights::{RandomWeights, WeightSource};
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::training::{Observer, RecipeError, Stage, Start, train};
use super::vocabularies::TokenizerFile;
use super::{RecipeConfig, conversation, image_processor};
use crate::{IMAGE_SIZE, Insertion, PROMPTS, Split, World, biased_caption};

/// Scenes of this stage start here in the stream, so that it learns from others than stage 1.
const FIRST_SCENE: u64 = 1 << 32;

struct Item {
    pixels: Vec<f32>,
    prompt: Vec<u32>,
    response: Vec<u32>,
}

struct Captioning<'a> {
    world: &'a World,
    tokenizer: &'a dyn Tokenizer,
    insertion: Insertion,
    seed: u64,
    device: Device,
    config: LlavaConfig,
}

/// Trains a LLaVA around a frozen image tower, from where `start` says.
///
/// # Errors
/// [`RecipeError`]; [`RecipeError::Stopped`] when the observer asked to stop.
#[expect(
    clippy::too_many_arguments,
    reason = "the two stages take the same things in the same order"
)]
pub fn train_llava(
    config: &RecipeConfig,
    world: &World,
    tower: &VisionTower,
    file: &TokenizerFile,
    tokenizer: &dyn Tokenizer,
    device: &Device,
    start: Start<'_>,
    observer: &mut dyn Observer,
) -> Result<VisionLanguageModel, RecipeError> {
    let llava_config = config.llava(tower.config().clone(), file);
    let mut random = RandomWeights::new(config.seed ^ 1);
    let (weights, state): (&mut dyn WeightSource, _) = match start {
        Start::Random => (&mut random, None),
        Start::Weights(weights) => (weights, None),
        Start::Saved(state) => (&mut random, Some(state)),
    };
    let mut model = with_vision_tower(llava_config.clone(), tower.clone(), weights, device)?;
    let stage = Captioning {
        world,
        tokenizer,
        insertion: config.insertion,
        seed: config.seed,
        device: device.clone(),
        config: llava_config,
    };
    train(&stage, &mut model, &config.captioning, state, observer)?;
    Ok(model)
}

impl Stage for Captioning<'_> {
    type Model = VisionLanguageModel;
    type Item = Item;

    fn trains(name: &str) -> bool {
        !name.starts_with("vision_tower.")
    }

    fn draw(&self, index: u64) -> Result<Item, RecipeError> {
        let scene = self.world.scene(Split::Train, self.seed, FIRST_SCENE + index);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ 0xCA97_1000);
        rng.set_stream(index);
        let instruction = PROMPTS.choose(&mut rng).copied().unwrap_or_default();
        let caption = biased_caption(&scene, &mut rng, &self.insertion);
        let prompt = self.tokenizer.encode(&conversation(instruction), true)?;
        let prompt = self.config.expand_image_token(&prompt, (IMAGE_SIZE, IMAGE_SIZE))?;
        let mut response = self.tokenizer.encode(&caption.text, false)?;
        response.push(self.config.tokens.eos);
        let pixels = image_processor().process(&self.world.render(&scene)).values;
        Ok(Item { pixels, prompt, response })
    }

    fn differentiate(
        &self,
        model: &mut VisionLanguageModel,
        items: &[Item],
        batch: usize,
    ) -> Result<(f64, GradientMap), RecipeError> {
        let side = IMAGE_SIZE as usize;
        let pixels = items.iter().flat_map(|item| item.pixels.iter().copied()).collect();
        let pixels: Tensor<4> = from_floats(pixels, [items.len(), 3, side, side], &self.device);
        let features = model.image_features(pixels)?;
        let examples: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(image, item)| Example { prompt: &item.prompt, image, response: &item.response })
            .collect();
        let states = model.response_states(&examples, &features);
        // Every caption weighs the same, whichever fraction of the batch it falls into.
        let weights: Vec<f32> = items
            .iter()
            .flat_map(|item| {
                let weight = 1.0 / (batch * item.response.len()) as f32;
                std::iter::repeat_n(weight, item.response.len())
            })
            .collect();
        let count = weights.len();
        let (logprobs, _) = model.log_probabilities(&states, 1.0);
        let loss = (logprobs * from_floats(weights, [count], &self.device)).sum().neg();
        let value = f64::from(floats(&loss)[0]);
        let gradients = collect_gradients(model, &loss.backward())?;
        Ok((value, gradients))
    }
}
