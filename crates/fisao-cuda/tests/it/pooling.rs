//! SigLIP's pooling against f64 arithmetic.

use fisao_cuda::kernels::Gelu;
use fisao_cuda::{
    CudaError, Driver, OnCard, Pooling, PoolingConfig, Recorder, Storage, WeightSource,
};
use fisao_models::weights::{Init, WeightSource as Weights};

use crate::decoder::model::Kept;
use crate::device::{assert_close, doubles, driver, rounded};

const WIDTH: usize = 24;
const INNER: usize = 40;
const HEADS: usize = 3;
const SIZE: usize = WIDTH / HEADS;
const EPSILON: f64 = 1e-5;

fn config(storage: Storage) -> PoolingConfig {
    PoolingConfig {
        storage,
        hidden: WIDTH,
        intermediate: INNER,
        heads: HEADS,
        epsilon: EPSILON as f32,
        activation: Gelu::Tanh,
    }
}

const TENSORS: [(&str, &[usize]); 11] = [
    ("probe", &[1, WIDTH]),
    ("attention.in_proj_weight", &[3 * WIDTH, WIDTH]),
    ("attention.in_proj_bias", &[3 * WIDTH]),
    ("attention.out_proj.weight", &[WIDTH, WIDTH]),
    ("attention.out_proj.bias", &[WIDTH]),
    ("layernorm.weight", &[WIDTH]),
    ("layernorm.bias", &[WIDTH]),
    ("mlp.fc1.weight", &[INNER, WIDTH]),
    ("mlp.fc1.bias", &[INNER]),
    ("mlp.fc2.weight", &[WIDTH, INNER]),
    ("mlp.fc2.bias", &[WIDTH]),
];

fn weights(storage: Storage) -> Kept {
    let mut weights = Kept::new(7, storage);
    for (name, shape) in TENSORS {
        let init = Init::Normal { std: 0.4 };
        let drawn = Weights::tensor(&mut weights, &format!("head.{name}"), shape, init);
        drawn.expect("a tensor");
    }
    weights
}

/// `W x + b`, of rows from `first` on.
fn linear(weight: &[f64], bias: &[f64], first: usize, outputs: usize, x: &[f64]) -> Vec<f64> {
    let row = |row: usize| {
        let weights = &weight[row * x.len()..][..x.len()];
        bias[row] + weights.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()
    };
    (first..first + outputs).map(row).collect()
}

/// The form by tanh.
fn gelu(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    0.5 * x * (1.0 + inner.tanh())
}

fn expected(weights: &mut Kept, states: &[f64], positions: usize) -> Vec<f64> {
    let mut tensor = |index: usize| {
        let (name, shape) = TENSORS[index];
        let found = WeightSource::tensor(weights, &format!("head.{name}"), shape).expect("drawn");
        doubles(&found.storage.widened(&found.bytes))
    };
    let [
        probe,
        input,
        input_bias,
        output,
        output_bias,
        norm,
        norm_bias,
        fc1,
        fc1_bias,
        fc2,
        fc2_bias,
    ] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(&mut tensor);
    let query = linear(&input, &input_bias, 0, WIDTH, &probe);
    let mut pooled = Vec::new();
    for image in states.chunks(positions * WIDTH) {
        let rows: Vec<&[f64]> = image.chunks(WIDTH).collect();
        let keys = rows.iter().map(|row| linear(&input, &input_bias, WIDTH, WIDTH, row));
        let keys: Vec<Vec<f64>> = keys.collect();
        let values = rows.iter().map(|row| linear(&input, &input_bias, 2 * WIDTH, WIDTH, row));
        let values: Vec<Vec<f64>> = values.collect();
        let mut mixed = vec![0.0; WIDTH];
        for head in 0..HEADS {
            let own = head * SIZE..(head + 1) * SIZE;
            let weights = keys.iter().map(|key| {
                let products = own.clone().map(|at| query[at] * key[at]);
                (products.sum::<f64>() / (SIZE as f64).sqrt()).exp()
            });
            let weights: Vec<f64> = weights.collect();
            let sum: f64 = weights.iter().sum();
            for at in own {
                let products =
                    weights.iter().zip(&values).map(|(weight, value)| weight * value[at]);
                mixed[at] = products.sum::<f64>() / sum;
            }
        }
        let x = linear(&output, &output_bias, 0, WIDTH, &mixed);
        let mean = x.iter().sum::<f64>() / WIDTH as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / WIDTH as f64;
        let normed = x
            .iter()
            .enumerate()
            .map(|(at, x)| (x - mean) / (variance + EPSILON).sqrt() * norm[at] + norm_bias[at]);
        let normed: Vec<f64> = normed.collect();
        let inner = linear(&fc1, &fc1_bias, 0, INNER, &normed);
        let inner: Vec<f64> = inner.into_iter().map(gelu).collect();
        let outer = linear(&fc2, &fc2_bias, 0, WIDTH, &inner);
        pooled.extend(x.iter().zip(outer).map(|(x, outer)| x + outer));
    }
    pooled
}

#[test]
fn pooling_equals_f64_arithmetic() {
    let Some(mut driver) = driver("pooling_equals_f64_arithmetic") else { return };
    for (storage, near) in [(Storage::F32, 1e-5), (Storage::F16, 4e-3), (Storage::Bf16, 3e-2)] {
        let mut weights = weights(storage);
        let pooling = Pooling::load(&mut *driver, config(storage), &mut weights, "head");
        let pooling = pooling.expect("weights");
        // Of a whole image, of a patch alone, of more patches than are on the card at a time.
        for (images, positions) in [(3, 37), (5, 1), (1, 1), (2100, 4)] {
            let states = rounded(11, images * positions * WIDTH, storage);
            let found = pooling.forward(&mut *driver, &states, positions).expect("pooled");
            let expected = expected(&mut weights, &doubles(&states), positions);
            assert_close(&format!("{storage:?}, {images} × {positions}"), &found, &expected, near);
        }
        assert!(pooling.forward(&mut *driver, &[], 5).expect("nothing").is_empty());
        pooling.unload(&mut *driver).expect("released");
    }
}

#[test]
fn memory_of_a_pooling_is_what_is_reserved() {
    let config = config(Storage::Bf16);
    for sizes in [[1, 9], [9000, 3]] {
        let planned = config.weight_bytes() + config.bytes(sizes);
        let states = vec![0.0; sizes[0] * sizes[1] * WIDTH];
        let mut driver = Recorder::alone(planned);
        let pooling = Pooling::load(&mut driver, config, &mut weights(Storage::Bf16), "head");
        pooling.expect("weights").forward(&mut driver, &states, sizes[1]).expect("room");
        assert_eq!(driver.peak(), planned);
        // A byte less is too little.
        let driver: &mut dyn Driver = &mut Recorder::alone(planned - 1);
        let pooling = Pooling::load(driver, config, &mut weights(Storage::Bf16), "head");
        let refused = pooling.expect("weights").forward(driver, &states, sizes[1]);
        assert!(matches!(refused, Err(CudaError::Memory { .. })), "{refused:?}");
    }
}
