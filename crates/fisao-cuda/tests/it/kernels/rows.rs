use std::sync::Arc;

use fisao_cuda::kernels::{
    Rows, add_bias, add_rows, embed, gather_rows, last_rows, move_row, narrow,
};
use fisao_cuda::{CudaError, Host, HostKernels, HostOptions, Storage};

use crate::device::{
    STORAGES, download, driver, room, rounded, skipped, upload, upload_ints, values,
};

#[test]
fn embeddings_are_looked_up() {
    let Some(mut driver) = driver("embeddings_are_looked_up") else { return };
    let width = 37;
    for storage in STORAGES {
        let table = rounded(1, 11 * width, storage);
        for ids in [&[][..], &[10], &[3, 0, 3, 7]] {
            let on_card = upload(&mut driver, storage, &table);
            let places = upload_ints(&mut driver, ids);
            let out = room(&mut driver, Storage::F32, ids.len() * width);
            let size = Rows { rows: ids.len(), width };
            embed(&mut driver, storage, [places, on_card, out], size).expect("run");
            let rows = ids.iter().flat_map(|&id| &table[id as usize * width..][..width]);
            let expected: Vec<f32> = rows.copied().collect();
            assert_eq!(download(&mut driver, Storage::F32, out), expected, "{storage:?}");
        }
    }
}

#[test]
fn last_row_of_each_sequence_is_taken() {
    let Some(mut driver) = driver("last_row_of_each_sequence_is_taken") else { return };
    let (length, width) = (3, 300);
    for sequences in [0, 1, 4] {
        let x = values(1, sequences * length * width);
        let on_card = upload(&mut driver, Storage::F32, &x);
        let out = room(&mut driver, Storage::F32, sequences * width);
        last_rows(&mut driver, [on_card, out], [sequences, length, width]).expect("run");
        let rows = x.chunks_exact(length * width).flat_map(|rows| &rows[2 * width..]);
        assert_eq!(download(&mut driver, Storage::F32, out), rows.copied().collect::<Vec<_>>());
    }
}

#[test]
fn narrowing_rounds_to_nearest() {
    let Some(mut driver) = driver("narrowing_rounds_to_nearest") else { return };
    for storage in STORAGES {
        let mut x = values(1, 1001);
        // Ties, subnormals, overflow of f16, infinity.
        x.extend([
            1.0 + 1.0 / 256.0,
            1.0 + 3.0 / 256.0,
            6.1e-5,
            3e-8,
            65_519.9,
            65_520.0,
            1e9,
            -0.0,
        ]);
        x.push(f32::NEG_INFINITY);
        let on_card = upload(&mut driver, Storage::F32, &x);
        let out = room(&mut driver, storage, x.len());
        narrow(&mut driver, storage, [on_card, out], x.len()).expect("run");
        let found: Vec<u32> =
            download(&mut driver, storage, out).iter().map(|x| x.to_bits()).collect();
        let expected = storage.widened(&storage.narrowed(&x));
        assert_eq!(found, expected.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), "{storage:?}");
    }
}

#[test]
fn row_of_a_cache_is_moved_in_every_layer() {
    let Some(mut driver) = driver("row_of_a_cache_is_moved_in_every_layer") else { return };
    let (layers, rows, elements) = (3, 4, 300);
    for storage in STORAGES {
        let mut x = rounded(1, layers * rows * elements, storage);
        let cache = upload(&mut driver, storage, &x);
        move_row(&mut driver, storage, cache, [layers, rows, elements], [3, 1]).expect("run");
        for layer in x.chunks_exact_mut(rows * elements) {
            layer.copy_within(3 * elements.., elements);
        }
        assert_eq!(download(&mut driver, storage, cache), x, "{storage:?}");
    }
}

#[test]
fn rows_are_gathered_and_added() {
    let Some(mut driver) = driver("rows_are_gathered_and_added") else { return };
    let (wide, width) = (Storage::F32, 300);
    let x = values(1, 5 * width);
    for places in [&[][..], &[4], &[3, 0, 3, 2]] {
        let size = Rows { rows: places.len(), width };
        let [from, to] = [upload(&mut driver, wide, &x), upload(&mut driver, wide, &x)];
        let indices = upload_ints(&mut driver, places);
        let out = room(&mut driver, wide, places.len() * width);
        gather_rows(&mut driver, [from, indices, out], size).expect("run");
        let row = |at: usize| &x[at * width..(at + 1) * width];
        let expected: Vec<f32> = places.iter().flat_map(|&at| row(at as usize)).copied().collect();
        assert_eq!(download(&mut driver, wide, out), expected);
        add_rows(&mut driver, [out, indices, to], size).expect("run");
        let mut expected = x.clone();
        for &to in places {
            let to = to as usize * width;
            for (sum, x) in expected[to..to + width].iter_mut().zip(&x[to..to + width]) {
                *sum += x;
            }
        }
        assert_eq!(download(&mut driver, wide, to), expected);
    }
}

#[test]
fn bias_is_added_to_every_row() {
    let Some(mut driver) = driver("bias_is_added_to_every_row") else { return };
    let wide = Storage::F32;
    for [rows, width] in [[0, 3], [1, 1], [5, 77]] {
        let (x, bias) = (values(1, rows * width), values(2, width));
        let [on_card, biases] = [&x, &bias].map(|all| upload(&mut driver, wide, all));
        add_bias(&mut driver, [on_card, biases], Rows { rows, width }).expect("run");
        let expected: Vec<f32> = x.iter().enumerate().map(|(at, x)| x + bias[at % width]).collect();
        assert_eq!(download(&mut driver, wide, on_card), expected);
    }
}

/// The residual stream is f32 whatever a model is stored in.
#[test]
fn kernels_in_f32_are_there_for_a_model_in_bf16() {
    let folder = tempfile::tempdir().expect("a folder");
    let compiled = HostKernels::compile(folder.path(), &[Storage::Bf16], &HostOptions::default());
    let kernels = match compiled {
        Err(CudaError::HostCompiler { .. }) => {
            return skipped("kernels_in_f32_are_there_for_a_model_in_bf16", "no C++ compiler");
        }
        compiled => compiled.expect("compiled"),
    };
    let mut driver = Host::new(Arc::new(kernels), 1 << 20);
    let [x, bias] = [1, 2].map(|seed| upload(&mut driver, Storage::F32, &values(seed, 3)));
    add_bias(&mut driver, [x, bias], Rows { rows: 1, width: 3 }).expect("compiled for f32");
    narrow(&mut driver, Storage::Bf16, [x, bias], 3).expect("compiled for bf16");
}
