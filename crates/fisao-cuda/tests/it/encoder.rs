//! The encoder of vision towers against that of fisao-models.

use burn::tensor::{Device, Tensor, TensorData};
use fisao_cuda::kernels::Gelu;
use fisao_cuda::{CudaError, Driver, Encoder, EncoderConfig, EncoderPlan, EncoderSession, Storage};
use fisao_models::activation::Activation;
use fisao_models::attention::Mask;
use fisao_models::encoder;

use crate::decoder::model::Kept;
use crate::device::{assert_close, doubles, driver, values};

/// What a tower is like: width of a head, non-linearity, whether queries, keys and values are one matrix.
const TOWERS: [(usize, Gelu, Activation, bool); 4] = [
    // CLIP, SigLIP So400m, EVA ViT-g, a text tower.
    (64, Gelu::Quick, Activation::QuickGelu, false),
    (72, Gelu::Tanh, Activation::GeluTanh, false),
    (88, Gelu::Erf, Activation::Gelu, true),
    (18, Gelu::Erf, Activation::Gelu, false),
];
const INNER: usize = 75;
const PLAN: EncoderPlan = EncoderPlan { sequences: 3, length: 30 };

#[test]
fn encoder_equals_the_cpu_path() {
    let Some(mut driver) = driver("encoder_equals_the_cpu_path") else { return };
    for (storage, near) in [(Storage::F32, 2e-5), (Storage::F16, 2e-3), (Storage::Bf16, 1.5e-2)] {
        for (head_size, activation, hidden_act, fused) in TOWERS {
            let width = 2 * head_size;
            let mut weights = Kept::new(5, storage);
            let expected = encoder::Encoder::load(
                &encoder::EncoderConfig {
                    hidden_size: width,
                    intermediate_size: INNER,
                    num_hidden_layers: 3,
                    num_attention_heads: 2,
                    layer_norm_eps: 1e-5,
                    hidden_act,
                    fused_qkv: fused,
                },
                &mut weights,
                "tower",
                &Device::flex(),
            )
            .expect("weights");
            let config = EncoderConfig {
                storage,
                hidden: width,
                intermediate: INNER,
                layers: 3,
                heads: 2,
                epsilon: 1e-5,
                activation,
                fused_query_key_value: fused,
            };
            let on_card =
                Encoder::load(&mut driver, config, &mut weights, "tower").expect("weights");
            let session = EncoderSession::open(&mut driver, &on_card, PLAN).expect("memory");
            for ([sequences, length], causal) in
                [([3, 29], false), ([1, 1], false), ([2, 30], true)]
            {
                let rows = sequences * length;
                let x = values(9, rows * width);
                let data = TensorData::new(x.clone(), [rows, width]);
                let tensor: Tensor<2> = Tensor::from_data(data, &Device::flex());
                let mask = if causal { Mask::Causal { first: [].into() } } else { Mask::Full };
                let mut run = |x: &[f32], layers| {
                    session
                        .forward(&mut driver, &on_card, x, [sequences, length], causal, layers)
                        .expect("encoded")
                };
                assert_eq!(run(&x, 0..0), x);
                let first = run(&x, 0..2);
                let second = run(&first, 2..3);
                for (depth, found) in [(2, first), (3, second)] {
                    let states = expected.forward(tensor.clone(), sequences, &mask, depth);
                    let states: Vec<f32> = states.into_data().try_to_vec().expect("f32");
                    let what = format!("{storage:?}, heads of {head_size}, {depth} layers");
                    assert_close(&what, &found, &doubles(&states), near);
                }
            }
            session.close(&mut driver).expect("closed");
            on_card.unload(&mut driver).expect("released");
        }
    }
}

#[test]
fn more_images_than_planned_are_refused() {
    let Some(mut driver) = driver("more_images_than_planned_are_refused") else { return };
    let driver: &mut dyn Driver = &mut driver;
    let config = EncoderConfig {
        storage: Storage::F32,
        hidden: 36,
        intermediate: 8,
        layers: 0,
        heads: 2,
        epsilon: 1e-5,
        activation: Gelu::Erf,
        fused_query_key_value: false,
    };
    let mut weights = Kept::new(5, Storage::F32);
    let encoder = Encoder::load(driver, config, &mut weights, "tower").expect("no weights");
    let session = EncoderSession::open(driver, &encoder, PLAN).expect("memory");
    let x = vec![0.0; 4 * 36];
    let refused = session.forward(driver, &encoder, &x, [4, 1], false, 0..0);
    assert!(matches!(refused, Err(CudaError::Capacity { found: 4, planned: 3, .. })));
}
