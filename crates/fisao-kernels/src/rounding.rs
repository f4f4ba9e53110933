//! f32 to bf16 and to whole numbers.

/// The nearest bf16, ties to even.
#[inline(always)]
pub(crate) fn round(x: f32) -> f32 {
    f32::from_bits(rounded_bits(x) << 16)
}

/// Its bits.
#[inline(always)]
pub(crate) fn rounded_bits(x: f32) -> u32 {
    const QUIET: u32 = 0x7fc0;
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { QUIET } else { nearest }
}

/// Added to a small number, it leaves the nearest whole one, ties to even, in the last bits.
pub(crate) const WHOLE: f32 = 12_582_912.0;

/// How numbers are rounded to whole ones on both sides of zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symmetric {
    /// What a whole number stands for; NaN where a number is not finite.
    pub(crate) scale: f32,
    /// Whole numbers for one; 0 where all are zero.
    pub(crate) factor: f32,
}

impl Symmetric {
    /// The largest of the numbers becomes `most`.
    #[inline(always)]
    pub(crate) fn of(numbers: impl Iterator<Item = f32>, most: f32) -> Self {
        // In the order of bits, what is not finite is more than what is.
        let largest = numbers.fold(0, |most, value| (value.to_bits() & 0x7fff_ffff).max(most));
        let largest = f32::from_bits(largest);
        let scale = if largest.is_finite() { largest / most } else { f32::NAN };
        Self { scale, factor: if largest > 0.0 { most / largest } else { 0.0 } }
    }
}
