//! Frozen weights in int8, for decoding alone: symmetric, one scale for each output channel, `w ≈ s q` with `q` from −127 to 127, rounded
//! to nearest. Inputs are not quantised to 8 bits and sums are not kept in less than 32: a step of few sequences waits for
//! weights to come from memory, and half as many bytes come as in 16 bits.

use burn::tensor::{DType, Element, Tensor};
use bytemuck::Pod;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::held_tensor::{HeldTensor, held};
#[cfg(target_arch = "x86_64")]
use crate::int8_dot_products;
use crate::matrix::{Matrix, StoredMatrix};
use crate::rounding::{Symmetric, WHOLE};
use crate::simd::vectorised;
use crate::skinny_gemm::{self, FOUR, FourBytes, Half, LINE, OFFSET, Stored};
use crate::view::{contiguous, stored};

/// Largest |q|.
const MOST: f32 = 127.0;

/// A matrix `[out, in]` in 8 bits, row by row.
#[derive(Debug)]
pub struct Int8Matrix {
    /// Four neighbours each, `q + 128`, the first lowest; what is behind the last column meets zeros.
    words: Vec<u32>,
    /// `s`, of each row. NaN for a row with what is not a finite number.
    scales: Vec<f32>,
    columns: usize,
    /// What it was made of.
    of: HeldTensor,
}

impl Int8Matrix {
    /// * `weight` — `[out, in]`, of f32, bf16 or f16.
    ///
    /// # Panics
    /// The tensor is not on the CPU.
    pub fn new(weight: &Tensor<2>) -> Self {
        match weight.dtype() {
            DType::BF16 => Self::rounded(weight, bf16::widen),
            DType::F16 => Self::rounded(weight, f16::widen),
            _ => Self::rounded(weight, |value: f32| value),
        }
    }

    fn rounded<T: Element + Pod + Sync>(
        weight: &Tensor<2>,
        widen: impl Fn(T) -> f32 + Sync,
    ) -> Self {
        let (of, matrix) = (HeldTensor::new(weight), contiguous(held(weight)));
        let shape = matrix.layout().shape();
        let (rows, columns) = (shape[0], shape[1]);
        let width = words_of_row(columns);
        let mut words = vec![0; rows * width];
        let mut scales = vec![0.0; rows];
        let values = stored::<T>(&matrix);
        let places = words.par_chunks_mut(width.max(1)).zip(&mut scales);
        places.zip(values.par_chunks(columns.max(1))).for_each(|((words, scale), row)| {
            vectorised(
                #[inline(always)]
                || *scale = round_row(words, row, &widen),
            );
        });
        Self { words, scales, columns, of }
    }

    /// Memory that one of this size takes.
    pub fn bytes_of([rows, columns]: [usize; 2]) -> usize {
        rows * (words_of_row(columns) * size_of::<u32>() + size_of::<f32>())
    }

    /// Whether it was made of this very tensor, which has not changed since.
    pub fn is_of(&self, weight: &Tensor<2>) -> bool {
        self.of.is(&HeldTensor::new(weight))
    }

    /// `x`: `[rows, in]`, `bias`: `[out]` → `out`: `[rows, out]`.
    pub(crate) fn fill(&self, out: &mut [f32], x: Matrix<'_>, bias: Option<&[f32]>) {
        assert_eq!(x.columns, self.columns, "inner sizes of a product");
        #[cfg(target_arch = "x86_64")]
        if int8_dot_products::suit(words_of_row(self.columns)) {
            self.fill_with::<int8_dot_products::FourBytes>(out, x, bias);
            return;
        }
        self.fill_with::<FourBytes>(out, x, bias);
    }

    /// The same, with words of the matrix read as `T`.
    fn fill_with<T: Stored + Pod>(&self, out: &mut [f32], x: Matrix<'_>, bias: Option<&[f32]>) {
        let rows = self.scales.len();
        let words: &[T] = bytemuck::cast_slice(&self.words);
        let matrix = StoredMatrix { data: words, rows, columns: words_of_row(self.columns) };
        skinny_gemm::multiply(out, x, matrix, None);
        for out in out.chunks_exact_mut(rows.max(1)) {
            out.iter_mut().zip(&self.scales).for_each(|(out, scale)| *out *= scale);
            if let Some(bias) = bias {
                out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
        }
    }
}

fn words_of_row(columns: usize) -> usize {
    columns.div_ceil(FOUR).next_multiple_of(2 * LINE)
}

/// Fills the words of a row; its scale.
#[inline(always)]
fn round_row<T: Copy>(words: &mut [u32], row: &[T], widen: impl Fn(T) -> f32) -> f32 {
    let Symmetric { scale, factor } = Symmetric::of(row.iter().map(|&value| widen(value)), MOST);
    if scale.is_nan() {
        return scale;
    }
    let byte = |value: T| {
        let bits = widen(value).mul_add(factor, WHOLE).to_bits();
        (bits & 0xff) ^ OFFSET as u32
    };
    let (fours, rest) = row.as_chunks::<FOUR>();
    for (word, four) in words.iter_mut().zip(fours) {
        *word = (0..FOUR).map(|at| byte(four[at]) << (8 * at)).sum();
    }
    if !rest.is_empty() {
        words[fours.len()] = (0..rest.len()).map(|at| byte(rest[at]) << (8 * at)).sum();
    }
    scale
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::bf16_linear::tests::value;

    fn matrix(rows: usize, columns: usize) -> (Vec<f32>, Tensor<2>) {
        let values: Vec<f32> = (0..rows * columns).map(value).collect();
        let tensor = Tensor::<1>::from_floats(&*values, &Device::flex()).reshape([rows, columns]);
        (values, tensor)
    }

    /// Weights as they are read back, row by row.
    fn read_back(matrix: &Int8Matrix) -> Vec<Vec<f64>> {
        let rows = matrix.words.chunks_exact(words_of_row(matrix.columns)).zip(&matrix.scales);
        rows.map(|(words, &scale)| {
            let bytes = words.iter().flat_map(|word| word.to_le_bytes()).take(matrix.columns);
            bytes.map(|byte| f64::from(i32::from(byte) - OFFSET) * f64::from(scale)).collect()
        })
        .collect()
    }

    /// Products by [`Int8Matrix::fill_with`] are those of the rounded weights with what `rounded` makes of a row of `x`.
    fn check<T: Stored + Pod>(rounded: impl Fn(&[f32]) -> Vec<f64>) {
        for [count, rows, columns] in
            [[1, 3, 5], [3, 9, 64], [1, 300, 1030], [4, 71, 1030], [7, 530, 257], [32, 40, 130]]
        {
            let x: Vec<f32> = (0..count * columns).map(|at| value(at + 3)).collect();
            let bias: Vec<f32> = (0..rows).map(|at| value(at + 9)).collect();
            let mut found = vec![f32::NAN; count * rows];
            let matrix = Int8Matrix::new(&matrix(rows, columns).1);
            matrix.fill_with::<T>(&mut found, Matrix::dense(&x, count, columns), Some(&bias));
            let weights = read_back(&matrix);
            for (x, found) in x.chunks_exact(columns).zip(found.chunks_exact(rows)) {
                let mut alone = vec![f32::NAN; rows];
                matrix.fill_with::<T>(&mut alone, Matrix::dense(x, 1, columns), Some(&bias));
                assert_eq!(alone, found, "a row does not depend on the others");
                let x = rounded(x);
                for ((weights, bias), &found) in weights.iter().zip(&bias).zip(found) {
                    let terms = weights.iter().zip(&x).map(|(w, x)| w * x);
                    let expected = f64::from(*bias) + terms.sum::<f64>();
                    let close = (f64::from(found) - expected).abs() < 1e-5 + 1e-7 * columns as f64;
                    assert!(close, "{found} for {expected} of {count} × {rows} × {columns}");
                }
            }
        }
    }

    #[test]
    fn products_are_those_of_the_rounded_weights() {
        check::<FourBytes>(|x| x.iter().map(|&x| f64::from(x)).collect());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn dot_products_are_those_of_inputs_in_16_bits() {
        if !int8_dot_products::suit(words_of_row(1)) {
            eprintln!("skipped: this processor has no AVX512-VNNI");
            return;
        }
        check::<int8_dot_products::FourBytes>(|x| {
            let most = x.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            let scale = most / 32_639.0;
            let factor = 32_639.0 / most;
            x.iter()
                .map(|x| f64::from(x.mul_add(factor, WHOLE) - WHOLE) * f64::from(scale))
                .collect()
        });
    }

    #[test]
    fn weights_are_rounded_to_the_nearest() {
        let (values, tensor) = matrix(70, 130);
        let matrix = Int8Matrix::new(&tensor);
        let rows = read_back(&matrix).into_iter().zip(&matrix.scales);
        for ((rounded, scale), values) in rows.zip(values.chunks_exact(130)) {
            for (rounded, &value) in rounded.iter().zip(values) {
                let error = (f64::from(value) - rounded).abs();
                assert!(error <= 0.5001 * f64::from(*scale), "{value} as {rounded}");
            }
        }
    }

    #[test]
    fn transposed_weight_and_16_bits_give_the_same_as_dense_f32() {
        let (values, tensor) = matrix(9, 70);
        let by_columns = tensor.clone().transpose();
        let copied = Tensor::<2>::from_data(by_columns.into_data(), &Device::flex()).transpose();
        let words = |tensor: &Tensor<2>| {
            let held = Int8Matrix::new(tensor);
            (held.words.clone(), held.scales.clone())
        };
        assert_eq!(words(&tensor), words(&copied));
        let brain: Vec<f32> = values.iter().map(|&w| bf16::from_f32(w).to_f32()).collect();
        let brain = Tensor::<1>::from_floats(&*brain, &Device::flex()).reshape([9, 70]);
        assert_eq!(words(&tensor.clone().cast(DType::BF16)), words(&brain));
        let held = Int8Matrix::new(&tensor);
        assert!(held.is_of(&tensor) && !held.is_of(&copied));
    }

    #[test]
    fn rows_of_zeros_and_rows_that_are_not_finite() {
        let tensor = Tensor::<2>::from_floats(
            [[0.0, 0.0], [1.0, f32::NAN], [f32::INFINITY, 0.0], [1.0, -2.0]],
            &Device::flex(),
        );
        let mut found = [0.0; 4];
        Int8Matrix::new(&tensor).fill(&mut found, Matrix::dense(&[3.0, 1.0], 1, 2), None);
        assert!(found[0] == 0.0 && found[1].is_nan() && found[2].is_nan(), "{found:?}");
        assert!((found[3] - 1.0).abs() < 0.05, "{found:?}");
    }
}
