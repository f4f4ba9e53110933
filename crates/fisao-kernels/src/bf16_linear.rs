//! Linear layers of a bf16 weight whose inputs are rounded to bf16 as well; sums and results are f32.
//!
//! PyTorch's bf16 products round their results on top of it. Gradients are rounded where they meet the weight, and pass
//! the rounding itself unchanged.

use half::bf16;

use crate::half_linear;
use crate::matrix::Matrix;
use crate::matrix::{SKINNY_ROWS, StoredMatrix};
use crate::rounding::round;
use crate::rows::fill_rows;
use crate::scratch::Scratch;
use crate::simd::vectorised;

#[cfg(target_arch = "x86_64")]
use crate::dot_products::{self, DotProducts, Side};

/// `x`: `[rows, in]`, `weight`: `[out, in]`, `bias`: `[out]` → `[rows, out]`.
pub(crate) fn forward(
    x: Matrix<'_>,
    weight: StoredMatrix<'_, bf16>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    assert_eq!(x.columns, weight.columns, "inner sizes of a product");
    #[cfg(target_arch = "x86_64")]
    if let Some(instructions) = DotProducts::find().filter(|_| x.rows > SKINNY_ROWS) {
        return dot_products::product(instructions, x, weight, Side::Transposed, bias);
    }
    let mut out = vec![0.0; x.rows * weight.rows];
    fill(&mut out, x, weight, bias);
    out
}

/// The same, into `out`.
pub(crate) fn fill(
    out: &mut [f32],
    x: Matrix<'_>,
    weight: StoredMatrix<'_, bf16>,
    bias: Option<&[f32]>,
) {
    assert_eq!(x.columns, weight.columns, "inner sizes of a product");
    #[cfg(target_arch = "x86_64")]
    if let Some(instructions) = DotProducts::find().filter(|_| x.rows > SKINNY_ROWS) {
        dot_products::fill(instructions, out, x, weight, Side::Transposed, bias);
        return;
    }
    let rounded = rounded(x);
    half_linear::fill(out, Matrix::dense(&rounded, x.rows, x.columns), weight, bias);
}

/// Whether the processor has a kernel for many rows, which [`fill`] calls and which allocates nothing.
pub(crate) fn takes_many_rows() -> bool {
    #[cfg(target_arch = "x86_64")]
    let found = DotProducts::find().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    let found = false;
    found
}

/// Whether that kernel runs in the processor's tiles (Intel AMX).
pub fn multiplies_in_tiles() -> bool {
    #[cfg(target_arch = "x86_64")]
    let found = DotProducts::find().is_some_and(DotProducts::has_tiles);
    #[cfg(not(target_arch = "x86_64"))]
    let found = false;
    found
}

/// Gradient of `x`: `[rows, out]` → `[rows, in]`.
pub(crate) fn backward_input(gradient: Matrix<'_>, weight: StoredMatrix<'_, bf16>) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if let Some(instructions) = DotProducts::find() {
        return dot_products::product(instructions, gradient, weight, Side::AsIs, None);
    }
    let Matrix { rows, columns, .. } = gradient;
    half_linear::backward_input(Matrix::dense(&rounded(gradient), rows, columns), weight)
}

/// The values of a matrix rounded to bf16, row by row.
fn rounded(x: Matrix<'_>) -> Scratch {
    let mut out = Scratch::new(x.rows * x.columns);
    fill_rows(&mut out, x.columns, |first, rows| {
        for (at, row) in rows.chunks_exact_mut(x.columns.max(1)).enumerate() {
            let start = &x.data[(first + at) * x.row_stride..];
            vectorised(
                #[inline(always)]
                || {
                    let values = start.iter().step_by(x.column_stride.max(1));
                    row.iter_mut().zip(values).for_each(|(out, &x)| *out = round(x));
                },
            );
        }
    });
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Rows, outputs, inputs: edges of panels, tiles, pairs, and more pairs than are packed at once.
    const SIZES: [[usize; 3]; 6] =
        [[1, 3, 5], [41, 64, 32], [47, 70, 33], [50, 130, 2100], [64, 320, 2], [103, 1, 1]];

    /// Numbers from −1 to 1.
    pub(crate) fn value(at: usize) -> f32 {
        // Neighbours that have nothing to do with each other: two rounds of a multiplicative hash.
        let mix = |x: u32| (x ^ x >> 15).wrapping_mul(0x2c1b_3c6d);
        (mix(mix(at as u32 + 11)) >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    #[test]
    fn products_equal_those_of_bf16_rounded_values() {
        for [rows, outputs, inputs] in SIZES {
            let x: Vec<f32> = (0..rows * inputs).map(value).collect();
            let gradient: Vec<f32> = (0..rows * outputs).map(|at| value(at + 7)).collect();
            let bias: Vec<f32> = (0..outputs).map(|at| value(at + 3)).collect();
            let weight: Vec<bf16> =
                (0..outputs * inputs).map(|at| bf16::from_f32(value(at + 5))).collect();
            let stored = StoredMatrix { data: &weight, rows: outputs, columns: inputs };
            let wide = |values: &[f32]| -> Vec<f64> {
                values.iter().map(|&x| bf16::from_f32(x).to_f64()).collect()
            };
            let w: Vec<f64> = weight.iter().map(|w| w.to_f64()).collect();

            let found = forward(Matrix::dense(&x, rows, inputs), stored, Some(&bias));
            let x = wide(&x);
            for (at, &found) in found.iter().enumerate() {
                let (row, output) = (at / outputs, at % outputs);
                let terms = (0..inputs).map(|i| x[row * inputs + i] * w[output * inputs + i]);
                let expected = f64::from(bias[output]) + terms.sum::<f64>();
                let close = (f64::from(found) - expected).abs() < 2e-6 * inputs as f64 + 1e-6;
                assert!(close, "{found} for {expected} of {rows} × {outputs} × {inputs}");
            }

            let found = backward_input(Matrix::dense(&gradient, rows, outputs), stored);
            let gradient = wide(&gradient);
            for (at, &found) in found.iter().enumerate() {
                let (row, input) = (at / inputs, at % inputs);
                let terms =
                    (0..outputs).map(|o| gradient[row * outputs + o] * w[o * inputs + input]);
                let expected = terms.sum::<f64>();
                let close = (f64::from(found) - expected).abs() < 2e-6 * outputs as f64 + 1e-6;
                assert!(close, "{found} for {expected} of {rows} × {outputs} × {inputs}");
            }
        }
    }

    #[test]
    fn transposed_matrix_gives_the_same_as_its_dense_copy() {
        let [rows, outputs, inputs] = [48, 20, 37];
        let x: Vec<f32> = (0..rows * inputs).map(value).collect();
        let weight: Vec<bf16> = (0..outputs * inputs).map(|at| bf16::from_f32(value(at))).collect();
        let stored = StoredMatrix { data: &weight, rows: outputs, columns: inputs };
        let transposed: Vec<f32> =
            (0..rows * inputs).map(|at| x[at % rows * inputs + at / rows]).collect();
        let by_columns = Matrix::dense(&transposed, inputs, rows).transposed();
        let dense = Matrix::dense(&x, rows, inputs);
        assert_eq!(forward(by_columns, stored, None), forward(dense, stored, None));
        assert_eq!(*rounded(by_columns), *rounded(dense));
    }

    #[test]
    fn rounding_is_to_nearest_with_ties_to_even() {
        let values = [0.0, -0.0, 1.0, 1.003_906_2, 1.011_718_8, -3.3e38, f32::MAX, f32::INFINITY];
        for x in values.into_iter().chain((0..4000).map(|at| value(at) * 1e-3)) {
            assert_eq!(round(x).to_bits(), bf16::from_f32(x).to_f32().to_bits(), "{x}");
        }
        assert!(round(f32::NAN).is_nan());
    }
}
