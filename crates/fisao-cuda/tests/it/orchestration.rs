//! What a decoder asks of a driver: memory, graphs, uploads.

use std::borrow::Cow;

use fisao_cuda::kernels::Heads;
use fisao_cuda::{
    Call, Continuation, CudaError, Decoder, DecoderConfig, Driver, Plan, Prompts, Recorder,
    Session, Storage, Tokens, WeightSource, WeightTensor,
};

/// Zeros of every shape.
struct Zeros(Vec<u8>);

impl WeightSource for Zeros {
    fn tensor(&mut self, _: &str, shape: &[usize]) -> Result<WeightTensor<'_>, String> {
        self.0.resize(2 * shape.iter().product::<usize>(), 0);
        Ok(WeightTensor { storage: Storage::Bf16, bytes: Cow::Borrowed(&self.0) })
    }
}

fn config() -> DecoderConfig {
    DecoderConfig {
        storage: Storage::Bf16,
        vocabulary: 1000,
        hidden: 64,
        intermediate: 160,
        layers: 2,
        heads: Heads { heads: 4, key_heads: 2, size: 16 },
        epsilon: 1e-5,
        frequencies: vec![0.1; 8],
        position_axes: Vec::new(),
        sliding_window: None,
        query_key_value_bias: false,
        head_norms: false,
        deep_layers: 0,
        tied: false,
    }
}

const PLAN: Plan =
    Plan { prompts: 5, prompt_length: 70, rows: 20, new_tokens: 33, prefill_positions: 150 };

fn decoder(driver: &mut dyn Driver) -> Decoder {
    Decoder::load(driver, config(), &mut Zeros(Vec::new()), "model").expect("memory")
}

fn prefilled(driver: &mut dyn Driver, decoder: &Decoder, sequences: usize) -> Session {
    let mut session = Session::open(driver, decoder, PLAN).expect("memory");
    read(driver, decoder, &mut session, sequences);
    session
}

fn read(driver: &mut dyn Driver, decoder: &Decoder, session: &mut Session, sequences: usize) {
    let ids = [1_u32; 350];
    let positions: Vec<i32> = (0..350).map(|at| at % 70).collect();
    let prompts =
        Prompts { tokens: Tokens::Ids(&ids), positions: &positions, padding: &[0; 5], deep: &[] };
    session.prefill(driver, decoder, &prompts).expect("read");
    let of = (0..sequences).map(|row| row % 5).collect();
    session.begin(Continuation { of, lag: vec![0; sequences] }).expect("room");
}

#[test]
fn peak_of_memory_is_what_the_plan_says() {
    let mut driver = Recorder::alone(1 << 30);
    let decoder = decoder(&mut driver);
    assert_eq!(driver.peak(), Decoder::weight_bytes(&config()));
    let mut session = prefilled(&mut driver, &decoder, 20);
    for _ in 0..33 {
        session.step(&mut driver, &decoder, &[1; 20]).expect("a step");
    }
    session.swap_remove(&mut driver, &decoder, 3).expect("moved");
    assert_eq!(driver.peak(), Decoder::weight_bytes(&config()) + PLAN.bytes(&decoder));
    session.close(&mut driver).expect("closed");
    decoder.unload(&mut driver).expect("released");
    let reserved = driver.take_calls();
    let reserved = reserved.iter().filter(|call| matches!(call, Call::Reserve(_)));
    assert_eq!(reserved.count(), 2);
    assert_eq!(driver.memory().expect("memory").free, 1 << 30);
}

#[test]
fn plan_that_does_not_fit_is_refused_with_its_size() {
    let mut driver = Recorder::alone(1 << 20);
    let mut zeros = Zeros(Vec::new());
    let decoder = Decoder::load(&mut driver, config(), &mut zeros, "model").expect("it fits");
    let needed = PLAN.bytes(&decoder);
    let refused = Session::open(&mut driver, &decoder, PLAN).expect_err("it does not fit");
    let free = (1 << 20) - Decoder::weight_bytes(&config());
    let sizes = |error: &CudaError| match error {
        CudaError::Memory { needed, free, .. } => Some([*needed, *free]),
        _ => None,
    };
    assert_eq!(sizes(&refused), Some([needed, free]), "{refused}");
    assert!(refused.hint().is_some_and(|hint| hint.contains("decode fewer")), "{refused}");
    let larger = DecoderConfig { vocabulary: 10_000, ..config() };
    let needed = Decoder::weight_bytes(&larger);
    let refused = Decoder::load(&mut driver, larger, &mut zeros, "model").expect_err("too large");
    assert_eq!(sizes(&refused), Some([needed, free]), "{refused}");
}

#[test]
fn weights_of_a_7b_decoder_take_two_bytes_each() {
    let heads = Heads { heads: 32, key_heads: 32, size: 128 };
    let config = DecoderConfig {
        vocabulary: 32_000,
        hidden: 4096,
        intermediate: 11_008,
        layers: 32,
        heads,
        frequencies: vec![0.1; 64],
        ..config()
    };
    // Parameters of Vicuna-7B: 6,738,415,616, two bytes each; norms take four.
    let expected = 2 * 6_738_415_616_usize + 2 * 4096 * 65;
    assert_eq!(Decoder::weight_bytes(&config), expected);
}

#[test]
fn step_uploads_once_runs_a_graph_and_reserves_nothing() {
    let mut driver = Recorder::alone(1 << 30);
    let decoder = decoder(&mut driver);
    let mut session = prefilled(&mut driver, &decoder, 20);
    let step = |driver: &mut Recorder<_>, session: &mut Session, rows: usize| {
        driver.take_calls();
        session.step(driver, &decoder, &vec![1; rows]).expect("a step");
        driver.take_calls()
    };
    let first = step(&mut driver, &mut session, 20);
    let second = step(&mut driver, &mut session, 20);
    let third = step(&mut driver, &mut session, 20);
    let control = 4 * (5 * 20 + 5 + 1 + 1);
    assert!(!first.iter().any(|call| matches!(call, Call::BeginCapture)), "{first:?}");
    let Some(Call::EndCapture(graph)) =
        second.iter().find(|call| matches!(call, Call::EndCapture(_)))
    else {
        panic!("{second:?}")
    };
    let replayed =
        [Call::Upload(control), Call::LaunchGraph(*graph), Call::Download(4 * 20 * 1000)];
    assert_eq!(third, replayed);
    // What is captured is what was run.
    let work = |calls: &[Call]| -> Vec<Call> {
        let is_work = |call: &&Call| matches!(call, Call::Launch { .. } | Call::Product(_));
        calls.iter().filter(is_work).cloned().collect()
    };
    assert_eq!(work(&first), work(&second));
    // Two layers of 4 products, the output matrix.
    let products = first.iter().filter(|call| matches!(call, Call::Product(_))).count();
    assert_eq!(products, 2 * 4 + 1);
}

#[test]
fn graphs_are_reused_for_batches_of_about_the_same_size() {
    let mut driver = Recorder::alone(1 << 30);
    let decoder = decoder(&mut driver);
    let mut session = prefilled(&mut driver, &decoder, 20);
    driver.take_calls();
    let mut captured = 0;
    for rows in (1..=20).rev() {
        for _ in 0..3 {
            session.step(&mut driver, &decoder, &vec![1; rows]).expect("a step");
            session.rewind(0, 1);
            (1..rows).for_each(|row| session.rewind(row, 1));
        }
        let calls = driver.take_calls();
        captured += calls.iter().filter(|call| matches!(call, Call::EndCapture(_))).count();
        assert!(!calls.iter().any(|call| matches!(call, Call::Reserve(_))), "{calls:?}");
        session.swap_remove(&mut driver, &decoder, 0).expect("moved");
    }
    // 20, 16, 8, 4, 2, 1.
    assert_eq!(captured, 6);
    // Another batch of prompts takes the same ones.
    read(&mut driver, &decoder, &mut session, 7);
    driver.take_calls();
    session.step(&mut driver, &decoder, &[1; 7]).expect("a step");
    let calls = driver.take_calls();
    assert!(calls.iter().any(|call| matches!(call, Call::LaunchGraph(_))), "{calls:?}");
    assert!(!calls.iter().any(|call| matches!(call, Call::EndCapture(_))), "{calls:?}");
}

#[test]
fn prompts_are_read_in_parts_of_the_planned_size() {
    let mut driver = Recorder::alone(1 << 30);
    let decoder = decoder(&mut driver);
    driver.take_calls();
    prefilled(&mut driver, &decoder, 1);
    let rows: Vec<u32> = driver
        .take_calls()
        .iter()
        .filter_map(|call| match call {
            Call::Launch { kernel, grid, .. } if kernel == "embed" => Some(grid[0]),
            _ => None,
        })
        .collect();
    // 150 positions are two prompts of 70.
    assert_eq!(rows, [140, 140, 70]);
}
