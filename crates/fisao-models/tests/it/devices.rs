//! What the CPU's kernels compute against what burn's operations compute on a graphics device.
//!
//! Compiled with `--features fisao/vulkan` only; a machine without a card needs a software driver, such
//! as Mesa's lavapipe, and a corrected burn: see docs/dev/log.md.

use burn::tensor::{DType, Device, DeviceType};
use fisao_models::adamw::{AdamW, AdamWConfig};
use fisao_models::clip::Clip;
use fisao_models::generation::{Generated, Prompt, Sampling};
use fisao_models::lora::LoraConfig;
use fisao_models::parameters::{GradientMap, ParameterMut, Parameters, collect_gradients, floats};
use fisao_models::sequences::Example;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::weights::{RandomWeights, is_held};
use fisao_testkit::compare::assert_close;
use fisao_testkit::tiny::{RoundedWeights, clip_config, llava_config, pixels, prompt};

/// One forward or backward pass in f32, summed up in another order by other functions.
const CLOSE: f32 = 5e-5;

/// Every type that weights are stored in.
const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// The first Vulkan device. There being none is a failure: nothing would be compared.
fn vulkan() -> Device {
    let devices = Device::enumerate(DeviceType::Vulkan);
    devices.iter().next().cloned().expect(
        "no Vulkan device in this machine: install the card's driver, or Mesa's lavapipe, and name its \
         manifest in VK_DRIVER_FILES",
    )
}

fn rounded(dtype: DType) -> RoundedWeights<RandomWeights> {
    RoundedWeights { weights: RandomWeights::new(3), dtype, widened: false }
}

fn llava(dtype: DType, device: &Device) -> VisionLanguageModel {
    VisionLanguageModel::load(llava_config(), &mut rounded(dtype), device).expect("any weights")
}

/// Calls `compute` for the CPU and for Vulkan, and with every type of weights.
fn compare(what: &str, compute: impl Fn(DType, &Device) -> Vec<f32>) {
    let device = vulkan();
    for dtype in DTYPES {
        let (actual, expected) = (compute(dtype, &device), compute(dtype, &Device::flex()));
        assert!(expected.iter().any(|&x| x != 0.0), "{what}: there is nothing to compare");
        assert_close(&format!("{what}, {dtype:?}"), &actual, &expected, CLOSE);
    }
}

fn examples<'a>(prompts: &'a [Vec<u32>; 2], responses: &'a [Vec<u32>; 2]) -> [Example<'a>; 2] {
    [0, 1].map(|at| Example { prompt: &prompts[at], image: at, response: &responses[at] })
}

#[test]
fn log_probabilities_on_vulkan_match_the_cpu() {
    let prompts = [prompt(&[5, 9, 12]), prompt(&[8])];
    let responses = [vec![4, 7, 11, 2], vec![13, 2]];
    compare("log-probabilities and entropies", |dtype, device| {
        let model = llava(dtype, device);
        let features = model.image_features(pixels(2, 4).to_device(device)).unwrap();
        let states = model.response_states(&examples(&prompts, &responses), &features);
        let (logprobs, entropies) = model.log_probabilities(&states, 0.7);
        let all = model.log_distribution(&states, 1.0);
        [floats(&logprobs), floats(&entropies), floats(&all)].concat()
    });
}

#[test]
fn clip_embeddings_on_vulkan_match_the_cpu() {
    compare("embeddings", |dtype, device| {
        let clip = Clip::load(clip_config(), &mut rounded(dtype), device).expect("any weights");
        let images = clip.embed_images(pixels(2, 4).to_device(device)).unwrap();
        let texts = clip.embed_text(&[vec![37, 3, 9, 38], vec![37, 12, 38]]);
        [floats(&images), floats(&texts), floats(&clip.scale())].concat()
    });
}

/// Gradients of all weights, those of the image tower too.
#[test]
fn gradients_on_vulkan_match_the_cpu() {
    let prompts = [prompt(&[5, 9, 12]), prompt(&[8])];
    let responses = [vec![4, 7, 11, 2], vec![13, 2]];
    let gradients = |device: &Device| -> GradientMap {
        let mut model = llava(DType::F32, device);
        model.train_where(&|name| {
            !name.contains("vision_model.encoder.layers.2.") && !name.contains("post_layernorm.")
        });
        let features = model.image_features(pixels(2, 4).to_device(device)).unwrap();
        let states = model.response_states(&examples(&prompts, &responses), &features);
        let loss = model.log_probabilities(&states, 1.0).0.mean().neg();
        collect_gradients(&mut model, &loss.backward()).expect("every tensor is reached")
    };
    let (actual, expected) = (gradients(&vulkan()), gradients(&Device::flex()));
    assert!(expected.len() > 50, "{} tensors", expected.len());
    assert!(expected.keys().eq(actual.keys()));
    for (name, expected) in &expected {
        assert_close(name, &actual[name], expected, CLOSE);
    }
}

/// The adapter of a model.
struct Adapter<'a>(&'a mut VisionLanguageModel);

impl Parameters for Adapter<'_> {
    fn visit_mut(&mut self, _prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.0.visit_lora_mut(visitor);
    }
}

/// Three updates of an adapter on frozen weights of each type.
#[test]
fn adapter_training_on_vulkan_matches_the_cpu() {
    let prompts = [prompt(&[5, 9, 12]), prompt(&[8])];
    let responses = [vec![4, 7, 11, 2], vec![13, 2]];
    compare("what training sees", |dtype, device| {
        let mut model = llava(dtype, device);
        let config = LoraConfig { rank: 3, alpha: 6.0, ..LoraConfig::default() };
        model.add_lora(&config, 1).expect("all targets exist");
        let mut optimiser = AdamW::new(AdamWConfig::default());
        let mut seen = Vec::new();
        for _ in 0..3 {
            model.train_where(&|name| name.contains("lora_"));
            model.visit_lora_mut(&mut |_, mut parameter| parameter.train());
            let features = model.image_features(pixels(2, 4).to_device(device)).unwrap();
            let states = model.response_states(&examples(&prompts, &responses), &features);
            let (logprobs, _) = model.log_probabilities(&states, 1.0);
            seen.extend(floats(&logprobs));
            let gradients = logprobs.mean().neg().backward();
            let mut adapter = Adapter(&mut model);
            let gradients = collect_gradients(&mut adapter, &gradients).expect("all are reached");
            optimiser.update(&mut adapter, &gradients, &|_, _| Some(1e-2));
        }
        assert!(seen[0] < seen[12], "training makes the response more likely: {seen:?}");
        seen
    });
}

fn responses(dtype: DType, device: &Device, sampling: &Sampling) -> Vec<Generated> {
    let model = llava(dtype, device);
    let features = model.image_features(pixels(3, 4).to_device(device)).unwrap();
    let prompts: Vec<Prompt> = [&[5, 9, 12][..], &[7], &[3, 4, 5, 6, 8, 20, 21]]
        .into_iter()
        .enumerate()
        .map(|(at, text)| Prompt { ids: prompt(text), image: at, stream: at as u64 })
        .collect();
    model.generate(&prompts, &features, 2, sampling).expect("responses")
}

/// Rows of different lengths, with a cache, some leaving the batch before others.
#[test]
fn responses_on_vulkan_match_the_cpu() {
    let device = vulkan();
    for temperature in [0.0, 0.7] {
        let sampling = Sampling { max_new_tokens: 20, temperature, seed: 5 };
        for dtype in DTYPES {
            let expected = responses(dtype, &Device::flex(), &sampling);
            for (actual, expected) in responses(dtype, &device, &sampling).iter().zip(&expected) {
                assert_eq!(actual.tokens, expected.tokens, "{dtype:?} at {temperature}");
                assert_close("log-probabilities", &actual.logprobs, &expected.logprobs, CLOSE);
            }
        }
    }
}

/// Weights are held in their own type or in f32.
#[test]
fn weights_keep_their_dtype_or_are_converted_to_f32() {
    let device = vulkan();
    for dtype in DTYPES {
        let held = if is_held(dtype, &device) { dtype } else { DType::F32 };
        let mut matrices = 0;
        llava(dtype, &device).visit_mut("", &mut |name, parameter| {
            if let ParameterMut::Matrix(tensor) = parameter
                && name.contains("_proj.")
            {
                assert_eq!(tensor.dtype(), held, "{name}");
                matrices += 1;
            }
        });
        assert!(matrices > 14, "{matrices} matrices");
    }
    assert!(is_held(DType::F32, &device));
    assert!(DTYPES.iter().all(|&dtype| is_held(dtype, &Device::flex())));
}
