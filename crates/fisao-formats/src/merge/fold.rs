//! One tensor on its way into a merged checkpoint: widened, updated and rounded, in blocks of rows.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::FormatError;
use crate::adapter::LinearUpdate;
use crate::weights::{Stopped, StoredDtype, StoredTensor};

/// Values in memory at a time: 16 MiB in f32.
const BLOCK: usize = 1 << 22;

/// Hands on the bytes of `stored + update` in another precision, rounded to nearest, ties to even. Values that are NaN or infinite, of
/// either or of the sum, are refused.
/// `path` is where the tensor is stored, for messages.
pub(super) fn write_folded(
    stored: &StoredTensor<'_>,
    update: Option<&LinearUpdate>,
    dtype: StoredDtype,
    name: &str,
    path: &Path,
    put: &mut dyn FnMut(&[u8]) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let total = stored.shape().iter().product::<usize>();
    let inputs = update.map_or(1, |update| update.a.shape()[1]).max(1);
    let rows = (BLOCK / inputs).max(1);
    let product = update.map(Product::new);
    let base = update.and_then(|update| update.base.as_ref());
    let base = base.map(|base| base.try_to_vec::<f32>().expect("adapters are read as f32"));
    for start in (0..total).step_by(rows * inputs) {
        let range = start..(start + rows * inputs).min(total);
        // An adapter's own base weight stands in the place of the model's, as it does when the adapter is applied.
        let mut values = match &base {
            Some(base) => base[range.clone()].to_vec(),
            None => stored
                .values_at(range.clone())
                .expect("types were checked before anything was written"),
        };
        if let Some(product) = &product {
            let added = product.rows(start / inputs, range.len() / inputs);
            values.iter_mut().zip(added).for_each(|(value, term)| *value += term);
        }
        let count = values.iter().filter(|value| !value.is_finite()).count();
        if count > 0 {
            let (path, tensor) = (path.to_owned(), name.to_owned());
            return Err(FormatError::NotFinite { path, tensor, count }.into());
        }
        let (bytes, overflow) = narrow(&values, dtype);
        if overflow {
            let (path, tensor) = (path.to_owned(), name.to_owned());
            return Err(FormatError::Overflow { path, tensor, dtype: dtype.torch_name() }.into());
        }
        put(&bytes)?;
    }
    Ok(())
}

/// `scale · B A`, by rows.
struct Product {
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
}

impl Product {
    fn new(update: &LinearUpdate) -> Self {
        let tensor = |data: &TensorData| Tensor::from_data(data.clone(), &Device::flex());
        Self { a: tensor(&update.a), b: tensor(&update.b), scale: update.scale }
    }

    fn rows(&self, first: usize, count: usize) -> Vec<f32> {
        let rows = self.b.clone().narrow(0, first, count).matmul(self.a.clone()) * self.scale;
        rows.into_data().try_to_vec().expect("the product of f32 matrices is f32")
    }
}

/// Values as little-endian bytes of a type, and whether a finite one became infinite.
fn narrow(values: &[f32], dtype: StoredDtype) -> (Vec<u8>, bool) {
    match dtype {
        StoredDtype::F32 => (values.iter().flat_map(|value| value.to_le_bytes()).collect(), false),
        StoredDtype::F16 => halves(values, f16::ZERO, f16::is_finite, f16::to_le_bytes),
        StoredDtype::Bf16 => halves(values, bf16::ZERO, bf16::is_finite, bf16::to_le_bytes),
    }
}

/// The same for one type of 16 bits.
fn halves<H: Copy>(
    values: &[f32],
    zero: H,
    is_finite: fn(H) -> bool,
    to_bytes: fn(H) -> [u8; 2],
) -> (Vec<u8>, bool)
where
    [H]: HalfFloatSliceExt,
{
    let mut halves = vec![zero; values.len()];
    halves.convert_from_f32_slice(values);
    let mut pairs = halves.iter().zip(values);
    let overflow = pairs.any(|(&half, value)| !is_finite(half) && value.is_finite());
    (halves.iter().flat_map(|&half| to_bytes(half)).collect(), overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_nearest_and_ties_to_even() {
        // 1 + 2⁻¹¹ lies between two f16, 1 + 3 · 2⁻¹¹ as well; 2⁻⁸ likewise for bf16.
        let cases = [
            (StoredDtype::F16, 1.0 + 2f32.powi(-11), f16::from_bits(0x3c00).to_le_bytes()),
            (StoredDtype::F16, 1.0 + 3.0 * 2f32.powi(-11), f16::from_bits(0x3c02).to_le_bytes()),
            (StoredDtype::Bf16, 1.0 + 2f32.powi(-8), bf16::from_bits(0x3f80).to_le_bytes()),
            (StoredDtype::Bf16, 1.0 + 3.0 * 2f32.powi(-8), bf16::from_bits(0x3f82).to_le_bytes()),
        ];
        for (dtype, value, expected) in cases {
            // As part of a long slice and of a short one, which are converted by different code.
            for length in [1, 67] {
                let (bytes, overflow) = narrow(&vec![value; length], dtype);
                assert_eq!(bytes, expected.repeat(length), "{dtype:?} of {value}");
                assert!(!overflow);
            }
        }
    }

    #[test]
    fn overflow_when_narrowing_is_detected() {
        assert!(narrow(&[1.0, 70_000.0], StoredDtype::F16).1);
        assert!(!narrow(&[1.0, 65_504.0, f32::INFINITY, f32::NAN], StoredDtype::F16).1);
        assert!(narrow(&[f32::MAX], StoredDtype::Bf16).1);
    }
}
