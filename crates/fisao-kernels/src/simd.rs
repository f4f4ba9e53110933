//! Loops for the widest vectors the processor has, and the elementary functions they need.

#[cfg(target_arch = "x86_64")]
use std::any::TypeId;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512;

use pulp::Simd;
#[cfg(target_arch = "x86_64")]
use pulp::{f32x16, x86::V4};

use crate::rounding::WHOLE;

/// Lanes of a partial sum: one AVX-512 register.
pub(crate) const LANES: usize = 16;

/// Runs `work` compiled for the best instruction set found at run time. Everything `work` calls must
/// be inlined into it.
#[inline]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    arch().dispatch(work)
}

/// That instruction set.
#[inline]
pub(crate) fn arch() -> pulp::Arch {
    pulp::Arch::new()
}

/// Asks for the cache line at an address, which need not be one of anything.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    prefetch_to::<true, T>(address);
}

/// Likewise, as near as the second cache, to which more lines can be under way.
#[inline(always)]
pub(crate) fn prefetch_to_second<T>(address: *const T) {
    prefetch_to::<false, T>(address);
}

#[inline(always)]
#[expect(unsafe_code, reason = "asking for a line reads and writes nothing, whatever the address")]
fn prefetch_to<const FIRST: bool, T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, and it cannot fault.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        if FIRST {
            _mm_prefetch::<_MM_HINT_T0>(address.cast());
        } else {
            _mm_prefetch::<_MM_HINT_T1>(address.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The sum of each vector's lanes: halves of a vector are added until one lane is left. Sixteen vectors of AVX-512 are
/// added up together, a quarter of the work and the same in every bit.
#[inline(always)]
pub(crate) fn totals<S: Simd, const R: usize, const N: usize>(
    simd: S,
    vectors: [[S::f32s; R]; N],
) -> [[f32; R]; N] {
    let mut out = [[0.0; R]; N];
    #[cfg(target_arch = "x86_64")]
    if R * N == LANES
        && let Some(avx512) = avx512(simd)
    {
        let mut each = [avx512.avx512f._mm512_setzero_ps(); LANES];
        for n in 0..N {
            for r in 0..R {
                each[n * R + r] = pulp::cast!(bytemuck::cast::<S::f32s, f32x16>(vectors[n][r]));
            }
        }
        out.as_flattened_mut().copy_from_slice(&sixteen_totals(avx512, each));
        return out;
    }
    for n in 0..N {
        for r in 0..R {
            out[n][r] = simd.reduce_sum_f32s(vectors[n][r]);
        }
    }
    out
}

/// `simd` as what it is, where that is AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(unsafe_code, reason = "one proof that the processor has AVX-512 is made another")]
fn avx512<S: Simd>(_simd: S) -> Option<V4> {
    // SAFETY: there is a `V4`, which is made only where the processor has the instructions.
    (TypeId::of::<S>() == TypeId::of::<V4>()).then(|| unsafe { V4::new_unchecked() })
}

/// Sums of sixteen vectors by halves, two vectors in the place of one at every turn.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn sixteen_totals(simd: V4, v: [__m512; LANES]) -> [f32; LANES] {
    let avx = simd.avx512f;
    /// Adds what two selections from a pair of vectors give.
    macro_rules! folded {
        ($shuffle:ident, $one:literal, $other:literal, $a:expr, $b:expr) => {{
            let (a, b) = ($a, $b);
            avx._mm512_add_ps(avx.$shuffle::<$one>(a, b), avx.$shuffle::<$other>(a, b))
        }};
    }
    /// Four vectors into one, of which every quarter is one of them.
    macro_rules! quarters {
        ($a:expr, $b:expr, $c:expr, $d:expr) => {{
            let one = folded!(_mm512_shuffle_f32x4, 0x44, 0xee, $a, $b);
            let other = folded!(_mm512_shuffle_f32x4, 0x44, 0xee, $c, $d);
            folded!(_mm512_shuffle_f32x4, 0x88, 0xdd, one, other)
        }};
    }
    // Every fourth vector, so that the sums come out in order.
    let first = quarters!(v[0], v[4], v[8], v[12]);
    let second = quarters!(v[1], v[5], v[9], v[13]);
    let third = quarters!(v[2], v[6], v[10], v[14]);
    let fourth = quarters!(v[3], v[7], v[11], v[15]);
    let even = folded!(_mm512_shuffle_ps, 0x44, 0xee, first, second);
    let odd = folded!(_mm512_shuffle_ps, 0x44, 0xee, third, fourth);
    pulp::cast!(folded!(_mm512_shuffle_ps, 0x88, 0xdd, even, odd))
}

/// `Σ f(xᵢ)` in [`LANES`] interleaved partial sums.
#[inline(always)]
pub(crate) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += f(chunk[lane]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += f(value);
    }
    lanes.iter().sum()
}

/// `Σ f(xᵢ, yᵢ)` likewise.
#[inline(always)]
pub(crate) fn sum_pairs(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let ((x, rest_x), (y, rest_y)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            lanes[lane] += f(x[lane], y[lane]);
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(rest_x).zip(rest_y) {
        *lane += f(x, y);
    }
    lanes.iter().sum()
}

/// Largest value; −∞ of nothing.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    rest.iter().chain(&lanes).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Exponents below this give 0, above its negative e^88.
const RANGE: f32 = -87.0;

/// `eˣ` to about one unit in the last place (Cephes' `expf`): `2ⁿ · p(x − n ln 2)`. Below −87 the
/// result is 0; above 88 it stays at e⁸⁸. A NaN stays one.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let bounded = if x > 88.0 { 88.0 } else { x };
    let bounded = if bounded < RANGE { RANGE } else { bounded };
    let shifted = bounded * std::f32::consts::LOG2_E + WHOLE;
    let n = shifted - WHOLE;
    // ln 2 in two parts, so that n · ln 2 loses nothing.
    let r = bounded - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_2e-4_f32;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
        p = p * r + coefficient;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let result = (p * r * r + r + 1.0) * power;
    if x < RANGE { 0.0 } else { result }
}

/// `eˣ` in f64 to about one unit in the last place (Cephes' `exp`): `2ⁿ (1 + 2 r P(r²) / (Q(r²) − r P(r²)))` with
/// `r = x − n ln 2`. Below −708 the result is 0; above 709 it stays at e⁷⁰⁹. A NaN stays one.
#[inline(always)]
pub(crate) fn exp_f64(x: f64) -> f64 {
    /// Pushes the fraction out of an f64's mantissa.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LOWEST: f64 = -708.0;
    let bounded = if x > 709.0 { 709.0 } else { x };
    let bounded = if bounded < LOWEST { LOWEST } else { bounded };
    let shifted = bounded * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, so that n · ln 2 loses nothing.
    let r = bounded - n * 0.693_145_751_953_125 - n * 1.428_606_820_309_417_2e-6;
    let square = r * r;
    let p = 1.261_771_930_748_105_9e-4 * square + 3.029_944_077_074_419_6e-2;
    let p = (p * square + 1.0) * r;
    let q = 3.001_985_051_386_644_6e-6 * square + 2.524_483_403_496_841e-3;
    let q = (q * square + 2.272_655_482_081_550_3e-1) * square + 2.0;
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    let result = (1.0 + 2.0 * (p / (q - p))) * power;
    if x < LOWEST { 0.0 } else { result }
}

/// `e^((logit − highest) · scale)` of every logit into `weights`, and the sum of them, in f64.
pub fn exponentials(weights: &mut Vec<f64>, logits: &[f32], highest: f32, scale: f64) -> f64 {
    const LANES: usize = 8;
    weights.resize(logits.len(), 0.0);
    vectorised(
        #[inline(always)]
        || {
            for (weight, &logit) in weights.iter_mut().zip(logits) {
                *weight = exp_f64(f64::from(logit - highest) * scale);
            }
            let mut lanes = [0.0; LANES];
            let (chunks, rest) = weights.as_chunks::<LANES>();
            for chunk in chunks {
                for lane in 0..LANES {
                    lanes[lane] += chunk[lane];
                }
            }
            lanes.iter().chain(rest).sum()
        },
    )
}

/// The largest of some numbers; −∞ of nothing.
pub fn highest(x: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || largest(x),
    )
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function to 1.5e-7 (Abramowitz & Stegun 7.1.26).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let mut p = 1.061_405_4_f32;
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p * t + coefficient;
    }
    (1.0 - p * t * exp(-a * a)).copysign(x)
}

/// `y ← y + a x`.
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elementary_functions_agree_with_the_standard_library() {
        for step in -8_700..8_800 {
            let x = step as f32 * 0.01;
            let (found, expected) = (exp(x), x.exp());
            assert!(
                (found - expected).abs() <= 3e-7 * expected,
                "exp({x}) = {found}, not {expected}"
            );
        }
        for step in -70_800..70_900 {
            let x = f64::from(step) * 0.01;
            let (found, expected) = (exp_f64(x), x.exp());
            let error = (found - expected).abs();
            assert!(error <= 3e-16 * expected, "exp({x}) = {found}, not {expected}");
        }
        assert!(exp_f64(-709.0).abs() <= 0.0, "far below the range the result is 0");
        assert!(exp_f64(f64::NAN).is_nan(), "a NaN must stay visible");
        assert!(exp(-200.0).abs() <= 0.0, "far below the range the result is 0");
        assert!(exp(f32::NAN).is_nan(), "a NaN must stay visible");
        for (x, expected) in
            [(0.0, 0.0), (0.5, 0.520_499_9), (-1.0, -0.842_700_8), (3.0, 0.999_977_9)]
        {
            assert!((erf(x) - expected).abs() < 3e-7, "erf({x})");
        }
    }
}
