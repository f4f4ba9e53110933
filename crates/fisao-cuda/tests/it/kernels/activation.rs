use fisao_cuda::Storage;
use fisao_cuda::kernels::{Gelu, Rows, gelu, swiglu, swiglu_backward};

use crate::device::{
    STORAGES, assert_close, doubles, download, driver, room, rounded, tolerance, upload, values,
};

const SIZES: [[usize; 2]; 4] = [[0, 8], [1, 1], [1, 33], [7, 70]];

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn swiglu_and_its_gradients() {
    let Some(mut driver) = driver("swiglu_and_its_gradients") else { return };
    for storage in STORAGES {
        for [rows, width] in SIZES {
            let size = Rows { rows, width };
            let scaled = |seed| -> Vec<f32> {
                let values = values(seed, 2 * rows * width);
                storage
                    .widened(&storage.narrowed(&values.iter().map(|x| 6.0 * x).collect::<Vec<_>>()))
            };
            let gate_up = scaled(1);
            let by_output = rounded(2, rows * width, storage);
            let on_card = upload(&mut driver, storage, &gate_up);
            let by = upload(&mut driver, storage, &by_output);
            let out = room(&mut driver, storage, rows * width);
            let gradient = room(&mut driver, storage, 2 * rows * width);
            swiglu(&mut driver, storage, [on_card, out], size).expect("run");
            swiglu_backward(&mut driver, storage, [on_card, by, gradient], size).expect("run");
            let (gate_up, by_output) = (doubles(&gate_up), doubles(&by_output));
            let mut expected = Vec::new();
            let mut expected_gradient = vec![0.0; 2 * rows * width];
            for row in 0..rows {
                for i in 0..width {
                    let at = 2 * row * width + i;
                    let (gate, up, g) =
                        (gate_up[at], gate_up[at + width], by_output[row * width + i]);
                    let s = sigmoid(gate);
                    expected.push(gate * s * up);
                    expected_gradient[at] = g * up * s * (1.0 + gate * (1.0 - s));
                    expected_gradient[at + width] = g * gate * s;
                }
            }
            let what = format!("{storage:?} {rows} × {width}");
            let found = download(&mut driver, storage, out);
            assert_close(&what, &found, &expected, tolerance(storage));
            let found = download(&mut driver, storage, gradient);
            assert_close(
                &format!("{what}, gradient"),
                &found,
                &expected_gradient,
                tolerance(storage),
            );
        }
    }
}

/// The error function by its series: enough terms for |x| ≤ 5.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn gelu_in_three_forms() {
    let Some(mut driver) = driver("gelu_in_three_forms") else { return };
    for storage in STORAGES {
        for [rows, width] in SIZES {
            let bias = values(5, width);
            let x: Vec<f32> = values(1, rows * width).iter().map(|x| 4.0 * x).collect();
            let x = storage.widened(&storage.narrowed(&x));
            for form in [Gelu::Erf, Gelu::Tanh, Gelu::Quick] {
                let on_card = upload(&mut driver, storage, &x);
                let biases = upload(&mut driver, Storage::F32, &bias);
                let size = Rows { rows, width };
                gelu(&mut driver, storage, [on_card, biases], size, form).expect("run");
                let apply = |x: f64| match form {
                    Gelu::Erf => 0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt())),
                    Gelu::Tanh => {
                        let inner = x + 0.044_715 * x * x * x;
                        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * inner).tanh())
                    }
                    Gelu::Quick => x * sigmoid(1.702 * x),
                };
                let values = doubles(&x);
                let expected: Vec<f64> = (0..rows * width)
                    .map(|at| apply(values[at] + f64::from(bias[at % width])))
                    .collect();
                let found = download(&mut driver, storage, on_card);
                // Far below 0 the result is a small difference of two numbers near 1.
                let near = tolerance(storage).max(3e-5);
                assert_close(&format!("{storage:?} {form:?}"), &found, &expected, near);
            }
        }
    }
}
