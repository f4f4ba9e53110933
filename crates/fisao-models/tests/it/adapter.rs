//! Low-rank adapters: what they change, what they leave alone, where gradients go.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use fisao_models::adamw::{AdamW, AdamWConfig};
use fisao_models::lora::{LoraConfig, LoraError, LowRank, TARGETS};
use fisao_models::parameters::{
    GradientMap, ParameterMut, Parameters, collect_gradients, floats, from_floats, gradient_norm,
};
use fisao_models::sequences::Example;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_testkit::compare::{assert_close, largest_difference};
use fisao_testkit::tiny::{pixels, prompt, tiny_llava};
use fisao_testkit::tolerance::F32_FORWARD;

const RANK: usize = 3;

/// A model seen as nothing but its adapter.
struct Adapted(VisionLanguageModel);

impl Parameters for Adapted {
    fn visit_mut(&mut self, _prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.0.visit_lora_mut(visitor);
    }
}

fn config() -> LoraConfig {
    LoraConfig { rank: RANK, alpha: 6.0, ..LoraConfig::default() }
}

fn with_fresh_adapter() -> Adapted {
    let mut model = tiny_llava(3);
    let count = model.add_lora(&config(), 1).expect("all targets exist");
    assert_eq!(count, 2 * 7 * 2, "two matrices for each of seven maps in two layers");
    Adapted(model)
}

/// An adapter whose B is no longer zero.
fn with_adapter() -> Adapted {
    let mut adapted = with_fresh_adapter();
    adapted.visit_mut("", &mut |name, mut parameter| {
        if name.ends_with("lora_B.weight") {
            let values = parameter.values();
            let drawn = (0..values.len()).map(|at| ((at * 37 + name.len()) % 11) as f32 * 0.02);
            parameter.set_values(drawn.map(|value| value - 0.1).collect());
        }
    });
    adapted
}

fn logprobs(model: &VisionLanguageModel) -> Tensor<1> {
    let features = model.image_features(pixels(1, 4)).unwrap();
    let ids = prompt(&[5, 9, 12]);
    let example = Example { prompt: &ids, image: 0, response: &[4, 7, 11, 2] };
    model.log_probabilities(&model.response_states(&[example], &features), 1.0).0
}

fn values(model: &mut impl Parameters) -> BTreeMap<String, Vec<f32>> {
    let mut all = BTreeMap::new();
    model.visit_mut("", &mut |name, parameter| {
        all.insert(name.to_owned(), parameter.values());
    });
    all
}

fn gradients(adapted: &mut Adapted) -> GradientMap {
    adapted.train_where(&|_| true);
    let loss = logprobs(&adapted.0).sum().neg();
    collect_gradients(adapted, &loss.backward()).expect("every matrix is reached")
}

fn norm(values: &[f32]) -> f64 {
    gradient_norm(&BTreeMap::from([(String::new(), values.to_vec())]))
}

#[test]
fn fresh_adapter_does_not_change_the_model() {
    let base = floats(&logprobs(&tiny_llava(3)));
    assert_eq!(floats(&logprobs(&with_fresh_adapter().0)), base);
}

#[test]
fn disabling_the_adapter_gives_the_base_model() {
    let adapted = with_adapter();
    let base = floats(&logprobs(&tiny_llava(3)));
    assert!(largest_difference(&floats(&logprobs(&adapted.0)), &base) > 0.05);
    assert_eq!(floats(&logprobs(&adapted.0.without_lora())), base);
}

#[test]
fn merged_adapter_gives_the_same_log_probabilities() {
    for use_rslora in [false, true] {
        let mut adapted = with_adapter();
        let stored = values(&mut adapted);
        let mut model = tiny_llava(3);
        let config = LoraConfig { use_rslora, ..config() };
        model.add_lora(&config, 2).expect("all targets exist");
        let mut adapted = Adapted(model);
        adapted
            .visit_mut("", &mut |name, mut parameter| parameter.set_values(stored[name].clone()));
        let expected = floats(&logprobs(&adapted.0));
        adapted.0.merge_lora();
        assert!(values(&mut adapted).is_empty(), "a merged adapter is gone");
        assert_close("merged", &floats(&logprobs(&adapted.0)), &expected, F32_FORWARD);
    }
}

#[test]
fn lora_scale_is_alpha_over_rank_or_root_of_rank() {
    let config = LoraConfig { rank: 4, alpha: 12.0, ..LoraConfig::default() };
    assert!((config.scale() - 3.0).abs() < f64::EPSILON);
    let config = LoraConfig { use_rslora: true, ..config };
    assert!((config.scale() - 6.0).abs() < f64::EPSILON);
}

/// dB = s · dyᵀ (x Aᵀ) is non-zero while B is zero; dA = s · (dy B)ᵀ x is zero until B has moved.
#[test]
fn gradient_of_lora_a_is_zero_until_lora_b_has_changed() {
    let mut fresh = with_fresh_adapter();
    for (name, gradient) in gradients(&mut fresh) {
        let moves = norm(&gradient) > 0.0;
        assert_eq!(moves, name.ends_with("lora_B.weight"), "{name}");
    }
    let gradients = gradients(&mut with_adapter());
    assert_eq!(gradients.len(), 2 * 7 * 2);
    for (name, gradient) in gradients {
        assert!(norm(&gradient) > 1e-5, "{name} receives {}", norm(&gradient));
    }
}

#[test]
fn training_an_adapter_changes_only_the_adapter() {
    let mut adapted = with_adapter();
    let (base, before) = (values(&mut adapted.0), values(&mut adapted));
    let image = floats(adapted.0.image_features(pixels(1, 4)).unwrap().tokens());
    let start = floats(&logprobs(&adapted.0).sum())[0];
    let mut optimiser = AdamW::new(AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() });
    for _ in 0..3 {
        let gradients = gradients(&mut adapted);
        adapted.0.visit_mut("", &mut |name, parameter| {
            assert!(!parameter.is_trainable(), "{name} is trained beside the adapter");
        });
        optimiser.update(&mut adapted, &gradients, &|_, _| Some(1e-3));
    }
    assert_eq!(values(&mut adapted.0), base, "a frozen tensor has moved");
    assert_eq!(floats(adapted.0.image_features(pixels(1, 4)).unwrap().tokens()), image);
    for (name, values) in values(&mut adapted) {
        assert_ne!(values, before[&name], "{name} has not moved");
    }
    assert!(floats(&logprobs(&adapted.0).sum())[0] > start + 0.01, "the loss has not fallen");
}

/// `q_proj`, `k_proj` and `v_proj` are names of the image tower's linear layers as well.
#[test]
fn lora_is_added_to_the_language_model_only() {
    for name in values(&mut with_fresh_adapter()).into_keys() {
        assert!(name.starts_with("language_model.model.layers."), "{name}");
    }
    let mut model = tiny_llava(3);
    let two = LoraConfig { target_modules: vec!["q_proj".into(), "v_proj".into()], ..config() };
    assert_eq!(model.add_lora(&two, 1).expect("both targets exist"), 2 * 2 * 2);
    let names: Vec<_> = values(&mut Adapted(model)).into_keys().collect();
    assert!(names.iter().all(|name| name.contains("q_proj") || name.contains("v_proj")));
}

#[test]
fn lora_matrices_have_the_shapes_of_peft() {
    let (hidden, inner, keys) = (16, 24, 8);
    with_fresh_adapter().visit_mut("", &mut |name, parameter| {
        let [inputs, outputs] = match name.split('.').nth(5).expect("a map's name") {
            "q_proj" | "o_proj" => [hidden, hidden],
            "k_proj" | "v_proj" => [hidden, keys],
            "gate_proj" | "up_proj" => [hidden, inner],
            "down_proj" => [inner, hidden],
            other => panic!("{other} is not a map"),
        };
        let a = name.ends_with("lora_A.weight");
        assert_eq!(parameter.shape(), if a { [RANK, inputs] } else { [outputs, RANK] }, "{name}");
    });
}

#[test]
fn invalid_lora_configurations_are_rejected() {
    let refuse = |config: &LoraConfig| tiny_llava(3).add_lora(config, 0).expect_err("refused");
    let unknown = LoraConfig { target_modules: vec!["q_proj".into(), "fc1".into()], ..config() };
    assert!(matches!(refuse(&unknown), LoraError::UnknownTarget { name } if name == "fc1"));
    assert!(matches!(refuse(&LoraConfig { rank: 0, ..config() }), LoraError::Rank { .. }));
    let none = LoraConfig { target_modules: Vec::new(), ..config() };
    assert!(matches!(refuse(&none), LoraError::NoTargets));
    assert_eq!(LoraConfig::default().target_modules, TARGETS);
}

/// Every matrix of the model is a linear layer, but for tables of embeddings.
#[test]
fn every_linear_layer_is_visited_under_its_canonical_name() {
    let mut model = tiny_llava(3);
    let mut maps = BTreeMap::new();
    model.visit_linears_mut(&mut |name, linear| {
        maps.insert(format!("{name}.weight"), linear.size());
    });
    let mut matrices = BTreeMap::new();
    model.visit_mut("", &mut |name, parameter| {
        if let ([outputs, inputs], false) = (&parameter.shape()[..], name.contains("embed")) {
            matrices.insert(name.to_owned(), [*inputs, *outputs]);
        }
    });
    assert_eq!(maps, matrices);
    assert_eq!(maps.len(), 3 * 6 + 2 + 2 * 7 + 1);
}

/// Adapters anywhere are switched off and folded in, not only the decoder's.
#[test]
fn adapters_on_every_linear_layer_can_be_disabled_and_merged() {
    let base = floats(&logprobs(&tiny_llava(3)));
    let mut adapted = tiny_llava(3);
    let mut drawn = 0.0_f32;
    adapted.visit_linears_mut(&mut |_, linear| {
        let [inputs, outputs] = linear.size();
        let mut matrix = |shape: [usize; 2]| {
            let next = (0..shape[0] * shape[1]).map(|_| {
                drawn += 1.0;
                0.2 * drawn.sin()
            });
            from_floats(next.collect(), shape, &Device::flex())
        };
        let (a, b) = (matrix([2, inputs]), matrix([outputs, 2]));
        linear.adapter = Some(LowRank { a, b, scale: 1.5 });
    });
    let with = floats(&logprobs(&adapted));
    assert!(largest_difference(&with, &base) > 0.05);
    assert_eq!(floats(&logprobs(&adapted.without_lora())), base);
    adapted.merge_lora();
    assert!(values(&mut Adapted(adapted.clone())).is_empty(), "merged adapters are gone");
    assert_close("merged", &floats(&logprobs(&adapted)), &with, F32_FORWARD);
}
