use fisao_cuda::kernels::{Rows, sample};
use fisao_cuda::{Driver, Storage};

use crate::device::{download, driver, room, upload, values};

/// The rule of the sampler on the CPU (`sample_token` in fisao-models' `generation/decoding.rs`).
fn reference(logits: &[f32], temperature: f64, uniform: f64) -> (u32, f32) {
    let scale = if temperature > 0.0 { 1.0 / temperature } else { 1.0 };
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> =
        logits.iter().map(|&logit| (f64::from(logit - highest) * scale).exp()).collect();
    let total: f64 = weights.iter().sum();
    let chosen = if temperature > 0.0 {
        let mut left = uniform * total;
        let found = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        found
            .or_else(|| weights.iter().rposition(|&weight| weight > 0.0))
            .unwrap_or(logits.len() - 1)
    } else {
        logits.iter().position(|&logit| logit >= highest).unwrap_or(0)
    };
    (chosen as u32, (f64::from(logits[chosen] - highest) * scale - total.ln()) as f32)
}

fn sampled(
    driver: &mut dyn Driver,
    logits: &[f32],
    draws: &[[f64; 2]],
    width: usize,
) -> Vec<(u32, f32)> {
    let rows = draws.len();
    let on_card = upload(driver, Storage::F32, logits);
    let bytes: Vec<u8> = draws
        .iter()
        .flat_map(|&[temperature, uniform]| {
            [if temperature > 0.0 { 1.0 / temperature } else { 0.0 }, uniform]
        })
        .flat_map(f64::to_ne_bytes)
        .collect();
    let of_draws = driver.reserve(bytes.len()).expect("memory");
    driver.upload(of_draws, &bytes).expect("uploaded");
    let [tokens, out] = [(); 2].map(|()| room(driver, Storage::F32, rows));
    sample(driver, [on_card, of_draws, tokens, out], Rows { rows, width }).expect("run");
    let tokens = download(driver, Storage::F32, tokens);
    let out = download(driver, Storage::F32, out);
    tokens.iter().zip(out).map(|(token, out)| (token.to_bits(), out)).collect()
}

#[test]
fn draws_are_those_of_the_sampler_on_the_cpu() {
    let Some(mut driver) = driver("draws_are_those_of_the_sampler_on_the_cpu") else { return };
    for (width, rows) in [(1, 2), (7, 30), (1024, 10), (3001, 40)] {
        let logits: Vec<f32> = values(1, rows * width).iter().map(|x| 5.0 * x).collect();
        let uniforms = values(2, rows);
        let draws: Vec<[f64; 2]> = uniforms
            .iter()
            .enumerate()
            .map(|(row, &x)| [[1.0, 0.7, 0.0, 2.0][row % 4], f64::from(x).abs()])
            .collect();
        let found = sampled(&mut driver, &logits, &draws, width);
        for ((found, logits), [temperature, uniform]) in
            found.iter().zip(logits.chunks_exact(width)).zip(draws)
        {
            let expected = reference(logits, temperature, uniform);
            assert_eq!(found.0, expected.0, "{width} at {temperature}, {uniform}");
            assert!((found.1 - expected.1).abs() < 1e-5, "{found:?} {expected:?}");
        }
    }
}

#[test]
fn ends_of_the_distribution_and_banned_tokens() {
    let Some(mut driver) = driver("ends_of_the_distribution_and_banned_tokens") else { return };
    let mut logits = vec![f32::NEG_INFINITY; 2000];
    (logits[3], logits[1500], logits[1501]) = (0.5, 0.5, -1.0);
    let rows = [[1.0, 0.0], [1.0, 1.0 - f64::EPSILON / 2.0], [1.0, 1.0], [0.0, 0.3]];
    let found = sampled(&mut driver, &logits.repeat(4), &rows, 2000);
    assert_eq!(found.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [3, 1501, 1501, 3]);
    logits[40] = f32::NAN;
    let found = sampled(&mut driver, &logits, &[[1.0, 0.5]], 2000);
    assert!(found[0].1.is_nan(), "{found:?}");
}
