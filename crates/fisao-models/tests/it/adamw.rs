//! The optimiser against `torch.optim.AdamW` (`fixtures/adamw_pytorch/generate.py`).

use burn::tensor::{Device, Tensor};
use fisao_models::adamw::{AdamW, AdamWConfig};
use fisao_models::parameters::{GradientMap, ParameterMut, from_floats};
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
        optimiser.begin();
        optimiser.apply("matrix", ParameterMut::Matrix(&mut self.matrix), gradients, rate);
        optimiser.apply("vector", ParameterMut::Vector(&mut self.vector), gradients, rate);
    }

    fn values(&mut self) -> [Vec<f32>; 2] {
        [
            ParameterMut::Matrix(&mut self.matrix).values(),
            ParameterMut::Vector(&mut self.vector).values(),
        ]
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
fn updates_are_those_of_pytorch() {
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
/// With equal gradients m̂ = g and v̂ = g² at every step, so the second is the same again.
#[test]
fn constant_gradients_move_by_the_rate() {
    let mut vector: Tensor<1> = from_floats(vec![1.0, -2.0, 0.5], [3], &Device::flex());
    let gradients = GradientMap::from([("x".to_owned(), vec![0.3, -20.0, 0.0])]);
    let mut optimiser = AdamW::new(AdamWConfig::default());
    for expected in [[0.99, -1.99, 0.5], [0.98, -1.98, 0.5]] {
        optimiser.begin();
        optimiser.apply("x", ParameterMut::Vector(&mut vector), &gradients, 0.01);
        let values = ParameterMut::Vector(&mut vector).values();
        assert_close("values", &values, &expected, F32_ELEMENTWISE);
    }
}

#[test]
fn a_parameter_without_gradient_stays() {
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
fn a_copied_state_continues_bit_for_bit() {
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
