//! Projectors against the linear layers of fisao-models.

use burn::tensor::{Device, Tensor, TensorData};
use fisao_cuda::kernels::Gelu;
use fisao_cuda::{CudaError, Driver, OnCard, Projector, ProjectorConfig, Recorder, Storage};
use fisao_models::activation::Activation;
use fisao_models::linear::Linear;

use crate::decoder::model::Kept;
use crate::device::{assert_close, doubles, driver, values};

#[test]
fn projector_equals_the_cpu_path() {
    let Some(mut driver) = driver("projector_equals_the_cpu_path") else { return };
    for (storage, near) in [(Storage::F32, 2e-5), (Storage::F16, 2e-3), (Storage::Bf16, 1.5e-2)] {
        // LLaVA's, SmolVLM's, one of three layers.
        for (outputs, bias) in [(vec![40, 40], true), (vec![70], false), (vec![33, 50, 7], true)] {
            let mut weights = Kept::new(5, storage);
            let mut width = 21;
            let device = Device::flex();
            let mut layers = Vec::new();
            for (index, &output) in outputs.iter().enumerate() {
                let name = format!("projector.{index}");
                let layer = Linear::load(&mut weights, &name, [width, output], bias, &device);
                layers.push(layer.expect("weights"));
                width = output;
            }
            let config =
                ProjectorConfig { storage, input: 21, outputs, bias, activation: Gelu::Erf };
            let projector = Projector::load(&mut driver, config, &mut weights, "projector");
            let projector = projector.expect("weights");
            // More rows than are on the card at a time, too.
            for rows in [0, 1, 33, 4099] {
                let x = values(9, rows * 21);
                let found = projector.forward(&mut driver, &x).expect("projected");
                if rows == 0 {
                    assert!(found.is_empty());
                    continue;
                }
                let mut expected: Tensor<2> =
                    Tensor::from_data(TensorData::new(x, [rows, 21]), &device);
                for (index, layer) in layers.iter().enumerate() {
                    if index > 0 {
                        expected = Activation::Gelu.forward(expected);
                    }
                    expected = layer.forward(expected);
                }
                let expected: Vec<f32> = expected.into_data().try_to_vec().expect("f32");
                let what = format!("{storage:?}, {} layers, {rows} rows", layers.len());
                assert_close(&what, &found, &doubles(&expected), near);
            }
            projector.unload(&mut driver).expect("released");
        }
    }
}

#[test]
fn memory_of_a_projector_is_what_is_reserved() {
    let mut weights = Kept::new(5, Storage::F32);
    Linear::load(&mut weights, "projector.0", [21, 40], true, &Device::flex()).expect("weights");
    let storage = Storage::Bf16;
    let outputs = vec![40];
    let config = ProjectorConfig { storage, input: 21, outputs, bias: true, activation: Gelu::Erf };
    for rows in [1, 9000] {
        let planned = config.weight_bytes() + config.bytes(rows);
        let mut driver = Recorder::alone(planned);
        let projector = Projector::load(&mut driver, config.clone(), &mut weights, "projector");
        let projector = projector.expect("weights");
        projector.forward(&mut driver, &vec![0.0; rows * 21]).expect("room");
        assert_eq!(driver.peak(), planned);
        projector.unload(&mut driver).expect("released");
        // A byte less is too little, and nothing is lost.
        let driver: &mut dyn Driver = &mut Recorder::alone(planned - 1);
        let projector = Projector::load(driver, config.clone(), &mut weights, "projector");
        let refused = projector.expect("weights").forward(driver, &vec![0.0; rows * 21]);
        assert!(matches!(refused, Err(CudaError::Memory { .. })), "{refused:?}");
    }
}
