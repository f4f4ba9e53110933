//! The encoder of vision towers against that of fisao-models.

use burn::tensor::{Device, Tensor, TensorData};
use fisao_cuda::kernels::Gelu;
use fisao_cuda::{
    CudaError, Driver, Encoder, EncoderConfig, EncoderPlan, EncoderSession, OnCard, PatchConfig,
    Recorder, Storage, WeightSource, WeightTensor,
};
use fisao_models::activation::Activation;
use fisao_models::attention::Mask;
use fisao_models::encoder;
use fisao_models::vision::{VisionConfig, VisionFamily, VisionTower};

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
                patches: None,
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
        patches: None,
    };
    let mut weights = Kept::new(5, Storage::F32);
    let encoder = Encoder::load(driver, config, &mut weights, "tower").expect("no weights");
    let session = EncoderSession::open(driver, &encoder, PLAN).expect("memory");
    let x = vec![0.0; 4 * 36];
    let refused = session.forward(driver, &encoder, &x, [4, 1], false, 0..0);
    assert!(matches!(refused, Err(CudaError::Capacity { found: 4, planned: 3, .. })));
}

/// Tensors of a whole tower under the names that a card takes.
struct OfTower(Kept);

impl WeightSource for OfTower {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<WeightTensor<'_>, String> {
        let (width, batch) = (*shape.last().unwrap(), [&[1], shape].concat());
        let vector = shape == [width];
        let (name, shape) = match name {
            "tower.encoder.patches" => {
                let side = (width / 3).isqrt();
                let name = "tower.embeddings.patch_embedding.weight";
                return self.0.tensor(name, &[shape[0], 3, side, side]);
            }
            "tower.encoder.patch_bias" => ("tower.embeddings.patch_embedding.bias", shape.to_vec()),
            "tower.encoder.norm.weight" => ("tower.pre_layrnorm.weight", shape.to_vec()),
            "tower.encoder.norm.bias" => ("tower.pre_layrnorm.bias", shape.to_vec()),
            "tower.encoder.positions" => {
                let [table, eva] = ["position_embedding.weight", "position_embedding"]
                    .map(|part| format!("tower.embeddings.{part}"));
                let found = self.0.tensor(&table, shape).is_ok();
                return if found {
                    self.0.tensor(&table, shape)
                } else {
                    self.0.tensor(&eva, &batch)
                };
            }
            "tower.encoder.class" => {
                let name = "tower.embeddings.class_embedding";
                let found = self.0.tensor(name, shape).is_ok();
                let shape = if found || !vector { vec![width] } else { vec![1, 1, width] };
                return self.0.tensor(name, &shape);
            }
            other => (other, shape.to_vec()),
        };
        self.0.tensor(name, &shape)
    }
}

#[test]
fn embedded_patches_equal_the_cpu_path() {
    let Some(mut driver) = driver("embedded_patches_equal_the_cpu_path") else { return };
    for (storage, near) in [(Storage::F32, 2e-5), (Storage::F16, 2e-3), (Storage::Bf16, 1.5e-2)] {
        for family in [VisionFamily::Clip, VisionFamily::Siglip, VisionFamily::Eva] {
            let (width, patch, image_size) = (36, 3, 10);
            let mut weights = OfTower(Kept::new(5, storage));
            let sizes = VisionConfig {
                family,
                hidden_size: width,
                intermediate_size: INNER,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                image_size,
                patch_size: patch,
                layer_norm_eps: 1e-5,
                hidden_act: Activation::Gelu,
            };
            let device = Device::flex();
            let tower = VisionTower::load(sizes.clone(), &mut weights.0, "tower", &device);
            let tower = tower.expect("weights");
            let side = image_size / patch;
            let inputs = 3 * patch * patch;
            let config = EncoderConfig {
                storage,
                hidden: width,
                intermediate: INNER,
                layers: 2,
                heads: 2,
                epsilon: 1e-5,
                activation: Gelu::Erf,
                fused_query_key_value: family == VisionFamily::Eva,
                patches: Some(PatchConfig {
                    inputs,
                    positions: sizes.positions(),
                    class_token: family != VisionFamily::Siglip,
                    bias: family != VisionFamily::Clip,
                    norm: family == VisionFamily::Clip,
                }),
            };
            let encoder = Encoder::load(&mut driver, config, &mut weights, "tower.encoder");
            let encoder = encoder.expect("weights");
            let plan = EncoderPlan { sequences: 3, length: sizes.positions() };
            let session = EncoderSession::open(&mut driver, &encoder, plan).expect("memory");
            for images in [1, 3] {
                let each = 3 * image_size * image_size;
                let pixels = values(9, images * each);
                let at = |image: usize, channel: usize, y: usize, x: usize| {
                    pixels[image * each + (channel * image_size + y) * image_size + x]
                };
                let mut patches = Vec::new();
                for place in 0..images * side * side * inputs {
                    let (of, i) = (place / inputs, place % inputs);
                    let (image, row, column) = (of / (side * side), of / side % side, of % side);
                    let (channel, y, x) = (i / (patch * patch), i / patch % patch, i % patch);
                    patches.push(at(image, channel, row * patch + y, column * patch + x));
                }
                let data = TensorData::new(pixels.clone(), [images, 3, image_size, image_size]);
                for depth in [0, 2] {
                    let found = session.encode_patches(&mut driver, &encoder, &patches, depth);
                    let states = tower
                        .hidden_states(Tensor::from_data(data.clone(), &device), depth)
                        .unwrap();
                    let states: Vec<f32> = states.into_data().try_to_vec().expect("f32");
                    let what = format!("{storage:?}, {family:?}, {images} images, {depth} layers");
                    assert_close(&what, &found.expect("encoded"), &doubles(&states), near);
                }
            }
            let refused = session.encode_patches(
                &mut driver,
                &encoder,
                &vec![0.0; 4 * side * side * inputs],
                1,
            );
            assert!(matches!(refused, Err(CudaError::Capacity { found: 4, planned: 3, .. })));
            session.close(&mut driver).expect("closed");
            encoder.unload(&mut driver).expect("released");
        }
    }
}

#[test]
fn memory_of_images_is_what_is_reserved() {
    // A patch of more numbers than the layers are wide, and one of fewer.
    for inputs in [300, 12] {
        let patches =
            PatchConfig { inputs, positions: 5, class_token: false, bias: false, norm: false };
        let config = EncoderConfig {
            storage: Storage::F16,
            hidden: 36,
            intermediate: 8,
            layers: 0,
            heads: 2,
            epsilon: 1e-5,
            activation: Gelu::Erf,
            fused_query_key_value: false,
            patches: Some(patches),
        };
        let plan = EncoderPlan { sequences: 2, length: 5 };
        let planned = Encoder::weight_bytes(&config) + plan.bytes(&config);
        let mut driver = Recorder::alone(planned);
        let encoder = Encoder::load(&mut driver, config, &mut Ones, "tower").expect("weights");
        let session = EncoderSession::open(&mut driver, &encoder, plan).expect("memory");
        let patches = vec![0.0; 2 * 5 * inputs];
        session.encode_patches(&mut driver, &encoder, &patches, 0).expect("room");
        assert_eq!(driver.peak(), planned);
    }
}

/// Every tensor there could be, of ones.
struct Ones;

impl WeightSource for Ones {
    fn tensor(&mut self, _name: &str, shape: &[usize]) -> Result<WeightTensor<'_>, String> {
        let ones = vec![1.0; shape.iter().product()];
        let storage = Storage::F32;
        Ok(WeightTensor { storage, bytes: storage.narrowed(&ones).into() })
    }
}
