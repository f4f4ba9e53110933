//! How numbers are stored.

use half::{bf16, f16};

/// Element type of matrices and activations. Everything is computed in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Storage {
    /// 32 bits.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Storage {
    /// The types that kernels are compiled for where models are of these: the residual stream is f32 whatever they are.
    pub(crate) fn compiled(storages: &[Self]) -> Vec<Self> {
        let mut all = storages.to_vec();
        if !all.is_empty() && !all.contains(&Self::F32) {
            all.push(Self::F32);
        }
        all
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// The value of `STORAGE` in the kernels.
    pub(crate) fn define(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 2,
        }
    }

    /// Values in this type, rounded to the nearest, as bytes.
    pub fn narrowed(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => bytemuck::cast_slice(values).to_vec(),
            Self::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_ne_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_ne_bytes()).collect(),
        }
    }

    /// Values of this type, from bytes of any alignment.
    ///
    /// # Panics
    /// When the bytes are no whole number of elements.
    pub fn widened(self, bytes: &[u8]) -> Vec<f32> {
        assert_eq!(bytes.len() % self.bytes(), 0, "a whole number of elements");
        match self {
            Self::F32 => {
                bytes.as_chunks::<4>().0.iter().map(|&bits| f32::from_ne_bytes(bits)).collect()
            }
            Self::F16 => {
                let values = bytes.as_chunks::<2>().0.iter();
                values.map(|&bits| f16::from_ne_bytes(bits).to_f32()).collect()
            }
            Self::Bf16 => {
                let values = bytes.as_chunks::<2>().0.iter();
                values.map(|&bits| bf16::from_ne_bytes(bits).to_f32()).collect()
            }
        }
    }
}
