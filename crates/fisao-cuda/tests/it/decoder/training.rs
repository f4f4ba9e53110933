use fisao_cuda::kernels::Segments;
use fisao_cuda::{
    AdapterGradient, CudaError, Decoder, Driver, Storage, Tokens, Training, TrainingBatch,
    TrainingPlan,
};
use fisao_models::llama::DecoderFamily;

use super::model::{Model, ScoredSequence, VOCABULARY};
use crate::device::{assert_close, doubles, driver, values};

const LENGTH: usize = 11;
const PADDING: [usize; 3] = [0, 3, 1];
const HIDDEN: usize = 48;
const TEMPERATURE: f32 = 0.9;

const PLAN: TrainingPlan =
    TrainingPlan { sequences: 4, length: 12, targets: 24, logit_rows: 5, backward: true };

/// Three sequences of which the last positions are scored.
fn sequences() -> Vec<ScoredSequence> {
    PADDING
        .iter()
        .enumerate()
        .map(|(index, padding)| {
            let length = LENGTH - padding;
            let ids: Vec<u32> = (0..length as u32)
                .map(|at| (at * 53 + index as u32 * 17 + 3) % VOCABULARY as u32)
                .collect();
            // All but the first of the second sequence, fewer of the others.
            let first = if index == 1 { 0 } else { 3 + index };
            let places: Vec<usize> = (first..length - 1).collect();
            let targets = places.iter().map(|&at| ids[at + 1]).collect();
            let (count, seed) = (places.len(), index as u64);
            ScoredSequence {
                ids,
                targets,
                by_log_probs: values(seed + 1, count),
                by_entropies: values(seed + 11, count),
                by_states: values(seed + 21, count * HIDDEN).iter().map(|x| 0.1 * x).collect(),
                places,
            }
        })
        .collect()
}

/// The same as one padded batch.
struct Padded {
    ids: Vec<u32>,
    positions: Vec<i32>,
    rows: Vec<usize>,
    targets: Vec<u32>,
    by_log_probs: Vec<f32>,
    by_entropies: Vec<f32>,
    by_states: Vec<f32>,
}

fn padded(sequences: &[ScoredSequence]) -> Padded {
    let all = |of: &dyn Fn(&ScoredSequence) -> Vec<f32>| sequences.iter().flat_map(of).collect();
    let ids = sequences.iter().zip(PADDING).flat_map(|(sequence, padding)| {
        std::iter::repeat_n(0, padding).chain(sequence.ids.iter().copied())
    });
    let position = |padding: usize| (0..LENGTH).map(move |at| at.saturating_sub(padding) as i32);
    let rows = sequences.iter().enumerate().flat_map(|(index, sequence)| {
        sequence.places.iter().map(move |place| index * LENGTH + PADDING[index] + place)
    });
    Padded {
        ids: ids.collect(),
        positions: PADDING.into_iter().flat_map(position).collect(),
        rows: rows.collect(),
        targets: sequences.iter().flat_map(|sequence| sequence.targets.clone()).collect(),
        by_log_probs: all(&|sequence| sequence.by_log_probs.clone()),
        by_entropies: all(&|sequence| sequence.by_entropies.clone()),
        by_states: all(&|sequence| sequence.by_states.clone()),
    }
}

impl Padded {
    fn batch(&self) -> TrainingBatch<'_> {
        TrainingBatch {
            tokens: Tokens::Ids(&self.ids),
            positions: &self.positions,
            padding: &PADDING,
            deep: &[],
            segments: None,
            rows: &self.rows,
            targets: &self.targets,
            temperature: TEMPERATURE,
        }
    }

    fn gradients(&self) -> [&[f32]; 3] {
        [&self.by_log_probs, &self.by_entropies, &self.by_states]
    }
}

/// An adapted decoder on a driver with what its training takes.
struct Opened {
    decoder: Decoder,
    padded: Padded,
    training: Training,
}

fn opened(driver: &mut dyn Driver, family: DecoderFamily, storage: Storage) -> Opened {
    let mut model = Model::new(family, storage, 18, true);
    let decoder = model.on(driver);
    let padded = padded(&sequences());
    let training = Training::open(driver, &decoder, PLAN).expect("memory");
    Opened { decoder, padded, training }
}

/// Cosine of the angle between gradients, and the ratio of their lengths.
fn angle(found: &[f32], expected: &[f32]) -> [f64; 2] {
    let (found, expected) = (doubles(found), doubles(expected));
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let lengths = [dot(&found, &found).sqrt(), dot(&expected, &expected).sqrt()];
    [dot(&found, &expected) / lengths[0] / lengths[1], lengths[0] / lengths[1]]
}

#[expect(clippy::print_stderr, reason = "figures of the comparison, for who asks for them")]
fn check(test: &str, family: DecoderFamily, storage: Storage, head_size: usize) {
    let Some(mut driver) = driver(test) else { return };
    let driver: &mut dyn Driver = &mut driver;
    let mut model = Model::new(family, storage, head_size, true);
    let decoder = model.on(driver);
    let sequences = sequences();
    let expected = model.differentiated(&sequences, TEMPERATURE);
    let padded = padded(&sequences);
    let mut training = Training::open(driver, &decoder, PLAN).expect("memory");
    let what = format!("{family:?} {storage:?}");
    for round in 1..=2 {
        let scored = training.forward(driver, &decoder, &padded.batch()).expect("scored");
        let near = if storage == Storage::F32 { 2e-5 } else { 3e-2 };
        assert_close(&what, &scored.log_probs, &doubles(&expected.log_probs), near);
        assert_close(&what, &scored.entropies, &doubles(&expected.entropies), near);
        assert_close(&what, &scored.states, &doubles(&expected.states), near);
        training.backward(driver, &decoder, padded.gradients()).expect("gradients");
        let found = training.gradients(driver, &decoder).expect("gradients");
        assert_eq!(found.len(), expected.gradients.len());
        let mut worst = [1.0_f64, 1.0];
        for AdapterGradient { layer, target, a, b } in &found {
            let expected = &expected.gradients[&(*layer, *target)];
            for (found, expected) in [a, b].into_iter().zip(expected) {
                // Gradients add up.
                let expected: Vec<f32> = expected.iter().map(|x| x * round as f32).collect();
                let what = format!("{what}: layer {layer}, {target:?}, round {round}");
                if storage == Storage::F32 {
                    assert_close(&what, found, &doubles(&expected), 2e-4);
                }
                let [cosine, ratio] = angle(found, &expected);
                assert!(cosine > 0.999 && (ratio - 1.0).abs() < 0.03, "{what}: {cosine} {ratio}");
                worst[0] = worst[0].min(cosine);
                worst[1] =
                    if (ratio - 1.0).abs() > (worst[1] - 1.0_f64).abs() { ratio } else { worst[1] };
            }
        }
        eprintln!("{what}: least cosine {:.6}, length {:.4}", worst[0], worst[1]);
    }
    training.close(driver).expect("closed");
}

#[test]
fn gradients_are_those_of_autodiff_in_f32() {
    let test = "gradients_are_those_of_autodiff_in_f32";
    check(test, DecoderFamily::Llama, Storage::F32, 18);
    check(test, DecoderFamily::Qwen2, Storage::F32, 18);
    check(test, DecoderFamily::Mistral, Storage::F32, 32);
    check(test, DecoderFamily::Qwen3, Storage::F32, 18);
}

#[test]
fn gradients_are_those_of_autodiff_in_bf16() {
    let test = "gradients_are_those_of_autodiff_in_bf16";
    check(test, DecoderFamily::Llama, Storage::Bf16, 18);
    check(test, DecoderFamily::Qwen3, Storage::Bf16, 64);
}

#[test]
fn gradients_are_those_of_autodiff_in_f16() {
    let test = "gradients_are_those_of_autodiff_in_f16";
    check(test, DecoderFamily::Qwen2, Storage::F16, 18);
}

/// Each is below the least number of f16.
#[test]
fn tiny_gradients_are_not_lost_in_f16() {
    let Some(mut driver) = driver("tiny_gradients_are_not_lost_in_f16") else { return };
    let driver: &mut dyn Driver = &mut driver;
    let Opened { decoder, padded, mut training } =
        opened(driver, DecoderFamily::Llama, Storage::F16);
    let mut gradients = |factor: f32| -> Vec<f32> {
        let scaled = |x: &[f32]| x.iter().map(|x| x * factor).collect::<Vec<f32>>();
        let [p, h, s] = padded.gradients().map(scaled);
        training.clear_gradients(driver).expect("cleared");
        training.forward(driver, &decoder, &padded.batch()).expect("scored");
        training.backward(driver, &decoder, [&p, &h, &s]).expect("gradients");
        let found = training.gradients(driver, &decoder).expect("gradients");
        found.iter().flat_map(|of| of.a.iter().chain(&of.b)).copied().collect()
    };
    let factor = 0.5_f32.powi(30);
    let whole: Vec<f32> = gradients(1.0).iter().map(|x| x * factor).collect();
    assert_eq!(gradients(factor), whole);
}

#[test]
fn gradients_are_the_same_bits_in_every_run() {
    let test = "gradients_are_the_same_bits_in_every_run";
    let Some(mut driver) = driver(test) else { return };
    let driver: &mut dyn Driver = &mut driver;
    let Opened { decoder, padded, mut training } =
        opened(driver, DecoderFamily::Llama, Storage::Bf16);
    let mut run = |training: &mut Training| {
        training.clear_gradients(driver).expect("cleared");
        training.forward(driver, &decoder, &padded.batch()).expect("scored");
        training.backward(driver, &decoder, padded.gradients()).expect("gradients");
        training.gradients(driver, &decoder).expect("gradients")
    };
    let first = run(&mut training);
    assert_eq!(first, run(&mut training));
}

/// Three responses to each of two prompts, each response read behind its prompt alone and all of a prompt in one sequence.
#[test]
fn responses_behind_a_shared_prompt_have_the_gradients_of_single_ones() {
    let test = "responses_behind_a_shared_prompt_have_the_gradients_of_single_ones";
    let Some(mut driver) = driver(test) else { return };
    let driver: &mut dyn Driver = &mut driver;
    let (prefix, segment) = (5, 4);
    let (paddings, lengths) = ([0, 2], [[4, 1, 3], [2, 4, 4]]);
    let length = prefix + 3 * segment;
    let (mut ids, mut positions) = (vec![0; 2 * length], vec![0; 2 * length]);
    let (mut rows, mut targets, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
    for (group, (padding, lengths)) in paddings.into_iter().zip(lengths).enumerate() {
        let first = group * length;
        let prompt: Vec<u32> =
            (0..prefix - padding).map(|at| (at * 37 + group + 2) as u32).collect();
        ids[first + padding..first + prefix].copy_from_slice(&prompt);
        for (at, position) in positions[first..first + prefix].iter_mut().enumerate() {
            *position = at.saturating_sub(padding) as i32;
        }
        for (index, count) in lengths.into_iter().enumerate() {
            let response: Vec<u32> = (0..count)
                .map(|at| ((at * 91 + index * 29 + group * 7 + 1) % VOCABULARY) as u32)
                .collect();
            let start = first + prefix + index * segment;
            ids[start..start + count].copy_from_slice(&response);
            for at in 0..segment {
                positions[start + at] = (prompt.len() + at) as i32;
            }
            // The last token of the prompt predicts the first of every response.
            rows.push(first + prefix - 1);
            rows.extend(start..start + count - 1);
            targets.extend(&response);
            let seed = sequences.len() as u64;
            sequences.push(ScoredSequence {
                ids: prompt.iter().chain(&response).copied().collect(),
                places: (prompt.len() - 1..prompt.len() + count - 1).collect(),
                targets: response,
                by_log_probs: values(seed + 1, count),
                by_entropies: values(seed + 11, count),
                by_states: values(seed + 21, count * HIDDEN).iter().map(|x| 0.1 * x).collect(),
            });
        }
    }
    let all = |of: &dyn Fn(&ScoredSequence) -> &[f32]| -> Vec<f32> {
        sequences.iter().flat_map(|sequence| of(sequence).to_vec()).collect()
    };
    let [by_log_probs, by_entropies, by_states] = [
        all(&|sequence| &sequence.by_log_probs),
        all(&|sequence| &sequence.by_entropies),
        all(&|sequence| &sequence.by_states),
    ];
    for family in [DecoderFamily::Llama, DecoderFamily::Mistral] {
        let mut model = Model::new(family, Storage::F32, 18, true);
        let decoder = model.on(driver);
        let expected = model.differentiated(&sequences, TEMPERATURE);
        let plan = TrainingPlan { length, ..PLAN };
        let mut training = Training::open(driver, &decoder, plan).expect("memory");
        let batch = TrainingBatch {
            tokens: Tokens::Ids(&ids),
            positions: &positions,
            padding: &paddings,
            deep: &[],
            segments: Some(Segments { prefix, length: segment }),
            rows: &rows,
            targets: &targets,
            temperature: TEMPERATURE,
        };
        let scored = training.forward(driver, &decoder, &batch).expect("scored");
        let what = format!("{family:?}");
        assert_close(&what, &scored.log_probs, &doubles(&expected.log_probs), 2e-5);
        assert_close(&what, &scored.entropies, &doubles(&expected.entropies), 2e-5);
        let by = [&by_log_probs[..], &by_entropies, &by_states];
        training.backward(driver, &decoder, by).expect("gradients");
        for of in training.gradients(driver, &decoder).expect("gradients") {
            let expected = &expected.gradients[&(of.layer, of.target)];
            for (found, expected) in [of.a, of.b].iter().zip(expected) {
                let what = format!("{what}: layer {}, {:?}", of.layer, of.target);
                assert_close(&what, found, &doubles(expected), 2e-4);
            }
        }
    }
}

#[test]
fn batch_beyond_the_plan_is_not_scored() {
    let Some(mut driver) = driver("batch_beyond_the_plan_is_not_scored") else { return };
    let driver: &mut dyn Driver = &mut driver;
    let mut model = Model::new(DecoderFamily::Llama, Storage::F32, 18, false);
    let decoder = model.on(driver);
    let padded = padded(&sequences());
    let plan = TrainingPlan { targets: 3, backward: false, ..PLAN };
    assert!(plan.bytes(&decoder) < PLAN.bytes(&decoder));
    let mut training = Training::open(driver, &decoder, plan).expect("memory");
    let refused = training.forward(driver, &decoder, &padded.batch());
    assert!(matches!(refused, Err(CudaError::Capacity { planned: 3, .. })), "{refused:?}");
}
