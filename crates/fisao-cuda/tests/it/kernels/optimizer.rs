use fisao_cuda::kernels::{AdamW, adamw, global_norm, norm_scratch_bytes};
use fisao_cuda::{Buffer, Driver, Storage};

use crate::device::{
    STORAGES, assert_close, doubles, download, driver, room, tolerance, upload, values,
};

#[test]
fn norm_of_gradients_and_its_limit() {
    let Some(mut driver) = driver("norm_of_gradients_and_its_limit") else { return };
    let wide = Storage::F32;
    for count in [0, 1, 4096, 4097, 10_001] {
        let x = values(1, count);
        let norm = doubles(&x).iter().map(|x| x * x).sum::<f64>().sqrt();
        for limit in [1e-2_f32, 1e6] {
            let gradients = upload(&mut driver, wide, &x);
            let sums = driver.reserve(norm_scratch_bytes(count)).expect("memory");
            let out = room(&mut driver, wide, 2);
            global_norm(&mut driver, [gradients, sums, out], count, limit).expect("run");
            let factor = if norm > f64::from(limit) { f64::from(limit) / norm } else { 1.0 };
            let found = download(&mut driver, wide, out);
            assert_close(&format!("{count}"), &found, &[norm, factor], 1e-6);
            assert_close(&format!("{count}"), &found[1..], &[factor], 1e-6);
        }
    }
}

#[test]
fn adamw_follows_its_definition() {
    let Some(mut driver) = driver("adamw_follows_its_definition") else { return };
    let wide = Storage::F32;
    for storage in STORAGES {
        for count in [0, 1, 777] {
            let w = values(1, count);
            let [weights, first, second] = [w.clone(), vec![0.0; count], vec![0.0; count]]
                .map(|all| upload(&mut driver, wide, &all));
            let copy = room(&mut driver, storage, count);
            let factor = upload(&mut driver, wide, &[0.5]);
            let (mut w, mut m, mut v) = (doubles(&w), vec![0.0; count], vec![0.0; count]);
            for step in 1..=3 {
                let g = values(step as u64 + 10, count);
                let gradients = upload(&mut driver, wide, &g);
                let settings =
                    AdamW { rate: 1e-2, betas: [0.9, 0.99], epsilon: 1e-8, decay: 0.1, step };
                let scale = if step == 2 { Buffer::NULL } else { factor };
                let buffers = [weights, gradients, first, second, copy, scale];
                adamw(&mut driver, storage, buffers, count, &settings).expect("run");
                for i in 0..count {
                    let g = f64::from(g[i]) * if step == 2 { 1.0 } else { 0.5 };
                    m[i] = 0.9 * m[i] + 0.1 * g;
                    v[i] = 0.99 * v[i] + 0.01 * g * g;
                    let unbiased = m[i] / (1.0 - 0.9_f64.powi(step));
                    let root = (v[i] / (1.0 - 0.99_f64.powi(step))).sqrt();
                    w[i] -= 1e-2 * (unbiased / (root + 1e-8) + 0.1 * w[i]);
                }
            }
            assert_close("weights", &download(&mut driver, wide, weights), &w, 1e-5);
            let found = download(&mut driver, storage, copy);
            assert_close("copies", &found, &w, tolerance(storage).max(1e-5));
        }
    }
}
