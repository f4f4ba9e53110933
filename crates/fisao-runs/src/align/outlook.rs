//! How long a run takes on this machine and how much memory, before its first step is made: from the speed of one matrix product.
//!
//! Almost all of a run's arithmetic is products with matrices: a forward pass over T tokens multiplies and adds each of
//! the decoder's E elements T times. The output matrix is one of them, and its product with a few states and with many is timed: a step of
//! decoding reads every matrix for a few tokens, prefill, training and the image encoder read it for many. Captions of one image read
//! their prompt once. What is left out: the decoder's attention, encoders that are not towers of patches, and that machines slow down.
//! The first iteration is timed as a whole and told when it is done.

use std::time::Instant;

use anyhow::bail;
use burn::tensor::{Tensor, TensorData};
use fisao_align::AlignConfig;
use fisao_align::encoding::IMAGES_AT_ONCE;
use fisao_align::objective::Objective;
use fisao_align::sampling::tasks_at_once;
use fisao_align::signals::OTHER_CAPTIONS;
use fisao_align::tasks::Task;
use fisao_models::card_part::ImageMemory;
use fisao_models::image::PixelValues;
use fisao_models::llama::{CardBatches, CardMemory, KvCache, Llama};
use fisao_models::scoring::CudaError;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::scorer::Verifier;

use super::estimate::first_looks;
use super::splitting::Counts;
use crate::bundle::{Pair, Policy};
use crate::duration::duration;
use crate::failure::Refusal;

/// Rows of a product that stands for prefill and training.
const MANY: usize = 64;
/// The same on a card, which needs more of them to be busy.
const MANY_ON_CARD: usize = 2048;
/// How often a product is timed; the quickest counts.
const TRIES: usize = 3;
/// Captions of each calibration image: the one that is calibrated on and those that may agree with it, which share their prompt.
const CALIBRATION_CAPTIONS: [usize; 2] = [1, OTHER_CAPTIONS];
/// Passes over a calibration image's caption: with the image, and with a blank one.
const CALIBRATION_PASSES: usize = 2;
/// Ways of decoding and models that a held-out image is captioned in.
const TEST_CAPTIONS: usize = 4;
/// Captions of an image in an iteration: sampled, and two greedy ones where recall is kept.
const GREEDY_CAPTIONS: usize = 2;
/// Bytes that are copied from a card in a second: less than its bus does, as the memory is pageable.
const COPY_RATE: f64 = 5e9;
/// Shortest responses that are proposed to save memory, tokens.
const LEAST_TOKENS: usize = 32;
/// States per layer and token that the backward pass needs, in multiples of the model's width and of its inner width.
const STATES: (usize, usize) = (10, 4);

/// Seconds and bytes of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outlook {
    calibrate: f64,
    train: f64,
    evaluate: f64,
    /// Bytes.
    memory: f64,
    /// Bytes that the machine has left, where the system tells.
    available: Option<f64>,
    /// Memory of the card that the decoder is on.
    card: Option<CardMemory>,
    /// Bytes that an iteration copies for a critic beside the card, which is on the CPU; 0 without one.
    copied: f64,
}

/// Seconds of the products of some rows with all of a decoder's matrices.
struct Speed<'a> {
    decoder: &'a Llama,
}

impl Speed<'_> {
    /// Seconds of a pass over so many rows at once: on a card a whole one, else scaled up from the output matrix.
    fn pass(&self, rows: usize) -> Result<f64, CudaError> {
        if let Some(seconds) = self.decoder.seconds_on_card(rows)? {
            return Ok(seconds);
        }
        let config = self.decoder.config();
        let shape = [rows, config.hidden_size];
        let values: Vec<f32> =
            (0..rows * config.hidden_size).map(|at| (at as f32 * 0.37).sin()).collect();
        let states: Tensor<2> =
            Tensor::from_data(TensorData::new(values, shape), &self.decoder.device());
        let product = || {
            let started = Instant::now();
            // Its values are read so that they are there.
            let _ = self.decoder.logits(states.clone()).into_data();
            started.elapsed().as_secs_f64()
        };
        let quickest = (0..TRIES).map(|_| product()).fold(f64::INFINITY, f64::min);
        let part = (config.hidden_size * config.vocab_size) as f64;
        Ok(quickest * config.matrix_elements() as f64 / part)
    }
}

/// The sizes that seconds follow from.
struct Work {
    /// Length of a prompt with its image, tokens.
    prompt: usize,
    /// Longest response, tokens.
    response: usize,
    /// Captions that are written at once.
    at_once: usize,
    /// Seconds of a step of decoding.
    step: f64,
    /// Seconds of a token in a pass over many.
    token: f64,
}

impl Work {
    /// Seconds of so many captions of each of some images, as long as they may be; those of an image read the prompt once.
    fn captions(&self, images: usize, of_each: usize) -> f64 {
        let batches = (images * of_each) as f64 / self.at_once as f64;
        (images * self.prompt) as f64 * self.token + batches * self.response as f64 * self.step
    }

    /// Seconds of an iteration: captions, the policy's and the reference's log-probabilities, and the update, whose backward
    /// pass takes as long as a forward pass as the matrices are frozen.
    fn iteration(&self, config: &AlignConfig) -> f64 {
        let (responses, samples) = (config.responses_per_iteration(), config.samples_per_image());
        let images = config.align.images_per_iteration;
        let greedy = if config.constrains_recall() { GREEDY_CAPTIONS } else { 0 };
        let captions = self.captions(images, samples) + self.captions(images * greedy, 1);
        let passes = if config.align.gradient_checkpointing { 3 } else { 2 };
        // Responses to an image are differentiated together where a micro-batch has room for them.
        let together = samples.min(config.align.micro_batch).max(1);
        let written = responses * self.response;
        let scored = 2 * (images * self.prompt + written);
        let learned =
            passes * config.align.epochs * (responses.div_ceil(together) * self.prompt + written);
        captions + (scored + learned) as f64 * self.token
    }
}

/// Multiplications and additions of one look at an image by its tower of patches, with attention; 0 of other encoders.
fn looking(model: &VisionLanguageModel, image: &PixelValues) -> f64 {
    let Some(tower) = model.vision_tower() else { return 0.0 };
    let config = tower.config();
    let (positions, hidden) = (config.positions(), config.hidden_size);
    let layer = hidden * (4 * hidden + 2 * config.intermediate_size + 2 * positions);
    (image.tiles() * config.num_hidden_layers * positions) as f64 * layer as f64
}

/// How often images are looked at: each once where what was made of it is kept, else whenever it comes up.
fn looks(counts: Counts, config: &AlignConfig) -> [usize; 3] {
    let kept = config.align.feature_cache_mb > 0;
    let test = if kept { counts.test } else { TEST_CAPTIONS * counts.test };
    [counts.calibration, first_looks(counts.training(), config), test]
}

impl Outlook {
    /// Times a product and works out the rest; prompts are taken to be as long as that of `task`.
    ///
    /// # Errors
    /// A card's driver fails, or the run does not fit a card.
    pub(super) fn of(
        Pair { policy, verifier, .. }: &Pair,
        task: &Task,
        counts: Counts,
        config: &AlignConfig,
    ) -> anyhow::Result<Self> {
        let card = card_memory((&policy.model, &verifier.verifier), task, config)?;
        let (model, prompt) = (&policy.model, task.prompt.len());
        let decoder = model.language_model();
        let response = config.max_new_tokens;
        let at_once = tasks_at_once(model, prompt + response, None).max(1);
        let speed = Speed { decoder };
        let many = if decoder.card_name().is_some() { MANY_ON_CARD } else { MANY };
        let (step, token) = (speed.pass(at_once.min(MANY))?, speed.pass(many)? / many as f64);
        let work = Work { prompt, response, at_once, step, token };
        let positions = prompt + response;
        let look = looking(model, &task.image) / decoder.config().matrix_elements() as f64 * token;
        let [calibration, training, test] = looks(counts, config).map(|count| count as f64 * look);
        let captions = CALIBRATION_CAPTIONS.map(|each| work.captions(counts.calibration, each));
        let passes = CALIBRATION_PASSES * counts.calibration * positions;
        Ok(Self {
            calibrate: captions.iter().sum::<f64>() + passes as f64 * token + calibration,
            train: work.iteration(config) * config.align.iterations as f64 + training,
            evaluate: work.captions(TEST_CAPTIONS * counts.test, 1) + test,
            memory: memory(policy, (positions, at_once), config),
            available: available(),
            card,
            copied: copied_for_critic(config, decoder.config().hidden_size),
        })
    }

    /// In words: how long, and how much memory.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let Self { calibrate, train, evaluate, memory, available, card, copied } = *self;
        let gigabytes = |bytes: f64| format!("{:.1} GB", bytes / 1e9);
        let time = format!(
            "about {}, by the speed of one {}: {} to calibrate, {} to train, {} for captions before and after; the first iteration \
             tells more",
            duration(calibrate + train + evaluate),
            if card.is_some() { "pass on the card" } else { "matrix product" },
            duration(calibrate),
            duration(train),
            duration(evaluate),
        );
        let free =
            available.map_or_else(String::new, |free| format!(" of {} free", gigabytes(free)));
        let memory = format!("about {}{free}", gigabytes(memory));
        let mut lines = vec![("time", time), ("memory", memory)];
        lines.extend(card.map(card_line));
        lines.extend(card.and(critic_line(copied)));
        lines
    }

    /// What to do where the memory is not enough.
    pub(super) fn warning(&self) -> Option<(String, &'static str)> {
        let free = self.available.filter(|free| self.memory > *free)?;
        Some((
            format!(
                "the run takes about {:.1} GB of memory, and {:.1} GB are free",
                self.memory / 1e9,
                free / 1e9
            ),
            "set --set align.micro-batch=1 and --set align.gradient-checkpointing=true, or a smaller max-new-tokens",
        ))
    }
}

/// What a run takes of the card, in words.
pub(super) fn card_line(CardMemory { needed, total }: CardMemory) -> (&'static str, String) {
    let [needed, total] = [needed, total].map(|bytes| bytes as f64 / 1e9);
    ("card", format!("{needed:.1} GB of its memory, which is {total:.1} GB"))
}

/// What the critic costs, which is on the CPU; nothing without one.
pub(super) fn critic_line(copied: f64) -> Option<(&'static str, String)> {
    let seconds = copied / COPY_RATE;
    (copied > 0.0).then(|| {
        let told = format!(
            "on the CPU; an iteration copies up to {:.1} GB of states for it, {seconds:.1} s at 5 GB/s",
            copied / 1e9
        );
        ("critic", told)
    })
}

/// Bytes of states that an iteration copies from the card for a critic, and of their gradients; 0 without one.
pub(super) fn copied_for_critic(config: &AlignConfig, hidden: usize) -> f64 {
    if !matches!(config.objective, Objective::Ppo(_)) {
        return 0.0;
    }
    let states = config.responses_per_iteration() * config.max_new_tokens * hidden;
    // Once for the advantages; in every epoch there and back.
    ((1 + 2 * config.align.epochs) * states * size_of::<f32>()) as f64
}

/// What a run takes of the card; nothing without one. Prompts are taken to be as long as that of `task`.
///
/// # Errors
/// The run does not fit the card, with a setting that makes it fit if there is one; the card's driver fails.
pub(super) fn card_memory(
    (model, verifier): (&VisionLanguageModel, &Verifier),
    task: &Task,
    config: &AlignConfig,
) -> anyhow::Result<Option<CardMemory>> {
    let needs = |config: &AlignConfig| {
        model.language_model().card_memory(card_batches((model, verifier), task, config))
    };
    let Some(card) = needs(config)? else { return Ok(None) };
    let CardMemory { needed, total } = card;
    if needed <= total {
        return Ok(Some(card));
    }
    let gigabytes = |bytes: usize| bytes as f64 / 1e9;
    let mut hint = None;
    for (setting, smaller) in smaller(config) {
        let less = needs(&smaller)?.map_or(usize::MAX, |card| card.needed);
        if less <= total {
            hint = Some(format!("{setting} takes {:.1} GB", gigabytes(less)));
            break;
        }
    }
    let hint = hint.unwrap_or_else(|| {
        "no setting makes it fit: load the weights with --dtype bf16 if they are f32, take a smaller model or another verifier, or a card \
         with more memory"
            .to_owned()
    });
    bail!(
        Refusal::new(format!(
            "the run takes {:.1} GB of the card's memory, which is {:.1} GB",
            gigabytes(needed),
            gigabytes(total)
        ))
        .hint(hint)
    )
}

/// The largest batches of a run.
fn card_batches(
    (model, verifier): (&VisionLanguageModel, &Verifier),
    task: &Task,
    config: &AlignConfig,
) -> CardBatches {
    let (prompt, response) = (task.prompt.len(), config.max_new_tokens);
    let samples = config.align.samples_per_image;
    let at_once = tasks_at_once(model, prompt + response, None).max(1);
    let of_verifier = verifier.contrastive().map_or_else(ImageMemory::default, |verifier| {
        verifier.image_memory(IMAGES_AT_ONCE, model.vision_tower())
    });
    CardBatches {
        prompt,
        response,
        samples,
        written: at_once.min(config.responses_per_iteration()),
        differentiated: config.align.micro_batch.max(samples),
        adapter: config.lora.parameters(model.language_model().config()),
        images: model.image_memory(IMAGES_AT_ONCE, task.instruction.len()).beside(of_verifier),
    }
}

/// Settings under which a run takes less of a card, the least change first.
fn smaller(config: &AlignConfig) -> Vec<(String, AlignConfig)> {
    let (mut all, mut changed, mut settings) = (Vec::new(), config.clone(), String::new());
    if changed.align.micro_batch > 1 {
        changed.align.micro_batch = 1;
        settings.push_str("--set align.micro-batch=1");
        all.push((settings.clone(), changed.clone()));
        settings.push(' ');
    }
    while changed.max_new_tokens > LEAST_TOKENS {
        changed.max_new_tokens = (changed.max_new_tokens / 2).max(LEAST_TOKENS);
        let tokens = format!("{settings}--set max-new-tokens={}", changed.max_new_tokens);
        all.push((tokens, changed.clone()));
    }
    all
}

/// Bytes: the weights, once more in int8 where they sample, and the larger of the keys and values of captions that are written at once and of the states of responses
/// that are differentiated at once.
fn memory(policy: &Policy, (positions, at_once): (usize, usize), config: &AlignConfig) -> f64 {
    let decoder = policy.model.language_model();
    let sizes = decoder.config();
    let (layers, hidden) = (sizes.num_hidden_layers, sizes.hidden_size);
    let layer = STATES.0 * hidden + STATES.1 * sizes.intermediate_size;
    let kept =
        if config.align.gradient_checkpointing { layers * hidden + layer } else { layers * layer };
    let logits = 2 * config.max_new_tokens * sizes.vocab_size;
    let at_work = config.align.micro_batch * policy.model.decoding_workers();
    let training = (at_work * (positions * kept + logits) * size_of::<f32>()) as f64;
    let sampling = KvCache::bytes(sizes, positions * at_once) as f64;
    let embedding = (hidden * sizes.vocab_size * 2) as f64;
    let rounded = if config.align.int8_sampling { policy.model.int8_bytes() } else { 0 };
    (decoder.matrix_bytes() + rounded) as f64 + embedding + training.max(sampling)
}

/// Bytes of memory that the system says are left; `None` where it does not.
fn available() -> Option<f64> {
    let known = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = known.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024.0 * kib)
}

#[cfg(test)]
mod tests {
    use fisao_align::group::GroupRelativeConfig;

    use super::*;

    fn outlook() -> Outlook {
        Outlook {
            calibrate: 600.0,
            train: 9000.0,
            evaluate: 300.0,
            memory: 17e9,
            available: Some(16e9),
            card: None,
            copied: 3e9,
        }
    }

    #[test]
    fn outlook_is_told_in_the_units_one_would_say_it_in() {
        let lines = outlook().lines();
        let [(_, time), (_, memory)] = &lines[..] else { panic!("{lines:?}") };
        assert!(
            time.starts_with("about 2.8 h, ") && time.contains("10 min to calibrate"),
            "{time}"
        );
        assert_eq!(memory, "about 17.0 GB of 16.0 GB free");
        let card = Some(CardMemory { needed: 20_600_000_000, total: 24_000_000_000 });
        let lines = Outlook { card, ..outlook() }.lines();
        assert_eq!(lines[2], ("card", "20.6 GB of its memory, which is 24.0 GB".to_owned()));
        let told = "on the CPU; an iteration copies up to 3.0 GB of states for it, 0.6 s at 5 GB/s";
        assert_eq!(lines[3..], [("critic", told.to_owned())]);
        let without = Outlook { card, copied: 0.0, ..outlook() }.lines();
        assert_eq!(without.len(), 3);
    }

    #[test]
    fn settings_that_take_less_are_proposed_the_least_change_first() {
        let mut config = AlignConfig { max_new_tokens: 96, ..AlignConfig::default() };
        let settings = |config: &AlignConfig| -> Vec<String> {
            smaller(config).into_iter().map(|(setting, _)| setting).collect()
        };
        let expected = [
            "--set align.micro-batch=1",
            "--set align.micro-batch=1 --set max-new-tokens=48",
            "--set align.micro-batch=1 --set max-new-tokens=32",
        ];
        assert_eq!(settings(&config), expected);
        config.align.micro_batch = 1;
        assert_eq!(settings(&config), ["--set max-new-tokens=48", "--set max-new-tokens=32"]);
        config.max_new_tokens = 8;
        assert!(smaller(&config).is_empty());
    }

    #[test]
    fn too_little_memory_is_warned_of() {
        let (text, hint) = outlook().warning().unwrap();
        assert!(text.contains("17.0 GB") && hint.contains("micro-batch=1"), "{text}");
        assert_eq!(Outlook { available: Some(18e9), ..outlook() }.warning(), None);
        assert_eq!(Outlook { available: None, ..outlook() }.warning(), None);
    }

    #[test]
    fn captions_take_their_prompts_and_their_steps() {
        let work = Work { prompt: 100, response: 10, at_once: 4, step: 0.5, token: 0.01 };
        // Eight prompts of a second each, and two batches of ten steps.
        assert!((work.captions(8, 1) - 18.0).abs() < 1e-9);
        // The same captions of two images: two prompts.
        assert!((work.captions(2, 4) - 12.0).abs() < 1e-9);
    }

    #[test]
    fn updates_read_a_prompt_once_for_the_responses_that_are_differentiated_together() {
        let work = Work { prompt: 100, response: 10, at_once: 4, step: 0.0, token: 1.0 };
        let objective = Objective::GroupRelative(GroupRelativeConfig::default());
        let mut config = AlignConfig { objective, ..AlignConfig::default() };
        config.recall.constraint = false;
        config.align.images_per_iteration = 2;
        config.align.samples_per_image = 4;
        (config.align.epochs, config.align.micro_batch) = (1, 4);
        // Sampled: two prompts. Scored twice and differentiated, which is two passes: two prompts and eight responses each.
        assert!((work.iteration(&config) - (200.0 + 4.0 * 280.0)).abs() < 1e-9);
        config.align.micro_batch = 2;
        assert!((work.iteration(&config) - (200.0 + 2.0 * 280.0 + 2.0 * 480.0)).abs() < 1e-9);
    }

    #[test]
    fn images_are_looked_at_once_where_there_is_a_cache() {
        let counts = Counts { images: 32, calibration: 10, test: 4 };
        let mut config = AlignConfig::default();
        (config.align.iterations, config.align.images_per_iteration) = (5, 16);
        assert_eq!(looks(counts, &config), [10, 18, 4]);
        config.align.feature_cache_mb = 0;
        assert_eq!(looks(counts, &config), [10, 80, 16]);
    }
}
