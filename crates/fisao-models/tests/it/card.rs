//! Decoding, scores and gradients on a card against those on the CPU. The card's kernels run on the CPU here, compiled as C++; what is tested is that a
//! model hands everything to them that they need.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};
use fisao_cuda::{
    CudaError, Failing, Host, HostKernels, HostMemory, HostOptions, Storage, kernel_source,
};
use fisao_models::card_part::{ImageMemory, SharedDriver};
use fisao_models::contrastive::ContrastiveModel;
use fisao_models::generation::{Decoding, Generated, Prompt, Sampling};
use fisao_models::llama::{CardBatches, CardMemory};
use fisao_models::lora::LoraConfig;
use fisao_models::parameters::{GradientMap, ParameterMut, Parameters, floats, from_floats};
use fisao_models::scoring::ResponseScores;
use fisao_models::sequences::Example;
use fisao_models::vision::{VisionConfig, VisionFamily, VisionTower};
use fisao_models::vision_language::{ImageBatch, VisionLanguageModel};
use fisao_models::weights::RandomWeights;
use fisao_testkit::compare::assert_close;
use fisao_testkit::skipped::report_skipped;
use fisao_testkit::tiny::{
    eva_config, pixels, tiny_blip2, tiny_clip, tiny_instructblip, tiny_llava, tiny_siglip,
    vision_config,
};

use crate::generation::prompts;

/// How far log-probabilities are apart at most: f32, sums in another order.
pub(crate) const CLOSE: f32 = 1e-4;

/// A driver that runs the kernels for a type of weights on the CPU.
pub(crate) fn host(test: &str, storage: Storage) -> Option<Host> {
    host_kernels(test, storage).map(|kernels| Host::new(kernels, 1 << 30))
}

/// Its kernels.
fn host_kernels(test: &str, storage: Storage) -> Option<Arc<HostKernels>> {
    static KERNELS: [OnceLock<Option<Arc<HostKernels>>>; 3] = [const { OnceLock::new() }; 3];
    let compile = || {
        let folder = tempfile::tempdir().expect("a folder");
        match HostKernels::compile(folder.path(), &[storage], &HostOptions::default()) {
            Ok(kernels) => Some(Arc::new(kernels)),
            Err(CudaError::HostCompiler { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    };
    let index = match storage {
        Storage::F32 => 0,
        Storage::Bf16 => 1,
        Storage::F16 => 2,
    };
    let kernels = KERNELS[index].get_or_init(compile).clone();
    if kernels.is_none() {
        report_skipped(test, "no C++ compiler");
    }
    kernels
}

/// A model on the CPU and its clone that has a card.
fn pair(test: &str, adapted: bool) -> Option<[VisionLanguageModel; 2]> {
    let mut model = tiny_llava(3);
    if adapted {
        model.add_lora(&LoraConfig { rank: 3, ..LoraConfig::default() }, 5).expect("an adapter");
        disturb(&mut model, 0.3);
    }
    let mut on_card = model.clone();
    on_card.language_model_mut().use_card(Box::new(host(test, Storage::F32)?)).expect("a copy");
    assert!(on_card.language_model().card_name().is_some());
    Some([model, on_card])
}

/// Gives the adapter other values, so that it changes what is computed.
pub(crate) fn disturb(model: &mut VisionLanguageModel, size: f32) {
    let mut seed = 0.0;
    model.visit_lora_mut(&mut |_, parameter| {
        let ParameterMut::Matrix(matrix) = parameter else { panic!("a matrix") };
        let [rows, columns] = matrix.dims();
        seed += 1.0_f32;
        let value = |at: usize| (at as f32 * 0.7 + seed).sin() * size;
        let values: Vec<f32> = (0..rows * columns).map(value).collect();
        *matrix = Tensor::<1>::from_data(&values[..], &matrix.device()).reshape([rows, columns]);
    });
}

fn sampling(temperature: f64) -> Sampling {
    Sampling { max_new_tokens: 20, temperature, seed: 5 }
}

fn responses(model: &VisionLanguageModel, temperature: f64) -> Vec<Generated> {
    let features = model.image_features(pixels(3, 4)).unwrap();
    model.generate(&prompts(), &features, 3, &sampling(temperature)).expect("responses")
}

fn assert_same(found: &[Generated], expected: &[Generated]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.tokens, expected.tokens);
        assert_eq!(found.finish, expected.finish);
        assert_close("log-probabilities", &found.logprobs, &expected.logprobs, CLOSE);
    }
    // They are not the same to the bit, so that it was something else that computed them.
    assert!(found != expected, "nothing was computed on the card");
}

#[test]
fn responses_on_a_card_are_those_of_the_cpu() {
    for adapted in [false, true] {
        let Some([model, on_card]) = pair("responses", adapted) else { return };
        for temperature in [0.0, 0.7, 1.5] {
            let expected = responses(&model, temperature);
            let lengths: Vec<usize> = expected.iter().map(|of| of.tokens.len()).collect();
            assert!(lengths.iter().any(|&length| length > 4), "too short to tell: {lengths:?}");
            assert_same(&responses(&on_card, temperature), &expected);
        }
    }
}

/// A card whose kernel for that always chooses one token: where it is asked, and where logits are needed.
#[test]
fn tokens_are_chosen_on_the_card_unless_some_are_banned() {
    const ALWAYS: u32 = 13;
    let folder = tempfile::tempdir().expect("a folder");
    let chosen = "tokens[blockIdx.x] = (unsigned)chosen;";
    let source = kernel_source();
    assert_eq!(source.matches(chosen).count(), 1);
    let source = source.replace(chosen, &format!("tokens[blockIdx.x] = {ALWAYS};"));
    let options = HostOptions::default();
    let kernels =
        match HostKernels::compile_source(folder.path(), &[Storage::F32], &options, &source) {
            Err(CudaError::HostCompiler { .. }) => {
                return report_skipped("chosen", "no C++ compiler");
            }
            kernels => Arc::new(kernels.expect("kernels")),
        };
    let model = tiny_llava(3);
    let mut on_card = model.clone();
    on_card.language_model_mut().use_card(Box::new(Host::new(kernels, 1 << 30))).expect("a copy");
    for temperature in [0.0, 0.7] {
        for response in responses(&on_card, temperature) {
            assert!(response.tokens[1..].iter().all(|&token| token == ALWAYS), "{response:?}");
        }
        let features = model.image_features(pixels(3, 4)).unwrap();
        let settings = vec![sampling(temperature); prompts().len()];
        let mut decoding =
            on_card.start_decoding(&prompts(), &features, 1, &settings).expect("prompts");
        for _ in 0..3 {
            decoding.step().expect("a step");
        }
        let slot = decoding.open().next().expect("a response");
        decoding.rewind(slot, 2, &[ALWAYS]);
        decoding.step().expect("a step");
        assert_ne!(decoding.response(slot).tokens[2], ALWAYS);
        decoding.step().expect("a step");
        if let Some(&next) = decoding.response(slot).tokens.get(3) {
            assert_eq!(next, ALWAYS, "the next token is chosen on the card again");
        }
    }
}

/// Logits that are NaN end a response on the card as they do on the CPU, and [`Generated::is_finite`] says so.
#[test]
fn logits_that_are_not_finite_end_a_response_on_a_card() {
    let mut model = tiny_llava(3);
    for temperature in [0.0, 0.7] {
        // NaN at the first token of a response: what follows it has no probability.
        let written = responses(&model, temperature);
        let prompts = prompts();
        let first = written
            .iter()
            .find(|of| {
                let first = of.tokens[0];
                of.tokens.len() > 4 && prompts.iter().all(|prompt| !prompt.ids.contains(&first))
            })
            .expect("a token of no prompt")
            .tokens[0];
        model.visit_mut("", &mut |name, parameter| {
            if name.ends_with("embed_tokens.weight") {
                let ParameterMut::Matrix(matrix) = parameter else { panic!("a matrix") };
                let [rows, columns] = matrix.dims();
                let mut values = floats(matrix);
                values[first as usize * columns..][..columns].fill(f32::NAN);
                *matrix = from_floats(values, [rows, columns], &matrix.device());
            }
        });
        let Some(driver) = host("not finite", Storage::F32) else { return };
        let mut on_card = model.clone();
        on_card.language_model_mut().use_card(Box::new(driver)).expect("a copy");
        let found = responses(&on_card, temperature);
        let mut count = 0;
        for (found, expected) in found.iter().zip(responses(&model, temperature)) {
            assert_eq!(found.is_finite(), expected.is_finite());
            assert_eq!(
                (found.tokens.len(), found.finish),
                (expected.tokens.len(), expected.finish)
            );
            count += usize::from(!found.is_finite());
        }
        assert!(count > 0, "one has it");
        model = tiny_llava(3);
    }
}

#[test]
fn closed_and_rewound_responses_on_a_card_are_those_of_the_cpu() {
    for adapted in [false, true] {
        let Some([model, on_card]) = pair("rewound", adapted) else { return };
        let [expected, found] = [&model, &on_card].map(|model| {
            let features = model.image_features(pixels(3, 4)).unwrap();
            let settings = [12, 20, 5, 16].map(|max_new_tokens| Sampling {
                max_new_tokens,
                temperature: 1.0,
                seed: 7,
            });
            let mut decoding =
                model.start_decoding(&prompts(), &features, 2, &settings).expect("prompts");
            for step in 0.. {
                if step == 4 {
                    decoding.close(2).expect("a step");
                }
                let open: Vec<usize> = decoding.open().collect();
                let long =
                    open.iter().copied().filter(|&slot| decoding.response(slot).tokens.len() > 2);
                match (step, long.min()) {
                    (3, Some(slot)) => decoding.rewind(slot, 1, &[4, 9]),
                    (5, Some(slot)) => decoding.rewind(slot, 0, &[]),
                    _ => {}
                }
                if !decoding.step().expect("a step") {
                    break;
                }
            }
            decoding.into_responses()
        });
        assert_same(&found, &expected);
    }
}

/// Whenever it is that the driver fails; no token is lost that was chosen before.
#[test]
fn a_driver_that_fails_while_responses_are_written_is_an_error() {
    let model = tiny_llava(3);
    let expected = responses(&model, 0.7);
    let longest = expected.iter().map(|of| of.tokens.len()).max().expect("a response");
    let features = model.image_features(pixels(3, 4)).unwrap();
    let settings = vec![sampling(0.7); prompts().len()];
    for downloads in 0..longest {
        let Some(driver) = host("failing", Storage::F32) else { return };
        let mut on_card = model.clone();
        let driver = Failing::after(downloads, driver);
        on_card.language_model_mut().use_card(Box::new(driver)).expect("a copy");
        let started = on_card.start_decoding(&prompts(), &features, 3, &settings);
        let failed = if downloads == 0 {
            started.err().expect("prompts are not read")
        } else {
            let mut decoding = started.expect("prompts");
            let failed = loop {
                match decoding.step() {
                    Ok(true) => {}
                    Ok(false) => panic!("it fails before all is written"),
                    Err(error) => break error,
                }
            };
            assert!(decoding.step().is_err(), "it fails for good");
            for slot in 0..expected.len() {
                // Whether there was something to be done on the card or not, it does not panic.
                let _ = decoding.close(slot);
            }
            for (found, expected) in decoding.into_responses().iter().zip(&expected) {
                let written = expected.tokens.len().min(downloads);
                assert_eq!(found.tokens, expected.tokens[..written]);
                assert_eq!(found.logprobs.len(), written);
            }
            failed
        };
        assert!(matches!(failed, CudaError::Call { .. }), "{failed}");
        let whole = on_card.generate(&prompts(), &features, 3, &sampling(0.7));
        assert!(matches!(whole, Err(CudaError::Call { .. })), "{whole:?}");
    }
}

/// A policy that trains: its adapter changes between batches, its reference has none, and both are clones that share the card.
#[test]
fn changed_adapters_and_weights_are_copied_again() {
    let Some([mut model, mut on_card]) = pair("changed", true) else { return };
    let first = responses(&model, 0.7);
    assert_same(&responses(&on_card, 0.7), &first);
    for model in [&mut model, &mut on_card] {
        disturb(model, 0.4);
    }
    let second = responses(&model, 0.7);
    assert!(second != first, "another adapter says something else");
    assert_same(&responses(&on_card, 0.7), &second);
    assert_same(&responses(&on_card.without_lora(), 0.7), &responses(&model.without_lora(), 0.7));
    assert_same(&responses(&on_card, 0.7), &second);
    let policy = on_card.clone();
    for model in [&mut model, &mut on_card] {
        model.merge_lora();
    }
    assert_same(&responses(&on_card, 0.7), &responses(&model, 0.7));
    assert_same(&responses(&policy, 0.7), &second);
}

/// What a card is at work with does not change under it: the CPU takes the other batch.
#[test]
fn batches_with_other_adapters_at_the_same_time_do_not_disturb_each_other() {
    let Some([model, on_card]) = pair("at the same time", true) else { return };
    let mut other = on_card.clone();
    disturb(&mut other, 0.4);
    let [without, on_cpu] = [on_card.without_lora(), model.without_lora()];
    let features = model.image_features(pixels(3, 4)).unwrap();
    let settings = vec![sampling(0.7); prompts().len()];
    let mut decodings = [&on_card, &other, &without]
        .map(|model| model.start_decoding(&prompts(), &features, 3, &settings).expect("prompts"));
    let step = |decoding: &mut Decoding<'_>| decoding.step().expect("a step");
    while decodings.iter_mut().map(step).fold(false, |a, b| a | b) {}
    let [first, second, third] = decodings.map(Decoding::into_responses);
    assert_same(&first, &responses(&model, 0.7));
    assert_same(&third, &responses(&on_cpu, 0.7));
    assert_eq!(on_card.language_model().batches_left_to_cpu(), 1, "the second batch");
    // The first two batches are over, so the card takes this one.
    assert_same(&responses(&other, 0.7), &second);
    assert_eq!(on_card.language_model().batches_left_to_cpu(), 1);
}

/// The card has room for the weights and for little else.
#[test]
fn batches_that_the_card_has_no_room_for_are_counted() {
    let Some(kernels) = host_kernels("no room", Storage::F32) else { return };
    let model = tiny_llava(3);
    let mut on_card = model.clone();
    on_card.language_model_mut().use_card(Box::new(Host::new(kernels, 40 << 10))).expect("a copy");
    for batches in 1..3 {
        assert_eq!(responses(&on_card, 0.7), responses(&model, 0.7), "the CPU writes them");
        assert_eq!(on_card.language_model().batches_left_to_cpu(), batches);
    }
}

/// Prompts in order, each with as many responses.
fn examples<'a>(prompts: &'a [Prompt], responses: &'a [Vec<u32>]) -> Vec<Example<'a>> {
    let each = responses.len() / prompts.len();
    let responses = responses.iter().enumerate();
    let example = |(at, response): (usize, &'a Vec<u32>)| Example {
        prompt: &prompts[at / each].ids,
        image: prompts[at / each].image,
        response,
    };
    responses.map(example).collect()
}

/// `count` responses of different lengths to each of four prompts.
fn given(count: usize) -> Vec<Vec<u32>> {
    let token = |at: usize, place: usize| ((at * 7 + place * 5) % 20 + 3) as u32;
    let response = |at: usize| (0..=at * 3 % 7).map(|place| token(at, place)).collect();
    (0..4 * count).map(response).collect()
}

#[test]
fn scores_on_a_card_are_those_of_the_cpu() {
    let prompts = prompts();
    for adapted in [false, true] {
        let Some([model, on_card]) = pair("scores", adapted) else { return };
        let features = model.image_features(pixels(3, 4)).unwrap();
        for responses in [given(1), given(3), vec![vec![5]; 8]] {
            let examples = examples(&prompts, &responses);
            // All but the first response to the first prompt as well, so that groups differ in size.
            for examples in [&examples[..], &examples[responses.len() / 4 - 1..]] {
                let [expected, found] = [&model, &on_card].map(|model| {
                    let scores = model.response_scores(examples, &features, 0.7);
                    let ResponseScores { hidden, log_probs, entropies } = scores.expect("scores");
                    [floats(&hidden), floats(&log_probs), floats(&entropies)]
                });
                for (what, (found, expected)) in ["states", "log-probabilities", "entropies"]
                    .into_iter()
                    .zip(found.iter().zip(&expected))
                {
                    assert_close(what, found, expected, CLOSE);
                }
                assert!(found != expected, "nothing was computed on the card");
            }
        }
    }
}

#[test]
fn gradients_on_a_card_are_those_of_the_cpu() {
    let prompts = prompts();
    let Some([model, on_card]) = pair("gradients", true) else { return };
    let features = model.image_features(pixels(3, 4)).unwrap();
    for responses in [given(1), given(3)] {
        let examples = examples(&prompts, &responses);
        let count: usize = responses.iter().map(Vec::len).sum();
        let wave = |phase: f32, count: usize| -> Vec<f32> {
            (0..count).map(|at| (at as f32 * 0.9 + phase).sin()).collect()
        };
        let differentiated = |model: &VisionLanguageModel, parts: [bool; 3]| {
            let mut model = model.clone();
            model.visit_lora_mut(&mut |_, mut parameter| parameter.train());
            let scores = model.training_scores(None, &examples, &features, 0.7);
            let (ResponseScores { hidden, log_probs, entropies }, pass) = scores.expect("scores");
            let (device, size) = (model.device(), hidden.dims());
            let column = |phase| from_floats(wave(phase, count), [count], &device).autodiff();
            let states = from_floats(wave(0.3, size[0] * size[1]), size, &device).autodiff();
            let terms = [
                (log_probs * column(0.0)).sum(),
                (entropies * column(1.0)).sum(),
                (hidden * states).sum() * 0.01,
            ];
            let wanted =
                terms.into_iter().zip(parts).filter_map(|(term, wanted)| wanted.then_some(term));
            let loss = wanted.reduce(|a, b| a + b).expect("a term");
            let gradients = model.backward(pass, &loss).expect("gradients");
            let mut found = GradientMap::new();
            model.visit_lora_mut(&mut |name, parameter| {
                let gradient = gradients.iter().find_map(|part| parameter.gradient(part));
                found.insert(name.to_owned(), gradient.expect("nothing is cut off"));
            });
            found
        };
        for parts in [[true; 3], [true, false, false], [false, true, false], [false, false, true]] {
            let [expected, found] = [&model, &on_card].map(|model| differentiated(model, parts));
            assert!(!expected.is_empty());
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            for (name, expected) in &expected {
                let largest = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
                assert!(largest > 0.0, "{name} gets no gradient, with {parts:?}");
                let [found, expected] = [&found[name], expected]
                    .map(|values| values.iter().map(|x| x / largest).collect::<Vec<_>>());
                assert_close(name, &found, &expected, CLOSE);
            }
            assert!(found != expected, "nothing was computed on the card, with {parts:?}");
        }
    }
}

/// A projector or a norm that learns is differentiated by the CPU, which has all gradients.
#[test]
fn what_else_learns_is_not_left_out() {
    let Some([model, on_card]) = pair("all learns", true) else { return };
    let features = model.image_features(pixels(3, 4)).unwrap();
    let (prompts, responses) = (prompts(), given(1));
    let examples = examples(&prompts, &responses);
    let [expected, found] = [&model, &on_card].map(|model| {
        let mut model = model.clone();
        model.visit_text_side_mut(&mut |_, mut parameter| parameter.train());
        let scores = model.training_scores(None, &examples, &features, 1.0);
        let (scores, pass) = scores.expect("scores");
        let parts = model.backward(pass, &scores.log_probs.sum()).expect("gradients");
        let mut count = 0;
        model.visit_text_side_mut(&mut |name, parameter| {
            if name.starts_with("language_model") {
                let found = parts.iter().find_map(|gradients| parameter.gradient(gradients));
                assert!(found.is_some(), "{name} has no gradient");
                count += 1;
            }
        });
        count
    });
    assert_eq!(found, expected);
}

/// A model whose images are encoded on the CPU, and its clone that encodes them on a card.
pub(crate) fn image_pair(
    test: &str,
    model: VisionLanguageModel,
) -> Option<[VisionLanguageModel; 2]> {
    let mut model = model;
    // Drawn biases are 0, and nothing would be seen of them.
    model.visit_mut("", &mut |name, mut parameter| {
        let values = parameter.values();
        if !name.starts_with("language_model") && values.iter().all(|&x| x == 0.0) {
            parameter.set_values((0..values.len()).map(|at| 0.2 * (at as f32).sin()).collect());
        }
    });
    let mut on_card = model.clone();
    let left = on_card.use_card_for_images(Box::new(host(test, Storage::F32)?)).expect("a copy");
    assert!(left.is_empty(), "{left:?}");
    Some([model, on_card])
}

#[test]
fn images_on_a_card_are_encoded_as_on_the_cpu() {
    let Some([model, on_card]) = image_pair("images", tiny_llava(3)) else { return };
    let images = pixels(3, 4);
    let [expected, found] = [&model, &on_card]
        .map(|model| floats(model.image_features(images.clone()).unwrap().tokens()));
    assert_close("image features", &found, &expected, CLOSE);
    assert!(found != expected, "nothing was computed on the card");
    // A verifier that shares the tower starts from its hidden states; clones share the copy on the card.
    let [expected, found] = [&model, &on_card.clone()].map(|model| {
        let (_, output) = model.image_features_and_vision_output(images.clone()).unwrap();
        floats(&output.states)
    });
    assert_close("states of the tower", &found, &expected, CLOSE);
    // An encoder that learns needs gradients, which the card does not have.
    let mut learning = on_card.clone();
    learning.visit_mut("", &mut |_, mut parameter| parameter.train());
    let features = learning.image_features(images.clone()).unwrap();
    assert!(features.tokens().is_tracked(), "the graph reaches the tower");
    // Other weights of every part are copied again, the projector's among them.
    let changed = |model: &VisionLanguageModel| {
        let mut model = model.clone();
        model.visit_mut("", &mut |name, mut parameter| {
            if !name.starts_with("language_model") {
                let values = parameter.values();
                parameter.set_values(values.iter().map(|x| x * 1.5).collect());
            }
        });
        floats(model.image_features(images.clone()).unwrap().tokens())
    };
    let [other, found] = [&model, &on_card].map(changed);
    assert_close("image features of other weights", &found, &other, CLOSE);
    assert!(other != expected, "other weights see something else");
}

/// A projector that learns behind a tower that does not: the tower runs on the card, the projector on the CPU.
#[test]
fn projector_that_learns_gets_gradients_behind_a_tower_on_a_card() {
    let Some([model, on_card]) = image_pair("a projector that learns", tiny_llava(3)) else {
        return;
    };
    let [expected, found] = [&model, &on_card].map(|model| {
        let mut model = model.clone();
        model.visit_text_side_mut(&mut |_, mut parameter| parameter.train());
        let features = model.image_features(pixels(3, 4)).unwrap();
        let gradients = features.tokens().clone().sum().backward();
        let mut found = GradientMap::new();
        model.visit_text_side_mut(&mut |name, parameter| {
            if name.starts_with("multi_modal_projector") {
                let gradient = parameter.gradient(&gradients).expect("a gradient");
                found.insert(name.to_owned(), gradient);
            }
        });
        found
    });
    assert_eq!(expected.len(), 4);
    for (name, expected) in &expected {
        let largest = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        let [found, expected] = [&found[name], expected]
            .map(|values| values.iter().map(|x| x / largest).collect::<Vec<_>>());
        assert_close(name, &found, &expected, CLOSE);
    }
    assert!(found != expected, "nothing was computed on the card");
}

/// EVA's tower, the Q-Former that reads instructions of several lengths, and the projection.
#[test]
fn instructions_are_read_on_a_card_as_on_the_cpu() {
    let Some([model, on_card]) = image_pair("instructions", tiny_instructblip(3)) else { return };
    let instructions = vec![vec![3, 4, 5], vec![6], vec![9, 8, 7]];
    let [expected, found] = [&model, &on_card].map(|model| {
        let images = ImageBatch::from(pixels(3, 4)).with_instructions(instructions.clone());
        floats(model.image_features(images).unwrap().tokens())
    });
    assert_close("image tokens", &found, &expected, CLOSE);
    assert!(found != expected, "nothing was computed on the card");
    let mut other = instructions;
    other[0][1] = 11;
    let images = ImageBatch::from(pixels(3, 4)).with_instructions(other);
    let other = floats(on_card.image_features(images).unwrap().tokens());
    assert!(other[..3] != found[..3], "the instruction is read");
}

#[test]
fn blip2_scores_on_a_card_are_those_of_the_cpu() {
    let Some(driver) = host("BLIP-2", Storage::F32) else { return };
    let model = ContrastiveModel::from(tiny_blip2(3));
    let mut on_card = model.clone();
    assert!(on_card.use_card(Box::new(driver), None).expect("a copy").is_empty());
    let texts = vec![vec![3, 4, 5], vec![6, 7], vec![9, 8, 7]];
    let [expected, found] = [&model, &on_card].map(|model| {
        let ContrastiveModel::Blip2(blip2) = model else { panic!("BLIP-2") };
        let output = model.vision().encode(pixels(3, 4)).unwrap();
        let (images, patches) = model.embed_patches(output.clone()).unwrap();
        [
            floats(&images),
            floats(&patches),
            floats(&model.embed_text(&texts).unwrap()),
            floats(&blip2.matching_logits(output, &texts).unwrap()),
        ]
    });
    for (what, (found, expected)) in
        ["images", "patches", "texts", "matching"].into_iter().zip(found.iter().zip(&expected))
    {
        assert_close(what, found, expected, CLOSE);
        assert!(found != expected, "{what}: nothing was computed on the card");
    }
}

#[test]
fn siglip_pools_on_a_card_as_on_the_cpu() {
    let Some(driver) = host("SigLIP", Storage::F32) else { return };
    let mut model = ContrastiveModel::from(tiny_siglip(3));
    // Drawn biases are 0, and nothing would be seen of them.
    model.visit_mut("", &mut |_, mut parameter| {
        let values = parameter.values().into_iter().enumerate();
        parameter.set_values(values.map(|(at, x)| x + 0.2 * (at as f32).sin()).collect());
    });
    let embedded = |model: &ContrastiveModel, images| {
        let output = model.vision().encode(images).unwrap();
        let (images, patches) = model.embed_patches(output.clone()).unwrap();
        [floats(&images), floats(&patches), floats(&model.embed_vision_output(output).unwrap())]
    };
    let mut on_card = model.clone();
    assert!(on_card.use_card(Box::new(driver), None).expect("a copy").is_empty());
    let [expected, found] = [&model, &on_card].map(|model| embedded(model, pixels(3, 4)));
    for (what, (found, expected)) in
        ["images", "patches", "images alone"].into_iter().zip(found.iter().zip(&expected))
    {
        assert_close(what, found, expected, CLOSE);
        assert!(found != expected, "{what}: nothing was computed on the card");
    }
    // With the same states of the tower it is the pooling that differs.
    let output = model.vision().encode(pixels(3, 4)).unwrap();
    let [expected, found] =
        [&model, &on_card].map(|model| floats(&model.embed_vision_output(output.clone()).unwrap()));
    assert!(found != expected, "the pooling was not computed on the card");
    // Other weights are copied again.
    for model in [&mut model, &mut on_card] {
        model.visit_mut("", &mut |name, mut parameter| {
            if name.contains("head.attention") {
                parameter.set_values(parameter.values().iter().map(|x| x * -1.5).collect());
            }
        });
    }
    let [expected, found] = [&model, &on_card].map(|model| embedded(model, pixels(3, 4)));
    assert_close("images of other weights", &found[0], &expected[0], CLOSE);
}

/// A verifier with the model's own tower has no second copy of it.
#[test]
fn towers_of_the_same_tensors_share_their_copy() {
    let Some(driver) = host("shared towers", Storage::F32) else { return };
    let load = |seed| {
        let mut weights = RandomWeights::new(seed);
        VisionTower::load(eva_config(), &mut weights, "tower", &Device::flex()).expect("weights")
    };
    let [tower, mut other] = [load(7), load(8)];
    let mut on_card = tower.clone();
    assert!(!on_card.share_card(&tower), "there is no copy yet");
    on_card.use_card(&SharedDriver::new(Box::new(driver))).expect("a copy");
    assert!(!other.share_card(&on_card), "other tensors");
    let mut sharing = tower.clone();
    assert!(sharing.share_card(&on_card));
    let [expected, found] =
        [&on_card, &sharing].map(|tower| floats(&tower.hidden_states(pixels(3, 4), 3).unwrap()));
    assert_eq!(found, expected);
    assert!(
        floats(&tower.hidden_states(pixels(3, 4), 3).unwrap()) != expected,
        "computed on the card"
    );
}

#[test]
fn towers_of_other_families_on_a_card_see_what_they_see_on_the_cpu() {
    for config in [
        vision_config(),
        eva_config(),
        VisionConfig { family: VisionFamily::Siglip, ..vision_config() },
    ] {
        let Some(driver) = host("towers", Storage::F32) else { return };
        let family = config.family;
        let mut weights = RandomWeights::new(7);
        let tower = VisionTower::load(config, &mut weights, "tower", &Device::flex());
        let tower = tower.expect("weights");
        let mut on_card = tower.clone();
        on_card.use_card(&SharedDriver::new(Box::new(driver))).expect("a copy");
        for depth in [0, 2, 3] {
            let [expected, found] = [&tower, &on_card]
                .map(|tower| floats(&tower.hidden_states(pixels(3, 4), depth).unwrap()));
            assert_close(&format!("{family:?}, {depth} layers"), &found, &expected, CLOSE);
            assert!(
                depth == 0 || found != expected,
                "{family:?}: nothing was computed on the card"
            );
        }
    }
}

#[test]
fn memory_of_a_run_is_predicted() {
    let Some([_, on_card]) = pair("memory", true) else { return };
    let images = on_card.image_memory(3, 0);
    assert_eq!(images, ImageMemory::default(), "images are encoded on the CPU");
    let (prompts, decoder) = (prompts(), on_card.language_model());
    let lora = LoraConfig { rank: 3, ..LoraConfig::default() };
    let mut counted = 0;
    on_card.clone().visit_lora_mut(&mut |_, parameter| counted += parameter.values().len());
    assert_eq!(lora.parameters(decoder.config()), counted);
    let batches = CardBatches {
        prompt: prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap(),
        response: 20,
        samples: 3,
        written: 12,
        differentiated: 12,
        adapter: counted,
        images,
    };
    let CardMemory { needed, total } = decoder.card_memory(batches).unwrap().expect("a card");
    assert_eq!(total, 1 << 30);
    let features = on_card.image_features(pixels(3, 4)).unwrap();
    on_card.generate(&prompts, &features, 3, &sampling(1.0)).expect("responses");
    let responses = vec![vec![7; 20]; 12];
    let examples = examples(&prompts, &responses);
    let mut training = on_card.clone();
    training.visit_lora_mut(&mut |_, mut parameter| parameter.train());
    let scored = training.training_scores(None, &examples, &features, 1.0).expect("scores");
    drop(scored);
    let peak = decoder.card_peak().expect("a card");
    let off = (needed as f64 / peak as f64 - 1.0).abs();
    assert!(off < 0.05, "{needed} bytes instead of {peak}");
}

/// A model and its verifier on one card: the decoder, encoders of images with all their parts, and what they work in.
#[test]
fn memory_of_a_run_with_encoders_of_images_is_predicted() {
    let Some(kernels) = host_kernels("memory of images", Storage::F32) else { return };
    for case in 0..3 {
        // One verifier has the model's own tower, which is on the card once.
        let shared = case == 1;
        let (mut model, mut verifier, instruction): (_, ContrastiveModel, _) = match case {
            0 => (tiny_llava(3), tiny_clip(5).into(), vec![]),
            1 => (tiny_instructblip(3), tiny_blip2(3).into(), vec![3, 4, 5]),
            _ => (tiny_llava(3), tiny_siglip(3).into(), vec![]),
        };
        let memory = Arc::new(HostMemory::new(1 << 30));
        let driver = || Box::new(Host::within(Arc::clone(&kernels), Arc::clone(&memory)));
        model.add_lora(&LoraConfig { rank: 3, ..LoraConfig::default() }, 5).expect("an adapter");
        model.language_model_mut().use_card(driver()).expect("a copy");
        assert!(model.use_card_for_images(driver()).expect("a copy").is_empty());
        let tower = model.vision_tower().expect("a tower").clone();
        if shared {
            *verifier.vision_mut() = tower.clone();
        }
        assert!(verifier.use_card(driver(), Some(&tower)).expect("a copy").is_empty());
        let mut adapter = 0;
        model.visit_lora_mut(&mut |_, parameter| adapter += parameter.values().len());
        let encode = |count: usize| {
            let images = ImageBatch::from(pixels(count, 4));
            let features = model
                .image_features(images.with_instructions(vec![instruction.clone(); count]))
                .expect("features");
            let output = verifier.vision().encode(pixels(count, 4)).expect("states");
            if verifier.has_cheap_patches() {
                verifier.embed_patches(output).expect("embeddings");
            } else {
                verifier.embed_vision_output(output).expect("embeddings");
            }
            features
        };
        let features = encode(32);
        let tokens = model.tokens();
        let shown = vec![tokens.image; features.counts()[0]];
        let ids = [&[tokens.bos][..], &shown, &[7, 8]].concat();
        let length = ids.len();
        let predicted = |count: usize, written: usize| {
            let of_verifier = verifier.image_memory(count, Some(&tower));
            let of_model = model.image_memory(count, instruction.len());
            assert!(of_model.weights > 0 && of_verifier.weights > 0);
            let batches = CardBatches {
                prompt: length,
                response: 20,
                samples: 3,
                written,
                differentiated: 1,
                adapter,
                images: of_model.beside(of_verifier),
            };
            let needed = model.language_model().card_memory(batches).unwrap().expect("a card");
            // Here they are at work one after the other.
            let both = of_model.work.min(of_verifier.work);
            (needed.needed, both)
        };
        let close = |what: &str, needed: usize, peak: usize| {
            let off = (needed as f64 / peak as f64 - 1.0).abs();
            assert!(off < 0.05, "{what}: {needed} bytes instead of {peak}");
        };
        // Encoding many images takes more than writing three responses.
        let (needed, both) = predicted(32, 3);
        close("encoding", needed - both - 4 * adapter, memory.peak());
        // Writing many takes more than encoding one image.
        let prompt = |stream| Prompt { ids: ids.clone(), image: 0, stream };
        let prompts: Vec<Prompt> = (0..64).map(prompt).collect();
        // All is reserved before the first step.
        let settings = vec![sampling(1.0); prompts.len()];
        drop(model.start_decoding(&prompts, &features, 3, &settings).expect("prompts"));
        let (needed, _) = predicted(1, 192);
        close("writing", needed, memory.peak());
    }
}
