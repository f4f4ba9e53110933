use fisao_cuda::Storage;
use fisao_cuda::kernels::{Rows, log_probs, log_probs_backward};

use crate::device::{
    STORAGES, assert_close, doubles, download, driver, room, tolerance, upload, upload_ints, values,
};

/// Rows and vocabularies.
const SIZES: [[usize; 2]; 4] = [[0, 5], [1, 1], [1, 3000], [4, 259]];

struct Row {
    log_probs: Vec<f64>,
    entropy: f64,
}

fn reference(logits: &[f64], temperature: f64) -> Row {
    let z: Vec<f64> = logits.iter().map(|x| x / temperature).collect();
    let most = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = z.iter().map(|z| (z - most).exp()).sum::<f64>().ln() + most;
    let log_probs: Vec<f64> = z.iter().map(|z| z - total).collect();
    let entropy = -log_probs.iter().map(|l| l.exp() * l).sum::<f64>();
    Row { log_probs, entropy }
}

#[test]
fn log_probs_entropy_and_gradients() {
    let Some(mut driver) = driver("log_probs_entropy_and_gradients") else { return };
    let wide = Storage::F32;
    for [rows, width] in SIZES {
        for temperature in [1.0, 0.7] {
            let logits: Vec<f32> = values(1, rows * width).iter().map(|x| 8.0 * x).collect();
            let targets: Vec<i32> = (0..rows).map(|row| (row * 91 % width) as i32).collect();
            let by_output = values(2, 2 * rows);
            let size = Rows { rows, width };
            let [on_card, by] = [&logits, &by_output].map(|all| upload(&mut driver, wide, all));
            let places = upload_ints(&mut driver, &targets);
            let out = room(&mut driver, wide, 2 * rows);
            log_probs(&mut driver, [on_card, places, out], size, temperature).expect("run");
            let t = f64::from(temperature);
            let (mut expected, mut expected_gradient) = (Vec::new(), Vec::new());
            for (row, logits) in doubles(&logits).chunks_exact(width).enumerate() {
                let Row { log_probs, entropy } = reference(logits, t);
                let target = targets[row] as usize;
                expected.extend([log_probs[target], entropy]);
                let [by_log_prob, by_entropy] = [0, 1].map(|i| f64::from(by_output[2 * row + i]));
                expected_gradient.extend(log_probs.iter().enumerate().map(|(at, l)| {
                    let hit = if at == target { 1.0 } else { 0.0 };
                    let p = l.exp();
                    (by_log_prob * (hit - p) - by_entropy * p * (l + entropy)) / t
                }));
            }
            let what = format!("{rows} × {width} at {temperature}");
            assert_close(&what, &download(&mut driver, wide, out), &expected, 3e-6);
            for storage in STORAGES {
                let gradient = room(&mut driver, storage, rows * width);
                let buffers = [on_card, places, by, gradient];
                log_probs_backward(&mut driver, storage, buffers, size, temperature).expect("run");
                let found = download(&mut driver, storage, gradient);
                let tolerance = tolerance(storage).max(1e-5);
                assert_close(
                    &format!("{what}, {storage:?}"),
                    &found,
                    &expected_gradient,
                    tolerance,
                );
            }
        }
    }
}

#[test]
fn banned_token_leaves_entropy_finite() {
    let Some(mut driver) = driver("banned_token_leaves_entropy_finite") else { return };
    let wide = Storage::F32;
    let logits = upload(&mut driver, wide, &[1.0, f32::NEG_INFINITY, 1.0]);
    let targets = upload_ints(&mut driver, &[2]);
    let out = room(&mut driver, wide, 2);
    let size = Rows { rows: 1, width: 3 };
    log_probs(&mut driver, [logits, targets, out], size, 1.0).expect("run");
    let half = std::f64::consts::LN_2;
    assert_close("two of three", &download(&mut driver, wide, out), &[-half, half], 1e-6);
}
