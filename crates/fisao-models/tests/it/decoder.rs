//! The decoder against itself.

use burn::tensor::{Device, Int, Tensor, TensorData};
use fisao_models::attention::Mask;
use fisao_models::llama::{Pass, Positions};
use fisao_models::parameters::{floats, from_floats};
use fisao_testkit::compare::assert_close;
use fisao_testkit::tiny::{llava_config, tiny_llava};
use fisao_testkit::tolerance::F32_FORWARD;

/// The states that are asked for are those of a pass that computes all.
#[test]
fn selected_hidden_states_equal_those_of_the_full_pass() {
    let (model, width) = (tiny_llava(3), llava_config().text.hidden_size);
    let (batch, length) = (3, 5);
    let values = (0..batch * length * width).map(|at| ((at * 37 + 11) % 101) as f32 / 50.0 - 1.0);
    let x: Tensor<2> = from_floats(values.collect(), [batch * length, width], &Device::flex());
    let positions = Positions::Single((0..batch).flat_map(|_| 0..length).collect());
    let mask = Mask::causal();
    let forward = |wanted: Option<Tensor<1, Int>>| {
        let pass = Pass { batch, positions: &positions, mask: &mask, wanted, deep: &[] };
        floats(&model.language_model().forward(x.clone(), &pass, None))
    };
    let all = forward(None);
    let rows = [14_i64, 2, 3, 2];
    let wanted = Tensor::from_data(TensorData::from(rows), &Device::flex());
    let expected: Vec<f32> =
        rows.iter().flat_map(|&row| &all[row as usize * width..][..width]).copied().collect();
    assert_close("wanted states", &forward(Some(wanted)), &expected, F32_FORWARD);
}
