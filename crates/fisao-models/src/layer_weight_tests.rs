//! Kernels that read a model's weights against the layers they belong to.

use burn::tensor::{DType, Device, Tensor};
use fisao_kernels::ActivationDtype;
use fisao_kernels::layer_weights::ROWS;

use crate::linear::{Embedding, Linear};
use crate::lora::LowRank;
use crate::parameters::{floats, from_floats, indices};

/// Rows that are few, that are in two parts, and that are in three.
const COUNTS: [usize; 3] = [ROWS, ROWS + 9, 2 * ROWS + 1];

fn values<const D: usize>(shape: [usize; D], seed: f32) -> Tensor<D> {
    let value = |at: usize| (at as f32 * 1.7 + seed).sin();
    from_floats((0..shape.iter().product()).map(value).collect(), shape, &Device::flex())
}

#[test]
fn linear_in_row_chunks_equals_whole() {
    let (inputs, outputs) = (70, 530);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let weight = values([outputs, inputs], 0.0).cast(dtype);
        let mut linear = Linear::new(weight, Some(values([outputs], 1.0)));
        for adapted in [false, true] {
            linear.adapter = adapted.then(|| LowRank {
                a: values([4, inputs], 2.0),
                b: values([outputs, 4], 3.0),
                scale: 0.5,
            });
            for activations in [ActivationDtype::F32, ActivationDtype::Bf16] {
                linear.activations = activations;
                let weights = linear.kernel_weights(None);
                for rows in COUNTS {
                    let x = values([rows, inputs], 4.0);
                    let mut found = vec![f32::NAN; rows * outputs];
                    weights.fill(&mut found, &floats(&x));
                    let expected = floats(&linear.composed(x));
                    for (found, expected) in found.iter().zip(&expected) {
                        let close = (found - expected).abs() < 1e-4;
                        assert!(close, "{found} for {expected}: {rows} rows, {dtype:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn embedding_lookup_equals_tensor_select() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let table = Embedding { weight: values([9, 5], 0.0).cast(dtype) };
        let ids = [8, 0, 3, 3];
        let mut found = vec![f32::NAN; ids.len() * 5];
        table.kernel_weights().fill(&mut found, &ids);
        let ids = ids.iter().map(|&id| i64::from(id)).collect();
        assert_eq!(found, floats(&table.forward(indices(ids, &Device::flex()))));
    }
}
