//! The optimiser against `torch.optim.AdamW` (`fixtures/adamw_pytorch/generate.py`).

use burn::tensor::{Device, Tensor};
use fisao_models::adamw::{AdamW, AdamWConfig};
use fisao_models::parameters::{GradientMap, ParameterMut, Parameters, from_floats};
use fisao_testkit::compare::assert_close;
use fisao_testkit::tolerance::F32_ELEMENTWISE;
use serde_json::Value;

use crate::fixture;

struct Pair {
    matrix: Tensor<2>,
    vector: Tensor<1>,
}

impl Pair {
    fn new(values: &Value) -> Self {
        let device = Device::flex();
        Self {
            matrix: from_floats(fixture::numbers(&values["matrix"]), [2, 3], &device),
            vector: from_floats(fixture::numbers(&values["vector"]), [4], &device),
        }
    }

    fn update(&mut self, optimiser: &mut AdamW, gradients: &GradientMap, rate: f64) {
        optimiser.update(self, gradients, &|_, _| Some(rate));
    }

    fn values(&mut self) -> [Vec<f32>; 2] {
        [
            ParameterMut::Matrix(&mut self.matrix).values(),
            ParameterMut::Vector(&mut self.vector).values(),
        ]
    }
}

impl Parameters for Pair {
    fn visit_mut(&mut self, _prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        visitor("matrix", ParameterMut::Matrix(&mut self.matrix));
        visitor("vector", ParameterMut::Vector(&mut self.vector));
    }
}

struct Long(Tensor<1>);

impl Parameters for Long {
    fn visit_mut(&mut self, _prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        visitor("x", ParameterMut::Vector(&mut self.0));
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn gradients(step: &Value) -> GradientMap {
    let named = ["matrix", "vector"];
    named.map(|name| (name.to_owned(), fixture::numbers(&step["gradients"][name]))).into()
}

fn optimiser(case: &Value) -> AdamW {
    AdamW::new(AdamWConfig {
        beta1: number(&case["beta1"]),
        beta2: number(&case["beta2"]),
        epsilon: number(&case["epsilon"]),
        weight_decay: number(&case["weight_decay"]),
    })
}

#[test]
fn adamw_updates_match_pytorch() {
    let case = fixture::json("adamw_pytorch/expected.json");
    let mut pair = Pair::new(&case["start"]);
    let mut optimiser = optimiser(&case);
    for step in case["steps"].as_array().expect("a list") {
        pair.update(&mut optimiser, &gradients(step), number(&step["rate"]));
        let [matrix, vector] = pair.values();
        let expected = &step["values"];
        let decayed = fixture::numbers(&expected["matrix"]);
        assert_close("matrix, with decay", &matrix, &decayed, F32_ELEMENTWISE);
        let plain = fixture::numbers(&expected["vector"]);
        assert_close("vector, without decay", &vector, &plain, F32_ELEMENTWISE);
    }
    assert_eq!(optimiser.step, 3);
}

/// With m₀ = v₀ = 0 the first update is −η · g/(|g| + ε): a step of η against the sign of g.
/// With equal gradients m̂ = g and v̂ = g² at every step, so the second is the same again. Also where
/// cores share a parameter.
#[test]
fn constant_gradients_change_parameters_by_the_learning_rate() {
    for copies in [1, 50_000] {
        let start = [1.0, -2.0, 0.5].repeat(copies);
        let mut vector = Long(from_floats(start, [3 * copies], &Device::flex()));
        let gradient = [0.3, -20.0, 0.0].repeat(copies);
        let gradients = GradientMap::from([("x".to_owned(), gradient)]);
        let mut optimiser = AdamW::new(AdamWConfig::default());
        for expected in [[0.99, -1.99, 0.5], [0.98, -1.98, 0.5]] {
            optimiser.update(&mut vector, &gradients, &|_, _| Some(0.01));
            let values = ParameterMut::Vector(&mut vector.0).values();
            assert_close("values", &values, &expected.repeat(copies), F32_ELEMENTWISE);
        }
    }
}

#[test]
fn parameter_without_learning_rate_and_its_moments_stay_fixed() {
    let case = fixture::json("adamw_pytorch/expected.json");
    let steps = case["steps"].as_array().expect("a list");
    let mut pair = Pair::new(&case["start"]);
    let mut optimiser = optimiser(&case);
    pair.update(&mut optimiser, &gradients(&steps[0]), 0.01);
    let ([matrix, vector], moments) = (pair.values(), optimiser.moments["matrix"].clone());
    let rate = |name: &str, _: &ParameterMut<'_>| (name == "vector").then_some(0.01);
    optimiser.update(&mut pair, &gradients(&steps[1]), &rate);
    assert_eq!((&pair.values()[0], &optimiser.moments["matrix"]), (&matrix, &moments));
    assert_ne!(pair.values()[1], vector);
}

/// As in PyTorch, where every parameter counts its own steps: the first update is a step of η, whenever it comes.
#[test]
fn bias_correction_counts_the_steps_of_each_parameter() {
    let mut pair = Pair::new(&fixture::json("adamw_pytorch/expected.json")["start"]);
    let mut optimiser = AdamW::new(AdamWConfig::default());
    let [matrix, vector] = pair.values();
    let constant = |values: &[f32]| vec![0.3; values.len()];
    let gradients = GradientMap::from([
        ("matrix".to_owned(), constant(&matrix)),
        ("vector".to_owned(), constant(&vector)),
    ]);
    for step in 0..5 {
        let rate =
            |name: &str, _: &ParameterMut<'_>| (name == "vector" || step == 4).then_some(0.01);
        optimiser.update(&mut pair, &gradients, &rate);
    }
    let moved: Vec<f32> = matrix.iter().map(|value| value - 0.01).collect();
    assert_close("paused", &pair.values()[0], &moved, F32_ELEMENTWISE);
    assert_eq!((optimiser.moments["matrix"].steps, optimiser.moments["vector"].steps), (1, 5));
}

#[test]
fn parameter_without_gradient_is_unchanged() {
    let case = fixture::json("adamw_pytorch/expected.json");
    let mut pair = Pair::new(&case["start"]);
    let [before, _] = pair.values();
    let mut optimiser = optimiser(&case);
    let mut only_vector = gradients(&case["steps"][0]);
    only_vector.remove("matrix");
    pair.update(&mut optimiser, &only_vector, 0.01);
    assert_eq!(pair.values()[0], before);
    assert_eq!(optimiser.moments.keys().collect::<Vec<_>>(), ["vector"]);
}

#[test]
fn copied_optimiser_state_continues_bit_for_bit() {
    let case = fixture::json("adamw_pytorch/expected.json");
    let steps = case["steps"].as_array().expect("a list");
    let mut pair = Pair::new(&case["start"]);
    let mut first = optimiser(&case);
    pair.update(&mut first, &gradients(&steps[0]), 0.01);
    let mut second = optimiser(&case);
    second.step = first.step;
    second.moments = first.moments.clone();
    let mut copy = Pair { matrix: pair.matrix.clone(), vector: pair.vector.clone() };
    pair.update(&mut first, &gradients(&steps[1]), 0.01);
    copy.update(&mut second, &gradients(&steps[1]), 0.01);
    assert_eq!(pair.values(), copy.values());
    assert_eq!(first, second);
}
