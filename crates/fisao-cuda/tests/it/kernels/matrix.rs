use fisao_cuda::{Driver, Matrix, Product, Storage};

use crate::device::{
    STORAGES, assert_close, doubles, download, driver, product, room, rounded, upload,
};

#[test]
fn products_of_all_layouts() {
    let Some(mut driver) = driver("products_of_all_layouts") else { return };
    for storage in STORAGES {
        for [m, n, k] in [[0, 3, 2], [1, 1, 1], [5, 3, 7], [2, 9, 33]] {
            let a = rounded(1, m * k, storage);
            let b = rounded(2, k * n, storage);
            for which in 0..4 {
                let [by_rows, by_columns] = [which % 2 == 0, which / 2 == 0];
                let lay = |x: &[f32], rows: usize, columns: usize, straight: bool| -> Vec<f32> {
                    if straight {
                        return x.to_vec();
                    }
                    (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect()
                };
                let left = upload(&mut driver, storage, &lay(&a, m, k, by_rows));
                let right = upload(&mut driver, storage, &lay(&b, k, n, by_columns));
                let matrix = |buffer, [rows, columns]: [usize; 2], straight: bool| {
                    if straight {
                        Matrix::new(buffer, storage, [rows, columns])
                    } else {
                        Matrix::new(buffer, storage, [columns, rows]).transposed()
                    }
                };
                let out = room(&mut driver, Storage::F32, m * n);
                let left = matrix(left, [m, k], by_rows);
                let right = matrix(right, [k, n], by_columns);
                let to = Matrix::new(out, Storage::F32, [m, n]);
                product(&mut driver, left, right, to);
                let (x, y) = (doubles(&a), doubles(&b));
                let sum = |at: usize| (0..k).map(|l| x[at / n * k + l] * y[l * n + at % n]).sum();
                let expected: Vec<f64> = (0..m * n).map(sum).collect();
                let found = download(&mut driver, Storage::F32, out);
                assert_close(&format!("{storage:?} {m} {n} {k} {which}"), &found, &expected, 2e-6);
            }
        }
    }
}

#[test]
fn product_is_added_to_columns_of_a_result() {
    let Some(mut driver) = driver("product_is_added_to_columns_of_a_result") else { return };
    let (x, w, before) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0], [0.5; 6]);
    let storage = Storage::Bf16;
    let [a, b, out] = [&x[..], &w, &before].map(|all| upload(&mut driver, storage, all));
    driver
        .product(&Product {
            a: Matrix::new(a, storage, [2, 2]),
            b: Matrix::new(b, storage, [1, 2]).transposed(),
            out: Matrix::new(out, storage, [2, 3]).columns(1, 1),
            scale: 2.0,
            accumulate: true,
        })
        .expect("a product");
    let found = download(&mut driver, storage, out);
    assert_eq!(found, [0.5, 34.5, 0.5, 0.5, 78.5, 0.5]);
}
