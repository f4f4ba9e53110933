use fisao_cuda::{
    Continuation, CudaError, Decoder, Draw, Driver, Plan, Prompts, Session, Storage, Tokens,
    Training, TrainingBatch, TrainingPlan,
};
use fisao_models::llama::DecoderFamily;

use super::model::{Model, VOCABULARY};
use crate::device::{driver, values};

const FAMILIES: [DecoderFamily; 4] =
    [DecoderFamily::Llama, DecoderFamily::Qwen2, DecoderFamily::Mistral, DecoderFamily::Qwen3];

/// Positions of the prompts, padding among them.
const LENGTH: usize = 6;
const PADDING: [usize; 3] = [0, 2, 5];
/// How far positions behind a prompt are behind their places: those of the second prompt end one earlier than its tokens.
const LAG: [usize; 3] = [0, 3, 5];

const PLAN: Plan =
    Plan { prompts: 4, prompt_length: 8, rows: 6, new_tokens: 9, prefill_positions: 13 };

/// A sequence as it should be.
#[derive(Clone)]
struct Row {
    prompt: usize,
    tokens: Vec<u32>,
}

fn prompt_ids() -> Vec<u32> {
    (0..3 * LENGTH as u32).map(|at| (37 * at + 11) % VOCABULARY as u32).collect()
}

fn prompt_positions() -> Vec<i32> {
    let of = |padding: usize| (0..LENGTH).map(move |at| at.saturating_sub(padding) as i32);
    PADDING.iter().flat_map(|&padding| of(padding)).collect()
}

impl Row {
    /// Logits after its last token, from its beginning.
    fn expected(&self, model: &Model) -> Vec<f32> {
        let padding = PADDING[self.prompt];
        let first = self.prompt * LENGTH;
        let mut ids = prompt_ids()[first + padding..first + LENGTH].to_vec();
        ids.extend(&self.tokens);
        let mut positions: Vec<usize> = (0..LENGTH - padding).collect();
        positions.extend((0..self.tokens.len()).map(|at| LENGTH + at - LAG[self.prompt]));
        model.logits(&ids, positions).pop().expect("a position")
    }
}

fn log_probs(logits: &[f32]) -> Vec<f64> {
    let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    logits.iter().map(|&x| f64::from(x) - total.ln()).collect()
}

/// The largest difference: of logits relative to the largest in f32, of log-probabilities in 16 bits.
#[track_caller]
fn compare(what: &str, storage: Storage, found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differences = |a: &[f64], b: &[f64]| {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0_f64, |most, x| {
            assert!(x.is_finite(), "{what}: not finite");
            most.max(x)
        })
    };
    let (error, limit) = if storage == Storage::F32 {
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        (differences(&wide(found), &wide(expected)) / f64::from(largest), 2e-4)
    } else {
        (differences(&log_probs(found), &log_probs(expected)), 3e-2)
    };
    assert!(error <= limit, "{what}: {error} is more than {limit}");
    error
}

/// Reads the prompts, and compares what follows them.
fn prefilled(driver: &mut dyn Driver, decoder: &Decoder, model: &Model, what: &str) -> Session {
    let storage = decoder.config().storage;
    let mut session = Session::open(driver, decoder, PLAN).expect("memory");
    let (ids, positions) = (prompt_ids(), prompt_positions());
    let prompts =
        Prompts { tokens: Tokens::Ids(&ids), positions: &positions, padding: &PADDING, deep: &[] };
    session.prefill(driver, decoder, &prompts).expect("read");
    let logits = session.prompt_logits(driver, decoder).expect("logits").to_vec();
    for (prompt, found) in logits.chunks_exact(VOCABULARY).enumerate() {
        let expected = Row { prompt, tokens: Vec::new() }.expected(model);
        compare(&format!("{what}: prompt {prompt}"), storage, found, &expected);
    }
    session
}

/// Decodes sequences of which some leave and some are rewound; the largest difference.
fn decoded(driver: &mut dyn Driver, decoder: &Decoder, model: &Model, what: &str) -> f64 {
    let storage = decoder.config().storage;
    let mut session = prefilled(driver, decoder, model, what);
    let of = vec![2, 0, 1, 0, 1];
    let lag = of.iter().map(|&prompt| LAG[prompt]).collect();
    let mut rows: Vec<Row> = of.iter().map(|&prompt| Row { prompt, tokens: Vec::new() }).collect();
    session.begin(Continuation { of, lag }).expect("room");
    let mut most = 0.0_f64;
    for step in 0..9_u32 {
        match step {
            2 => remove(driver, decoder, &mut session, &mut rows, 0),
            4 => {
                session.rewind(1, 3);
                rows[1].tokens.truncate(1);
                session.rewind(3, 4);
                rows[3].tokens.clear();
            }
            6 | 7 => remove(driver, decoder, &mut session, &mut rows, 2),
            _ => {}
        }
        let tokens: Vec<u32> = (0..rows.len() as u32)
            .map(|at| (step * 97 + at * 31 + 5) % VOCABULARY as u32)
            .collect();
        let logits = session.step(driver, decoder, &tokens).expect("a step").to_vec();
        for (at, (row, &token)) in rows.iter_mut().zip(&tokens).enumerate() {
            row.tokens.push(token);
            let found = &logits[at * VOCABULARY..(at + 1) * VOCABULARY];
            let what = format!("{what}: step {step}, row {at}");
            most = most.max(compare(&what, storage, found, &row.expected(model)));
        }
    }
    assert_eq!(session.rows(), rows.len());
    session.close(driver).expect("closed");
    most
}

fn remove(
    driver: &mut dyn Driver,
    decoder: &Decoder,
    session: &mut Session,
    rows: &mut Vec<Row>,
    row: usize,
) {
    session.swap_remove(driver, decoder, row).expect("moved");
    rows.swap_remove(row);
}

#[expect(clippy::print_stderr, reason = "figures of the comparison, for who asks for them")]
fn check(test: &str, storage: Storage, head_size: usize, adapted: bool) {
    let Some(mut driver) = driver(test) else { return };
    for family in FAMILIES {
        let mut model = Model::new(family, storage, head_size, adapted);
        let decoder = model.on(&mut driver);
        let what = format!("{family:?} {storage:?} heads of {head_size}, adapted {adapted}");
        let most = decoded(&mut driver, &decoder, &model, &what);
        eprintln!("{what}: at most {most:.1e}");
        decoder.unload(&mut driver).expect("released");
    }
}

#[test]
fn decoding_equals_the_cpu_path_in_f32() {
    check("decoding_equals_the_cpu_path_in_f32", Storage::F32, 18, false);
}

#[test]
fn decoding_with_adapters_equals_the_cpu_path_in_f32() {
    check("decoding_with_adapters_equals_the_cpu_path_in_f32", Storage::F32, 64, true);
}

#[test]
fn decoding_equals_the_cpu_path_in_bf16() {
    check("decoding_equals_the_cpu_path_in_bf16", Storage::Bf16, 32, false);
}

#[test]
fn decoding_with_adapters_equals_the_cpu_path_in_bf16() {
    check("decoding_with_adapters_equals_the_cpu_path_in_bf16", Storage::Bf16, 18, true);
}

#[test]
fn decoding_equals_the_cpu_path_in_f16() {
    check("decoding_equals_the_cpu_path_in_f16", Storage::F16, 80, true);
}

#[test]
fn greedy_tokens_are_those_of_the_cpu_path() {
    let Some(mut driver) = driver("greedy_tokens_are_those_of_the_cpu_path") else { return };
    let driver: &mut dyn Driver = &mut driver;
    for family in FAMILIES {
        let mut model = Model::new(family, Storage::F32, 18, false);
        let decoder = model.on(driver);
        let mut session = prefilled(driver, &decoder, &model, "greedy");
        let lag = LAG.to_vec();
        session.begin(Continuation { of: vec![0, 1, 2], lag }).expect("room");
        let mut rows: Vec<Row> =
            (0..3).map(|prompt| Row { prompt, tokens: vec![7 + prompt as u32] }).collect();
        for step in 0..6 {
            let tokens: Vec<u32> =
                rows.iter().map(|row| *row.tokens.last().expect("a token")).collect();
            let draws = [Draw { temperature: 0.0, uniform: 0.5 }; 3];
            let found = session.step_sampled(driver, &decoder, &tokens, &draws).expect("a step");
            for (row, (token, log_prob)) in rows.iter_mut().zip(found) {
                let expected = log_probs(&row.expected(&model));
                let most = expected.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let first = expected.iter().position(|&x| x >= most).expect("a token");
                assert_eq!(token as usize, first, "{family:?}: step {step}");
                assert!((f64::from(log_prob) - most).abs() < 1e-4, "{family:?}: step {step}");
                row.tokens.push(token);
            }
        }
        session.close(driver).expect("closed");
    }
}

#[test]
fn embeddings_are_read_as_their_ids_are() {
    let Some(mut driver) = driver("embeddings_are_read_as_their_ids_are") else { return };
    let driver: &mut dyn Driver = &mut driver;
    let mut model = Model::new(DecoderFamily::Llama, Storage::Bf16, 18, false);
    let decoder = model.on(driver);
    let (ids, positions) = (prompt_ids(), prompt_positions());
    let device = burn::tensor::Device::flex();
    let places: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    let x = model.llama.embed(burn::tensor::Tensor::from_data(&places[..], &device));
    let x: Vec<f32> = x.into_data().try_to_vec().expect("f32");
    let mut read = |tokens| {
        let mut session = Session::open(driver, &decoder, PLAN).expect("memory");
        let prompts = Prompts { tokens, positions: &positions, padding: &PADDING, deep: &[] };
        let last = session.prefill(driver, &decoder, &prompts).expect("read");
        session.close(driver).expect("closed");
        last
    };
    let by_ids = read(Tokens::Ids(&ids));
    assert_eq!(by_ids, read(Tokens::Embeddings(&x)));
    assert!(by_ids.iter().all(|x| x.is_finite()));
}

#[test]
fn states_are_added_behind_the_first_layers() {
    let Some(mut driver) = driver("states_are_added_behind_the_first_layers") else { return };
    let driver: &mut dyn Driver = &mut driver;
    let mut model = Model::new(DecoderFamily::Qwen3, Storage::F32, 18, false);
    let decoder = model.on(driver);
    let (ids, positions) = (prompt_ids(), prompt_positions());
    let states = [1, 2].map(|seed| values(seed, ids.len() * 48));
    let deep: Vec<&[f32]> = states.iter().map(|states| &states[..]).collect();
    let mut session = Session::open(driver, &decoder, PLAN).expect("memory");
    let tokens = Tokens::Ids(&ids);
    let prompts = Prompts { tokens, positions: &positions, padding: &PADDING, deep: &deep };
    session.prefill(driver, &decoder, &prompts).expect("read");
    let logits = session.prompt_logits(driver, &decoder).expect("logits").to_vec();
    for (prompt, found) in logits.chunks_exact(VOCABULARY).enumerate() {
        let rows = prompt * LENGTH + PADDING[prompt]..(prompt + 1) * LENGTH;
        let of: Vec<&[f32]> =
            deep.iter().map(|states| &states[rows.start * 48..rows.end * 48]).collect();
        let ids = &ids[rows.clone()];
        let all = model.logits_with(ids, (0..ids.len()).collect(), &of);
        let expected = all.last().expect("a position");
        compare(&format!("prompt {prompt}"), Storage::F32, found, expected);
        let without = model.logits(ids, (0..ids.len()).collect());
        assert_ne!(expected, without.last().expect("a position"));
    }
    let scored: Vec<usize> = (0..3).map(|prompt| (prompt + 1) * LENGTH - 1).collect();
    let plan =
        TrainingPlan { sequences: 3, length: LENGTH, targets: 3, logit_rows: 3, backward: false };
    let mut training = Training::open(driver, &decoder, plan).expect("memory");
    let batch = TrainingBatch {
        tokens,
        positions: &positions,
        padding: &PADDING,
        segments: None,
        deep: &deep,
        rows: &scored,
        targets: &[4, 5, 6],
        temperature: 1.0,
    };
    let found = training.forward(driver, &decoder, &batch).expect("scored").log_probs;
    for ((found, logits), target) in found.iter().zip(logits.chunks_exact(VOCABULARY)).zip(4..) {
        assert!((f64::from(*found) - log_probs(logits)[target]).abs() < 1e-4);
    }
}

#[test]
fn adapter_is_switched_off_and_replaced_while_a_session_is_open() {
    let test = "adapter_is_switched_off_and_replaced_while_a_session_is_open";
    let Some(mut driver) = driver(test) else { return };
    let driver: &mut dyn Driver = &mut driver;
    let mut adapted = Model::new(DecoderFamily::Qwen2, Storage::F32, 18, true);
    let plain = Model::new(DecoderFamily::Qwen2, Storage::F32, 18, false);
    let mut decoder = adapted.on(driver);
    let mut session = prefilled(driver, &decoder, &adapted, "with the adapter");
    let (ids, positions) = (prompt_ids(), prompt_positions());
    let prompts =
        Prompts { tokens: Tokens::Ids(&ids), positions: &positions, padding: &PADDING, deep: &[] };
    for (round, enabled) in [false, true, false, true].into_iter().enumerate() {
        decoder.set_adapter_enabled(enabled);
        if round == 2 {
            adapted.adapt_anew(700);
            decoder.set_adapter(driver, &adapted.paths()).expect("an adapter");
        }
        let model = if enabled { &adapted } else { &plain };
        session.prefill(driver, &decoder, &prompts).expect("read");
        session.begin(Continuation { of: vec![1], lag: vec![LAG[1]] }).expect("room");
        let mut row = Row { prompt: 1, tokens: Vec::new() };
        for token in [9, 8, 7] {
            let found = session.step(driver, &decoder, &[token]).expect("a step").to_vec();
            row.tokens.push(token);
            compare("switched", Storage::F32, &found, &row.expected(model));
        }
    }
    session.close(driver).expect("closed");
}

#[test]
fn batches_beyond_the_plan_are_refused() {
    let Some(mut driver) = driver("batches_beyond_the_plan_are_refused") else { return };
    let driver: &mut dyn Driver = &mut driver;
    let mut model = Model::new(DecoderFamily::Llama, Storage::F32, 18, false);
    let decoder = model.on(driver);
    let mut session = prefilled(driver, &decoder, &model, "refused");
    let long = vec![0_i32; 9];
    let ids = vec![0_u32; 9];
    let prompts = Prompts { tokens: Tokens::Ids(&ids), positions: &long, padding: &[0], deep: &[] };
    let refused = session.prefill(driver, &decoder, &prompts);
    let capacity = |found, planned| move |error: &CudaError| matches!(error, CudaError::Capacity { found: f, planned: p, .. } if (*f, *p) == (found, planned));
    assert!(refused.as_ref().is_err_and(capacity(9, 8)), "{refused:?}");
    let refused = session.begin(Continuation { of: vec![0; 7], lag: vec![0; 7] });
    assert!(refused.as_ref().is_err_and(capacity(7, 6)), "{refused:?}");
    session.begin(Continuation { of: vec![0], lag: vec![0] }).expect("room");
    for _ in 0..9 {
        session.step(driver, &decoder, &[1]).expect("room");
    }
    let refused = session.step(driver, &decoder, &[1]).map(<[f32]>::len);
    assert!(refused.as_ref().is_err_and(capacity(10, 9)), "{refused:?}");
}
