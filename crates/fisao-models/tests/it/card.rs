//! Decoding on a card against decoding on the CPU. The card's kernels run on the CPU here, compiled as C++; what is tested is that a
//! model hands everything to them that they need.

use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;
use fisao_cuda::{CudaError, Host, HostKernels, HostOptions, Storage};
use fisao_models::generation::{Decoding, Generated, Prompt, Sampling};
use fisao_models::lora::LoraConfig;
use fisao_models::parameters::ParameterMut;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_testkit::compare::assert_close;
use fisao_testkit::skipped::report_skipped;
use fisao_testkit::tiny::{pixels, prompt, tiny_llava};

/// How far log-probabilities are apart at most: f32, sums in another order.
const CLOSE: f32 = 2e-4;

/// A driver that runs the kernels on the CPU.
fn host(test: &str) -> Option<Host> {
    static KERNELS: OnceLock<Option<Arc<HostKernels>>> = OnceLock::new();
    let compile = || {
        let folder = tempfile::tempdir().expect("a folder");
        match HostKernels::compile(folder.path(), &[Storage::F32], &HostOptions::default()) {
            Ok(kernels) => Some(Arc::new(kernels)),
            Err(CudaError::HostCompiler { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    };
    let kernels = KERNELS.get_or_init(compile).clone();
    if kernels.is_none() {
        report_skipped(test, "no C++ compiler");
    }
    kernels.map(|kernels| Host::new(kernels, 1 << 30))
}

/// A model on the CPU and its clone that has a card.
fn pair(test: &str, adapted: bool) -> Option<[VisionLanguageModel; 2]> {
    let mut model = tiny_llava(3);
    if adapted {
        model.add_lora(&LoraConfig { rank: 3, ..LoraConfig::default() }, 5).expect("an adapter");
        disturb(&mut model, 0.3);
    }
    let mut on_card = model.clone();
    on_card.language_model_mut().use_card(Box::new(host(test)?)).expect("a copy");
    assert!(on_card.language_model().card_name().is_some());
    Some([model, on_card])
}

/// Gives the adapter other values, so that it changes what is computed.
fn disturb(model: &mut VisionLanguageModel, size: f32) {
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

/// Prompts of different lengths about different images.
fn prompts() -> Vec<Prompt> {
    [&[5, 9, 12][..], &[7], &[3, 4, 5, 6, 8, 20, 21], &[9, 9]]
        .into_iter()
        .enumerate()
        .map(|(at, text)| Prompt { ids: prompt(text), image: at % 3, stream: at as u64 })
        .collect()
}

fn sampling(temperature: f64) -> Sampling {
    Sampling { max_new_tokens: 20, temperature, seed: 5 }
}

fn responses(model: &VisionLanguageModel, temperature: f64) -> Vec<Generated> {
    let features = model.image_features(pixels(3, 4));
    model.generate(&prompts(), &features, 3, &sampling(temperature))
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

#[test]
fn closed_and_rewound_responses_on_a_card_are_those_of_the_cpu() {
    for adapted in [false, true] {
        let Some([model, on_card]) = pair("rewound", adapted) else { return };
        let [expected, found] = [&model, &on_card].map(|model| {
            let features = model.image_features(pixels(3, 4));
            let settings = [12, 20, 5, 16].map(|max_new_tokens| Sampling {
                max_new_tokens,
                temperature: 1.0,
                seed: 7,
            });
            let mut decoding = model.start_decoding(&prompts(), &features, 2, &settings);
            for step in 0.. {
                if step == 4 {
                    decoding.close(2);
                }
                let open: Vec<usize> = decoding.open().collect();
                let long =
                    open.iter().copied().filter(|&slot| decoding.response(slot).tokens.len() > 2);
                match (step, long.min()) {
                    (3, Some(slot)) => decoding.rewind(slot, 1, &[4, 9]),
                    (5, Some(slot)) => decoding.rewind(slot, 0, &[]),
                    _ => {}
                }
                if !decoding.step() {
                    break;
                }
            }
            decoding.into_responses()
        });
        assert_same(&found, &expected);
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
    let features = model.image_features(pixels(3, 4));
    let settings = vec![sampling(0.7); prompts().len()];
    let mut decodings = [&on_card, &other, &without]
        .map(|model| model.start_decoding(&prompts(), &features, 3, &settings));
    while decodings.iter_mut().map(Decoding::step).fold(false, |a, b| a | b) {}
    let [first, second, third] = decodings.map(Decoding::into_responses);
    assert_same(&first, &responses(&model, 0.7));
    assert_same(&third, &responses(&on_cpu, 0.7));
    // The first two batches are over, so the card takes this one.
    assert_same(&responses(&other, 0.7), &second);
}
