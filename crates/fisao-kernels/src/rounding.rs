//! f32 to bf16.

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
