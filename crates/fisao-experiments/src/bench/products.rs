//! Single products, and what the machine can do at best.

use std::hint::black_box;

use burn::tensor::{Device, Tensor};
use fisao_models::linear::Linear;
use fisao_models::parallel::cores;

use super::models::{FastWeights, Held};
use super::{Amount, Repetitions};

/// Floats read to find the memory's ceiling: more than caches hold.
const FLOATS: usize = 1 << 28;

/// Lanes of independent sums.
const LANES: usize = 64;

/// Places that a core reads at in turn.
const STREAMS: usize = 4;

fn map(inputs: usize, outputs: usize, held: Held) -> anyhow::Result<Linear> {
    let mut weights = FastWeights::new(held);
    Ok(Linear::load(&mut weights, "map", [inputs, outputs], false, &Device::flex())?)
}

fn product(
    repetitions: &mut Repetitions,
    [rows, inputs, outputs]: [usize; 3],
    held: Held,
    times: usize,
) -> anyhow::Result<Amount> {
    let map = map(inputs, outputs, held)?;
    let x: Tensor<2> = Tensor::ones([rows, inputs], &Device::flex());
    while repetitions.again() {
        for _ in 0..times {
            black_box(map.forward(x.clone()));
        }
    }
    let (size, times) = ((inputs * outputs) as f64, times as f64);
    Ok(Amount {
        count: times,
        unit: "products",
        flops: 2.0 * rows as f64 * size * times,
        bytes: size * held.bytes() * times,
    })
}

/// A product that is bound by arithmetic.
pub(super) fn large(repetitions: &mut Repetitions) -> anyhow::Result<Amount> {
    Ok(Amount { bytes: 0.0, ..product(repetitions, [1024; 3], Held::F32, 8)? })
}

/// A product that is bound by reading its matrix.
pub(super) fn rows(
    repetitions: &mut Repetitions,
    rows: usize,
    held: Held,
) -> anyhow::Result<Amount> {
    product(repetitions, [rows, 4096, 4096], held, 8)
}

/// A product whose matrix stays in a cache.
pub(super) fn small(repetitions: &mut Repetitions, rows: usize) -> anyhow::Result<Amount> {
    Ok(Amount { bytes: 0.0, ..product(repetitions, [rows, 192, 512], Held::F32, 1000)? })
}

/// Reads memory on all cores at once.
pub(super) fn memory(repetitions: &mut Repetitions) -> Amount {
    let values = vec![1.0_f32; FLOATS];
    while repetitions.again() {
        let sums: f32 = std::thread::scope(|scope| {
            let chunks = values.chunks(FLOATS.div_ceil(cores()));
            let threads: Vec<_> = chunks.map(|chunk| scope.spawn(move || sum(chunk))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(f32::NAN)).sum()
        });
        black_box(sums);
    }
    let bytes = 4.0 * FLOATS as f64;
    Amount { count: 1.0, unit: "GiB", flops: 0.0, bytes }
}

/// In several streams, as one alone does not keep memory busy.
fn sum(values: &[f32]) -> f32 {
    let streams: Vec<&[f32]> = values.chunks(values.len().div_ceil(STREAMS).max(1)).collect();
    let mut sums = [0.0_f32; LANES];
    let shortest = streams.iter().map(|stream| stream.len()).min().unwrap_or(0);
    for at in (0..shortest / LANES * LANES).step_by(LANES) {
        for stream in &streams {
            for (sum, value) in sums.iter_mut().zip(&stream[at..at + LANES]) {
                *sum += value;
            }
        }
    }
    sums.iter().sum()
}
