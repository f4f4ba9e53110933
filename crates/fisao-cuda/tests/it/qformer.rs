//! The Q-Former against that of fisao-models.

use burn::tensor::{Device, Tensor, TensorData};
use fisao_cuda::kernels::Gelu;
use fisao_cuda::{
    CudaError, Driver, OnCard, QFormer, QFormerBatch, QFormerConfig, Recorder, Storage,
};
use fisao_models::activation::Activation;
use fisao_models::qformer;

use crate::decoder::model::Kept;
use crate::device::{assert_close, doubles, driver, values};

const CONFIG: QFormerConfig = QFormerConfig {
    storage: Storage::F32,
    hidden: 36,
    intermediate: 50,
    layers: 3,
    heads: 3,
    cross_attention_frequency: 2,
    image_width: 22,
    epsilon: 1e-12,
    activation: Gelu::Erf,
};

fn on_cpu(weights: &mut Kept) -> qformer::QFormer {
    let config = qformer::QFormerConfig {
        vocab_size: 1,
        hidden_size: CONFIG.hidden,
        intermediate_size: CONFIG.intermediate,
        num_hidden_layers: CONFIG.layers,
        num_attention_heads: CONFIG.heads,
        cross_attention_frequency: CONFIG.cross_attention_frequency,
        encoder_hidden_size: CONFIG.image_width,
        max_position_embeddings: 1,
        layer_norm_eps: 1e-12,
        hidden_act: Activation::Gelu,
    };
    qformer::QFormer::load(&config, weights, "qformer", &Device::flex()).expect("weights")
}

/// Queries, texts, states of images.
fn inputs(of: &QFormerBatch) -> [Vec<f32>; 3] {
    let QFormerBatch { batch, queries, text, positions } = *of;
    let (width, image) = (CONFIG.hidden, CONFIG.image_width);
    [
        values(1, batch * queries * width),
        values(2, batch * text * width),
        values(3, batch * positions * image),
    ]
}

#[test]
fn qformer_equals_the_cpu_path() {
    let Some(mut driver) = driver("qformer_equals_the_cpu_path") else { return };
    for (storage, near) in [(Storage::F32, 2e-5), (Storage::F16, 4e-3), (Storage::Bf16, 3e-2)] {
        let mut weights = Kept::new(5, storage);
        let expected = on_cpu(&mut weights);
        let config = QFormerConfig { storage, ..CONFIG };
        let on_card = QFormer::load(&mut driver, config, &mut weights, "qformer").expect("weights");
        // Queries with a text and alone, a text alone, patches one by one, queries before one token.
        for [batch, queries, text, positions] in
            [[3, 5, 4, 7], [2, 32, 0, 65], [2, 0, 9, 0], [5, 3, 0, 1], [1, 1, 1, 1]]
        {
            let of = QFormerBatch { batch, queries, text, positions };
            let [own, texts, image] = inputs(&of);
            let found = on_card.forward(&mut driver, [&own, &texts, &image], &of).expect("run");
            let device = Device::flex();
            let tensor = |values: Vec<f32>, size: [usize; 3]| -> Tensor<3> {
                Tensor::from_data(TensorData::new(values, size), &device)
            };
            let width = CONFIG.hidden;
            let parts = [(own, queries), (texts, text)];
            let parts = parts.into_iter().filter(|(_, length)| *length > 0);
            let parts = parts.map(|(values, length)| tensor(values, [batch, length, width]));
            let x = Tensor::cat(parts.collect(), 1);
            let image =
                (queries > 0).then(|| tensor(image, [batch, positions, CONFIG.image_width]));
            let states = expected.forward(x, queries, image.as_ref()).expect("on the CPU");
            for (first, length, found) in [(0, queries, &found[0]), (queries, text, &found[1])] {
                if length == 0 {
                    assert!(found.is_empty());
                    continue;
                }
                let states = states.clone().narrow(1, first, length);
                let states: Vec<f32> = states.into_data().try_to_vec().expect("f32");
                let what = format!("{storage:?}, {of:?}, rows from {first}");
                assert_close(&what, found, &doubles(&states), near);
            }
        }
        on_card.unload(&mut driver).expect("released");
    }
}

#[test]
fn memory_of_a_qformer_is_what_is_reserved() {
    let mut weights = Kept::new(5, Storage::F32);
    on_cpu(&mut weights);
    let of = QFormerBatch { batch: 2, queries: 5, text: 3, positions: 9 };
    let [own, texts, image] = inputs(&of);
    let planned = CONFIG.weight_bytes() + CONFIG.bytes(&of);
    for (memory, fits) in [(planned, true), (planned - 1, false)] {
        let mut driver = Recorder::alone(memory);
        let qformer = QFormer::load(&mut driver, CONFIG, &mut weights, "qformer").expect("weights");
        let ran = qformer.forward(&mut driver, [&own, &texts, &image], &of);
        if fits {
            ran.expect("room");
            assert_eq!(driver.peak(), planned);
        } else {
            assert!(matches!(ran, Err(CudaError::Memory { .. })));
        }
        qformer.unload(&mut driver as &mut dyn Driver).expect("released");
    }
}
