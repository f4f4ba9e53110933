use fisao_cuda::kernels::{
    Rows, layer_norm, rms_norm, rms_norm_backward, rms_norm_weight_backward,
};
use fisao_cuda::{Buffer, Storage};

use crate::device::{
    STORAGES, assert_close, doubles, download, driver, room, rounded, tolerance, upload, values,
};

const EPSILON: f64 = 1e-5;
/// Rows and widths: empty, one row, odd, wider than a block.
const SIZES: [[usize; 2]; 6] = [[0, 8], [1, 1], [1, 33], [5, 257], [3, 600], [19, 40]];

fn scales(x: &[f64], width: usize) -> Vec<f64> {
    let scale = |row: &[f64]| {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / width as f64;
        (mean + EPSILON).sqrt().recip()
    };
    x.chunks_exact(width).map(scale).collect()
}

#[test]
fn rms_norm_adds_and_normalises() {
    let Some(mut driver) = driver("rms_norm_adds_and_normalises") else { return };
    for storage in STORAGES {
        for [rows, width] in SIZES {
            let x = values(1, rows * width);
            let delta = rounded(2, rows * width, storage);
            let weight = values(3, width);
            for adds in [false, true] {
                let wide = Storage::F32;
                let on_card = upload(&mut driver, wide, &x);
                let moved = if adds { upload(&mut driver, storage, &delta) } else { Buffer::NULL };
                let weights = upload(&mut driver, wide, &weight);
                let out = room(&mut driver, storage, rows * width);
                let size = Rows { rows, width };
                let buffers = [on_card, moved, weights, out];
                rms_norm(&mut driver, storage, buffers, size, EPSILON as f32).expect("run");
                let sum: Vec<f64> = doubles(&x)
                    .iter()
                    .zip(&delta)
                    .map(|(x, &delta)| if adds { x + f64::from(delta) } else { *x })
                    .collect();
                let scales = scales(&sum, width);
                let expected: Vec<f64> = (0..rows * width)
                    .map(|at| sum[at] * scales[at / width] * f64::from(weight[at % width]))
                    .collect();
                let what = format!("{storage:?} {rows} × {width}");
                let found = download(&mut driver, storage, out);
                assert_close(&what, &found, &expected, tolerance(storage));
                let found = download(&mut driver, wide, on_card);
                assert_close(&format!("{what}, sum"), &found, &sum, 1e-6);
            }
        }
    }
}

#[test]
fn rms_norm_backward_adds_the_gradient() {
    let Some(mut driver) = driver("rms_norm_backward_adds_the_gradient") else { return };
    for storage in STORAGES {
        for [rows, width] in SIZES {
            let wide = Storage::F32;
            let (x, before) = (values(1, rows * width), values(4, rows * width));
            let by_output = rounded(2, rows * width, storage);
            let weight = values(3, width);
            let size = Rows { rows, width };
            let on_card = upload(&mut driver, wide, &x);
            let weights = upload(&mut driver, wide, &weight);
            let by = upload(&mut driver, storage, &by_output);
            let gradient = upload(&mut driver, wide, &before);
            let buffers = [on_card, weights, by, gradient];
            rms_norm_backward(&mut driver, storage, buffers, size, EPSILON as f32).expect("run");
            let (x, by_output) = (doubles(&x), doubles(&by_output));
            let scales = scales(&x, width);
            let mut expected = doubles(&before);
            let mut by_weight = vec![0.0; width];
            for row in 0..rows {
                let at = row * width;
                let g: Vec<f64> =
                    (0..width).map(|i| by_output[at + i] * f64::from(weight[i])).collect();
                let mean = (0..width).map(|i| g[i] * x[at + i]).sum::<f64>() / width as f64;
                for i in 0..width {
                    let scale = scales[row];
                    expected[at + i] += scale * (g[i] - x[at + i] * scale * scale * mean);
                    by_weight[i] += by_output[at + i] * x[at + i] * scale;
                }
            }
            let what = format!("{storage:?} {rows} × {width}");
            assert_close(&what, &download(&mut driver, wide, gradient), &expected, 3e-6);
            let scratch = room(&mut driver, wide, rows);
            let of_weight = room(&mut driver, wide, width);
            let buffers = [on_card, by, scratch, of_weight];
            rms_norm_weight_backward(&mut driver, storage, buffers, size, EPSILON as f32)
                .expect("run");
            let found = download(&mut driver, wide, of_weight);
            assert_close(&format!("{what}, weight"), &found, &by_weight, 3e-6);
        }
    }
}

#[test]
fn layer_norm_adds_and_normalises() {
    let Some(mut driver) = driver("layer_norm_adds_and_normalises") else { return };
    for storage in STORAGES {
        for [rows, width] in SIZES {
            let wide = Storage::F32;
            let (x, weight, bias) = (values(1, rows * width), values(3, width), values(5, width));
            let delta = rounded(2, rows * width, storage);
            let on_card = upload(&mut driver, wide, &x);
            let moved = upload(&mut driver, storage, &delta);
            let [weights, biases] = [&weight, &bias].map(|all| upload(&mut driver, wide, all));
            let out = room(&mut driver, storage, rows * width);
            let buffers = [on_card, moved, weights, biases, out];
            let size = Rows { rows, width };
            layer_norm(&mut driver, storage, buffers, size, EPSILON as f32).expect("run");
            let sum: Vec<f64> =
                x.iter().zip(&delta).map(|(&x, &delta)| f64::from(x) + f64::from(delta)).collect();
            let mut expected = Vec::new();
            for row in sum.chunks_exact(width) {
                let mean = row.iter().sum::<f64>() / width as f64;
                let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
                let scale = (variance / width as f64 + EPSILON).sqrt().recip();
                expected.extend(
                    row.iter().enumerate().map(|(i, x)| {
                        (x - mean) * scale * f64::from(weight[i]) + f64::from(bias[i])
                    }),
                );
            }
            let found = download(&mut driver, storage, out);
            let what = format!("{storage:?} {rows} × {width}");
            assert_close(&what, &found, &expected, tolerance(storage).max(1e-5));
        }
    }
}
