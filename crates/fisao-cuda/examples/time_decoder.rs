//! Times LLaVA-1.5-7B's shapes on a card, with weights that mean nothing: its image tower, reading prompts, decoding with shared prompts,
//! a LoRA step with recomputed layers.
//!
//! `cargo run --release -p fisao-cuda --example time_decoder -- [CARD] [LAYERS] [CACHE]`: the number of a card (0), the number of layers
//! (32) and the folder that keeps compiled kernels (one in the system's temporary folder).

use std::borrow::Cow;
use std::time::Instant;

use fisao_cuda::kernels::{Gelu, Heads, Segments};
use fisao_cuda::{
    AdapterTarget, AdapterWeights, Card, Continuation, CubinCache, CudaError, Decoder,
    DecoderConfig, Draw, Driver, Encoder, EncoderConfig, EncoderPlan, EncoderSession, OnCard, Plan,
    Prompts, Session, Storage, Tokens, Training, TrainingBatch, TrainingPlan, WeightSource,
    WeightTensor,
};

/// Positions of a prompt with an image of 576 tokens, and tokens of a response.
const PROMPT: usize = 626;
const RESPONSE: usize = 90;
const RANK: usize = 16;

/// Images at a time, and positions of each.
const IMAGES: usize = 64;
const POSITIONS: usize = 577;

/// Small numbers that look random, the same bytes for every tensor.
struct Noise(Vec<u8>);

impl WeightSource for Noise {
    fn tensor(&mut self, _: &str, shape: &[usize]) -> Result<WeightTensor<'_>, String> {
        let bytes = 2 * shape.iter().product::<usize>();
        let mut state = self.0.len() as u64 + 1;
        while self.0.len() < bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let value = (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5;
            self.0.extend(Storage::Bf16.narrowed(&[0.05 * value]));
        }
        Ok(WeightTensor { storage: Storage::Bf16, bytes: Cow::Borrowed(&self.0[..bytes]) })
    }
}

fn config(layers: usize) -> DecoderConfig {
    let frequency = |pair: i32| 10_000_f64.powf(-2.0 * f64::from(pair) / 128.0);
    DecoderConfig {
        storage: Storage::Bf16,
        vocabulary: 32_064,
        hidden: 4096,
        intermediate: 11_008,
        layers,
        heads: Heads { heads: 32, key_heads: 32, size: 128 },
        epsilon: 1e-5,
        frequencies: (0..64).map(frequency).collect(),
        position_axes: Vec::new(),
        sliding_window: None,
        query_key_value_bias: false,
        head_norms: false,
        deep_layers: 0,
        tied: false,
    }
}

fn main() -> Result<(), CudaError> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| {
        let given = arguments.next();
        given.map_or(default, |given| given.parse().expect("a number"))
    };
    let (ordinal, layers) = (number(0), number(32));
    let cache = arguments
        .next()
        .map_or_else(|| std::env::temp_dir().join("fisao-kernels"), std::path::PathBuf::from);
    let start = Instant::now();
    let storages = [Storage::F32, Storage::Bf16];
    let mut driver = Card::new(ordinal, &storages, &CubinCache::new(cache))?;
    say(&format!("{}: ready in {:.1} s", driver.name(), start.elapsed().as_secs_f64()));
    let start = Instant::now();
    let mut decoder = Decoder::load(&mut driver, config(layers), &mut Noise(Vec::new()), "model")?;
    driver.synchronize()?;
    let bytes = Decoder::weight_bytes(decoder.config());
    let seconds = start.elapsed().as_secs_f64();
    say(&format!("{:.1} GB of weights in {seconds:.1} s", bytes as f64 / 1e9));
    encode(&mut driver)?;
    for rows in [1, 8, 32] {
        decode(&mut driver, &decoder, rows)?;
    }
    train(&mut driver, &mut decoder, 32, None)?;
    // The same responses, four behind each prompt.
    train(&mut driver, &mut decoder, 8, Some(Segments { prefix: PROMPT, length: RESPONSE }))
}

#[expect(clippy::print_stdout, reason = "that is what the example is for")]
fn say(line: &str) {
    println!("{line}");
}

/// Seconds of one run of the quickest of three, each of `count`.
fn seconds(
    driver: &mut dyn Driver,
    count: usize,
    mut work: impl FnMut(&mut dyn Driver) -> Result<(), CudaError>,
) -> Result<f64, CudaError> {
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        driver.synchronize()?;
        let start = Instant::now();
        for _ in 0..count {
            work(driver)?;
        }
        driver.synchronize()?;
        least = least.min(start.elapsed().as_secs_f64() / count as f64);
    }
    Ok(least)
}

/// ViT-L/14-336 without its patch embeddings; states come from the CPU and go back there.
fn encode(driver: &mut dyn Driver) -> Result<(), CudaError> {
    let config = EncoderConfig {
        storage: Storage::Bf16,
        hidden: 1024,
        intermediate: 4096,
        layers: 24,
        heads: 16,
        epsilon: 1e-5,
        activation: Gelu::Quick,
        fused_query_key_value: false,
        patches: None,
    };
    let encoder = Encoder::load(driver, config, &mut Noise(Vec::new()), "tower")?;
    let plan = EncoderPlan { sequences: IMAGES, length: POSITIONS };
    let session = EncoderSession::open(driver, &encoder, plan)?;
    let x = vec![0.1; IMAGES * POSITIONS * config.hidden];
    let sizes = [IMAGES, POSITIONS];
    let one = seconds(driver, 1, |driver| {
        session.forward(driver, &encoder, &x, sizes, false, 0..config.layers).map(|_| ())
    })?;
    say(&format!(
        "ViT-L/14-336, batch {IMAGES}: {:.1} ms, {:.0} images/s, {:.1} GB",
        1e3 * one,
        IMAGES as f64 / one,
        plan.bytes(&config) as f64 / 1e9,
    ));
    session.close(driver)?;
    encoder.unload(driver)
}

/// Prompts of four responses each.
fn decode(driver: &mut dyn Driver, decoder: &Decoder, rows: usize) -> Result<(), CudaError> {
    let prompts = rows.div_ceil(4);
    let plan = Plan {
        prompts,
        prompt_length: PROMPT,
        rows,
        new_tokens: RESPONSE,
        prefill_positions: 8192,
    };
    let mut session = Session::open(driver, decoder, plan)?;
    let ids: Vec<u32> = (0..(prompts * PROMPT) as u32).map(|at| at * 7 % 32_000).collect();
    let positions: Vec<i32> = (0..prompts).flat_map(|_| 0..PROMPT as i32).collect();
    let padding = vec![0; prompts];
    let read =
        Prompts { tokens: Tokens::Ids(&ids), positions: &positions, padding: &padding, deep: &[] };
    let prefill = seconds(driver, 1, |driver| session.prefill(driver, decoder, &read).map(|_| ()))?;
    let of: Vec<usize> = (0..rows).map(|row| row / 4).collect();
    session.begin(Continuation { of, lag: vec![0; rows] })?;
    let mut tokens = vec![1; rows];
    let draws = vec![Draw { temperature: 1.0, uniform: 0.5 }; rows];
    // The first steps choose algorithms and capture the graph.
    let mut step = |driver: &mut dyn Driver| {
        let found = session.step_sampled(driver, decoder, &tokens, &draws)?;
        tokens = found.into_iter().map(|(token, _)| token).collect();
        Ok(())
    };
    (0..3).try_for_each(|_| step(driver))?;
    let one = seconds(driver, 28, step)?;
    let read = Decoder::weight_bytes(decoder.config()) as f64;
    say(&format!(
        "batch {rows}, {prompts} prompts: prefill {:.1} ms, step {:.2} ms, {:.0} tokens/s, weights at {:.2} TB/s, {:.1} GB",
        1e3 * prefill,
        1e3 * one,
        rows as f64 / one,
        read / one / 1e12,
        plan.bytes(decoder) as f64 / 1e9,
    ));
    session.close(driver)
}

/// All positions of some sequences forward and backward, with adapters on all linear layers.
fn train(
    driver: &mut dyn Driver,
    decoder: &mut Decoder,
    sequences: usize,
    segments: Option<Segments>,
) -> Result<(), CudaError> {
    use AdapterTarget::{Down, Gate, Key, Output, Query, Up, Value};
    let config = decoder.config().clone();
    let (hidden, inner) = (config.hidden, config.intermediate);
    let small = vec![0.01_f32; RANK * hidden.max(inner)];
    let mut paths = Vec::new();
    for layer in 0..config.layers {
        for target in [Query, Key, Value, Output, Gate, Up, Down] {
            let inputs = if target == Down { inner } else { hidden };
            let outputs = if matches!(target, Gate | Up) { inner } else { hidden };
            let (a, b) = (&small[..RANK * inputs], &small[..RANK * outputs]);
            paths.push(AdapterWeights { layer, target, a, b, scale: 1.0 });
        }
    }
    decoder.set_adapter(driver, &paths)?;
    let responses = if segments.is_some() { 4 } else { 1 };
    let length = PROMPT + responses * RESPONSE;
    let targets = sequences * responses * RESPONSE;
    let plan = TrainingPlan { sequences, length, targets, logit_rows: 512, backward: true };
    let mut training = Training::open(driver, decoder, plan)?;
    let ids: Vec<u32> = (0..(sequences * length) as u32).map(|at| at * 7 % 32_000).collect();
    let positions: Vec<i32> = (0..sequences)
        .flat_map(|_| {
            (0..length).map(|at| at.min(PROMPT + (at - at.min(PROMPT)) % RESPONSE) as i32)
        })
        .collect();
    let rows: Vec<usize> = (0..sequences)
        .flat_map(|sequence| (PROMPT - 1..length - 1).map(move |at| sequence * length + at))
        .collect();
    let batch = TrainingBatch {
        tokens: Tokens::Ids(&ids),
        positions: &positions,
        padding: &vec![0; sequences],
        deep: &[],
        segments,
        rows: &rows,
        targets: &vec![5; targets],
        temperature: 1.0,
    };
    let by = vec![1e-3_f32; targets];
    let forward =
        seconds(driver, 1, |driver| training.forward(driver, decoder, &batch).map(|_| ()))?;
    let both = seconds(driver, 1, |driver| {
        training.forward(driver, decoder, &batch)?;
        training.backward(driver, decoder, [&by, &by, &[]])
    })?;
    say(&format!(
        "LoRA, {sequences} × {length}, {targets} tokens scored: forward {:.0} ms, forward and backward {:.0} ms, {:.1} GB",
        1e3 * forward,
        1e3 * both,
        plan.bytes(decoder) as f64 / 1e9,
    ));
    training.close(driver)
}
