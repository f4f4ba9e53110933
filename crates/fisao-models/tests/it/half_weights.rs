//! Frozen weights of 16 bits under an adapter in f32.

use burn::tensor::{DType, Device};
use fisao_models::adamw::{AdamW, AdamWConfig};
use fisao_models::linear::ActivationDtype;
use fisao_models::lora::LoraConfig;
use fisao_models::parameters::{
    ParameterMut, Parameters, collect_gradients, floats, gradient_norm,
};
use fisao_models::sequences::Example;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_models::weights::RandomWeights;
use fisao_testkit::compare::assert_close;
use fisao_testkit::tiny::{RoundedWeights, llava_config, pixels, prompt};

/// Results of the same numbers, summed up in another order.
const CLOSE: f32 = 1e-5;

/// A model seen as nothing but its adapter.
struct Adapted(VisionLanguageModel);

impl Parameters for Adapted {
    fn visit_mut(&mut self, _prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.0.visit_lora_mut(visitor);
    }
}

fn model(dtype: DType, widened: bool) -> Adapted {
    let mut weights = RoundedWeights { weights: RandomWeights::new(3), dtype, widened };
    let mut model = VisionLanguageModel::load(llava_config(), &mut weights, &Device::flex())
        .expect("any weights");
    let config = LoraConfig { rank: 3, alpha: 6.0, ..LoraConfig::default() };
    model.add_lora(&config, 1).expect("all targets exist");
    let mut model = Adapted(model);
    model.visit_mut("", &mut |name, mut parameter| {
        if name.ends_with("lora_B.weight") {
            let count = parameter.values().len();
            parameter.set_values((0..count).map(|at| 0.1 * (at as f32).sin()).collect());
        }
        parameter.train();
    });
    model
}

/// Log-probabilities before each of some updates, the norms of their gradients, and the adapter after
/// them.
fn train(model: &mut Adapted) -> (Vec<f32>, Vec<f32>) {
    let ids = prompt(&[5, 9, 12]);
    let mut optimiser = AdamW::new(AdamWConfig::default());
    let mut seen = Vec::new();
    for _ in 0..3 {
        let features = model.0.image_features(pixels(1, 4)).unwrap();
        let example = Example { prompt: &ids, image: 0, response: &[4, 7, 11, 2] };
        let states = model.0.response_states(&[example], &features);
        let (logprobs, _) = model.0.log_probabilities(&states, 1.0);
        seen.extend(floats(&logprobs));
        let gradients = logprobs.mean().neg().backward();
        let gradients = collect_gradients(model, &gradients).expect("all are reached");
        seen.push(gradient_norm(&gradients) as f32);
        optimiser.update(model, &gradients, &|_, _| Some(1e-2));
        model.visit_mut("", &mut |_, mut parameter| parameter.train());
    }
    let mut adapter = Vec::new();
    model.visit_mut("", &mut |_, parameter| adapter.extend(parameter.values()));
    (seen, adapter)
}

#[test]
fn adapter_training_on_16_bit_weights_matches_f32() {
    for dtype in [DType::BF16, DType::F16] {
        let (mut narrow, mut wide) = (model(dtype, false), model(dtype, true));
        let q_proj = "language_model.model.layers.0.self_attn.q_proj.weight";
        let frozen = |model: &Adapted| {
            let mut values = Vec::new();
            model.0.clone().visit_mut("", &mut |name, parameter| {
                if name == q_proj {
                    values = parameter.values();
                }
            });
            values
        };
        let before = frozen(&narrow);
        assert!(!before.is_empty());
        let (seen, adapter) = train(&mut narrow);
        let (expected, expected_adapter) = train(&mut wide);
        assert_close(&format!("{dtype:?}: what was seen"), &seen, &expected, CLOSE);
        assert_close(&format!("{dtype:?}: adapter"), &adapter, &expected_adapter, 1e-4);
        assert!(seen[0] < seen[10], "training makes the response more likely: {seen:?}");
        assert_eq!(frozen(&narrow), before, "frozen weights stay");
    }
}

#[test]
fn trainable_16_bit_weights_receive_gradients() {
    let mut model = model(DType::BF16, false).0;
    model.visit_mut("", &mut |_, mut parameter| parameter.train());
    let features = model.image_features(pixels(1, 4)).unwrap();
    let ids = prompt(&[5, 9, 12]);
    let example = Example { prompt: &ids, image: 0, response: &[4, 7] };
    let states = model.response_states(&[example], &features);
    let gradients = model.log_probabilities(&states, 1.0).0.sum().backward();
    let mut unreached = Vec::new();
    model.visit_mut("", &mut |name, parameter| {
        // The last layer of the tower and its norm are not used by the features of the one before.
        if parameter.gradient(&gradients).is_none() && name.starts_with("language_model") {
            unreached.push(name.to_owned());
        }
    });
    assert_eq!(unreached, Vec::<String>::new());
}

/// One response alone is a product of few rows, many together are one of many: another kernel, where the processor has it.
#[test]
fn bf16_rounding_agrees_between_skinny_and_general_gemm() {
    let ids = prompt(&[5, 9, 12]);
    let log_probabilities = |model: &VisionLanguageModel, count: usize| {
        let features = model.image_features(pixels(count, 4)).unwrap();
        let example = |image| Example { prompt: &ids, image, response: &[4, 7, 11, 2] };
        let examples: Vec<_> = (0..count).map(example).collect();
        let states = model.response_states(&examples, &features);
        let (found, _) = model.log_probabilities(&states, 1.0);
        floats(&found)[..4].to_vec()
    };
    let mut model = model(DType::BF16, false).0;
    let exact = log_probabilities(&model, 1);
    let concerned = model.set_activation_dtype(ActivationDtype::Bf16);
    assert!(concerned > 0, "its maps are held in bf16");
    let (alone, together) = (log_probabilities(&model, 1), log_probabilities(&model, 12));
    assert_close("few rows and many", &alone, &together, 1e-4);
    let furthest = exact.iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!((1e-5..5e-2).contains(&furthest), "rounding moves a log-probability by {furthest}");
    assert_eq!(model.set_activation_dtype(ActivationDtype::F32), 0);
    assert_close("exact again", &log_probabilities(&model, 1), &exact, 0.0);
}
