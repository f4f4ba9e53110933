//! Whole passes of models.

use std::hint::black_box;

use burn::tensor::{Device, Tensor};
use fisao_models::adamw::{AdamW, AdamWConfig};
use fisao_models::generation::{Prompt, Sampling};
use fisao_models::llama::LlamaConfig;
use fisao_models::lora::LoraConfig;
use fisao_models::parallel::parallel_chunks;
use fisao_models::parameters::{
    GradientMap, ParameterMut, Parameters, add_gradients, collect_all_gradients, floats,
};
use fisao_models::qformer::{QFormer, QFormerConfig};
use fisao_models::sequences::Example;
use fisao_models::vision::{VisionConfig, VisionTower};
use fisao_models::vision_language::{ImageFeatures, VisionLanguageModel};

use super::models::{self, FastWeights, Held, IMAGE, llava};
use super::{Amount, Repetitions};

/// Tokens of a prompt, its one image token included.
pub const PROMPT: usize = 16;
/// Tokens of a response.
pub const DECODED: usize = 64;
/// Images encoded together, where it is not one.
pub(super) const IMAGES: usize = 8;
/// Queries of InstructBLIP's Q-Former.
const QUERIES: usize = 32;
/// Tokens of its instruction.
const INSTRUCTION: usize = 12;

/// Writing responses.
pub(super) struct Decoding {
    pub(super) config: LlamaConfig,
    pub(super) batch: usize,
    pub(super) held: Held,
    /// Steps read the matrices in int8.
    pub(super) in_int8: bool,
}

/// A step of training.
pub(super) struct Step {
    pub(super) config: LlamaConfig,
    pub(super) batch: usize,
    /// Tokens of a sequence.
    pub(super) length: usize,
    /// Those of them that nothing is predicted of.
    pub(super) prompt: usize,
    /// Sequences that are about one image, with the same prompt.
    pub(super) group: usize,
    /// An adapter learns, instead of everything.
    pub(super) adapter: bool,
    /// Layers are recomputed in the backward pass.
    pub(super) gradient_checkpointing: bool,
    pub(super) held: Held,
}

fn model(config: &LlamaConfig, held: Held, device: &Device) -> anyhow::Result<VisionLanguageModel> {
    let mut model =
        VisionLanguageModel::load(llava(config.clone()), &mut FastWeights::new(held), device)?;
    model.set_activation_dtype(held.activations());
    Ok(model)
}

/// Images of one token.
fn features(config: &LlamaConfig, images: usize, device: &Device) -> ImageFeatures {
    ImageFeatures::new(Tensor::zeros([images, config.hidden_size], device), vec![1; images])
}

/// A prompt with its image token, ids that differ.
fn prompt(length: usize) -> Vec<u32> {
    (0..length as u32).map(|at| if at == 1 { IMAGE } else { 4 + at % 900 }).collect()
}

/// Prompts are read, then all responses written to the end, sampled at temperature 1.
pub(super) fn decode(repetitions: &mut Repetitions, work: Decoding) -> anyhow::Result<Amount> {
    let Decoding { config, batch, held, in_int8 } = work;
    let model = model(&config, held, &repetitions.device)?;
    let model = if in_int8 { model.decoding_in_int8() } else { model };
    let features = features(&config, 1, &repetitions.device);
    let prompts: Vec<Prompt> = (0..batch)
        .map(|row| Prompt { ids: prompt(PROMPT), image: 0, stream: row as u64 })
        .collect();
    let sampling = Sampling { max_new_tokens: DECODED, temperature: 1.0, seed: 0 };
    while repetitions.again() {
        let said = parallel_chunks(&prompts, model.decoding_workers(), |prompts| {
            model.generate(prompts, &features, 1, &sampling).map(|said| said.len())
        });
        let said = said.into_iter().collect::<Result<Vec<_>, _>>()?;
        assert_eq!(said.iter().sum::<usize>(), batch);
    }
    let tokens = (batch * DECODED) as f64;
    let elements = config.matrix_elements() as f64;
    Ok(Amount {
        count: tokens,
        unit: "tokens",
        flops: 2.0 * elements * tokens,
        // Every step reads all matrices once, whatever the batch; a small model's from a cache.
        bytes: if model.decoding_workers() == 1 {
            (if in_int8 { 1.0 } else { held.bytes() }) * elements * DECODED as f64
        } else {
            0.0
        },
    })
}

/// What a step trains.
#[derive(Clone)]
struct Learner {
    model: VisionLanguageModel,
    adapter: bool,
}

impl Parameters for Learner {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        if self.adapter {
            self.model.visit_lora_mut(visitor);
        } else {
            self.model.visit_text_side_mut(&mut |name, parameter| {
                // The projector is not what is measured.
                if name.starts_with("language_model") {
                    visitor(&format!("{prefix}{name}"), parameter);
                }
            });
        }
    }
}

/// Forward, backward and `AdamW`: cross-entropy of every token behind the prompt.
pub(super) fn train(repetitions: &mut Repetitions, work: &Step) -> anyhow::Result<Amount> {
    let Step { config, batch, length, prompt: read, group, adapter, gradient_checkpointing, held } =
        work;
    let mut model = model(config, *held, &repetitions.device)?;
    if *adapter {
        model.add_lora(&LoraConfig::default(), 0)?;
    }
    let mut learner = Learner { model, adapter: *adapter };
    let features = features(config, batch.div_ceil(*group), &repetitions.device);
    let ids = prompt(length + 1);
    let (prompt, response) = ids.split_at(*read);
    let images: Vec<usize> = (0..batch.div_ceil(*group)).collect();
    let tokens = batch * response.len();
    let mut optimiser = AdamW::new(AdamWConfig::default());
    while repetitions.again() {
        let chunks = learner.model.scoring_workers();
        let parts = parallel_chunks(&images, chunks, |images| {
            let mut replica = learner.clone();
            replica.train_where(&|_| true);
            let responses = images.iter().flat_map(|image| std::iter::repeat_n(image, *group));
            let examples: Vec<Example<'_>> =
                responses.map(|&image| Example { prompt, image, response }).collect();
            let gradient_checkpointing = gradient_checkpointing.then_some(&learner.model);
            let (scores, pass) =
                replica.model.training_scores(gradient_checkpointing, &examples, &features, 1.0)?;
            let loss = scores.log_probs.sum() * (-1.0 / tokens as f64);
            let parts = replica.model.backward(pass, &loss)?;
            anyhow::Ok(collect_all_gradients(&mut replica, &parts)?)
        });
        let mut gradients = GradientMap::new();
        for part in parts {
            add_gradients(&mut gradients, &part?);
        }
        optimiser.update(&mut learner, &gradients, &|_, _| Some(1e-5));
    }
    // Backwards through frozen matrices is half of what it is through learning ones.
    let passes = if *adapter { 4.0 } else { 6.0 };
    // Of a group the prompt is computed once.
    let computed = (images.len() * read + batch * (length - read)) as f64;
    Ok(Amount {
        count: (batch * length) as f64,
        unit: "tokens",
        flops: passes * config.matrix_elements() as f64 * computed,
        bytes: 0.0,
    })
}

/// All layers of an image tower, for images encoded together.
pub(super) fn encode(
    repetitions: &mut Repetitions,
    config: &VisionConfig,
    images: usize,
    held: Held,
) -> anyhow::Result<Amount> {
    let device = repetitions.device.clone();
    let weights = &mut FastWeights::new(held);
    let mut tower = VisionTower::load(config.clone(), weights, "vision", &device)?;
    tower.set_activation_dtype(held.activations());
    let side = config.image_size;
    let pixels: Tensor<4> = Tensor::ones([images, 3, side, side], &device);
    while repetitions.again() {
        let states = tower.hidden_states(pixels.clone(), config.num_hidden_layers)?;
        // Another device is only done when something is read.
        black_box(floats(&states.narrow(0, 0, 1)));
    }
    let (width, inner) = (config.hidden_size as f64, config.intermediate_size as f64);
    let positions = config.positions() as f64;
    let layer = 2.0 * (4.0 * width * width + 2.0 * width * inner) + 4.0 * positions * width;
    let patches = 2.0 * 3.0 * (config.patch_size as f64).powi(2) * width * config.patches() as f64;
    let image = config.num_hidden_layers as f64 * positions * layer + patches;
    let count = images as f64;
    Ok(Amount { count, unit: "images", flops: count * image, bytes: 0.0 })
}

/// What a Q-Former's queries read of images beside an instruction.
pub(super) fn qformer(repetitions: &mut Repetitions, held: Held) -> anyhow::Result<Amount> {
    let config = models::qformer();
    let device = repetitions.device.clone();
    let mut qformer = QFormer::load(&config, &mut FastWeights::new(held), "qformer", &device)?;
    qformer.set_activation_dtype(held.activations());
    let positions = models::eva_giant().positions();
    let states: Tensor<3> = Tensor::ones([IMAGES, positions, config.encoder_hidden_size], &device);
    let rows: Tensor<3> =
        Tensor::ones([IMAGES, QUERIES + INSTRUCTION, config.hidden_size], &device);
    while repetitions.again() {
        let read = qformer.forward(rows.clone(), QUERIES, Some(&states))?;
        black_box(floats(&read.narrow(0, 0, 1)));
    }
    Ok(Amount {
        count: IMAGES as f64,
        unit: "images",
        flops: IMAGES as f64 * qformer_flops(&config, positions as f64),
        bytes: 0.0,
    })
}

/// Floating-point operations of one image.
fn qformer_flops(config: &QFormerConfig, positions: f64) -> f64 {
    let [width, inner, image] =
        [config.hidden_size, config.intermediate_size, config.encoder_hidden_size]
            .map(|n| n as f64);
    let (queries, all) = (QUERIES as f64, (QUERIES + INSTRUCTION) as f64);
    let own = all * (2.0 * (4.0 * width * width + 2.0 * width * inner) + 4.0 * all * width);
    let cross = 2.0 * (2.0 * queries * width * width + 2.0 * positions * image * width)
        + 4.0 * queries * positions * width;
    let layers = config.num_hidden_layers;
    layers as f64 * own + layers.div_ceil(config.cross_attention_frequency) as f64 * cross
}
